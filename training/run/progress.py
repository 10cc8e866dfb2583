"""The position of a run and its progress: progress bar, a line per tick, stats.jsonl, TensorBoard."""

import contextlib
import dataclasses
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
from training.run.monitor import Look

tqdm.set_lock(threading.RLock())  # processes share the default lock, and a killed process would never release it


@dataclasses.dataclass
class Position:
    """The position of a run.

    Attributes:
        images_seen, step, tick: number of images, steps and ticks so far.
        elapsed: seconds of training so far.
    """

    images_seen: int = 0
    step: int = 0
    tick: int = 0
    elapsed: float = 0.0

    def is_due(self, interval: int | None) -> bool:
        """Whether an event that happens every `interval` ticks is due after this tick. False if `interval` is None."""
        return interval is not None and self.tick % interval == 0

    def state_dict(self) -> dict[str, Any]:
        """Returns the values that a resume needs."""
        return dataclasses.asdict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the values of `state_dict`.

        Raises:
            ValueError: a number is negative or too large.
        """
        for name, value in self.state_dict().items():
            found = type(value)(state[name])
            if not 0 <= found < 1 << 60:
                raise ValueError(f"{name} of the run is {found}")
            setattr(self, name, found)


class Progress:
    """Advances the position of a run. At every tick, collects statistics of all processes and writes them on process 0.

    Args:
        run_dir: folder for stats.jsonl and TensorBoard events.
        total_kimg: length of the run in thousands of images.
        kimg_per_tick: thousands of images between ticks.
        run: position of the run, changed in place.
        device: device for the memory figures and for sums over processes.
    """

    def __init__(self, run_dir: str, total_kimg: float, kimg_per_tick: float, run: Position, device: torch.device):
        self.run_dir = run_dir
        self.total_images = round(total_kimg * 1000)
        self.kimg_per_tick = kimg_per_tick
        self.run = run
        self.device = device
        self.collector = training_stats.Collector()

    def start(self) -> None:
        """Show the bar and start the clock. Call this after the run's position is known."""
        self._start = time.monotonic() - self.run.elapsed
        self._tick_start, self._tick_nimg = time.monotonic(), self.run.images_seen
        self._maintenance = 0.0
        self._writer = _tensorboard(self.run_dir) if distributed.get_rank() == 0 else None
        self._bar = tqdm(
            total=self.total_images,
            initial=self.run.images_seen,
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
    def finished(self) -> bool:
        """Whether the run has reached its full length."""
        return self.run.images_seen >= self.total_images

    @property
    def tick_is_over(self) -> bool:
        """Whether the current tick has all its images."""
        return self.finished or self.run.images_seen >= round((self.run.tick + 1) * self.kimg_per_tick * 1000)

    def advance(self, images: int) -> None:
        """Count one step of `images` images."""
        self.run.images_seen += images
        self.run.step += 1
        self.run.elapsed = time.monotonic() - self._start
        self._bar.update(images)

    def follow(self, found: Look) -> None:
        """Print the line of a monitor. If the monitor ends the run, the run finishes at the current image."""
        self.say(found.line)
        if found.ends:
            self.total_images = self.run.images_seen

    def say(self, line: str) -> None:
        """Print a line above the bar on process 0."""
        if distributed.get_rank() == 0:
            tqdm.write(line)

    def end_tick(self, augment_p: float, figures: Mapping[str, float]) -> None:
        """Report `figures` and the figures of the tick, then collect and write all reported statistics."""
        now, nimg = time.monotonic(), self.run.images_seen
        seconds = now - self._tick_start
        sec_per_kimg = seconds / max(nimg - self._tick_nimg, 1) * 1000
        memory = torch.cuda.max_memory_allocated(self.device) / 2**30 if self.device.type == "cuda" else 0.0
        for name, value in {
            "Progress/tick": self.run.tick,
            "Progress/kimg": nimg / 1000,
            "Progress/augment": augment_p,
            "Timing/total_sec": self.run.elapsed,
            "Timing/sec_per_tick": seconds,
            "Timing/sec_per_kimg": sec_per_kimg,
            "Timing/maintenance_sec": self._maintenance,
            "Resources/cpu_mem_gb": psutil.Process().memory_info().rss / 2**30,
            "Resources/peak_gpu_mem_gb": memory,
            **figures,
        }.items():
            training_stats.report0(name, value)
        self.collector.update(self._sum_device)
        collected = self.collector.as_dict()
        if distributed.get_rank() == 0:
            self._write(collected)
            self.say(
                f"tick {self.run.tick:<5d} kimg {nimg / 1000:<9.1f} time {dnnlib.format_time(self.run.elapsed):<12s} "
                f"sec/kimg {sec_per_kimg:<8.2f} cpumem {collected['Resources/cpu_mem_gb'].mean:<6.2f} "
                f"gpumem {memory:<6.2f} augment {augment_p:<6.3f} "
                f"G {self.collector['Loss/G/loss']:<7.3f} D {self.collector['Loss/D/loss']:<7.3f}"
            )
        self.run.tick += 1
        self._tick_nimg = nimg
        self._tick_end = now

    def begin_tick(self) -> None:
        """Start the clock of the next tick. The time since the end of the last tick counts as maintenance."""
        now = time.monotonic()
        self._maintenance = now - self._tick_end
        self._tick_start = now

    def state_dict(self) -> dict[str, Any]:
        """Returns the statistics, including the unfinished tick. In a group, all processes must call this together."""
        return self.collector.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the statistics of `state_dict`."""
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
                self.say(f"Cannot write to TensorBoard, its figures end here: {error.strerror or error}")

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()


def _tensorboard(run_dir: str) -> Any:
    """Returns a TensorBoard writer, or None if tensorboard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(run_dir)
