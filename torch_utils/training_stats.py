"""Statistics are reported where they arise and collected elsewhere, once a tick.

`report` only adds up three numbers on the device of the value, so it costs no synchronisation; a `Collector` fetches
the sums, adds them over all processes and turns them into counts, means and standard deviations.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch

from dnnlib import EasyDict
from torch_utils import distributed

_sums: dict[str, dict[torch.device, torch.Tensor]] = {}


def report(name: str, value: Any) -> Any:
    """Add all elements of `value` (a tensor, a number or a list of them) to the statistic `name`; returns `value`."""
    data = value.detach() if isinstance(value, torch.Tensor) else torch.as_tensor(value, dtype=torch.float64)
    data = data.flatten().to(torch.float64 if data.device.type != "mps" else torch.float32)
    moments = torch.stack([torch.ones_like(data).sum(), data.sum(), data.square().sum()])
    per_device = _sums.setdefault(name, {})
    if data.device in per_device:
        per_device[data.device] += moments
    else:
        per_device[data.device] = moments
    return value


def report0(name: str, value: Any) -> Any:
    """`report` on process 0 alone; the others note the name, so that all know of it."""
    report(name, value if distributed.get_rank() == 0 else [])
    return value


class Collector:
    """Collects what was reported since its previous update.

    Args:
        regex: names to collect.
        keep_previous: a statistic that was not reported since keeps its last figures instead of vanishing.
    """

    def __init__(self, regex: str = ".*", keep_previous: bool = True):
        self._pattern = re.compile(regex)
        self._keep_previous = keep_previous
        self._seen: dict[str, torch.Tensor] = {}
        self._waiting: dict[str, torch.Tensor] = {}
        self._figures: dict[str, torch.Tensor] = {}
        self._news()

    def state_dict(self, device: torch.device | None = None) -> dict[str, dict[str, torch.Tensor]]:
        """The figures, and what waits for the next update; in a group all must call this together, see `update`."""
        self._gather(device)
        return {"figures": dict(self._figures), "waiting": dict(self._waiting)}

    def load_state_dict(self, state: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        """The inverse of `state_dict`."""
        self._figures, self._waiting = dict(state["figures"]), dict(state["waiting"])

    def update(self, device: torch.device | None = None) -> None:
        """Fetch the sums; in a group of processes all must call this together, having reported the same names.

        Args:
            device: where sums over processes are taken (a GPU for NCCL).
        """
        self._gather(device)
        if not self._keep_previous:
            self._figures.clear()
        self._figures.update((name, sums) for name, sums in self._waiting.items() if sums[0] > 0)
        self._waiting.clear()

    def _gather(self, device: torch.device | None) -> None:
        """Move what was reported, on all processes, to what waits for the next update."""
        news = self._news()
        if news:
            sums = torch.stack(list(news.values()))
            if distributed.is_distributed():
                sums = distributed.all_reduce(sums if device is None else sums.to(device)).cpu()
            for name, fresh in zip(news, sums, strict=True):
                self._waiting[name] = self._waiting[name] + fresh if name in self._waiting else fresh

    def _news(self) -> dict[str, torch.Tensor]:
        """Sums by name of what was reported on this process since the last call, sorted."""
        names = sorted(name for name in _sums if self._pattern.fullmatch(name))
        totals = {name: sum(sums.cpu().double() for sums in _sums[name].values()) for name in names}
        news = {name: total - self._seen.get(name, torch.zeros_like(total)) for name, total in totals.items()}
        self._seen.update(totals)
        return news

    def names(self) -> list[str]:
        """All names collected so far."""
        return list(self._figures)

    def num(self, name: str) -> int:
        """How many values the statistic holds."""
        return int(self._figures[name][0]) if name in self._figures else 0

    def sum(self, name: str) -> float:
        """Sum of the values; 0 when there are none."""
        return float(self._figures[name][1]) if name in self._figures else 0.0

    def mean(self, name: str) -> float:
        """Mean of the values; NaN when there are none."""
        return float(self._figures[name][1] / self._figures[name][0]) if name in self._figures else float("nan")

    def std(self, name: str) -> float:
        """Standard deviation of the values; NaN when there are none."""
        if name not in self._figures:
            return float("nan")
        count, total, squares = self._figures[name].tolist()
        return max(squares / count - (total / count) ** 2, 0.0) ** 0.5

    def as_dict(self) -> EasyDict:
        """{name: {"num", "mean", "std"}} of everything collected."""
        return EasyDict(
            (n, EasyDict(num=self.num(n), mean=self.mean(n), std=self.std(n))) for n in sorted(self.names())
        )

    def __getitem__(self, name: str) -> float:
        return self.mean(name)
