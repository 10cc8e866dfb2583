"""`python -m tests.benchmarks.ablations`: what each ingredient of the recipe is worth, beside the spread between seeds.

Every variant differs from the base in one thing and trains equally long on the same drawn faces. The base trains with
several seeds; a difference smaller than their spread says nothing.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from dnnlib import EasyDict, UserError, atomic_open, construct_class_by_name, write_json
from semantic.discriminator import Branch
from semantic.loss import SemanticLoss
from semantic.presets import semantic_options
from semantic.regions import Regions
from semantic.render import channel_table
from torch_utils import persistence
from training.augment import augpipe_specs
from training.networks import DiscriminatorEpilogue
from training.training_loop import training_loop

METRICS = ("swd2k", "coarse_fit200", "region_leak100", "mask_fit500")
COLUMNS = (
    "swd2k_mean",
    "coarse_fit200_mean",
    "region_leak100_texture_mean",
    "region_leak100_shape_mean",
    "mask_fit500_mean",
)


@persistence.persistent_class
class OneBranchDiscriminator(torch.nn.Module):
    """Image and mask concatenated into one branch, of the width of the image branch."""

    def __init__(
        self,
        c_dim: int,
        img_resolution: int,
        img_channels: int,
        num_regions: int,
        channel_base: int,
        channel_max: int,
        block_kwargs: Mapping[str, Any] | None = None,
        epilogue_kwargs: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        channels = channel_table(img_resolution, channel_base, channel_max)
        self.both = Branch(img_resolution, img_channels + num_regions, channels, block_kwargs)
        self.b4 = DiscriminatorEpilogue(
            channels[4],
            cmap_dim=0,
            resolution=4,
            img_channels=img_channels,
            architecture="resnet",
            **epilogue_kwargs or {},
        )

    def forward(self, img: torch.Tensor, c: torch.Tensor | None, mask: torch.Tensor) -> torch.Tensor:
        """[N, channels, R, R] and [N, K, R, R] -> logits [N, 1]."""
        return self.b4(self.both(torch.cat([img, mask.to(img.dtype)], dim=1)), None, None)


class ImageAugmentedLoss(SemanticLoss):
    """The joint loss with augmentation of the image alone."""

    def augment(self, samples):
        """Augmented images beside masks that stay."""
        mask = samples.extras["mask"]
        images, moved = self.augment_pipe(samples.images, mask=mask, mirrored_planes=self.mirrored_planes)
        return images, mask, moved


def with_ada(options: EasyDict) -> None:
    """Adaptive augmentation on 300 images, which show it within a short run."""
    options.training_set_kwargs.max_size = 300
    options.augment_kwargs = EasyDict(class_name="training.augment.AugmentPipe", **augpipe_specs["bgc"])
    options.update(ada_target=0.6, ada_kimg=20)


def no_segmentation(options: EasyDict) -> None:
    """D does not find regions in images."""
    options.D_kwargs.segmentation = False
    options.loss_kwargs.segmentation_weight = 0


def neither(options: EasyDict) -> None:
    """Regions are learned from D's verdict alone, as in the paper."""
    no_segmentation(options)
    options.loss_kwargs.prior_weight = 0


def one_branch(options: EasyDict) -> None:
    """D sees image and mask in one branch, where finding the regions would be to read them off the mask."""
    no_segmentation(options)
    options.D_kwargs.class_name = "tests.benchmarks.ablations.OneBranchDiscriminator"
    for name in ("mask_width", "segmentation"):
        del options.D_kwargs[name]


def one_r1(options: EasyDict) -> None:
    """The same weight of R1 for image and mask."""
    options.loss_kwargs.r1_gamma_mask = options.loss_kwargs.r1_gamma


def few_images(options: EasyDict) -> None:
    """300 images, no augmentation."""
    options.training_set_kwargs.max_size = 300


def image_ada(options: EasyDict) -> None:
    """300 images, the image alone augmented."""
    with_ada(options)
    options.loss_kwargs.class_name = "tests.benchmarks.ablations.ImageAugmentedLoss"


def no_transparency(options: EasyDict) -> None:
    """Glasses and earrings hide what is behind them."""
    options.G_kwargs.regions["transparent"] = []


