"""Merges the classes of masks into fewer regions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from semantic.mask_files import NO_CLASS
from semantic.regions import Regions
from training.archive import DataError

EXPECTED = '{"classes": {"background": [...], "skin": [...]}, "transparent": [...]} with class names or numbers'


class MaskMap:
    """A table from the class indices in mask files to regions.

    Args:
        data: parsed JSON: ``{"classes": {region: [class, ...], ...}, "transparent": [region, ...]}``. Regions take
            their indices from the order. The first is the background. A class is a name or an index.
            ``"colors"`` ([[r, g, b], ...]) and ``"source_classes"`` (the names of the classes in the masks, in
            index order) may be added. Without "transparent" and the others, the inner object alone will do.
        source: names of the classes in the masks if "source_classes" is missing. None if unknown.
        where: the file, for messages.

    Attributes:
        regions: the merged classes.

    Raises:
        UserError: a class is unknown, appears twice or nowhere, or the JSON has another form.
    """

    def __init__(self, data: Any, source: Sequence[str] | None, where: str):
        groups = class_groups(data, where)
        if "source_classes" in data:
            source = parse_class_names(data["source_classes"], f"source_classes of the mask map {where}")
        self._where = where
        self._table = np.full(256, NO_CLASS, np.uint8)
        for k, (region, members) in enumerate(groups.items()):
            for member in members:
                index = self._source_index(member, source)
                if self._table[index] != NO_CLASS:
                    other = list(groups)[self._table[index]]
                    raise DataError(f"The mask map {where} puts class {member} into {other} and {region}. Choose one.")
                self._table[index] = k
        lost = [name for index, name in enumerate(source or ()) if self._table[index] == NO_CLASS]
        if lost:
            raise DataError(
                f"The mask map {where} has no region for {', '.join(lost[:5])}{' ...' * (len(lost) > 5)}. Add "
                f"every class to a region, such as {next(iter(groups))}."
            )
        inner = data if "classes" in data else {}
        self.regions = Regions.from_dict(
            {"names": list(groups), **{key: inner.get(key) for key in ("colors", "transparent", "mirror")}},
            where=f"the mask map {where}",
        )

    def apply(self, indices: np.ndarray, where: str) -> np.ndarray:
        """Returns the regions of class indices, uint8 [H, W]. `where` names the mask in messages.

        Raises:
            DataError: a class of the mask is in no region.
        """
        regions = self._table[indices]
        if regions.max() == NO_CLASS:
            missing = int(indices[regions == NO_CLASS][0])
            raise DataError(
                f"{where} holds class {missing}, but the mask map {self._where} has no region for it. Add it to one."
            )
        return regions

    def knows(self, index: int) -> bool:
        """Returns True if the map puts this class into a region."""
        return bool(self._table[index] != NO_CLASS)

    def _source_index(self, member: Any, source: Sequence[str] | None) -> int:
        limit = NO_CLASS if source is None else len(source)
        if isinstance(member, str) and source is not None and member in source:
            return list(source).index(member)
        if isinstance(member, int) or (isinstance(member, str) and member.isdigit()):
            if 0 <= int(member) < limit or int(member) == NO_CLASS:  # 255 often stands for unlabelled pixels
                return int(member)
            raise DataError(f"The mask map {self._where} names class {member}, but the classes are 0 to {limit - 1}.")
        if source is None:
            raise DataError(
                f"The mask map {self._where} names class {member!r}, but the masks have no class names. Place "
                f'classes.json beside the masks, or add "source_classes": [...] to the map.'
            )
        raise DataError(f"The mask map {self._where} names no class {member!r}. The classes are: {', '.join(source)}.")


def class_groups(data: Any, where: str) -> dict[str, list]:
    """Returns the regions of a mask map with the classes of each.

    Raises:
        DataError: the JSON has another form.
    """
    groups = data.get("classes", data) if isinstance(data, Mapping) else None
    if not isinstance(groups, Mapping) or not groups:
        raise DataError(f"Cannot read the mask map {where}. Expected {EXPECTED}.")
    groups = {region: members if isinstance(members, list) else [members] for region, members in groups.items()}
    if any(isinstance(m, bool) or not isinstance(m, (str, int)) for members in groups.values() for m in members):
        raise DataError(f"Cannot read the mask map {where}. Expected {EXPECTED}.")
    return groups


def parse_class_names(data: Any, where: str) -> list[str]:
    """Returns class names of a classes.json: ``{"classes": [...]}`` or the list alone.

    Raises:
        DataError: the JSON has another form.
    """
    names = data.get("classes") if isinstance(data, dict) else data
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f'Cannot read {where}. Expected {{"classes": ["background", ...]}}.')
    return names
