"""Finds the mask file of each image by path, by base name, or by the words that data sets add to names."""

import re
from collections.abc import Sequence

from semantic.mask_files import MASKS, mask_name
from training.archive import Archive, DataError

CITYSCAPES = "_labelIds"
CITYSCAPES_CLASSES = [
    "unlabeled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground", "road", "sidewalk",
    "parking", "rail track", "building", "wall", "fence", "guard rail", "bridge", "tunnel", "pole", "polegroup",
    "traffic light", "traffic sign", "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus",
    "caravan", "trailer", "train", "motorcycle", "bicycle",
]  # fmt: skip
"""The classes of Cityscapes by their ids."""

_IMAGE_WORD = re.compile(r"[_-](leftImg8bit|image|img|rgb)$", re.IGNORECASE)
_MASK_WORD = re.compile(
    r"[_-](gt(Fine|Coarse)[_-]label(Ids|TrainIds)|masks?|labels?|seg(mentation)?|gt|parsing)$", re.IGNORECASE
)


def match(
    images: Archive, names: Sequence[str], masks: Archive, mask_files: Sequence[str], some: bool = False
) -> tuple[list[str | None], int]:
    """Returns the mask file of each image, and the number of masks that are left over.

    A mask belongs to the image with the same path up to the suffix. Without such an image, it belongs to the image with
    the same base name in any folder. In this case, only one mask may have the name. Otherwise words at the end of both
    names are ignored: ``a_leftImg8bit.png`` and ``a_gtFine_labelIds.png``, ``a.jpg`` and ``a_mask.png``.

    With `some`, images without a mask get None.

    Raises:
        DataError: an image has no mask (with `some`: no image has one), several masks may belong to an image, or two
            images have the same mask.
    """
    by_path: dict[str, str] = {}
    by_name: dict[str, list[str]] = {}
    by_core: dict[str, list[str]] = {}
    for file in mask_files:
        relative = stem(file[len(MASKS) :] if masks is images else file)
        by_path[relative] = file
        by_name.setdefault(base_name(relative), []).append(file)
        by_core.setdefault(_MASK_WORD.sub("", base_name(relative)), []).append(file)
    owner: dict[str, str] = {}
    found: dict[str, str] = {}

    def keep(name: str, mask: str | None) -> None:
        if mask in owner:
            raise DataError(
                f"{owner[mask]} and {name} in {images.path} have the same base name and would share the mask "
                f"{mask}. Rename or remove one of the images."
            )
        if mask is not None:
            owner[mask], found[name] = name, mask

    def expected(name: str) -> str:
        return masks.where(mask_name(name) if masks is images else stem(name) + ".png")

    for name in names:
        keep(name, by_path.get(stem(name)))
    taken = set(owner)
    missing = []
    for name in (name for name in names if name not in found):
        base = base_name(stem(name))
        core = _IMAGE_WORD.sub("", base)
        alike = [table.get(key, []) for table, key in ((by_name, base), (by_core, base), (by_core, core))]
        free = next(filter(None, ([file for file in files if file not in taken] for files in alike)), [])
        if len(free) > 1:
            raise DataError(
                f"Several masks may belong to {images.where(name)}: {', '.join(free[:2])}. Save the right one as "
                f"{expected(name)}."
            )
        keep(name, free[0] if free else None)
        if not free:
            missing.append(name)
    if missing and not (some and owner):
        hint = " For --cfg=semantic-adapt, --some-masks keeps images without a mask." if owner else ""
        raise DataError(
            f"{len(missing)} of {len(names)} images have no mask. For example, {images.where(missing[0])} needs "
            f"{expected(missing[0])}. Masks are matched by base name.{hint}"
        )
    return [found.get(name) for name in names], len(mask_files) - len(owner)


def mask_candidates(files: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """Returns the files of a folder that may be masks, and the class names if file names tell them.

    Beside its masks of ids, Cityscapes holds masks of instances and colours.
    """
    ids = [file for file in files if stem(file).endswith(CITYSCAPES)]
    return (ids, CITYSCAPES_CLASSES) if ids else (list(files), None)


def base_name(name: str) -> str:
    """Returns a name without its folders."""
    return name.rsplit("/", 1)[-1]


def stem(name: str) -> str:
    """Returns a name without the suffix of its file."""
    return re.sub(r"\.[^./]+$", "", name)
