"""Labels of a conditional network for each seed: set by the user, or drawn from the training data."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import click
import numpy as np
import torch

from dnnlib import UserError
from dnnlib.util import is_url
from training.dataset import ImageFolderDataset

SHOWN = 12


class Labels:
    """Labels by seed.

    c_dim: length of the network's labels. 0 without labels.
    chosen: one label for all seeds, a class or a vector. None draws one for each seed.
    known: labels to draw from, classes or vectors.
    """

    def __init__(self, c_dim: int, chosen: int | Sequence[float] | None = None, known: Sequence[Any] = ()):
        self.c_dim, self._chosen, self._known = c_dim, chosen, known

    def entry(self, seed: int) -> int | list[float] | None:
        """Returns the label of a seed as in dataset.json: a class, a vector, or None for a network without labels."""
        if not self.c_dim:
            return None
        if self._chosen is not None:
            return self._chosen if isinstance(self._chosen, int) else list(self._chosen)
        return self._known[int(np.random.RandomState([seed, 1]).randint(len(self._known)))]

    def rows(self, seeds: Sequence[int], device: torch.device) -> torch.Tensor:
        """Returns the labels of seeds as input of the network: float32 [N, c_dim]."""
        rows = torch.zeros(len(seeds), self.c_dim, device=device)
        for row, entry in zip(rows, map(self.entry, seeds), strict=True):
            if isinstance(entry, int):
                row[entry] = 1
            elif entry is not None:
                row.copy_(torch.tensor(entry))
        return rows


def choose_labels(
    G: torch.nn.Module, chosen: int | list[float] | None, drawn: bool, training_set: Mapping[str, Any] | None
) -> Labels:
    """Returns the labels for generation.

    Args:
        G: the network.
        chosen: value of --class.
        drawn: whether labels may be drawn if --class is not given.
        training_set: options of the training data, as stored in the network file.

    Raises:
        UserError: the network needs a label but none is available, or the class does not exist.
    """
    if not G.c_dim:
        if chosen is not None:
            click.echo("Note: --class is ignored, since this network is not conditional.")
        return Labels(0)
    seen = (training_set or {}).get("classes")
    vectors = seen == []
    if not _are_classes(seen, G.c_dim):
        seen = list(range(G.c_dim))
    shown = ", ".join(map(str, seen[:SHOWN])) + ", ..." * (len(seen) > SHOWN)
    if isinstance(chosen, list) and len(chosen) != G.c_dim:
        raise UserError(f"--class has {len(chosen)} numbers, but labels of this network have {G.c_dim}.")
    if isinstance(chosen, int):
        if vectors:
            raise UserError(f"This network was trained on vectors. Set --class to {G.c_dim} numbers, as 0.5,1,...")
        if not 0 <= chosen < G.c_dim:
            raise UserError(f"This network has no class {chosen}. Its classes are {shown}.")
        if chosen not in seen:
            click.echo(f"Note: the training data had no image of class {chosen}, only {shown}.")
    if chosen is not None:
        return Labels(G.c_dim, chosen)
    if not drawn:
        what = f"{G.c_dim} numbers, as 0.5,1,..." if vectors else f"one of its classes: {shown}"
        raise UserError(f"This network is conditional. Set --class to {what}")
    if vectors or "classes" not in (training_set or {}):
        known = _labels_of(training_set or {}, G.c_dim)
        if known is None and vectors:
            raise UserError("Cannot read the network's training data to draw labels from. Set --class.")
        return Labels(G.c_dim, known=seen if known is None else known)
    return Labels(G.c_dim, known=seen)


def _are_classes(value: Any, c_dim: int) -> bool:
    return isinstance(value, list) and bool(value) and all(type(k) is int and 0 <= k < c_dim for k in value)


def _labels_of(training_set: Mapping[str, Any], c_dim: int) -> list[Any] | None:
    """Returns the labels of a network's training data, or None if the data are missing or have other labels."""
    path = training_set.get("path")
    if not isinstance(path, str) or is_url(path) or not os.path.exists(path):
        return None
    try:
        dataset = ImageFolderDataset(path, use_labels=True)
        if dataset.label_dim != c_dim:
            return None
    except UserError:
        return None
    return dataset.classes or [dataset.get_label(i).tolist() for i in range(len(dataset))]
