"""Reports statistics where they arise, and collects them once per tick.

`report` only adds three numbers on the device of the value, without synchronization. A `Collector` fetches the sums,
adds them over all processes and computes counts, means and standard deviations. Values that are not finite are
ignored.
"""

import contextlib
import re
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from dnnlib import EasyDict
from torch_utils import distributed

_collectors: "weakref.WeakSet[Collector]" = weakref.WeakSet()
_muted = False
_sync_device: torch.device | None = None


def init_multiprocessing(rank: int, sync_device: torch.device | str | None) -> None:
    """Set the device for sums over processes, as default of `Collector.update`.

    Args:
        rank: ignored. The process group provides the number of this process.
        sync_device: device, such as this process's GPU for NCCL. None keeps sums on their device.
    """
    global _sync_device
    _sync_device = None if sync_device is None else torch.device(sync_device)


def report(name: str, value: Any) -> Any:
    """Add all finite elements of `value` (a tensor, a number or a list of them) to the statistic; returns `value`."""
    if _muted:
        return value
    data = value.detach() if isinstance(value, torch.Tensor) else torch.as_tensor(value, dtype=torch.float64)
    data = data.flatten().to(_precision(data.device))
    finite = data.isfinite()
    kept = torch.where(finite, data, torch.zeros_like(data))
    moments = torch.stack([finite.to(data.dtype).sum(), kept.sum(), kept.square().sum()])
    for collector in _collectors:
        collector._add(name, moments)
    return value


def report0(name: str, value: Any) -> Any:
    """Same as `report`, on process 0 only. Other processes register the name, so that all processes have it."""
    report(name, value if distributed.get_rank() == 0 else [])
    return value


@contextlib.contextmanager
def muted() -> Iterator[None]:
    """Inside `with`, no values are reported."""
    global _muted
    before, _muted = _muted, True
    try:
        yield
    finally:
        _muted = before


class Collector:
    """Collects the values reported since its previous update.

    Args:
        regex: names to collect.
        keep_previous: a statistic without new values keeps its last figures instead of disappearing.
    """

    def __init__(self, regex: str = ".*", keep_previous: bool = True):
        self._pattern = re.compile(regex)
        self._keep_previous = keep_previous
        self._sums: dict[str, dict[str, torch.Tensor]] = {}
        self._figures: dict[str, torch.Tensor] = {}
        _collectors.add(self)

    def _add(self, name: str, moments: torch.Tensor) -> None:
        """Add count, sum and sum of squares, on their device."""
        if not self._pattern.fullmatch(name):
            return
        per_device = self._sums.setdefault(name, {})
        kind = moments.device.type
        if kind in per_device:
            per_device[kind] = per_device[kind].to(moments.device) + moments
        else:
            per_device[kind] = moments

    def state_dict(self) -> dict[str, Any]:
        """Returns the figures, and the sums that wait for the next update. In a group, all processes must call this."""
        sums = {name: {kind: t.cpu() for kind, t in per.items()} for name, per in self._sums.items()}
        return {"figures": dict(self._figures), "sums": distributed.gather(sums)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the figures and sums. With another number of processes, the first process takes all sums."""
        self._figures = dict(state["figures"])
        shares = state.get("sums", [])
        rank = distributed.get_rank()
        self._sums = {}
        if len(shares) == distributed.get_world_size():
            self._sums = {name: dict(per_device) for name, per_device in shares[rank].items()}
            return
        for share in shares:
            for name, per_device in share.items():
                self._sums.setdefault(name, {})
                for moments in per_device.values() if rank == 0 else ():
                    self._add(name, moments)

    def update(self, device: torch.device | None = None) -> None:
        """Fetch the sums. In a group, all processes must call this together, and must have reported the same names.

        Args:
            device: device for sums over processes (a GPU for NCCL). For None see `init_multiprocessing`.
        """
        device = _sync_device if device is None else device
        names = sorted(self._sums)
        if not self._keep_previous:
            self._figures.clear()
        if not names:
            return
        totals = torch.stack([_total(self._sums[name]) for name in names])
        self._sums = {name: {} for name in names}
        if distributed.is_distributed():
            totals = distributed.all_reduce(totals if device is None else totals.to(device)).cpu()
        self._figures.update((name, sums) for name, sums in zip(names, totals, strict=True) if sums[0] > 0)

    def take(self, name: str, device: torch.device) -> torch.Tensor:
        """Returns count, sum and sum of squares of a statistic since the last `take`.

        They cover all processes and stay on the device, without waiting for it. In a group, all processes must call
        this together.
        """
        sums = [moments.to(device) for moments in self._sums.pop(name, {}).values()]
        total = sum(sums) if sums else torch.zeros(3, dtype=_precision(device), device=device)
        return distributed.all_reduce(total.clone())

    def names(self) -> list[str]:
        """Returns all names collected so far."""
        return list(self._figures)

    def num(self, name: str) -> int:
        """Returns the number of values of a statistic."""
        return int(self._figures[name][0]) if name in self._figures else 0

    def sum(self, name: str) -> float:
        """Returns the sum of the values, or 0 without values."""
        return float(self._figures[name][1]) if name in self._figures else 0.0

    def mean(self, name: str) -> float:
        """Returns the mean of the values, or NaN without values."""
        return float(self._figures[name][1] / self._figures[name][0]) if name in self._figures else float("nan")

    def std(self, name: str) -> float:
        """Returns the standard deviation of the values, or NaN without values."""
        if name not in self._figures:
            return float("nan")
        count, total, squares = self._figures[name].tolist()
        return max(squares / count - (total / count) ** 2, 0.0) ** 0.5

    def as_dict(self) -> EasyDict:
        """Returns {name: {"num", "mean", "std"}} of all statistics."""
        return EasyDict(
            (n, EasyDict(num=self.num(n), mean=self.mean(n), std=self.std(n))) for n in sorted(self.names())
        )

    def __getitem__(self, name: str) -> float:
        return self.mean(name)


def _precision(device: torch.device) -> torch.dtype:
    """Returns the most precise floating-point type of the device."""
    return torch.float32 if device.type == "mps" else torch.float64


def _total(per_device: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Returns count, sum and sum of squares over all devices, float64 on the CPU."""
    total = torch.zeros(3, dtype=torch.float64)
    for kind in sorted(per_device):
        total += per_device[kind].cpu().double()
    return total
