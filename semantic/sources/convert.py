"""From a source to an archive, on several cores."""

import collections
import concurrent.futures
import contextlib
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from dnnlib import UserError
from semantic.mask_files import class_areas, mask_name
from semantic.regions import Regions
from semantic.sources.base import Source
from semantic.sources.geometry import Geometry, turn_with_image
from training.archive import DataError, check_dest, create_archive, encode_png, image_name
from training.layout import METADATA

BATCH = 4  # samples a task; more would only delay the first result and Ctrl-C
TURNED = "masks drawn on unturned photos, turned with these"
MASK_COMPRESSION = 1  # masks shrink about thirtyfold, at no cost in reading
T = TypeVar("T")


@dataclass
class Converted:
    """One finished sample: the files' content, the side of the image, and the number of mask pixels a class [256]."""

    image: bytes
    suffix: str
    side: int
    mask: bytes | None
    areas: np.ndarray | None
    where: str
    changes: tuple[str, ...]


@dataclass
class Summary:
    """What an archive holds: number of images, their side, the regions, and each region's mean share of the area.

    Attributes:
        counts: how many files were changed or left out, by kind.
    """

    count: int
    side: int
    regions: Regions | None
    shares: np.ndarray | None
    counts: Mapping[str, int]

    def __str__(self) -> str:
        text = f"{self.count} images of {self.side}x{self.side}"
        if self.regions is None:
            text += " without masks"
        else:
            shares = ", ".join(f"{n} {100 * s:.1f}%" for n, s in zip(self.regions.names, self.shares, strict=True))
            text += f" with masks of {len(self.regions)} regions: {shares}"
        return "; ".join([text, *(f"{number} {what}" for what, number in sorted(self.counts.items()))])


@dataclass
class Converter:
    """Brings one sample into the form that archives hold."""

    source: Source
    geometry: Geometry

    def __call__(self, index: int) -> Converted:
        sample = self.source.read(index)
        changes = sample.changes + (TURNED,) * turn_with_image(sample)
        if not self.source.grey and sample.image.mode != "RGB":
            sample.image, sample.jpeg = sample.image.convert("RGB"), None
        pixels, mask = self.geometry.apply(sample)
        side = sample.image.width if pixels is None else pixels.shape[0]
        image, suffix = (sample.jpeg, ".jpg") if pixels is None else (encode_png(pixels), ".png")
        if mask is None:
            return Converted(image, suffix, side, None, None, sample.where, changes)
        areas = class_areas(mask)
        return Converted(image, suffix, side, encode_png(mask, MASK_COMPRESSION), areas, sample.where, changes)


def convert(source: Source, dest: str | os.PathLike, geometry: Geometry, workers: int = 1) -> Summary:
    """Write an archive of all samples of `source`, in order, whole or not at all.

    Args:
        source: what to convert.
        dest: a zip (name ends in .zip) or a new folder.
        geometry: crop and size.
        workers: number of processes; 1 works in this one.

    Raises:
        UserError: `dest` cannot be written, a sample cannot be used, sizes differ, or Ctrl-C was pressed.
    """
    check_dest(dest)
    names: list[str] = []
    areas = np.zeros(256, np.int64)
    counts = collections.Counter(source.left_out)
    side = None
    try:
        with create_archive(dest) as add, contextlib.ExitStack() as stack:
            results = stack.enter_context(_mapped(Converter(source, geometry), len(source), workers))
            pause = 0.1 if sys.stderr.isatty() else 10  # seconds; a log file needs no more
            for item in tqdm(results, total=len(source), unit="img", leave=False, mininterval=pause):
                side = side or item.side
                if item.side != side:
                    raise DataError(
                        f"{item.where} gives {item.side}x{item.side} pixels, but the first image {side}x{side}: add "
                        f"--width and --height to bring all to one size."
                    )
                name = image_name(len(names), item.suffix)
                add(name, item.image)
                if item.mask is not None:
                    add(mask_name(name), item.mask)
                    areas += item.areas
                names.append(name)
                counts.update(item.changes)
            regions = source.regions_of(np.flatnonzero(areas).tolist()) if areas.any() else None
            labels = None if source.labels is None else [list(pair) for pair in zip(names, source.labels, strict=True)]
            metadata = {"labels": labels} if regions is None else {"labels": labels, "regions": regions.to_dict()}
            add(METADATA, json.dumps(metadata, indent=1).encode())
    except KeyboardInterrupt as error:
        raise UserError(
            f"Stopped by Ctrl-C after {len(names)} of {len(source)} images: {dest} was not written."
        ) from error
    shares = None if regions is None else areas[: len(regions)] / areas.sum()
    return Summary(len(names), side, regions, shares, counts)


def default_workers() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def _mapped(function: Callable[[int], T], count: int, workers: int) -> Iterator[Iterable[T]]:
    """`function` of 0..count-1, in order; a fixed number of tasks is under way, so that results cannot pile up."""
    if workers <= 1 or count <= 2 * BATCH:
        yield map(function, range(count))
        return
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, context, _start_worker, (function,)) as pool:
        try:
            yield _in_order(pool, count, 4 * workers)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _in_order(pool: concurrent.futures.Executor, count: int, ahead: int) -> Iterator[T]:
    starts = iter(range(0, count, BATCH))
    tasks: collections.deque[concurrent.futures.Future] = collections.deque()
    try:
        while True:
            for start in starts:
                tasks.append(pool.submit(_run, range(start, min(start + BATCH, count))))
                if len(tasks) >= ahead:
                    break
            if not tasks:
                return
            yield from tasks.popleft().result()
    except concurrent.futures.process.BrokenProcessPool as error:
        raise UserError("A worker process ended, perhaps for lack of memory: use fewer --workers.") from error


_function: Callable[[int], object] | None = None  # what this worker process applies


def _start_worker(function: Callable[[int], object]) -> None:
    """Keep the function in the process; Ctrl-C is left to the parent, which ends the workers."""
    global _function
    _function = function
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _run(indices: range) -> list:
    return [_function(index) for index in indices]