def wide_masks(options: EasyDict) -> None:
    """The mask's branch of D as wide as the image's."""
    options.D_kwargs.mask_width = 1


def weaker_r1(options: EasyDict) -> None:
    """A tenth of both penalties on gradients of D."""
    for name in ("r1_gamma", "r1_gamma_mask"):
        options.loss_kwargs[name] /= 10


def faster(options: EasyDict) -> None:
    """Twice the learning rate."""
    for name in ("G_opt_kwargs", "D_opt_kwargs"):
        options[name].lr *= 2


def small_steps(options: EasyDict) -> None:
    """Half the batch, twice the steps."""
    options.batch_size = options.batch_gpu = options.batch_size // 2


def set_loss(**values: float) -> Callable[[EasyDict], None]:
    """Other weights of the loss."""
    return lambda options: options.loss_kwargs.update(values)


def ten_layers(options: EasyDict) -> None:
    """Local generators of ten layers, six before the depth."""
    options.G_kwargs.synthesis_kwargs.update(local_layers=10, depth_layers=6)


def all_octaves(options: EasyDict) -> None:
    """Fourier features up to the highest frequency."""
    options.G_kwargs.synthesis_kwargs.update(octaves=None)


def papers_recipe(options: EasyDict) -> None:
    """Everything that `--recipe=paper` undoes, at the same widths."""
    widths = options.G_kwargs.synthesis_kwargs
    regions = Regions.from_dict(options.G_kwargs.regions)
    paper = semantic_options(2 * widths["coarse_size"], regions, "fp32", "paper")
    for part in (paper.G_kwargs.synthesis_kwargs, paper.D_kwargs):
        part["channel_base"] = widths["channel_base"]
    options.update(
        G_kwargs=paper.G_kwargs, D_kwargs=paper.D_kwargs, loss_kwargs=paper.loss_kwargs,
        G_reg_interval=paper.G_reg_interval, ema_kimg=paper.ema_kimg,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Variant:
    """One change of the recipe: what the paper says of it, and how it is made."""

    claim: str
    change: Callable[[EasyDict], None]


VARIANTS = {
    "base": Variant("", lambda options: None),
    "the paper's recipe": Variant("the paper's", papers_recipe),
    "no region prior": Variant("the paper's", set_loss(prior_weight=0)),
    "no segmentation": Variant("the paper's", no_segmentation),
    "neither": Variant("the paper's", neither),
    "one branch, no segmentation": Variant("fails: gradients of masks drown those of images", one_branch),
    "one R1": Variant("masks need a stronger R1", one_r1),
    "no mask consistency": Variant("coarse and final mask drift apart", set_loss(mask_weight=0)),
    "mask consistency 30": Variant("100 is the paper's", set_loss(mask_weight=30)),
    "mask consistency 10": Variant("100 is the paper's", set_loss(mask_weight=10)),
    "no region mixing": Variant("regions entangle", set_loss(style_mixing_prob=0)),
    "region mixing 0.9": Variant("0.3 is the paper's", set_loss(style_mixing_prob=0.9)),
    "10 local layers": Variant("the paper's", ten_layers),
    "no transparent regions": Variant("glasses hide the eyes", no_transparency),
    "no locality": Variant("the paper's", set_loss(locality_weight=0)),
    "full mask branch": Variant("the paper's", wide_masks),
    "300 images": Variant("D overfits", few_images),
    "300 images, ADA of images": Variant("no claim", image_ada),
    "300 images, joint ADA": Variant("our default", with_ada),
    "highest octave": Variant("the paper's", all_octaves),
    "no path length": Variant("no claim", set_loss(pl_weight=0)),
    "weaker R1": Variant("no claim", weaker_r1),
    "learning rate x2": Variant("no claim", faster),
    "half batch": Variant("no claim", small_steps),
}


def base_options(data: Path, kimg: float, batch: int, channel_base: int, seed: int) -> EasyDict:
    """Options of a run of the base."""
    kwargs = EasyDict(class_name="semantic.dataset.MaskedImageDataset", path=str(data), xflip=True)
    dataset = construct_class_by_name(**kwargs)
    options = semantic_options(dataset.resolution, dataset.regions, "fp32")
    options.G_kwargs.synthesis_kwargs["channel_base"] = options.D_kwargs["channel_base"] = channel_base
    options.training_set_kwargs = kwargs
    options.update(
        total_kimg=kimg, kimg_per_tick=kimg / 4, batch_size=batch, batch_gpu=batch, seed=seed, metrics=list(METRICS),
        metric_plugins=["semantic.metrics"], image_snapshot_ticks=None, network_snapshot_ticks=None, cpu_threads=1,
    )  # fmt: skip
    return options


def run_variant(name: str, seed: int, work: Path, data: Path, kimg: float, batch: int, cbase: int, device: str) -> dict:
    """Train and measure one variant, or read what was measured before: {name of a figure: value}."""
    folder = work / f"{name.replace(' ', '-').replace(',', '')}-seed{seed}"
    options = base_options(data, kimg, batch, cbase, seed)
    VARIANTS[name].change(options)
    known, asked = folder / "results.json", json.loads(json.dumps(options))
    if known.exists() and json.loads(known.read_text())["options"] == asked:
        return json.loads(known.read_text())["results"]
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():  # of an interrupted run, or of another recipe
        path.unlink()
    if not training_loop(run_dir=str(folder), device=device, **options):
        raise UserError(f"Stopped within {name!r}: the same command makes it again and goes on.")
    results = {}
    for metric in METRICS:
        results.update(json.loads((folder / f"metric-{metric}.jsonl").read_text().splitlines()[-1])["results"])
    write_json(known, {"options": asked, "results": results})
    return results


def regions_in_masks(results: Mapping[str, float]) -> int:
    """How many regions any mask shows."""
    names = (name.removeprefix("mask_fit500_") for name in results if name.startswith("mask_fit500_"))
    return sum(not name.startswith("real_") and name not in ("mean", "difference", "ratio") for name in names)


def mean_and_spread(values: Sequence[float]) -> str:
    """The mean, with the standard deviation where there are several."""
    return f"{np.mean(values):.4g}" + (f" ± {np.std(values, ddof=1):.2g}" if len(values) > 1 else "")


@click.command(context_settings={"show_default": True})
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True, help="Archive of drawn faces")
@click.option("--work", type=click.Path(path_type=Path), default=Path("out/ablations"), help="Folder of all runs")
@click.option("--kimg", type=float, default=5, help="Length of every run")
@click.option("--batch", type=int, default=8, help="Images a step")
@click.option("--cbase", type=int, default=512, help="Widths of the networks")
@click.option("--seeds", type=click.IntRange(min=2), default=3, help="Runs of the base")
@click.option("--variant-seeds", type=click.IntRange(min=1), default=1, help="Runs of every variant")
@click.option(
    "--only", default=",".join(n.replace(",", ";") for n in VARIANTS), help="Variants; ';' stands for a comma"
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu")
def main(data, work, kimg, batch, cbase, seeds, variant_seeds, only, device):
    """Train variants of the recipe equally long and compare them.

    \b
    python dataset_tool.py --source=procedural --width=32 --height=32 --max-images=4000 --dest=faces32.zip
    python -m tests.benchmarks.ablations --data=faces32.zip
    """
    common = (work, data, kimg, batch, cbase, device)
    rows = {"base": [run_variant("base", seed, *common) for seed in range(seeds)]}
    for name in (text.replace(";", ",") for text in only.split(",")):
        if name != "base":
            rows[name] = [run_variant(name, seed, *common) for seed in range(variant_seeds)]
    lines = [
        "| variant | " + " | ".join(COLUMNS) + " | regions in masks | the paper |",
        "|---" * (len(COLUMNS) + 3) + "|",
    ]
    for name, runs in rows.items():
        cells = [mean_and_spread([run.get(column, np.nan) for run in runs]) for column in COLUMNS]
        cells.append(", ".join(str(regions_in_masks(run)) for run in runs))
        seeds_of = f", {len(runs)} seeds" if len(runs) > 1 else ""
        lines.append(f"| {name}{seeds_of} | " + " | ".join(cells) + f" | {VARIANTS[name].claim} |")
    table = "\n".join(lines)
    print(table)
    with atomic_open(work / "table.md", "w") as file:
        file.write(table + "\n")


if __name__ == "__main__":
    main()
