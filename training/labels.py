"""Labels of images as dataset.json holds them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from training.archive import Archive, DataError
from training.layout import METADATA

MAX_CLASSES = 1 << 16  # each takes a column of the networks' label embeddings
MAX_FLOAT = float(np.finfo(np.float32).max)
EXPECTED = '{"labels": [[image name, label], ...]}'


def read_metadata(archive: Archive) -> Mapping[str, Any]:
    """The content of an archive's dataset.json; empty where it has none at its top.

    Raises:
        DataError: it is not JSON, or no object.
    """
    if METADATA not in archive:
        return {}
    metadata = archive.read_json(METADATA)
    if not isinstance(metadata, Mapping):
        raise DataError(f"{archive.where(METADATA)} must be an object with an entry 'labels': write {EXPECTED}.")
    return metadata


def read_labels(archive: Archive, names: Sequence[str]) -> list[Any] | None:
    """One label for each image, from dataset.json; None where there are none.

    Where dataset.json does not lie at the top, those in the folders count, each for the images of its folder.

    Raises:
        DataError: the labels have another form or stand under another key; an image has none, or has two.
    """
    files = [METADATA] if METADATA in archive else [n for n in archive.names if n.endswith("/" + METADATA)]
    known = frozenset(names)
    table: dict[str, Any] = {}
    for file in files:
        metadata = archive.read_json(file)
        if not isinstance(metadata, Mapping):
            raise DataError(f"{archive.where(file)} must be an object with an entry 'labels': write {EXPECTED}.")
        folder = file.removesuffix(METADATA)
        for name, label in _table(metadata, archive.where(file)).items():
            table[folder + name if folder + name in known else name] = label
    if not table:
        return None
    missing = next((name for name in names if name not in table), None)
    if missing is not None:
        raise DataError(
            f"There is no label for {missing} in {archive.where(files[0])}: add it, or remove the entry 'labels'."
        )
    return [table[name] for name in names]


def _table(metadata: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Labels by the names that a file gives."""
    entries = metadata.get("labels")
    if entries is None:
        wrong = next((key for key in metadata if str(key).lower().rstrip("s") == "label" and key != "labels"), None)
        if wrong is not None:
            raise DataError(f"{where} has an entry {wrong!r}, but labels must stand under 'labels': rename the entry.")
        return {}
    table: dict[str, Any] = {}
    try:
        for name, label in entries.items() if isinstance(entries, Mapping) else entries:
            name = str(name).replace("\\", "/").removeprefix("./")
            if name in table and table[name] != label:
                raise DataError(f"{where} gives {name} two labels, {table[name]} and {label}: leave one.")
            table[name] = label
    except (TypeError, ValueError) as error:
        raise DataError(f"The labels in {where} must be a list of [image name, label]: write {EXPECTED}.") from error
    return table


def label_array(values: Sequence[Any], where: str) -> np.ndarray:
    """Classes as int64 [N], or vectors as float32 [N, label_dim].

    Raises:
        DataError: the labels are neither class numbers from 0 nor lists of finite numbers of one length.
    """
    wrong = [value for value in values if not _is_label(value)]
    lengths = {len(value) if isinstance(value, list) else None for value in values}
    if wrong or len(lengths) != 1:
        example = f"not {str(wrong[0])[:40]!r}" if wrong else "all of one kind"
        raise DataError(
            f"The labels in {where} must be class numbers from 0, or lists of finite numbers of one length: {example}."
        )
    if lengths != {None}:
        return np.array(values, np.float64).astype(np.float32)
    if max(values) >= MAX_CLASSES:
        raise DataError(f"The labels in {where} reach {max(values)}: number the classes from 0 to fewer.")
    return np.array(values, np.int64)


def _is_label(value: Any) -> bool:
    if isinstance(value, list):
        return len(value) > 0 and all(_is_number(part) for part in value)
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < MAX_FLOAT
