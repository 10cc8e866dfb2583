"""The configuration `--cfg=semantic`, with a table by resolution."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from dnnlib import EasyDict, UserError
from semantic.dataset import MaskedImageDataset
from semantic.regions import Regions
from training.configurations import FROM_DATA, Configuration
from training.presets import optimizer_options

SMALLEST = 32
"""Lowest resolution of semantic networks."""


@dataclasses.dataclass(frozen=True)
class Size:
    """Widths and training options for one resolution.

    Attributes:
        w_dim: D, width of w and z.
        coarse_size, coarse_channels, local_channels: H, F and C of the local generators.
        min_feat_size: side at which rendering starts.
        channel_base, channel_max: widths of render network and discriminator.
        batch: images per step.
        gamma, gamma_mask: weights of R1 on image and mask.
        ema: half-life of the weight average in thousands of images.
        mask_width: width of the discriminator's mask branch as a fraction of its image branch.
        locality: weight of the term that keeps edits in their regions, in every step.
        segmentation: weight of the term that lets D segment images.
        prior: weight of the terms for mean and variance of place and area of regions.
        local_layers, depth_layers: L and p of the local generators.
        octaves: number of frequencies of the local generators' input. None uses all.
        ada_kimg: thousands of images in which the probability of augmentation can rise from 0 to 1.
        G_reg_interval: steps between regularizations of the generator.
    """

    w_dim: int = 512
    coarse_size: int = 64
    coarse_channels: int = 512
    local_channels: int = 64
    min_feat_size: int = 16
    channel_base: int = 32768
    channel_max: int = 512
    batch: int = 16
    gamma: float = 10
    gamma_mask: float = 1000
    ema: float = 10
    mask_width: float = 1
    locality: float = 0
    segmentation: float = 0
    prior: float = 0
    local_layers: int = 10
    depth_layers: int = 6
    octaves: int | None = None
    ada_kimg: float = 500
    G_reg_interval: int = 4


PAPER = Size()
"""The paper's values, for 256² and above."""

PAPER_FROM = 256
"""Lowest resolution at which the paper's recipe is the default."""

TUNED = {"mask_width": 0.5, "locality": 8, "segmentation": 1, "prior": 1, "ada_kimg": 100}
SHALLOW = {**TUNED, "local_layers": 6, "depth_layers": 4, "G_reg_interval": 8}
SIZES = {
    32: Size(128, 16, 128, 32, 4, 1024, 128, 16, 0.5, 50, 5, octaves=4, **SHALLOW),
    64: Size(256, 32, 128, 32, 8, 2048, 128, 16, 1, 100, 5, octaves=5, **SHALLOW),
    128: Size(512, 64, 256, 64, 16, 16384, 256, 16, 3, 300, 10, octaves=6, **TUNED),
}
"""Values for smaller pictures. Widths are smaller, and R1 is weaker, since it sums squared gradients over fewer pixels.
Other differences from the paper reduce time, keep edits local or help small regions, see docs/results.md."""

TUNED_PAPER = Size(octaves=6, **TUNED)
"""The tuned recipe for 256² and above. It has not been measured, and extends the trend of smaller sizes: R1 weights
grow by factors 2 and 3 with each doubling, and reach the paper's at 256². There is one frequency per doubling of the
coarse size. One more frequency causes a lattice pattern on its grid. Weights for small regions and local edits stay.
"""


class Semantic(Configuration):
    """The compositional GAN on pairs of image and mask."""

    options: ClassVar[Mapping[str, Any]] = {
        "regions": None,
        "transparent": None,
        "recipe": None,
        "gamma_mask": None,
        "mask_weight": None,
        "locality": None,
        "octaves": None,
    }
    dataset_class = "semantic.dataset.MaskedImageDataset"
    gpu_precision = "bf16"
    loss_weights: ClassVar[Mapping[str, str]] = {
        "gamma": "r1_gamma",
        "gamma_mask": "r1_gamma_mask",
        "mask_weight": "mask_weight",
        "locality": "locality_weight",
    }
    from_data = (*FROM_DATA, "regions", "num_regions")
    metric_plugins = ("semantic.metrics",)

    def data_options(self) -> dict[str, Any]:
        if self.args.regions is None and self.args.transparent is None:
            return {}
        return {"regions": override_regions(self.args.data, self.args.regions, self.args.transparent)}

    def open_data(self) -> tuple[EasyDict, Any]:
        kwargs, training_set = super().open_data()
        size = training_set.resolution
        if size < SMALLEST:
            raise UserError(f"--cfg=semantic needs {SMALLEST}² or more, but {self.args.data} is {size}².")
        kwargs.regions = training_set.regions.to_dict()
        return kwargs, training_set

    def training_options(self, training_set: Any, source: Mapping[str, Any] | None) -> EasyDict:
        return semantic_options(training_set.resolution, training_set.regions, self.precision, self.args.recipe)

    def adjust(self, options: EasyDict, training_set: Any, source: Mapping[str, Any] | None) -> None:
        super().adjust(options, training_set, source)
        if self.args.octaves is not None:
            limit_octaves(options.G_kwargs.synthesis_kwargs, self.args.octaves, training_set.resolution, source)

    def name_parts(self) -> list[str]:
        parts = [self.args.recipe] * (self.args.recipe is not None)
        return parts + [f"{n}{self.args[n]:g}" for n in ("octaves", "locality") if self.args[n] is not None]


