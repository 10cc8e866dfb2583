"""Makes labelled data with a network: pairs of image and mask, optionally only the better pairs."""

import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from dnnlib import EasyDict, UserError, atomic_open
from semantic.masks import is_present, mask_to_indices
from semantic.pictures.modes import progress
from semantic.pictures.selection import Choice, choose
from semantic.studio import Studio
from training.archive import create_archive, encode_png, image_name
from training.images import to_uint8

POOL = 512
"""Number of pairs that compete with each other. Memory holds at most this many."""
BALANCED_SHARE = 0.5
"""Fraction of pairs that --balance keeps without --filter."""
LOOK = 8
"""Side of the small images for comparing pairs."""

Judge = Callable[[torch.Tensor], torch.Tensor]
"""Maps images [N, 3, R, R] in [-1, 1] to scores [N, K, R, R] of their regions."""


@dataclass(frozen=True)
class Pair:
    """A generated pair, ready for the archive, with the values that decide whether it is kept.

    Attributes:
        seed: seed of the pair.
        label: its class, or None.
        image, mask: PNG files.
        overlap: [K] intersection over union of the mask with the judge's labels. NaN if both lack the region.
        shown: [K] whether the mask shows the region.
        look: small copy of the image, flattened.
    """

    seed: int
    label: int | None
    image: bytes
    mask: bytes
    overlap: np.ndarray
    shown: np.ndarray
    look: np.ndarray


def write_dataset(studio: Studio, opts: EasyDict) -> None:
    """Write an archive of generated images and their masks, in the layout of dataset_tool.py.

    With --filter, more pairs are generated than requested. Pairs are kept if the judge finds the regions of the mask
    and if they are unlike other pairs. With --balance, rare regions count too. dataset-filter.json lists the dropped
    pairs and the reasons.
    """
    regions = studio.regions("--dataset")
    if opts.projected_w is not None:
        raise UserError("--dataset draws its images from seeds. Remove --projected-w.")
    share = opts.filter or (BALANCED_SHARE if opts.balance else 1)
    judge = opts.judge() if share < 1 else None
    total = math.ceil(opts.dataset / share)
    labels: list[list[Any]] = []
    path, report = studio.outdir / "dataset.zip", Report(regions.names)
    with progress("Data set", total) as bar, create_archive(path) as add:
        for pool in pools(pairs(studio, opts, total, judge, bar), POOL if share < 1 else 1):
            done = report.made + len(pool)
            keep = done * opts.dataset // total - report.kept if done < total else opts.dataset - report.kept
            choice = choose(pool, keep, report, opts.balance)
            report.add(pool, choice)
            for place in choice.kept:
                pair = pool[place]
                name = image_name(len(labels))
                add(name, pair.image)
                add(f"masks/{name}", pair.mask)
                labels.append([name, pair.label])
        meta = {"labels": labels if studio.G.c_dim else None, "regions": regions.to_dict()}
        add("dataset.json", json.dumps(meta).encode())
    studio.saved(path.name)
    if judge is not None:
        with atomic_open(studio.outdir / "dataset-filter.json", "w") as file:
            json.dump(report.to_dict(), file, indent=1)
        studio.saved("dataset-filter.json")
        tqdm.write(report.line(), file=sys.stdout)


def pairs(studio: Studio, opts: EasyDict, count: int, judge: Judge | None, bar: Any) -> Iterator[Pair]:
    """Yields `count` pairs, starting at the first of --seeds."""
    first = opts.seeds[0] if opts.seeds else 0
    for start in range(first, first + count, studio.batch):
        seeds = range(start, min(start + studio.batch, first + count))
        (out,) = studio.render(studio.codes(seeds))
        num_regions = out.mask.shape[1]
        pixels, masks = to_uint8(out.image), mask_to_indices(out.mask)
        overlap, shown = agreement(masks, masks if judge is None else mask_to_indices(judge(out.image)), num_regions)
        looks = F.adaptive_avg_pool2d(out.image.float().clamp(-1, 1), LOOK).flatten(1).cpu().numpy()
        for i, seed in enumerate(seeds):
            image = encode_png(pixels[i].transpose(1, 2, 0) if len(pixels[i]) == 3 else pixels[i][0])
            yield Pair(seed, studio.labels.entry(seed), image, encode_png(masks[i]), overlap[i], shown[i], looks[i])
        bar.update(len(seeds))


