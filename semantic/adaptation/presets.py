"""The configuration `--cfg=semantic-adapt`: a trained network, and data of a domain that has images only."""

from collections.abc import Mapping
from typing import Any, ClassVar

import click

from dnnlib import EasyDict, UserError
from semantic.presets import Semantic, semantic_options
from training.configurations import Configuration


class SemanticAdaptation(Configuration):
    """Adaptation of a trained pair to images alone."""

    options: ClassVar[Mapping[str, Any]] = {"mask_weight": None, "freeze_local": False}
    gpu_precision = Semantic.gpu_precision
    loss_weights: ClassVar[Mapping[str, str]] = {"gamma": "r1_gamma", "mask_weight": "mask_weight"}
    from_data = Semantic.from_data
    metric_plugins = Semantic.metric_plugins

    def check(self) -> None:
        super().check()
        if self.resume is None:
            raise click.UsageError("--cfg=semantic-adapt needs --resume=NETWORK, the trained pair to start from.")

    def data_options(self) -> dict[str, Any]:
        return {"num_channels": 3}

    def training_options(self, training_set: Any, source: Mapping[str, Any] | None) -> EasyDict:
        G = source["G_ema"]
        if not hasattr(G, "regions"):
            raise UserError(f"--cfg=semantic-adapt starts from a network with regions, but {self.resume} has none.")
        options = semantic_options(G.img_resolution, G.regions, self.precision)
        options.loss_kwargs = EasyDict(
            class_name="semantic.adaptation.AdaptationLoss",
            r1_gamma=options.loss_kwargs.r1_gamma,
            mask_weight=10,
            precision=self.precision,
        )
        del options.D_kwargs["segmentation"]
        options.update(total_kimg=32, G_reg_interval=4)
        options.G_frozen = ["mapping.", "synthesis.local."] if self.args.freeze_local else []
        return options

    def name_parts(self) -> list[str]:
        return ["freezelocal"] * self.args.freeze_local
