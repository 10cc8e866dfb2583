"""What every metric is given."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from dnnlib import UserError


@dataclasses.dataclass
class MetricOptions:
    """Everything that a metric works on; handed to the registered functions.

    Attributes:
        G: the generator, in evaluation mode, on `device`.
        metric: name under which the metric was asked for; results are keyed by it.
        dataset_kwargs: class name and options of the real data; empty where there is none.
        G_kwargs: further arguments of G, such as truncation_psi.
        num_gpus, rank: processes that share the work, and which one this is.
        device: where networks and images are.
        progress: show progress bars; None: on terminals only.
        detector: path of a feature network, or a folder of them; None downloads the published ones.
        cache: keep statistics of the real data between calls.
        seed: of all random draws.
        batch_size: images at a time; None chooses by resolution.
    """

    G: torch.nn.Module | None = None
    metric: str = ""
    dataset_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    G_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    num_gpus: int = 1
    rank: int = 0
    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cpu"))
    progress: bool | None = None
    detector: str | None = None
    cache: bool = True
    seed: int = 0
    batch_size: int | None = None

    def with_dataset(self, **changes: Any) -> "MetricOptions":
        """The same options with other options of the data set, such as ``xflip=False``."""
        return dataclasses.replace(self, dataset_kwargs={**self.dataset_kwargs, **changes} if self.has_data else {})

    @property
    def has_data(self) -> bool:
        """Whether there is real data to compare with."""
        return bool(self.dataset_kwargs)

    @property
    def hide_progress(self) -> bool | None:
        """What progress bars take as `disable`: None hides them where there is no terminal."""
        return True if self.rank else {None: None, True: False, False: True}[self.progress]

    def batch_for(self, resolution: int) -> int:
        """Images at a time at `resolution`: 4 at 1024, 64 at 256 and below, unless `batch_size` says otherwise."""
        return self.batch_size or max(min((1 << 22) // resolution**2, 64), 4)

    def require_data(self) -> None:
        """Raises UserError unless there is real data."""
        if not self.has_data:
            raise UserError(f"{self.metric} compares with real images: name them with --data=ZIP.")

    def require_network(self) -> torch.nn.Module:
        """The generator; UserError unless there is one."""
        if self.G is None:
            raise UserError(f"{self.metric} needs a generator: name it with --network=FILE.")
        return self.G
