"""Recognizes the layout of an archive that was packed again: inside a folder, with backslashes, or in capitals."""

from collections.abc import Iterable, Sequence

METADATA = "dataset.json"
MASKS = "masks"
_MASK_WORDS = ("mask", "label", "annotation", "segment", "parsing")


def usual_names(stored: Iterable[str]) -> dict[str, str]:
    """Returns a map from the names that dataset_tool.py would write to the names in an archive.

    Backslashes become slashes. A folder around all files, dataset.json or masks included, is removed from the names.
    ``Masks/`` and ``DATASET.JSON`` become lower case. If two files would get the same name,
    both keep their own names.
    """
    names = {name.replace("\\", "/"): name for name in stored}
    prefix = _outer_folder(names)
    usual: dict[str, str] = {}
    for name, original in names.items():
        first, slash, rest = name[len(prefix) :].partition("/")
        if first.lower() == (MASKS if slash else METADATA):
            first = first.lower()
        usual.setdefault(first + slash + rest, original)
    return usual if len(usual) == len(names) else names


def _outer_folder(names: Iterable[str]) -> str:
    """Returns the folder, with a final slash, that holds all files, or '' if dataset.json or masks are at the top."""
    parts = [name.split("/") for name in names]
    depth = 0
    while parts and all(len(path) > depth + 1 and path[depth] == parts[0][depth] for path in parts):
        depth += 1
        inner = {path[depth].lower() for path in parts}
        if inner & {METADATA, MASKS}:
            return "/".join(parts[0][:depth]) + "/"
    return ""


def folder_of_masks(images: Sequence[str]) -> str | None:
    """Returns a folder among `images` that seems to hold the masks of the other images, or None.

    Such a folder has a name like masks, labels or annotations. Nine in ten of its files share their base names with
    files outside of it.
    """
    by_folder: dict[str, set[str]] = {}
    for name in images:
        folders = name.split("/")[:-1]
        for depth, folder in enumerate(folders):
            if any(word in folder.lower() for word in _MASK_WORDS):
                by_folder.setdefault("/".join(folders[: depth + 1]), set()).add(name)
    for folder, inside in by_folder.items():
        others = {_base(name) for name in images if name not in inside}
        if sum(_base(name) in others for name in inside) >= 0.9 * len(inside):
            return folder
    return None


def _base(name: str) -> str:
    return name.rsplit("/", 1)[-1].rsplit(".", 1)[0]
