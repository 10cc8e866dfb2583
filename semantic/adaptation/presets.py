"""Options for adapting a trained network to a domain that has images only."""

from collections.abc import Mapping
from typing import Any

from dnnlib import EasyDict, UserError
from semantic.presets import semantic_options


def adaptation_options(source: Mapping[str, Any], path: str, precision: str, freeze_local: bool) -> EasyDict:
    """Options for adapting a trained pair to images alone.

    Args:
        source: networks as `legacy.load_network` gives them.
        path: where they came from, for messages.
        precision: 'fp32', 'fp16' or 'bf16'.
        freeze_local: keep mapping and local generators: masks stay, geometry cannot change.

    Raises:
        UserError: the network has no regions.
    """
    G = source["G_ema"]
    if not hasattr(G, "regions"):
        raise UserError(f"--cfg=semantic-adapt starts from a network with regions, but {path} has none.")
    options = semantic_options(G.img_resolution, G.regions, precision)
    options.loss_kwargs = EasyDict(
        class_name="semantic.adaptation.AdaptationLoss",
        r1_gamma=options.loss_kwargs.r1_gamma,
        mask_weight=10,
        precision=precision,
    )
    del options.D_kwargs["segmentation"]
    options.update(total_kimg=32, G_reg_interval=4)
    options.G_frozen = ["mapping.", "synthesis.local."] if freeze_local else []
    return options
