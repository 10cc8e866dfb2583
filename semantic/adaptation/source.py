"""The trained pair at the start of an adaptation."""

import copy
from collections.abc import Mapping
from typing import Any

import torch

from semantic.inversion.parse import build_parser


class FrozenParser(torch.nn.Module):
    """Finds regions in images with the segmentation head of a discriminator, as it is when this is built."""

    def __init__(self, D: torch.nn.Module):
        super().__init__()
        self.image = copy.deepcopy(D.image)
        self.segmentation = copy.deepcopy(D.segmentation)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns scores [N, K, R, R] of images [N, 3, R, R] in [-1, 1]."""
        return self.segmentation(self.image.features(images))


class Source:
    """Generator and parser that stay as they are.

    The parser is the discriminator's segmentation head. Where there is none, a small segmenter learns once from pairs
    that the generator makes, see `semantic.inversion.parse`. It needs images in colour.

    Args:
        G: the generator that training starts from.
        D: its discriminator.

    Attributes:
        G: a copy of the generator.
    """

    def __init__(self, G: torch.nn.Module, D: torch.nn.Module):
        self.G = copy.deepcopy(G).eval().requires_grad_(False)
        self._head = self._parser = None
        if getattr(D, "segmentation", None) is not None:
            self._head = self._parser = FrozenParser(D).eval().requires_grad_(False)

    @torch.no_grad()
    def find(self, images: torch.Tensor) -> torch.Tensor | None:
        """Returns scores [N, K, R, R] of the regions in images [N, C, R, R] in [-1, 1], or None without a parser."""
        if self._parser is None and self.G.img_channels == 3:
            with torch.autocast(images.device.type, enabled=False):
                self._parser = build_parser({"G_ema": self.G, "D": None}, images.device)
        return None if self._parser is None else self._parser(images)

    def state_dict(self) -> dict[str, Any]:
        """Returns the state for a resume. It has no segmenter: a segmenter follows from the generator."""
        return {"G": self.G.state_dict(), "head": None if self._head is None else self._head.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the result of `state_dict`."""
        self.G.load_state_dict(state["G"])
        if self._head is not None:
            self._head.load_state_dict(state["head"])
