"""Reads photos and their masks one by one from a file, a folder or an archive."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from dnnlib import UserError, open_url
from semantic.mask_files import MASKS, image_indices
from semantic.placement import Placement
from semantic.regions import Regions
from semantic.sources.images import read_image
from semantic.sources.palette import Palette
from training.archive import IMAGE_SUFFIXES, Archive, decode_image

LEAST_SIDE = 8
FINEST = 1024
"""Largest number of points per side that are read from the mask of a crop."""


@dataclass(frozen=True)
class PhotoFile:
    """A photo that can be read.

    Attributes:
        name: base name without suffix, unique within its folder: the name of its output folder.
        where: name of the photo in messages.
        archive: folder or zip that holds the photo. None for a single file.
        member: name of the photo in the archive.
        mask: name of the mask: a path, or a member of the masks' archive.
        masks: folder or zip that holds the mask. None for a single file.
    """

    name: str
    where: str
    archive: Archive | None = None
    member: str = ""
    mask: str | None = None
    masks: Archive | None = None

    @property
    def path(self) -> str:
        """Returns the path of the photo for placements. For a member of a zip, it is the path of the zip and of the
        member.
        """
        return self.where if self.archive is None else os.path.join(self.archive.path, self.member)

    def read(self) -> torch.Tensor:
        """Returns the photo, turned as its EXIF data say: float32 [3, H, W] in [-1, 1].

        Raises:
            UserError: the file is missing, damaged, too large or too small.
        """
        image = read_image(_bytes(self.archive, self.member or self.where), self.where).image.convert("RGB")
        if min(image.size) < LEAST_SIDE:
            raise UserError(
                f"{self.where} has {image.width} x {image.height} pixels. Each side needs {LEAST_SIDE} or more."
            )
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1

    def read_mask(self, regions: Regions, size: tuple[int, int]) -> torch.Tensor | None:
        """Returns class indices, uint8 [H, W], of the photo, or None without a mask.

        Args:
            regions: the regions of the network.
            size: (width, height) of the photo. A mask of the same shape is resized to this size.

        Raises:
            UserError: the mask has other regions or another shape, or is damaged.
        """
        if self.mask is None:
            return None
        where = self.mask if self.masks is None else self.masks.where(self.mask)
        data = _bytes(self.masks, self.mask)
        indices = mask_indices(data, where, regions)
        height, width = indices.shape
        if abs(width * size[1] - height * size[0]) > 0.01 * max(width * size[1], height * size[0]):
            raise UserError(f"The mask {where} has {width} x {height} pixels, but its photo has {size[0]} x {size[1]}.")
        found = torch.from_numpy(indices)
        if (width, height) != size:
            found = F.interpolate(found[None, None].float(), (size[1], size[0]), mode="nearest-exact")[0, 0].byte()
        return found


def mask_indices(data: bytes, where: str, regions: Regions) -> np.ndarray:
    """Returns class indices, uint8 [H, W], of a mask file. The file holds indices or colours of the regions.

    Raises:
        UserError: the file is damaged, or shows other regions.
    """
    image = decode_image(data, where)
    if image.mode in ("RGB", "RGBA"):
        return Palette(regions).indices(np.array(image.convert("RGB")), where)
    indices = image_indices(image, data, where)
    if indices.max() >= len(regions):
        raise UserError(
            f"The mask {where} holds the class index {indices.max()}, but this network has regions 0 to "
            f"{len(regions) - 1}: {', '.join(regions.names)}."
        )
    return indices


def crop_mask(indices: torch.Tensor, placement: Placement, num_regions: int) -> torch.Tensor:
    """Returns the crop of a mask, class indices int64 [R, R]. Each pixel gets the class of most of its points.

    Args:
        indices: uint8 [H, W], of the photo's size.
        placement: place of the crop.
        num_regions: K.
    """
    side = placement.resolution
    fine = max(1, min(round(placement.scale), FINEST // side, 8))
    steps = (torch.arange(side * fine, dtype=torch.float64) + 0.5) / fine
    v, u = torch.meshgrid(steps, steps, indexing="ij")
    height, width = indices.shape
    x, y = (
        _mirrored(a * u + b * v + t, length)
        for (a, b, t), length in zip(placement.matrix, (width, height), strict=True)
    )
    votes = F.one_hot(indices[y, x].long(), num_regions).float().permute(2, 0, 1)
    return F.avg_pool2d(votes, fine).argmax(dim=0)


def find_photos(target: str, target_mask: str | None = None, limit: int | None = None) -> list[PhotoFile]:
    """Returns the photos at a path: one file, or all photos of a folder or archive in the order of names.

    Args:
        target: file, folder, zip archive, or the address of one.
        target_mask: mask file of one photo, or folder or zip of masks, matched by base name. An archive
            with masks of its own needs none.
        limit: largest number of photos.

    Raises:
        UserError: nothing is there, there are no photos, or masks do not match.
    """
    name = os.path.expanduser(target)
    if name.lower().endswith(IMAGE_SUFFIXES) and not os.path.isdir(name):
        mask, masks = target_mask, None
        if target_mask is not None and (os.path.isdir(target_mask) or target_mask.lower().endswith(".zip")):
            masks = Archive(target_mask)
            mask = _by_stem(masks).get(_stem(name))
            _check_any([mask], target_mask, target)
        return [PhotoFile(_stem(name), name, mask=mask, masks=masks)]
    archive = Archive(name)
    members = [member for member in archive.images() if not member.startswith(MASKS)]
    if not members:
        raise UserError(f"{target} holds no photo ({', '.join(IMAGE_SUFFIXES)}). Check --target.")
    masks, partners = None, {}
    if target_mask is not None:
        if target_mask.lower().endswith(IMAGE_SUFFIXES) and not os.path.isdir(target_mask):
            raise UserError(
                f"{target_mask} is the mask of one photo, but {target} holds several photos. Name a folder of masks."
            )
        masks = Archive(target_mask)
        partners = _by_stem(masks)
    elif any(member.startswith(MASKS) for member in archive.names):
        masks = archive
        partners = {_stem(member): member for member in archive.images() if member.startswith(MASKS)}
    found, taken = [], set()
    for member in members[:limit]:
        unique = _stem(member) if _stem(member) not in taken else os.path.splitext(member)[0].replace("/", "-")
        unique = unique if unique not in taken else member.replace("/", "-")
        taken.add(unique)
        found.append(PhotoFile(unique, archive.where(member), archive, member, partners.get(_stem(member)), masks))
    if target_mask is not None:
        _check_any([file.mask for file in found], target_mask, target)
    return found


def _check_any(found: Sequence[str | None], target_mask: str, target: str) -> None:
    """Refuse masks none of which belongs to a photo."""
    if not any(found):
        raise UserError(f"No mask in {target_mask} has the base name of a photo of {target}. Check --target-mask.")


def _bytes(archive: Archive | None, name: str) -> bytes:
    if archive is not None:
        return archive.read(name)
    with open_url(name) as file:
        return file.read()


def _by_stem(masks: Archive) -> dict[str, str]:
    return {_stem(member): member for member in masks.images()}


def _stem(name: str) -> str:
    return os.path.splitext(os.path.basename(name))[0]


def _mirrored(places: torch.Tensor, length: int) -> torch.Tensor:
    """Returns the pixels at continuous places. Beyond an edge the picture is mirrored."""
    folded = torch.remainder(places, 2 * length)
    folded = torch.where(folded >= length, 2 * length - folded, folded)
    return folded.floor().long().clamp(0, length - 1)
