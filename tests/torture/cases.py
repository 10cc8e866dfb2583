"""The families of hostile cases. A case is a family and a number; the number alone decides what it is."""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random

import click
import numpy as np

import calc_metrics
import dataset_tool
import generate
import legacy
import train
from tests.torture import options
from tests.torture.archives import strange_archive
from tests.torture.damage import STRANGE_TEXTS, damage, damage_json
from tests.torture.harness import Command
from tests.torture.networks import strange_latents, strange_network, strange_run
from tests.torture.pictures import strange_picture
from tests.torture.samples import REGIONS

COUNTS = {
    "archives": 180,
    "pictures": 60,
    "descriptions": 60,
    "networks": 90,
    "codes": 20,
    "states": 60,
    "options": 130,
}
"""How many cases of each family the long test runs: 600."""


@click.command()
@click.option("--data", required=True)
@click.option("--masked", type=bool, default=True)
def read(data: str, masked: bool) -> None:
    """Read all of an archive as a training does."""
    from semantic.dataset import MaskedImageDataset
    from training.dataset import ImageFolderDataset

    dataset = (MaskedImageDataset if masked else ImageFolderDataset)(data, use_labels=True, xflip=True)
    for index in range(min(len(dataset), 100)):
        dataset[index]
    dataset.preview(np.arange(min(len(dataset), 4)))


TOOLS: dict[str, click.Command] = {
    "read": read,
    "train.py": train.main,
    "generate.py": generate.main,
    "dataset_tool.py": dataset_tool.main,
    "calc_metrics.py": calc_metrics.main,
    "legacy.py": legacy.main,
}


def _reader(random: Random, data: Path, out: Path) -> Command:
    """One of the tools that read an archive."""
    kind = random.randrange(6)
    if kind == 0:
        return Command(
            "train.py", ["--dry-run", "--device=cpu", "--cfg=semantic", f"--data={data}", f"--outdir={out}"], out
        )
    if kind == 1:
        args = ["--dry-run", "--device=cpu", "--cond=1", f"--data={data}", f"--outdir={out}"]
        return Command("train.py", args, out)
    if kind < 4:
        return Command("read", [f"--data={data}", f"--masked={kind == 2}"], out)
    extra = random.choice(([], ["--width=16"], ["--transform=center-crop", "--width=64", "--height=64"]))
    dest = out / random.choice(("made.zip", "made"))
    return Command("dataset_tool.py", [f"--source={data}", f"--dest={dest}", "--workers=1", *extra], out)


def archive_case(seed: int, folder: Path, out: Path, samples: Path) -> Command:
    random = Random(f"archive {seed}")
    return _reader(random, strange_archive(folder, random, samples), out)


def picture_case(seed: int, folder: Path, out: Path, samples: Path) -> Command:
    """Folders of images and masks as a user has them, given to dataset_tool.py."""
    random = Random(f"picture {seed}")
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
        for i in range(2):
            (folder / kind / f"{i}.png").write_bytes(strange_picture(random))
    args = [f"--source={folder / 'images'}", f"--dest={out / 'made.zip'}", "--workers=1"]
    if random.random() < 0.7:
        args.append(f"--masks={folder / 'masks'}")
        if random.random() < 0.3:
            (folder / "palette.json").write_text(json.dumps(REGIONS))
            args.append(f"--palette={folder / 'palette.json'}")
    args += random.choice(([], ["--width=32", "--height=32"], ["--transform=center-crop", "--width=16", "--height=16"]))
    return Command("dataset_tool.py", args, out)


def description_case(seed: int, folder: Path, out: Path, samples: Path) -> Command:
    """Palettes, mask maps and regions."""
    random = Random(f"description {seed}")
    colors = {name: color for name, color in zip(REGIONS["names"], REGIONS["colors"], strict=True)}
    groups = {"classes": {"background": ["background"], "head": ["skin", "hair"]}, "transparent": ["head"],
              "colors": [[0, 0, 0], [9, 9, 9]], "source_classes": list(REGIONS["names"])}  # fmt: skip
    option, data = random.choice((("--palette", colors), ("--palette", REGIONS), ("--mask-map", groups)))
    for _ in range(random.choice((1, 1, 2))):
        data = damage_json(data, random)
    text = json.dumps(data).encode()
    path = folder / "description.json"
    path.write_bytes(damage(text, random) if random.random() < 0.3 else text)
    source = samples / "pairs.zip"
    if random.random() < 0.3:
        args = [
            "--dry-run",
            "--device=cpu",
            "--cfg=semantic",
            f"--data={source}",
            f"--outdir={out}",
            f"--regions={path}",
        ]
        return Command("train.py", args, out)
    return Command(
        "dataset_tool.py", [f"--source={source}", f"--dest={out / 'x'}", f"{option}={path}", "--workers=1"], out
    )


