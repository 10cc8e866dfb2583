"""Common parts of the metrics of regions: names, counts, checks of network and data, batches of latents, mean IoU."""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from dnnlib import UserError
from metrics.metric_utils import MetricOptions, label_sampler, my_batches, open_dataset, seeded
from semantic.masks import is_present
from semantic.regions import Regions
from torch_utils.sampler import derive_seed


def count_pattern(name: str) -> str:
    """Returns the pattern of a metric's names for `register_metric`: bare or with a count, plain or in thousands."""
    return rf"{name}(?:([1-9]\d*)(k)?)?"


def count_of(number: int | None, thousands: str | None, default: int) -> int:
    """Returns the count for the groups of `count_pattern`."""
    return default if number is None else number * (1000 if thousands else 1)


def region_network(opts: MetricOptions) -> torch.nn.Module:
    """Returns the generator. Raises UserError if it has no regions."""
    G = opts.require_network()
    if not isinstance(getattr(G, "regions", None), Regions):
        raise UserError(f"{opts.metric} needs a network with regions, as train.py --cfg=semantic makes them.")
    return G


def masked_data(opts: MetricOptions, **changes: Any) -> tuple[MetricOptions, Any]:
    """Returns options for all real data, and the data. The data must have the network's regions.

    Args:
        changes: other options of the data set, such as ``xflip=False``.

    Raises:
        UserError: there are no data, or they have no masks, other regions or another resolution.
    """
    G = region_network(opts)
    opts.require_data()
    opts = opts.with_dataset(max_size=None, **changes)
    dataset = open_dataset(opts)
    if not hasattr(dataset, "regions"):
        raise UserError(f"{opts.metric} needs masks, but {dataset.name} has none. Name masked data with --data.")
    if getattr(dataset, "masked", len(dataset)) < len(dataset):
        raise UserError(
            f"{opts.metric} needs a mask for each image, but only {dataset.masked} of {len(dataset)} images of "
            f"{dataset.name} have one. Name other data with --data."
        )
    if dataset.regions.names != G.regions.names:
        raise UserError(
            f"The regions of {dataset.name} ({', '.join(dataset.regions.names)}) differ from those of the network "
            f"({', '.join(G.regions.names)}). Name the network's training data with --data."
        )
    if dataset.resolution != G.img_resolution:
        raise UserError(f"{dataset.name} has images of {dataset.resolution}², but the network {G.img_resolution}².")
    return opts, dataset


@dataclasses.dataclass
class LatentBatch:
    """Codes of samples and of as many donors, [N, num_ws, D] each. `start` is the number of the first sample."""

    ws: torch.Tensor
    donor_ws: torch.Tensor
    start: int


def iterate_latents(opts: MetricOptions, num_items: int, text: str) -> Iterator[LatentBatch]:
    """Yields this process's batches of codes, with a progress bar. Codes do not depend on the number of processes."""
    G = region_network(opts)
    labels = label_sampler(opts)
    truncation = {name: value for name, value in opts.G_kwargs.items() if name.startswith("truncation_")}
    for number, start, size in my_batches(opts, num_items, opts.batch_for(G.img_resolution), text):
        with seeded(opts, 8, number):
            z = torch.randn([2 * size, G.z_dim], device=opts.device)
        c = labels(size, derive_seed(opts.seed, 9, number))
        ws, donor_ws = G.mapping(z, torch.cat([c, c]), **truncation).chunk(2)
        yield LatentBatch(ws, donor_ws, start)


def render(opts: MetricOptions, ws: torch.Tensor) -> Any:
    """What the network makes of codes, with masks and the same noise every time."""
    options = {name: value for name, value in opts.G_kwargs.items() if not name.startswith("truncation_")}
    return opts.G.synthesis(ws, **{"noise_mode": "const", "return_mask": True, **options})


def with_mean(values: Mapping[str, float], regions: Iterable[str] | None = None) -> dict[str, float]:
    """Returns numbers by region, with their mean first under 'mean'. Numbers that are not finite are dropped.

    Args:
        regions: regions of the mean. None uses all.
    """
    found = {region: float(value) for region, value in values.items() if math.isfinite(value)}
    chosen = list(found) if regions is None else [region for region in regions if region in found]
    if not chosen:
        return found
    return {"mean": sum(found[region] for region in chosen) / len(chosen), **found}


def prefixed(prefix: str, values: Mapping[str, float]) -> dict[str, float]:
    """Returns the same numbers with longer names."""
    return {f"{prefix}_{name}": value for name, value in values.items()}


def overlap_counts(truth: torch.Tensor, guess: torch.Tensor, num_regions: int) -> torch.Tensor:
    """Returns the overlap of two sets of masks, image by image.

    Args:
        truth, guess: class indices [N, H, W].
        num_regions: K.

    Returns:
        int64 [N, 3, K]: number of pixels of each region in both, in either, and in the truth.
    """
    in_truth, in_guess = (
        torch.nn.functional.one_hot(mask.flatten(1).long(), num_regions).bool() for mask in (truth, guess)
    )
    parts = [in_truth & in_guess, in_truth | in_guess, in_truth]
    return torch.stack([part.sum(dim=1) for part in parts], dim=1)


def region_ious(counts: np.ndarray, names: Iterable[str]) -> dict[str, float]:
    """Returns the intersection over union of each region over a whole set.

    A region that no image of the truth shows (see `is_present`) is left out: it has no overlap to speak of,
    and where it is wrongly seen, the regions in its place lose.

    Args:
        counts: result of `overlap_counts` for the set, [N, 3, K].
        names: names of the regions.
    """
    both, either, _ = counts.sum(axis=0)
    areas = counts[:, 2] / counts[:, 2].sum(axis=1, keepdims=True)
    shown = is_present(areas).any(axis=0)
    return {name: float(both[k]) / float(either[k]) for k, name in enumerate(names) if shown[k]}
