"""The configuration `--cfg=semantic-adapt`: a trained network, and images of another domain."""

from collections.abc import Mapping
from typing import Any, ClassVar

import click

from dnnlib import EasyDict, UserError
from semantic.adaptation.data import FEWEST, masks_in
from semantic.adaptation.low_rank import RANK
from semantic.presets import Semantic, semantic_options
from torch_utils.devices import multiplies_bfloat16
from training.configurations import Configuration

MODES = {
    "style": ("mapping.", "synthesis.local.weight", "synthesis.local.bias", "synthesis.local.position."),
    "lowrank": (
        "mapping.",
        "synthesis.local.parametrizations.weight.original",
        "synthesis.local.bias",
        "synthesis.local.position.",
    ),
    "all": (),
    "frozen": ("mapping.", "synthesis.local."),
}
"""Values of --adapt, and how the names of parameters of G begin that each leaves as they are."""

FROZEN_LAYERS = 4
"""Layers of D that keep what they know about full resolution (Mo et al. 2020, Freeze-D)."""

AVERAGE = 0.3
"""Half-life of the average as a share of the images seen. G swings in so short a run; a shorter average swings too."""
KIMG = 16
AUGMENT_P = 0.3
"""Probability of augmentation at the start. ADA from 0 is too slow: D would learn the few images by heart."""
LOCALITY = 8
"""Weight of the term that keeps edits in their regions."""
FEW = range(10, 101)
"""With so many images, samples keep their likeness to each other: with more there is no need, with fewer no measure."""


class SemanticAdaptation(Configuration):
    """Adaptation of a trained pair to images alone, or to images of which some have masks."""

    options: ClassVar[Mapping[str, Any]] = {
        "mask_weight": None,
        "locality": None,
        "gamma_mask": None,
        "adapt": None,
        "freeze_local": False,
        "freezed": FROZEN_LAYERS,
    }
    dataset_class = "semantic.adaptation.data.TargetDataset"
    gpu_precision = Semantic.gpu_precision
    loss_weights: ClassVar[Mapping[str, str]] = {
        "gamma": "r1_gamma",
        "gamma_mask": "r1_gamma_mask",
        "mask_weight": "mask_weight",
        "locality": "locality_weight",
    }
    from_data = Semantic.from_data
    metric_plugins = Semantic.metric_plugins

    @property
    def mode(self) -> str:
        """Returns the mode, a key of `MODES`. It decides which parts of G are trained."""
        return "frozen" if self.args.freeze_local else self.args.adapt or "style"

    def default_precision(self) -> str:
        """Returns the number format where the user chooses none. A short run needs no more digits than bfloat16 has."""
        return "bf16" if multiplies_bfloat16(self.device) else super().default_precision()

    def check(self) -> None:
        super().check()
        if self.resume is None:
            raise click.UsageError("--cfg=semantic-adapt needs the network to adapt. Name it with --resume.")
        if self.args.freeze_local and self.args.adapt not in (None, "frozen"):
            raise click.UsageError(
                f"--freeze-local means --adapt=frozen. Remove it, or remove --adapt={self.args.adapt}."
            )

    def open_data(self) -> tuple[EasyDict, Any]:
        kwargs, training_set = super().open_data()
        count = training_set.images_in_all
        if count < FEWEST:
            raise UserError(
                f"--cfg=semantic-adapt needs {FEWEST} images or more, but {self.args.data} gives {count}. Add images."
            )
        return kwargs, training_set

    def training_options(self, training_set: Any, source: Mapping[str, Any] | None) -> EasyDict:
        G = source["G_ema"]
        if not hasattr(G, "regions"):
            raise UserError(
                f"--cfg=semantic-adapt needs a network with regions, but {self.resume} has none. Use a network of "
                f"--cfg=semantic, or adapt this network with --cfg=auto."
            )
        if training_set.resolution != G.img_resolution:
            size = G.img_resolution
            raise UserError(
                f"{self.resume} makes images of {size}², but {self.args.data} has {training_set.resolution}². Make the "
                f"archive again with dataset_tool.py --source=... --dest=... --width={size} --height={size}. Only "
                f"--cfg=semantic can grow a network."
            )
        masked, regions = masks_in(training_set)
        if masked and (regions is None or regions.names != G.regions.names):
            theirs = "none" if regions is None else ", ".join(regions.names)
            raise UserError(
                f"The masks in {self.args.data} have other regions ({theirs}) than {self.resume} "
                f"({', '.join(G.regions.names)}). Remove the masks, or map them with dataset_tool.py --mask-map."
            )
        options = semantic_options(G.img_resolution, G.regions, self.precision)
        options.loss_kwargs = EasyDict(
            class_name="semantic.adaptation.AdaptationLoss",
            r1_gamma=options.loss_kwargs.r1_gamma,
            r1_gamma_mask=options.loss_kwargs.r1_gamma_mask,
            mask_weight=10,
            correspondence_weight=1 if training_set.images_in_all in FEW else 0,
            locality_weight=LOCALITY,
            masked_share=0,
            trains_mapping=self.mode == "all",
            precision=self.precision,
        )
        del options.D_kwargs["segmentation"]
        total = KIMG if self.args.kimg is None else self.args.kimg
        tick = max(total / KIMG, min(0.4, total))  # 1 by default: file names of snapshots tell whole kimg
        options.update(total_kimg=KIMG, kimg_per_tick=tick, snap=1, G_reg_interval=4)
        options.G_frozen = list(MODES[self.mode])
        options.monitor_kwargs = EasyDict(
            class_name="semantic.adaptation.stopping.AdaptationMonitor",
            low_rank=RANK if self.mode == "lowrank" else None,
            seed=self.args.seed,
        )
        return options

    def adjust(self, options: EasyDict, training_set: Any, source: Mapping[str, Any] | None) -> None:
        super().adjust(options, training_set, source)
        options.update(ema_rampup=AVERAGE, augment_p=AUGMENT_P)
        masked, _ = masks_in(training_set)
        if masked:
            kwargs = options.training_set_kwargs
            kwargs.regions = source["G_ema"].regions.to_dict()
            opened = type(training_set)(**{name: value for name, value in kwargs.items() if name != "class_name"})
            options.loss_kwargs.masked_share = opened.masked / len(opened)
            options.notes.append(f"{opened.masked} of {len(opened)} training images have masks.")

    def name_parts(self) -> list[str]:
        return [self.mode]
