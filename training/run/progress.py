"""What a run says of itself: the progress bar, a line a tick, stats.jsonl, TensorBoard."""

import contextlib
import json
import os
import threading
import time
from collections.abc import Mapping
from typing import Any

import psutil
import torch
from tqdm import tqdm

import dnnlib
from torch_utils import distributed, training_stats

tqdm.set_lock(threading.RLock())  # the default one is shared by processes, and a killed one would leave it behind


class Progress:
    """Counts images and time; at every tick collects statistics of all processes and writes them on process 0.

    Args:
        run_dir: where stats.jsonl and TensorBoard events go.
        total_kimg: length of the run in thousands of images.
        start_nimg: images seen before.
        elapsed: seconds that earlier parts of the run took.
        device: for the memory figures and for sums over processes.
        tick: number of the next tick.
    """

    def __init__(
        self, run_dir: str, total_kimg: float, start_nimg: int, elapsed: float, device: torch.device, tick: int = 0
    ):
        self.run_dir = run_dir
        self.total_kimg = total_kimg
        self.device = device
        self.tick = tick
        self.collector = training_stats.Collector()
        self._start = time.monotonic() - elapsed
        self._tick_start, self._tick_nimg = time.monotonic(), start_nimg
        self._maintenance = 0.0
        self._writer = _tensorboard(run_dir) if distributed.get_rank() == 0 else None
        self._bar = tqdm(
            total=round(total_kimg * 1000),
            initial=start_nimg,
            unit="img",
            unit_scale=True,
            desc="Training",
            disable=distributed.get_rank() != 0,
            mininterval=1,
            dynamic_ncols=True,
        )

    @property
    def _sum_device(self) -> torch.device | None:
        return self.device if self.device.type == "cuda" else None

    @property
    def elapsed(self) -> float:
        """Seconds of training, earlier parts included."""
        return time.monotonic() - self._start

    def advance(self, images: int) -> None:
        """Note that `images` more were seen."""
        self._bar.update(images)

    def say(self, line: str) -> None:
        """Print a line above the bar, on process 0."""
        if distributed.get_rank() == 0:
            tqdm.write(line)

    def end_tick(self, nimg: int, augment_p: float, figures: Mapping[str, float] | None = None) -> None:
        """Report the figures of a tick, `figures` among them, collect everything that was reported and write it out."""
        now = time.monotonic()
        seconds = now - self._tick_start
        sec_per_kimg = seconds / max(nimg - self._tick_nimg, 1) * 1000
        memory = torch.cuda.max_memory_allocated(self.device) / 2**30 if self.device.type == "cuda" else 0.0
        for name, value in {
            "Progress/tick": self.tick,
            "Progress/kimg": nimg / 1000,
            "Progress/augment": augment_p,
            "Timing/total_sec": self.elapsed,
            "Timing/sec_per_tick": seconds,
            "Timing/sec_per_kimg": sec_per_kimg,
            "Timing/maintenance_sec": self._maintenance,
            "Resources/cpu_mem_gb": psutil.Process().memory_info().rss / 2**30,
            "Resources/peak_gpu_mem_gb": memory,
            **(figures or {}),
        }.items():
            training_stats.report0(name, value)
        self.collector.update(self._sum_device)
        collected = self.collector.as_dict()
        if distributed.get_rank() == 0:
            self._write(collected)
            self.say(
                f"tick {self.tick:<5d} kimg {nimg / 1000:<9.1f} time {dnnlib.format_time(self.elapsed):<12s} "
                f"sec/kimg {sec_per_kimg:<8.2f} cpumem {collected['Resources/cpu_mem_gb'].mean:<6.2f} "
                f"gpumem {memory:<6.2f} augment {augment_p:<6.3f} "
                f"G {self.collector['Loss/G/loss']:<7.3f} D {self.collector['Loss/D/loss']:<7.3f}"
            )
        self.tick += 1
        self._tick_nimg = nimg
        self._tick_end = now

    def begin_tick(self) -> None:
        """Start the clock of the next tick; what passed since the last one ended was maintenance."""
        now = time.monotonic()
        self._maintenance = now - self._tick_end
        self._tick_start = now

    def state_dict(self) -> dict[str, Any]:
        """The statistics, those of an unfinished tick included; in a group all must call this together."""
        return self.collector.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.collector.load_state_dict(state)

    def _write(self, figures: dnnlib.EasyDict) -> None:
        line = json.dumps({**figures, "timestamp": time.time()})
        dnnlib.append_line(os.path.join(self.run_dir, "stats.jsonl"), line)
        if self._writer is not None:
            step = round(figures["Progress/kimg"].mean * 1000)
            try:
                for name, figure in figures.items():
                    self._writer.add_scalar(name, figure.mean, global_step=step, walltime=time.time())
                self._writer.flush()
            except OSError as error:
                self._writer = None
                self.say(f"TensorBoard gets no more figures: {error.strerror or error}")

    def close(self) -> None:
        """Take the bar away."""
        self._bar.close()
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()


def _tensorboard(run_dir: str) -> Any:
    """A TensorBoard writer, or None where tensorboard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(run_dir)