def pools(items: Iterator[Pair], size: int) -> Iterator[list[Pair]]:
    """Yields the same pairs in lists of `size`."""
    pool = []
    for item in items:
        pool.append(item)
        if len(pool) == size:
            yield pool
            pool = []
    if pool:
        yield pool


def agreement(masks: np.ndarray, seen: np.ndarray, num_regions: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns how well masks agree with the regions found in the images.

    Args:
        masks, seen: class indices [N, R, R].

    Returns:
        Intersection over union [N, K], NaN for regions that neither mask shows. Then [N, K]: whether `masks` show the
        region, see `is_present`.
    """
    classes = np.arange(num_regions)
    truth, guess = (indices.reshape(len(indices), -1, 1) == classes for indices in (masks, seen))
    both, either = (part.sum(axis=1) for part in (truth & guess, truth | guess))
    shown, anywhere = is_present(truth.mean(axis=1)), is_present(np.maximum(truth.mean(axis=1), guess.mean(axis=1)))
    return np.where(anywhere, both / np.maximum(either, 1), np.nan), shown


class Report:
    """Counts of generated, kept and dropped pairs, and the looks of the kept pairs.

    Args:
        names: names of the regions.
    """

    def __init__(self, names: Sequence[str]):
        self.names = names
        self.made = self.kept = 0
        self.shown_made, self.shown_kept = np.zeros(len(names)), np.zeros(len(names))
        self.overlaps = {"made": [], "kept": []}
        self.looks: list[np.ndarray] = []
        self.seeds: list[int] = []
        self.dropped: list[dict[str, Any]] = []

    def add(self, pool: Sequence[Pair], choice: Choice) -> None:
        """Count the pairs of a pool."""
        kept = [pool[place] for place in choice.kept]
        self.made += len(pool)
        self.kept += len(kept)
        for name, chosen in (("made", pool), ("kept", kept)):
            self.overlaps[name] += [pair.overlap for pair in chosen]
        self.shown_made += sum(pair.shown for pair in pool)
        self.shown_kept += sum(pair.shown for pair in kept)
        self.looks += [pair.look for pair in kept]
        self.seeds += [pair.seed for pair in kept]
        for place, why in choice.dropped.items():
            overlap = pool[place].overlap
            found = {"region": self.names[why.region]} if why.region is not None else {}
            found |= {"overlap": round(float(overlap[why.region]), 3)} if why.region is not None else {}
            self.dropped.append({"seed": pool[place].seed, "why": why.reason, **found})

    def to_dict(self) -> dict[str, Any]:
        """Returns the report for JSON: counts, figures by region, seeds of kept pairs, and reasons for dropping."""
        made, kept = (_means(self.overlaps[name]) for name in ("made", "kept"))
        regions = {
            name: {
                "overlap_made": _rounded(made[k]),
                "overlap_kept": _rounded(kept[k]),
                "shown_made": _rounded(self.shown_made[k] / max(self.made, 1)),
                "shown_kept": _rounded(self.shown_kept[k] / max(self.kept, 1)),
            }
            for k, name in enumerate(self.names)
        }
        counts = {"made": self.made, "kept": self.kept, "why": dict(Counter(found["why"] for found in self.dropped))}
        return {**counts, "regions": regions, "dropped": self.dropped, "kept_seeds": self.seeds}

    def line(self) -> str:
        """Returns one line about the dropped pairs."""
        why = Counter(found["why"] for found in self.dropped)
        worst = Counter(found["region"] for found in self.dropped if found["why"] == "disagreement").most_common(3)
        parts = []
        if why["disagreement"]:
            most = ", ".join(f"{name} {count}" for name, count in worst)
            parts.append(f"in {why['disagreement']} the image shows other regions than the mask (most often {most})")
        if why["likeness"]:
            parts.append(f"{why['likeness']} look like another pair")
        if why["balance"]:
            parts.append(f"{why['balance']} show only common regions")
        return f"Kept {self.kept} of {self.made} pairs. Of the dropped pairs, {'; '.join(parts)}."


def _means(overlaps: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the mean of each region over the pairs that show it, or NaN."""
    table = np.stack(overlaps)
    there = np.isfinite(table)
    return np.where(there, table, 0).sum(axis=0) / np.where(there.any(axis=0), there.sum(axis=0), np.nan)


def _rounded(value: float) -> float | None:
    return round(float(value), 4) if math.isfinite(value) else None
