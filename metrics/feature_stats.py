"""Statistics of feature vectors that arrive in batches, on one or several processes."""

import os

import numpy as np
import torch

from dnnlib import UserError, atomic_open
from metrics.stats_cache import read_arrays
from torch_utils import distributed

BLOCK_ROWS = 1024


class FeatureStats:
    """Collects rows of features: all rows, or their mean and covariance.

    Mean and covariance are accumulated in float64 and merged by the pairwise update of Chan, Golub and LeVeque (1979).
    The result therefore does not depend on batches or on the number of processes.

    Args:
        capture_all: keep all rows, in their own data type.
        capture_mean_cov: keep mean and covariance.
        max_items: ignore further rows after this number.
    """

    def __init__(self, capture_all: bool = False, capture_mean_cov: bool = False, max_items: int | None = None):
        self.capture_all, self.capture_mean_cov, self.max_items = capture_all, capture_mean_cov, max_items
        self.num_items = 0
        self.num_features: int | None = None
        self._kept: list[tuple[int, np.ndarray]] = []
        self._waiting: list[torch.Tensor] = []
        self._absorbed = 0
        self._mean: torch.Tensor | None = None
        self._scatter: torch.Tensor | None = None

    def set_num_features(self, num_features: int) -> None:
        """Fix the number of features.

        Raises:
            UserError: rows of another number are there.
        """
        if self.num_features is None:
            self.num_features = num_features
        if self.num_features != num_features:
            raise UserError(f"Features changed their number from {self.num_features} to {num_features}.")

    def is_full(self) -> bool:
        """Returns whether `max_items` rows have been added."""
        return self.max_items is not None and self.num_items >= self.max_items

    def append(self, x: torch.Tensor | np.ndarray, start: int | None = None) -> None:
        """Add rows.

        Args:
            x: [N, ...]. All axes but the first are flattened. [N] is one feature.
            start: number of the first row among the rows of all processes, which orders `get_all`. By default, rows
                are numbered in the order of their arrival.
        """
        x = torch.as_tensor(x).detach()
        x = x.reshape(len(x), -1)
        start = self.num_items if start is None else start
        if self.max_items is not None:
            x = x[: max(self.max_items - self.num_items, 0)]
        if not len(x):
            return
        self.set_num_features(x.shape[1])
        self.num_items += len(x)
        if self.capture_all:
            self._kept.append((start, x.cpu().numpy().copy()))
        if self.capture_mean_cov:
            if x.device.type != "cuda":
                x = x.cpu()  # some devices lack float64
            self._waiting.append(x)
            if sum(map(len, self._waiting)) >= BLOCK_ROWS:
                self._absorb()

    def append_torch(self, x: torch.Tensor, num_gpus: int = 1, rank: int = 0) -> None:
        """Add rows of all processes.

        All processes call this together with the same number of rows. Each process then has all rows.

        Args:
            x: see `append`. Row i of process r comes after row i of process r - 1.
            num_gpus: processes. 1 adds only the rows of this process.
            rank: this process, which the process group knows already.
        """
        if num_gpus > 1:
            x = torch.stack(distributed.gather(x.detach().cpu()), dim=1).flatten(0, 1)
        self.append(x)

    def get_all(self) -> np.ndarray:
        """Returns all rows [num_items, num_features], ordered by `start`."""
        if not self.capture_all:
            raise ValueError("rows were not kept: capture_all is False")
        if not self._kept:
            return np.zeros([0, self.num_features or 0], np.float32)
        return np.concatenate([rows for _, rows in sorted(self._kept, key=lambda part: part[0])])

    def get_all_torch(self) -> torch.Tensor:
        """Returns the result of `get_all` as a tensor."""
        return torch.from_numpy(self.get_all())

    def get_mean_cov(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns mean [num_features] and unbiased covariance [num_features, num_features], float64.

        Raises:
            UserError: there are fewer than 2 rows.
        """
        if not self.capture_mean_cov:
            raise ValueError("the covariance was not kept: capture_mean_cov is False")
        if self.num_items < 2:
            raise UserError(f"A covariance needs 2 images or more, but there are {self.num_items}.")
        self._absorb()
        return self._mean.cpu().numpy(), (self._scatter / (self.num_items - 1)).cpu().numpy()

    def merge(self, other: "FeatureStats") -> None:
        """Add the rows of `other`, which must keep the same values. Does not apply `max_items` again."""
        self._restore(other.state())

    def gather(self) -> None:
        """Collect the rows of all processes on process 0. Other processes do not change."""
        if distributed.is_distributed():
            for part in distributed.gather_to_first(self.state())[1:]:
                self._restore(part)

    def state(self) -> dict[str, np.ndarray]:
        """Returns all values as arrays, for files and other processes."""
        state = {"num_items": np.array(self.num_items)}
        if self.capture_all:
            state["starts"] = np.array([start for start, _ in self._kept], np.int64)
            state["lengths"] = np.array([len(rows) for _, rows in self._kept], np.int64)
            state["rows"] = np.concatenate([rows for _, rows in self._kept]) if self._kept else np.zeros([0, 0])
        if self.capture_mean_cov and self.num_items:
            self._absorb()
            state["mean"], state["scatter"] = self._mean.cpu().numpy(), self._scatter.cpu().numpy()
        return state

    @classmethod
    def from_state(cls, state: dict[str, np.ndarray]) -> "FeatureStats":
        """Returns the statistics described by `state`."""
        stats = cls(capture_all="rows" in state, capture_mean_cov="mean" in state)
        stats._restore(state)
        return stats

    def save(self, pkl_file: str | os.PathLike) -> None:
        """Write everything into a file for `load`, whole or not at all. It holds arrays, whatever its name says.

        Raises:
            UserError: the file cannot be written.
        """
        options = np.array([self.capture_all, self.capture_mean_cov, -1 if self.max_items is None else self.max_items])
        with atomic_open(pkl_file, "wb") as file:
            np.savez(file, options=options, **self.state())

    @staticmethod
    def load(pkl_file: str | os.PathLike) -> "FeatureStats":
        """Returns the statistics that `save` wrote.

        Raises:
            UserError: the file is missing, damaged, or of another kind.
        """
        state = read_arrays(pkl_file)
        if state is None or "options" not in state or "num_items" not in state:
            raise UserError(f"{pkl_file} holds no statistics of features: compute them again, and save them.")
        capture_all, capture_mean_cov, max_items = state["options"].tolist()
        stats = FeatureStats(bool(capture_all), bool(capture_mean_cov), None if max_items < 0 else max_items)
        stats._restore(state)
        return stats

    def _restore(self, state: dict[str, np.ndarray]) -> None:
        count = int(state["num_items"])
        if not count:
            return
        self.num_items += count
        if self.capture_all:
            rows = np.split(state["rows"], np.cumsum(state["lengths"])[:-1])
            self._kept += zip(map(int, state["starts"]), rows, strict=True)
            self.num_features = state["rows"].shape[1]
        if self.capture_mean_cov:
            self._absorb()
            self._combine(count, torch.from_numpy(state["mean"]), torch.from_numpy(state["scatter"]))
            self.num_features = len(state["mean"])

    def _absorb(self) -> None:
        """Add waiting rows to mean and covariance. Large blocks make the products fast."""
        if not self._waiting:
            return
        rows = torch.cat(self._waiting).double()
        self._waiting = []
        mean = rows.mean(dim=0)
        rows -= mean
        self._combine(len(rows), mean, rows.T @ rows)

    def _combine(self, count: int, mean: torch.Tensor, scatter: torch.Tensor) -> None:
        if self._mean is None:
            self._absorbed, self._mean, self._scatter = count, mean.clone(), scatter.clone()
            return
        total = self._absorbed + count
        shift = mean.to(self._mean.device) - self._mean
        self._mean += shift * (count / total)
        self._scatter += scatter.to(self._mean.device)
        self._scatter.addr_(shift, shift, alpha=self._absorbed * count / total)
        self._absorbed = total
