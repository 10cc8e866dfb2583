"""The options of every metric."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from dnnlib import EasyDict, UserError
from metrics.progress import ProgressMonitor


@dataclasses.dataclass
class MetricOptions:
    """All inputs of a metric, passed to the registered functions.

    Attributes:
        G: the generator, in evaluation mode, on `device`.
        G_kwargs: further arguments of G, such as truncation_psi.
        dataset_kwargs: class name and options of the real data. Empty without real data.
        num_gpus, rank: processes that share the work, and which one this is.
        device: device of networks and images. None: the device of G.
        progress: True shows progress bars, None shows them on terminals. A `ProgressMonitor` replaces the bars.
        cache: keep statistics of the real data between calls.
        metric: requested name of the metric. Results have this name.
        detector: path of a feature network, or a folder of them. None downloads the published networks.
        seed: seed of all random draws.
        batch_size: images at a time. None chooses by resolution.
    """

    G: torch.nn.Module | None = None
    G_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    dataset_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    num_gpus: int = 1
    rank: int = 0
    device: torch.device | str | None = None
    progress: bool | ProgressMonitor | None = None
    cache: bool = True
    metric: str = ""
    detector: str | None = None
    seed: int = 0
    batch_size: int | None = None

    def __post_init__(self) -> None:
        self.G_kwargs, self.dataset_kwargs = EasyDict(self.G_kwargs), EasyDict(self.dataset_kwargs)
        if self.device is None:
            parameters = iter(()) if self.G is None else self.G.parameters()
            self.device = next((p.device for p in parameters), "cpu")
        self.device = torch.device(self.device)

    def with_dataset(self, **changes: Any) -> "MetricOptions":
        """Returns the same options with other options of the data set, such as ``xflip=False``."""
        return dataclasses.replace(self, dataset_kwargs={**self.dataset_kwargs, **changes} if self.has_data else {})

    @property
    def has_data(self) -> bool:
        """Returns whether there is real data to compare with."""
        return bool(self.dataset_kwargs)

    @property
    def hide_progress(self) -> bool | None:
        """Returns the argument `disable` of progress bars. None hides the bars without a terminal."""
        if self.rank or isinstance(self.progress, ProgressMonitor):
            return True
        return None if self.progress is None else not self.progress

    def monitor(self, tag: str, num_items: int) -> ProgressMonitor:
        """Returns the monitor of a pass over `num_items`. It is silent without `progress` and on processes other than
        the first.
        """
        asked = isinstance(self.progress, ProgressMonitor) and not self.rank
        return self.progress.sub(tag, num_items) if asked else ProgressMonitor()

    def within(self, rel_lo: float, rel_hi: float) -> "MetricOptions":
        """Returns the same options for a part of the work. The monitor maps progress to this part."""
        if not isinstance(self.progress, ProgressMonitor):
            return self
        return dataclasses.replace(self, progress=self.progress.sub(rel_lo=rel_lo, rel_hi=rel_hi))

    def batch_for(self, resolution: int) -> int:
        """Returns the batch size at `resolution`: 4 at 1024, 64 at 256 and below, or `batch_size` if it is set."""
        return self.batch_size or max(min((1 << 22) // resolution**2, 64), 4)

    def require_data(self) -> None:
        """Raises UserError if there are no real data."""
        if not self.has_data:
            raise UserError(f"{self.metric} compares with real images. Name the images with --data=ZIP.")

    def require_network(self) -> torch.nn.Module:
        """Returns the generator. Raises UserError if there is none."""
        if self.G is None:
            raise UserError(f"{self.metric} needs a generator. Name a network with --network=FILE.")
        return self.G
