"""Opens a source of any kind by its path, and takes a part of it."""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np
import PIL.Image

from dnnlib import UserError
from semantic.regions import Regions
from semantic.sources.base import Sample, Source
from semantic.sources.celebamask import CelebAMaskSource, is_celebamask
from semantic.sources.coding import make_coding
from semantic.sources.files import open_files
from semantic.sources.published_lmdb import LmdbSource, is_lmdb
from semantic.sources.small_sets import has_split, open_small_set
from training.archive import Archive, local_path

PROCEDURAL = "procedural"
PROCEDURAL_SIDE = 128
PROCEDURAL_COUNT = 10000
PROCEDURAL_TEST_START = 1 << 30  # number of the first test portrait, larger than any training set
TEST_SHARE = 10  # one image in ten is for testing if the source has no split


class ProceduralSource(Source):
    """Drawn portraits with exact masks, see `semantic.procedural`.

    Args:
        resolution: side in pixels.
        count: number of portraits.
        seed: seed of the portraits.
        start: number of the first portrait.
        mask_map: JSON file that merges regions.
    """

    def __init__(self, resolution: int, count: int, seed: int = 0, start: int = 0, mask_map: str | None = None):
        from semantic.procedural import ProceduralFaces

        super().__init__()
        self._faces = ProceduralFaces(resolution, seed)
        self._count, self._start = count, start
        self._coding = make_coding(None, mask_map, self._faces.regions)
        self.regions = self._coding.regions

    def __len__(self) -> int:
        return self._count

    def read(self, index: int) -> Sample:
        where = f"procedural portrait {index}"
        image, mask = self._faces.render(self._start + index)
        return Sample(PIL.Image.fromarray(image), None, self._coding.merge(mask, where), where)


class ImagesOnly(Source):
    """The images of another source, without masks."""

    def __init__(self, source: Source):
        super().__init__()
        self._source = source
        self.labels, self.grey, self.left_out = source.labels, source.grey, source.left_out

    def __len__(self) -> int:
        return len(self._source)

    def read(self, index: int) -> Sample:
        return dataclasses.replace(self._source.read(index), mask=None)


class Subset(Source):
    """Some samples of another source."""

    def __init__(self, source: Source, indices: Sequence[int]):
        super().__init__()
        self._source, self._indices = source, [int(i) for i in indices]
        self.labels = None if source.labels is None else [source.labels[i] for i in self._indices]
        self.regions, self.notes = source.regions, source.notes
        self.grey, self.left_out = source.grey, source.left_out

    def __len__(self) -> int:
        return len(self._indices)

    def read(self, index: int) -> Sample:
        return self._source.read(self._indices[index])

    def regions_of(self, used: Sequence[int]) -> Regions:
        return self._source.regions_of(used)


def open_source(
    path: str,
    masks: str | None = None,
    palette: str | None = None,
    mask_map: str | None = None,
    split: str | None = None,
    seed: int = 0,
    max_images: int | None = None,
    resolution: int | None = None,
    images_only: bool = False,
    skip_images: int = 0,
    some_masks: bool = False,
) -> Source:
    """Returns the source at a path.

    The path is 'procedural', CIFAR-10, MNIST, raw CelebAMask-HQ, an LMDB, or images in a folder or zip.

    Args:
        path: folder, file or address, or 'procedural'.
        masks: folder or zip of masks for the images of a folder or zip.
        palette, mask_map: JSON files, see `make_coding`.
        split: 'train' or 'test'. CelebAMask-HQ, CIFAR-10 and MNIST have their own splits. The procedural source
            draws other portraits for 'test'. From other sources, `seed` chooses a tenth for 'test'.
        seed: seed of the split and of the procedural source.
        max_images: largest number of images. The first images are taken.
        skip_images: number of images that are left out before the first image.
        resolution: side of procedural portraits in pixels.
        images_only: take images without masks.
        some_masks: keep images of a folder or zip that have no mask.

    Raises:
        UserError: the source cannot be used, or an option does not go with it.
    """
    if max_images is not None and max_images < 1:
        raise UserError(f"--max-images must be at least 1, but is {max_images}.")
    some = some_masks or None
    for_masks = {**_masked(masks, palette, mask_map), "some-masks": some}
    given = next((name for name, value in for_masks.items() if value is not None), None)
    if images_only and given:
        raise UserError(f"--images-only omits masks, but --{given} is for masks. Remove one of them.")
    if path == PROCEDURAL:
        _refuse("The procedural source", masks=masks, palette=palette, some_masks=some)
        start = PROCEDURAL_TEST_START if split == "test" else 0
        count = max_images or PROCEDURAL_COUNT
        faces = ProceduralSource(resolution or PROCEDURAL_SIDE, count, seed, start + skip_images, mask_map)
        return ImagesOnly(faces) if images_only else faces
    local = local_path(path)
    own_split = False
    source: Source
    small = open_small_set(local, split) if os.path.isfile(local) else None
    if small is not None:
        if given:
            raise UserError(f"{path} holds images only. Remove --{given}.")
        source, own_split = small, has_split(local)
    elif is_lmdb(local):
        _refuse("An LMDB", masks=masks, some_masks=some)
        source = LmdbSource(local, palette, mask_map)
    else:
        archive = Archive(local)
        if masks is None and is_celebamask(archive):
            _refuse("Raw CelebAMask-HQ", palette=palette, some_masks=some)
            source, own_split = CelebAMaskSource(archive, split, mask_map), True
        else:
            source = open_files(archive, masks, palette, mask_map, images_only, some_masks)
    if images_only:
        source = ImagesOnly(source)
    indices = np.arange(len(source))
    if split is not None and not own_split:
        order = np.random.default_rng(seed).permutation(len(source))
        share = max(len(source) // TEST_SHARE, 1)
        indices = np.sort(order[:share] if split == "test" else order[share:])
    indices = indices[skip_images:][:max_images]
    if not len(indices):
        raise UserError(f"{path} gives no image. Check --source, --split and --skip-images.")
    return source if len(indices) == len(source) else Subset(source, indices)


def _masked(masks: str | None, palette: str | None, mask_map: str | None) -> dict[str, str | None]:
    """Returns the options about masks, as users write them."""
    return {"masks": masks, "palette": palette, "mask-map": mask_map}


def _refuse(kind: str, **options: str | None) -> None:
    """Raise a UserError for options that a kind of source does not take."""
    given = next((name for name, value in options.items() if value is not None), None)
    if given is not None:
        raise UserError(f"{kind} has its own masks. Remove --{given.replace('_', '-')}.")