def network_case(seed: int, folder: Path, out: Path, samples: Path) -> Command:
    random = Random(f"network {seed}")
    path = strange_network(folder, random, samples)
    kind = random.randrange(5)
    if kind == 0:
        return Command("legacy.py", [f"--source={path}", f"--dest={out / 'x.pkl'}"], out)
    if kind == 1:
        args = ["--dry-run", "--device=cpu", f"--data={samples / 'pairs.zip'}", f"--outdir={out}", f"--resume={path}"]
        return Command("train.py", [*args, f"--cfg={random.choice(('auto', 'semantic', 'semantic-adapt'))}"], out)
    if kind == 2:
        args = [f"--network={path}", "--metrics=fid50k_full", "--device=cpu", f"--detector={samples / 'net.pkl'}"]
        return Command("calc_metrics.py", [*args, f"--data={samples / 'none.zip'}"], out)
    return Command("generate.py", [f"--network={path}", "--seeds=0", "--device=cpu", f"--outdir={out}"], out)


def code_case(seed: int, folder: Path, out: Path, samples: Path) -> Command:
    random = Random(f"codes {seed}")
    path = strange_latents(folder, random, samples)
    args = [f"--network={samples / 'net.pkl'}", f"--projected-w={path}", "--device=cpu", f"--outdir={out}"]
    return Command("generate.py", args, out)


def state_case(seed: int, folder: Path, out: Path, samples: Path) -> Command:
    """A damaged run that is to be continued for one step."""
    random = Random(f"state {seed}")
    strange_run(out, random, samples)
    args = [f"--outdir={out}", "--resume=latest", "--kimg=0.012", "--workers=0", "--device=cpu"]
    return Command("train.py", args, out)


def option_case(seed: int, folder: Path, out: Path, samples: Path) -> Command:
    random = Random(f"options {seed}")
    tool, table = random.choice(
        (("train.py", options.TRAIN), ("train.py", options.TRAIN), ("generate.py", options.GENERATE),
         ("dataset_tool.py", options.DATASET), ("calc_metrics.py", options.METRICS))
    )  # fmt: skip
    given = options.strange_options(random, table, random.randint(1, 6), random.choice((0, 0.3)))
    names = {
        "train.py": ["--dry-run", "--device=cpu", f"--data={samples / 'pairs.zip'}", f"--outdir={out}"],
        "generate.py": [f"--network={samples / 'net.pkl'}", "--seeds=0", "--device=cpu", f"--outdir={out}"],
        "dataset_tool.py": [f"--source={samples / 'pairs.zip'}", f"--dest={out / 'made.zip'}", "--max-images=2"],
        "calc_metrics.py": [f"--network={samples / 'none.pkl'}", f"--dest={out / 'metrics.png'}"],
    }
    (folder / "strange.json").write_text(json.dumps({"classes": {random.choice(STRANGE_TEXTS): [0, 1, 2]}}))
    places = {"DATA": "pairs.zip", "NET": "net.pkl", "LATENTS": "latents.npz"}
    for word, name in places.items():
        given = [arg.replace(f"={word}", f"={samples / name}") for arg in given]
    given = [arg.replace("=OUT", f"={out}").replace("=JSON", f"={folder / 'strange.json'}") for arg in given]
    return Command(tool, names[tool] + given, out)


FAMILIES: dict[str, Callable[[int, Path, Path, Path], Command]] = {
    "archives": archive_case,
    "pictures": picture_case,
    "descriptions": description_case,
    "networks": network_case,
    "codes": code_case,
    "states": state_case,
    "options": option_case,
}