def size_for(resolution: int, recipe: str | None) -> Size:
    """Returns widths and training options for a resolution.

    Args:
        resolution: a power of two from 32 up.
        recipe: 'tuned', or 'paper': small widths for small pictures, but trained as in the paper. None is 'tuned'
            below 256² and 'paper' from 256² up.
    """
    if recipe is None:
        recipe = "tuned" if resolution < PAPER_FROM else "paper"
    if recipe not in ("tuned", "paper"):
        raise UserError(f"Unknown recipe {recipe!r}. Choose tuned or paper.")
    size = SIZES.get(resolution, TUNED_PAPER)
    if recipe == "paper":
        widths = ("w_dim", "coarse_size", "coarse_channels", "local_channels", "min_feat_size", "channel_base")
        same = {name: getattr(size, name) for name in (*widths, "channel_max", "batch")}
        size = dataclasses.replace(PAPER, **same)
    return size


def semantic_options(resolution: int, regions: Regions, precision: str, recipe: str | None = None) -> EasyDict:
    """Returns options of `training.training_loop.training_loop` for image and mask pairs.

    Args:
        resolution: resolution of the data, a power of two from 32 up.
        regions: regions of the data.
        precision: 'fp32', 'fp16' or 'bf16'.
        recipe: see `size_for`.
    """
    size = size_for(resolution, recipe)
    width = {"channel_base": size.channel_base, "channel_max": size.channel_max}
    return EasyDict(
        G_kwargs=EasyDict(
            class_name="semantic.generator.Generator",
            z_dim=size.w_dim,
            w_dim=size.w_dim,
            regions=regions.to_dict(),
            mapping_kwargs={"num_layers": 8},
            synthesis_kwargs={
                **width,
                "coarse_size": size.coarse_size,
                "coarse_channels": size.coarse_channels,
                "local_channels": size.local_channels,
                "local_layers": size.local_layers,
                "depth_layers": size.depth_layers,
                "octaves": size.octaves,
                "min_feat_size": size.min_feat_size,
            },
        ),
        D_kwargs=EasyDict(
            class_name="semantic.discriminator.DualBranchDiscriminator",
            **width,
            num_regions=len(regions),
            mask_width=size.mask_width,
            segmentation=size.segmentation > 0,
            block_kwargs={"conv_clamp": 256} if precision == "fp16" else {},
            epilogue_kwargs={"mbstd_group_size": 4},
        ),
        loss_kwargs=EasyDict(
            class_name="semantic.loss.SemanticLoss",
            r1_gamma=size.gamma,
            r1_gamma_mask=size.gamma_mask,
            mask_weight=100,
            locality_weight=size.locality,
            segmentation_weight=size.segmentation,
            prior_weight=size.prior,
            precision=precision,
        ),
        **optimizer_options(0.002),
        G_reg_interval=size.G_reg_interval,
        batch_size=size.batch,
        ema_kimg=size.ema,
        ada_kimg=size.ada_kimg,
        ema_rampup=0.05,
        total_kimg=25000,
    )


def override_regions(path: str, text: str | None, transparent: str | None) -> dict[str, Any]:
    """Returns the regions of an archive with the user's changes, in the form of `Regions.to_dict`.

    Args:
        path: the archive.
        text: regions as JSON, or the path of a JSON file. None keeps the archive's names and colours.
        transparent: names of the transparent regions. None keeps the archive's transparent regions.

    Raises:
        UserError: the text cannot be read, or does not describe regions.
    """
    if text is None:
        regions = MaskedImageDataset(path).regions
    else:
        source = text
        if not text.lstrip().startswith("{"):
            try:
                text = Path(source).read_text(encoding="utf-8")
            except OSError as error:
                raise UserError(f"Cannot read --regions={source}: {error.strerror}.") from error
            except UnicodeDecodeError as error:
                raise UserError(f"--regions={source} is not a text file.") from error
        try:
            data = json.loads(text)
        except ValueError as error:
            raise UserError(f"--regions={source} is not JSON: {error}.") from error
        regions = Regions.from_dict(data.get("regions", data) if isinstance(data, dict) else data, where="--regions")
    seen_through = regions.select(transparent) if transparent is not None else regions.transparent
    return Regions(regions.names, regions.colors, seen_through, mirror=regions.mirror).to_dict()


def limit_octaves(kwargs: dict[str, Any], octaves: int, resolution: int, source: Mapping[str, Any] | None) -> None:
    """Limit the number of frequencies of the local generators.

    Args:
        kwargs: options of the synthesis network, changed in place.
        octaves: number of frequencies that the user set.
        resolution: resolution of the data.
        source: networks to start from, as `legacy.load_network` returns them, or None.

    Raises:
        UserError: the resolution or the network to start from has fewer frequencies. A network that grows may add one
            frequency per doubling of the resolution.
    """
    most, where = resolution.bit_length() - 1, f"at {resolution}²"
    if source is not None and hasattr(source["G_ema"], "regions"):
        G = source["G_ema"]
        most, where = G.synthesis.local.position.octaves, "in the network of --resume"
        most += max(resolution.bit_length() - G.img_resolution.bit_length(), 0)
    if octaves > most:
        raise UserError(f"--octaves={octaves} is too large: there are {most} frequencies {where}.")
    kwargs["octaves"] = octaves
