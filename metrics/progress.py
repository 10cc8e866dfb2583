"""Progress of a metric, told in lines or to a function, as scripts for StyleGAN2-ADA ask for it."""

import time
from collections.abc import Callable

from tqdm import tqdm

from dnnlib import format_time


class ProgressMonitor:
    """Tells how far some work is.

    Args:
        tag: name of the work; without one no line is printed.
        num_items: how many items there are, where this is known.
        flush_interval: items between two reports. The last item is always reported.
        verbose: print lines.
        progress_fn: called with a number between `pfn_lo` and `pfn_hi`, and `pfn_total`.
        pfn_lo, pfn_hi: what the function is given at the beginning and at the end of this work.
        pfn_total: what the function is given at the end of all work.
    """

    def __init__(
        self,
        tag: str | None = None,
        num_items: int | None = None,
        flush_interval: int | None = 1000,
        verbose: bool = False,
        progress_fn: Callable[[float, float], object] | None = None,
        pfn_lo: float = 0,
        pfn_hi: float = 1000,
        pfn_total: float = 1000,
    ):
        self.tag, self.num_items, self.flush_interval, self.verbose = tag, num_items, flush_interval, verbose
        self.progress_fn, self.pfn_lo, self.pfn_hi, self.pfn_total = progress_fn, pfn_lo, pfn_hi, pfn_total
        self._start = self._last_time = time.monotonic()
        self._last_items = 0
        if progress_fn is not None:
            progress_fn(pfn_lo, pfn_total)

    def update(self, cur_items: int) -> None:
        """Say that `cur_items` items are done."""
        done = self.num_items is not None and cur_items >= self.num_items
        if not done and (self.flush_interval is None or cur_items < self._last_items + self.flush_interval):
            return
        now, new = time.monotonic(), max(cur_items - self._last_items, 1)
        if self.verbose and self.tag is not None:
            pace = (now - self._last_time) / new * 1000
            tqdm.write(
                f"{self.tag:<28} items {cur_items:<8} time {format_time(now - self._start):<12} {pace:.2f} ms/item"
            )
        self._last_time, self._last_items = now, cur_items
        if self.progress_fn is not None and self.num_items:
            share = min(cur_items / self.num_items, 1)
            self.progress_fn(self.pfn_lo + (self.pfn_hi - self.pfn_lo) * share, self.pfn_total)

    def sub(
        self,
        tag: str | None = None,
        num_items: int | None = None,
        flush_interval: int | None = 1000,
        rel_lo: float = 0,
        rel_hi: float = 1,
    ) -> "ProgressMonitor":
        """A monitor of a part of this work, which lies between `rel_lo` and `rel_hi` of it."""
        span = self.pfn_hi - self.pfn_lo
        return ProgressMonitor(
            tag,
            num_items,
            flush_interval,
            self.verbose,
            self.progress_fn,
            self.pfn_lo + span * rel_lo,
            self.pfn_lo + span * rel_hi,
            self.pfn_total,
        )
