"""Labels of images, as stored in dataset.json."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from training.archive import Archive, DataError
from training.layout import METADATA

MAX_CLASSES = 1 << 16  # each class is a column of the networks' label embeddings
MAX_FLOAT = float(np.finfo(np.float32).max)
EXPECTED = '{"labels": [[image name, label], ...]}'


def read_metadata(archive: Archive) -> Mapping[str, Any]:
    """Returns the content of dataset.json at the top of an archive, or an empty mapping if the file is missing.

    Raises:
        DataError: the file is not JSON, or not a JSON object.
    """
    if METADATA not in archive:
        return {}
    metadata = archive.read_json(METADATA)
    if not isinstance(metadata, Mapping):
        raise DataError(f"{archive.where(METADATA)} must be an object with an entry 'labels'. Write {EXPECTED}.")
    return metadata


def read_labels(archive: Archive, names: Sequence[str]) -> list[Any] | None:
    """Returns one label for each image from dataset.json, or None without labels.

    If dataset.json is not at the top, each folder may have its own dataset.json for its images.

    Raises:
        DataError: the labels have another form or key, or an image has no label or two labels.
    """
    files = [METADATA] if METADATA in archive else [n for n in archive.names if n.endswith("/" + METADATA)]
    known = frozenset(names)
    table: dict[str, Any] = {}
    for file in files:
        metadata = archive.read_json(file)
        if not isinstance(metadata, Mapping):
            raise DataError(f"{archive.where(file)} must be an object with an entry 'labels'. Write {EXPECTED}.")
        folder = file.removesuffix(METADATA)
        for name, label in _table(metadata, archive.where(file)).items():
            table[folder + name if folder + name in known else name] = label
    if not table:
        return None
    missing = next((name for name in names if name not in table), None)
    if missing is not None:
        raise DataError(
            f"{archive.where(files[0])} has no label for {missing}. Add the label, or remove the entry 'labels'."
        )
    return [table[name] for name in names]


def _table(metadata: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Returns the labels of a file by image name."""
    entries = metadata.get("labels")
    if entries is None:
        wrong = next((key for key in metadata if str(key).lower().rstrip("s") == "label" and key != "labels"), None)
        if wrong is not None:
            raise DataError(f"{where} has an entry {wrong!r}, but labels must be under 'labels'. Rename the entry.")
        return {}
    table: dict[str, Any] = {}
    try:
        for name, label in entries.items() if isinstance(entries, Mapping) else entries:
            name = str(name).replace("\\", "/").removeprefix("./")
            if name in table and table[name] != label:
                raise DataError(f"{where} has two labels for {name}, {table[name]} and {label}. Remove one of them.")
            table[name] = label
    except (TypeError, ValueError) as error:
        raise DataError(f"The labels in {where} must be a list of [image name, label]. Write {EXPECTED}.") from error
    return table


def label_array(values: Sequence[Any], where: str) -> np.ndarray:
    """Returns classes as int64 [N], or vectors as float32 [N, label_dim].

    Raises:
        DataError: the labels are neither class numbers from 0 nor lists of finite numbers of equal length.
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
        raise DataError(f"The labels in {where} reach {max(values)}. Number the classes from 0 without gaps.")
    return np.array(values, np.int64)


def _is_label(value: Any) -> bool:
    if isinstance(value, list):
        return len(value) > 0 and all(_is_number(part) for part in value)
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < MAX_FLOAT
