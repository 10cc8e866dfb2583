"""Batches of generated and of real images, shared among processes.

Process b mod num_gpus computes batch b. Its random draws depend only on the seed and b. The images are therefore the
same for every number of processes.
"""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from dnnlib import EasyDict, UserError, construct_class_by_name
from metrics.options import MetricOptions
from torch_utils.images import to_bytes
from torch_utils.sampler import derive_seed

LARGE_DATA = 2000
"""Number of images from which loader processes read the data."""


@contextlib.contextmanager
def seeded(opts: MetricOptions, *keys: int) -> Iterator[None]:
    """Seeds torch with the options' seed and `keys`. Restores the random state at the end."""
    devices = [opts.device] if opts.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derive_seed(opts.seed, *keys))
        yield


def my_batches(opts: MetricOptions, num_items: int, batch: int, text: str) -> Iterator[tuple[int, int, int]]:
    """Yields (number, first item, size) of each batch of this process, under a progress bar.

    All processes together share `num_items` items.
    """
    label = f"{opts.metric} {text}".strip()
    monitor = opts.monitor(label, num_items)
    with tqdm(total=num_items, desc=label, unit="img", disable=opts.hide_progress, leave=False) as bar:
        for number, start in enumerate(range(0, num_items, batch)):
            size = min(batch, num_items - start)
            if number % opts.num_gpus == opts.rank:
                yield number, start, size
            bar.update(size)
            monitor.update(start + size)


def label_sampler(opts: MetricOptions) -> Callable[[int, int], torch.Tensor]:
    """Returns a function (count, seed) -> labels [count, c_dim] for the generator, drawn from the real labels.

    Raises:
        UserError: the generator is conditional, but there are no labels for it.
    """
    G = opts.require_network()
    if not G.c_dim:
        return lambda count, seed: torch.zeros([count, 0], device=opts.device)
    opts.require_data()
    dataset = open_dataset(opts.with_dataset(use_labels=True))
    if dataset.label_dim != G.c_dim:
        raise UserError(
            f"Labels of the network have {G.c_dim} numbers, labels of {dataset.name} have {dataset.label_dim}. Name "
            f"the network's training data with --data."
        )

    def draw(count: int, seed: int) -> torch.Tensor:
        chosen = np.random.default_rng(seed).integers(len(dataset), size=count)
        return torch.from_numpy(np.stack([dataset.get_label(int(i)) for i in chosen])).to(opts.device)

    return draw


def iterate_generator(
    opts: MetricOptions, num_items: int, masks: bool = False, stream: int = 0
) -> Iterator[dict[str, Any]]:
    """Yields this process's batches of `num_items` generated images.

    Args:
        masks: also return masks. The generator must accept ``return_mask=True`` and return `image` and `mask`.
        stream: number of an independent stream of images.

    Yields:
        EasyDict of image uint8 [N, 3, H, W], start (number of its first item), z [N, z_dim], c [N, c_dim]. With
        `masks` also mask uint8 [N, H, W], the index of the largest plane.
    """
    G = opts.require_network()
    labels = label_sampler(opts)
    batch = opts.batch_for(G.img_resolution)
    for number, start, size in my_batches(opts, num_items, batch, "generated"):
        with seeded(opts, 1, stream, number):
            z = torch.randn([size, G.z_dim], device=opts.device)
            c = labels(size, derive_seed(opts.seed, 2, stream, number))
            output = G(z, c, **opts.G_kwargs, **({"return_mask": True} if masks else {}))
        found = EasyDict(image=_to_rgb(to_bytes(output.image if masks else output)), start=start, z=z, c=c)
        if masks:
            found.mask = output.mask.argmax(dim=1).to(torch.uint8)
        yield found


def open_dataset(opts: MetricOptions) -> Any:
    """Returns the real data."""
    opts.require_data()
    return construct_class_by_name(**opts.dataset_kwargs)


def iterate_dataset(
    opts: MetricOptions, max_items: int | None = None, shuffle: bool = False, dataset: Any = None
) -> Iterator[dict[str, Any]]:
    """Yields this process's batches of the real data.

    Args:
        max_items: number of images, chosen at random by the seed. None uses all.
        shuffle: use a random order, for data in which neighbours are similar.
        dataset: the data, if already open.

    Yields:
        EasyDict of `image` uint8 [N, 3, H, W] and `start`, the number of its first item. Further arrays of the items
        follow, such as `label` [N, label_dim] and `mask` uint8 [N, H, W].
    """
    dataset = open_dataset(opts) if dataset is None else dataset
    count = len(dataset) if max_items is None else min(max_items, len(dataset))
    order = np.arange(len(dataset))
    if shuffle or count < len(dataset):
        order = np.random.default_rng(opts.seed).permutation(order)[:count]
        order = order if shuffle else np.sort(order)
    mine = list(my_batches(_silent(opts), count, opts.batch_for(dataset.resolution), ""))
    workers = min(3, (os.cpu_count() or 1) // 2) if count >= LARGE_DATA else 0
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_sampler=[order[start : start + size].tolist() for _, start, size in mine],
        num_workers=workers,
    )
    batches = iter(loader)
    for _, start, _ in my_batches(opts, count, opts.batch_for(dataset.resolution), "real"):
        item = next(batches)._asdict()
        image = item.pop("image").to(opts.device)
        yield EasyDict(
            image=_to_rgb(image), start=start, **{name: value.to(opts.device) for name, value in item.items()}
        )


def _to_rgb(images: torch.Tensor) -> torch.Tensor:
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def _silent(opts: MetricOptions) -> MetricOptions:
    return dataclasses.replace(opts, progress=False)
