"""The trained pair that an adaptation started from, as it was then."""

import copy
from collections.abc import Mapping
from typing import Any

import torch


class FrozenParser(torch.nn.Module):
    """Finds regions in images with the segmentation head of a discriminator, as it is when this is built."""

    def __init__(self, D: torch.nn.Module):
        super().__init__()
        self.image = copy.deepcopy(D.image)
        self.segmentation = copy.deepcopy(D.segmentation)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images [N, 3, R, R] in [-1, 1] -> scores [N, K, R, R]."""
        return self.segmentation(self.image.features(images))


class Source:
    """Generator and parser that stay as they are.

    Args:
        G: the generator that training starts from.
        D: its discriminator. One without a segmentation head gives no parser.

    Attributes:
        G: a copy of the generator.
        parser: a `FrozenParser`, or None.
    """

    def __init__(self, G: torch.nn.Module, D: torch.nn.Module):
        self.G = copy.deepcopy(G).eval().requires_grad_(False)
        self.parser = None
        if getattr(D, "segmentation", None) is not None:
            self.parser = FrozenParser(D).eval().requires_grad_(False)

    def state_dict(self) -> dict[str, Any]:
        """What a resume needs."""
        return {"G": self.G.state_dict(), "parser": None if self.parser is None else self.parser.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.G.load_state_dict(state["G"])
        if self.parser is not None:
            self.parser.load_state_dict(state["parser"])
