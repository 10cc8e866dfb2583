"""Time and peak memory of functions, and the table that they end in."""

import ctypes
import dataclasses
import gc
import sys
import time
from collections.abc import Callable

import torch

Function = Callable[[], object]


class Clock:
    """Measures on one device.

    Args:
        device: 'cpu' or 'cuda'.
        seconds: about how long one row may take; at least one run of each function happens whatever it takes.
    """

    def __init__(self, device: str = "cpu", seconds: float = 10):
        self.device = torch.device(device)
        self.seconds = seconds

    def once(self, function: Function) -> float:
        """Seconds that one call takes."""
        self._wait()
        start = time.perf_counter()
        function()
        self._wait()
        return time.perf_counter() - start

    def best(self, *functions: Function) -> list[float]:
        """Shortest time of each function in seconds; they take turns, so that all meet the same noise.

        One turn to warm up comes first, and is counted alone where it already takes longer than the row may.
        """
        best = [self.once(function) for function in functions]
        if sum(best) > self.seconds:
            return best
        best, end = [float("inf")] * len(functions), time.perf_counter() + self.seconds
        for turn in range(1000):
            best = [min(known, self.once(function)) for known, function in zip(best, functions, strict=True)]
            if turn >= 2 and time.perf_counter() > end:
                break
        return best

    def peak_memory(self, function: Function) -> float:
        """Bytes that one call needs at its peak, above what was in use before."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            function()
            self._wait()
            return torch.cuda.max_memory_allocated() - before
        if not sys.platform.startswith("linux"):
            return float("nan")
        ctypes.CDLL(None).malloc_trim(0)  # freed memory that the process keeps would hide new use
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the peak starts anew
        before = _status("VmRSS")
        function()
        return _status("VmHWM") - before

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def _status(name: str) -> int:
    """An entry of the kernel's figures on this process, in bytes."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name + ":"))


@dataclasses.dataclass
class Row:
    """One line of the table.

    Attributes:
        name: what was measured.
        plain, ours: its figure for the reference and for us.
        unit: of the figures: 's', 'MB', or '/s' (where more is better).
        note: what else there is to say.
    """

    name: str
    plain: float | None
    ours: float
    unit: str = "s"
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times better ours is."""
        if self.plain is None:
            return None
        return self.ours / self.plain if self.unit == "/s" else self.plain / self.ours

    def cells(self) -> list[str]:
        """The columns of the table as text."""
        figures = ["" if value is None else _number(value) + " " + self.unit for value in (self.plain, self.ours)]
        return [self.name, *figures, "" if self.ratio is None else f"{self.ratio:.2f}x", self.note]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


HEADER = ["what", "plain", "ours", "ratio", ""]


def markdown(rows: list[Row]) -> str:
    """The table in Markdown, aligned so that it reads as plain text too."""
    cells = [HEADER, *(row.cells() for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(HEADER))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
