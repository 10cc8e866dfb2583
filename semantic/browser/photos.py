"""Photos that people open: decoded within limits, found in the network, and drawn with an edit in them."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch

from dnnlib import UserError
from semantic.browser.networks import LoadedNetwork
from semantic.browser.session import Photo

SHOWN_SIDE = 1024


def invert_photo(
    network: LoadedNetwork, data: bytes, report: Callable[[dict[str, Any]], None], stop: threading.Event
) -> tuple[torch.Tensor, Photo]:
    raise UserError("Photos cannot be opened yet.")


def blended(photo: Photo, regions: Any, before: Any, after: Any, edited: Sequence[int], most: int | None) -> bytes:
    raise UserError("Photos cannot be opened yet.")
