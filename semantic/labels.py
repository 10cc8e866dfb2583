"""Which label a conditional network gets for a seed: the user's, or one that the training data hold."""

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

    Args:
        c_dim: numbers in a label of the network; 0 if it takes none.
        chosen: one label for all seeds, a class or a vector; None draws one for each seed.
        known: labels to draw from, classes or vectors.
    """

    def __init__(self, c_dim: int, chosen: int | Sequence[float] | None = None, known: Sequence[Any] = ()):
        self.c_dim, self._chosen, self._known = c_dim, chosen, known

    def entry(self, seed: int) -> int | list[float] | None:
        """The label of a seed as dataset.json holds it: a class or a vector; None for a network without labels."""
        if not self.c_dim:
            return None
        if self._chosen is not None:
            return self._chosen if isinstance(self._chosen, int) else list(self._chosen)
        return self._known[int(np.random.RandomState([seed, 1]).randint(len(self._known)))]

    def rows(self, seeds: Sequence[int], device: torch.device) -> torch.Tensor:
        """What the network takes: float32 [N, c_dim]."""
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
    """The labels to generate with.

    Args:
        G: the network.
        chosen: what the user asks for with --class.
        drawn: whether labels may be drawn where the user asks for none.
        training_set: options of the data that the network was trained on, as its file holds them.

    Raises:
        UserError: the network needs a label and there is none, or it knows no such label.
    """
    if not G.c_dim:
        if chosen is not None:
            click.echo("Note: --class is ignored, this network knows no classes.")
        return Labels(0)
    seen = (training_set or {}).get("classes")
    vectors = seen == []
    if not _are_classes(seen, G.c_dim):
        seen = list(range(G.c_dim))
    shown = ", ".join(map(str, seen[:SHOWN])) + ", ..." * (len(seen) > SHOWN)
    if isinstance(chosen, list) and len(chosen) != G.c_dim:
        raise UserError(f"--class has {len(chosen)} numbers, but a label of this network has {G.c_dim}.")
    if isinstance(chosen, int):
        if vectors:
            raise UserError(f"This network was trained on vectors: give --class {G.c_dim} numbers, as 0.5,1,...")
        if not 0 <= chosen < G.c_dim:
            raise UserError(f"There is no class {chosen}: this network knows {shown}.")
        if chosen not in seen:
            click.echo(f"Note: the network has seen no image of class {chosen}, only {shown}.")
    if chosen is not None:
        return Labels(G.c_dim, chosen)
    if not drawn:
        what = f"{G.c_dim} numbers, as 0.5,1,..." if vectors else f"one of its classes: {shown}"
        raise UserError(f"This network is conditional: give --class {what}")
    if vectors or "classes" not in (training_set or {}):
        known = _labels_of(training_set or {}, G.c_dim)
        if known is None and vectors:
            raise UserError("The data that this network was trained on are not here to draw labels from: give --class.")
        return Labels(G.c_dim, known=seen if known is None else known)
    return Labels(G.c_dim, known=seen)


def _are_classes(value: Any, c_dim: int) -> bool:
    return isinstance(value, list) and bool(value) and all(type(k) is int and 0 <= k < c_dim for k in value)


def _labels_of(training_set: Mapping[str, Any], c_dim: int) -> list[Any] | None:
    """Labels of the data that a network was trained on; None where these are not here, or have others."""
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
