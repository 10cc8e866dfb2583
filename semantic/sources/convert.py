"""Converts a source to an archive, on several cores."""

import collections
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from tqdm import tqdm

from dnnlib import UserError
from semantic.mask_files import class_areas, mask_name
from semantic.regions import Regions
from semantic.sources.base import Source
from semantic.sources.geometry import Geometry, turn_with_image
from training.archive import DataError, check_dest, create_archive, encode_png, image_name
from training.layout import METADATA

SEVERAL = 8  # fewer samples are not worth the start of processes
AHEAD = 16  # samples under way in each process
TURNED = "masks turned upright with their photos"
MASK_COMPRESSION = 1  # masks shrink about thirtyfold, at no cost in reading
T = TypeVar("T")


@dataclass
class Converted:
    """One finished sample: the content of its files, the side of the image, and the mask pixels per class [256]."""

    image: bytes
    suffix: str
    side: int
    mask: bytes | None
    areas: np.ndarray | None
    where: str
    changes: tuple[str, ...]


@dataclass
class Summary:
    """The content of an archive: number of images, their side, the regions, and each region's mean share of the area.

    Attributes:
        masked: number of images with a mask.
        counts: numbers of changed and ignored files, by kind.
    """

    count: int
    side: int
    masked: int
    regions: Regions | None
    shares: np.ndarray | None
    counts: Mapping[str, int]

    def __str__(self) -> str:
        text = f"{self.count} images of {self.side}x{self.side}"
        if self.regions is None:
            text += " without masks"
        else:
            shares = ", ".join(f"{n} {100 * s:.1f}%" for n, s in zip(self.regions.names, self.shares, strict=True))
            some = "" if self.masked == self.count else f", {self.masked} of them"
            text += f"{some} with masks of {len(self.regions)} regions: {shares}"
        return "; ".join([text, *(f"{number} {what}" for what, number in sorted(self.counts.items()))])


@dataclass
class Converter:
    """Converts one sample to the form of archives."""

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
    """Write an archive of all samples of `source`, in order, completely or not at all.

    Args:
        source: source to convert.
        dest: a zip (name ends in .zip) or a new folder.
        geometry: crop and size.
        workers: number of processes. 1 uses this process.

    Raises:
        UserError: `dest` cannot be written, a sample cannot be used, sizes differ, or Ctrl-C was pressed.
    """
    check_dest(dest)
    names: list[str] = []
    masked = 0
    areas = np.zeros(256, np.int64)
    counts = collections.Counter(source.left_out)
    side = None
    try:
        results = _mapped(Converter(source, geometry), len(source), workers)
        with create_archive(dest) as add, contextlib.closing(results):
            pause = 0.1 if sys.stderr.isatty() else 10  # seconds; a log file needs few updates
            for item in tqdm(results, total=len(source), unit="img", leave=False, mininterval=pause):
                side = side or item.side
                if item.side != side:
                    raise DataError(
                        f"{item.where} gives {item.side}x{item.side} pixels, but the first image {side}x{side}. Add "
                        f"--width and --height to bring all to one size."
                    )
                name = image_name(len(names), item.suffix)
                add(name, item.image)
                if item.mask is not None:
                    add(mask_name(name), item.mask)
                    areas += item.areas
                    masked += 1
                names.append(name)
                counts.update(item.changes)
            regions = source.regions_of(np.flatnonzero(areas).tolist()) if areas.any() else None
            labels = None if source.labels is None else [list(pair) for pair in zip(names, source.labels, strict=True)]
            metadata = {"labels": labels} if regions is None else {"labels": labels, "regions": regions.to_dict()}
            add(METADATA, json.dumps(metadata, indent=1).encode())
    except KeyboardInterrupt as error:
        raise UserError(
            f"Stopped by Ctrl-C after {len(names)} of {len(source)} images. {dest} was not written."
        ) from error
    shares = None if regions is None else areas[: len(regions)] / areas.sum()
    return Summary(len(names), side, masked, regions, shares, counts)


def default_workers() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Items(torch.utils.data.Dataset):
    """What a function gives for 0..count-1, for `torch.utils.data.DataLoader`."""

    def __init__(self, function: Callable[[int], T], count: int):
        self._function, self._count = function, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> T:
        return self._function(index)


def _mapped(function: Callable[[int], T], count: int, workers: int) -> Iterator[T]:
    """Yields `function` of 0..count-1, in order. A fixed number of tasks runs ahead, so results cannot pile up.

    Raises:
        UserError: a worker process was ended from outside.
    """
    several = workers > 1 and count > SEVERAL
    loader = torch.utils.data.DataLoader(
        _Items(function, count),
        batch_size=None,
        num_workers=workers if several else 0,
        prefetch_factor=AHEAD if several else None,
        multiprocessing_context=("fork" if sys.platform == "linux" else "spawn") if several else None,
        worker_init_fn=_leave_ctrl_c,
    )
    try:
        yield from loader
    except RuntimeError as error:
        if "exited unexpectedly" not in str(error):
            raise
        raise UserError("A worker process was killed, perhaps for lack of memory. Use fewer --workers.") from error


def _leave_ctrl_c(_: int) -> None:
    """Leave Ctrl-C to the parent, which ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
