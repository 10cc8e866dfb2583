"""The layout of an archive, however it was packed: one folder deeper, with backslashes, or in capitals."""

from collections.abc import Iterable, Sequence

METADATA = "dataset.json"
MASKS = "masks"
_MASK_WORDS = ("mask", "label", "annotation", "segment", "parsing")


def usual_names(stored: Iterable[str]) -> dict[str, str]:
    """Names as dataset_tool.py writes them, mapped to the names that an archive has.

    Backslashes become slashes. Where dataset.json or the masks lie one or more folders deeper, together with all other
    files, those folders are left out. ``Masks/`` and ``DATASET.JSON`` become small letters. Where two files would get
    one name, both keep theirs.
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
    """The folder, with a slash at its end, that everything lies in; '' where dataset.json and masks lie at the top."""
    parts = [name.split("/") for name in names]
    depth = 0
    while parts and all(len(path) > depth + 1 and path[depth] == parts[0][depth] for path in parts):
        depth += 1
        inner = {path[depth].lower() for path in parts}
        if inner & {METADATA, MASKS}:
            return "/".join(parts[0][:depth]) + "/"
    return ""


def folder_of_masks(images: Sequence[str]) -> str | None:
    """A folder among `images` that seems to hold the masks of the others, by its name and theirs; None without one.

    Such a folder has a name like masks, labels or annotations. Nine in ten of its files have the base names of files
    outside of it.
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
