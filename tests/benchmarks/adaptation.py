"""`python -m tests.benchmarks.adaptation`: what each mode of --cfg=semantic-adapt reaches from one network.

A run is named DOMAIN/MODE/IMAGES/SEED; the mode `all:0` trains all without mask keeping. Runs go on beyond the stopping
rule, see `tests.benchmarks.adaptation_run`. Finished runs are kept and not repeated; an interrupted run is resumed.
The first table tells, of the snapshot with the least distance to the images set aside:
- the distance (SWD) to images that the run has not trained on, before and after, and of real images to them,
- the mean drift of the masks over regions, 1 - IoU to the source's for the same latents,
- how well masks fit images, judged by a segmenter that learned it from exact masks, and the same of real pairs,
- MS-SSIM of pairs, and of real pairs,
- the distance to the nearest training image, and of real images that are not trained on,
- minutes on one CPU core.
The second table tells where the stopping rule ends each run, and what the rest of the run gains.
"""

import fnmatch
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch
from tqdm import tqdm

import legacy
from dnnlib import EasyDict, UserError, construct_class_by_name, write_json
from metrics.options import MetricOptions
from semantic.adaptation.measures import (
    images_of,
    nearest_distance,
    patch_distance,
    random_images,
    sample_count,
    similarity_of_pairs,
)
from semantic.adaptation.stopping import BEST, ROWS, Bounds, best_row, mean_drift, reason_to_end
from semantic.metrics.mask_fit import compute_mask_fit
from semantic.regions import Regions
from tests.benchmarks.adaptation_run import unseen_images
from tests.benchmarks.quality import FASSEG, SHARED
from tests.benchmarks.quality import run as project

SOURCES = {
    "avataaars": ("cartoons/avataaars/images", "cartoons/avataaars/masks"),
    "toon-head": ("cartoons/toon-head/images", "cartoons/toon-head/masks"),
    "personas": ("cartoons/personas/images", "cartoons/personas/masks"),
    "fasseg": ("fasseg/images", "fasseg/labels"),
}
"""Images of a domain under shared/data, and their masks, which only measure."""
PARTS = {
    "fasseg": {
        "eyebrow": "face", "ear": "face", "neck": "face", "earring": "face", "glasses": "face",
        "cloth": "background", "hat": "background",
    },
}  # fmt: skip
"""Regions of the network that are parts of a region in the masks of a domain. Other regions have the same name."""
PLAN = (
    "avataaars/all/400/0", "avataaars/all:0/400/0", "avataaars/style/400/0", "avataaars/frozen/400/0",
    "avataaars/lowrank/400/0", "avataaars/all/400/1", "avataaars/all:0/400/1", "avataaars/style/400/1",
    "avataaars/style/50/0", "avataaars/all/50/0", "avataaars/style/10/0", "avataaars/all/10/0",
    "toon-head/style/400/0", "toon-head/all/400/0", "personas/style/400/0", "personas/all/400/0",
    "fasseg/style/344/0", "fasseg/all/344/0", "toon-head/all:0/400/0",
    "toon-head/lowrank/400/0", "toon-head/frozen/400/0", "personas/lowrank/400/0", "personas/frozen/400/0",
)  # fmt: skip
"""Runs in the order of their importance."""
JUDGED = 200
"""Generated images for mask_fit."""
FIGURES = "figures.json"


class Run(NamedTuple):
    """One adaptation."""

    domain: str
    mode: str
    images: int
    seed: int

    @classmethod
    def read(cls, name: str) -> "Run":
        """The run of a name DOMAIN/MODE/IMAGES/SEED.

        Raises:
            UserError: it is no such name.
        """
        try:
            domain, mode, images, seed = name.split("/")
            return cls(domain, mode, int(images), int(seed))
        except ValueError:
            raise UserError(
                f"{name!r} is no run: write DOMAIN/MODE/IMAGES/SEED, such as avataaars/all/400/0."
            ) from None

    def folder(self, work: Path) -> Path:
        """Folder for its run directory."""
        return work / "-".join(map(str, self)).replace(":", "-")


def archive(domain: str, work: Path, size: int, masks: bool) -> Path:
    """The archive of a domain, made once; without masks for training.

    Raises:
        UserError: the domain is unknown, or its pictures are missing.
    """
    path = work / f"{domain}{size}{'-masks' if masks else ''}.zip"
    if path.exists():
        return path
    if domain not in SOURCES:
        raise UserError(f"There is no domain {domain!r}: choose from {', '.join(SOURCES)}.")
    if not SHARED.exists():
        raise UserError(f"The pictures of {domain} are not there: expected {SHARED}.")
    work.mkdir(parents=True, exist_ok=True)
    images, labels = SOURCES[domain]
    options = [f"--source={SHARED / images}", f"--width={size}", f"--height={size}", "--transform=center-crop"]
    options += [f"--masks={SHARED / labels}"] if masks else []
    if masks and domain == "fasseg":
        write_json(work / "fasseg.json", FASSEG)
        options.append(f"--palette={work / 'fasseg.json'}")
    project("dataset_tool.py", *options, f"--dest={path}")
    return path


def train(run: Run, options: EasyDict) -> None:
    """Train, or go on with an interrupted or a shorter run."""
    folder = run.folder(options.work)
    rows = rows_of(folder)
    if rows and rows[-1]["kimg"] >= options.kimg - 1e-6:
        return
    command = [sys.executable, "-m", "tests.benchmarks.adaptation_run", f"--kimg={options.kimg:g}"]
    command += [f"--outdir={folder}"]
    if any(folder.glob("*/training-state-*.pt")):
        command += ["--resume=latest"]
    else:
        mode, _, weight = run.mode.partition(":")
        data = archive(run.domain, options.work, options.resolution, masks=False)
        command += ["--cfg=semantic-adapt", f"--resume={options.network}", f"--data={data}", f"--adapt={mode}"]
        command += [f"--subset={run.images}", f"--seed={run.seed}", f"--tick={options.tick:g}", "--workers=0"]
        command += [f"--precision={options.precision}", *([f"--mask-weight={weight}"] if weight else [])]
        command += [] if options.locality is None else [f"--locality={options.locality:g}"]
    print("\n$ " + " ".join(command[1:]), file=sys.stderr, flush=True)
    if subprocess.run(command, stdout=sys.stderr).returncode:
        raise UserError(f"{folder.name} did not finish: what it printed says why. The same command goes on with it.")


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Rows of a run's snapshots; empty before the first."""
    files = sorted(folder.glob(f"*/{ROWS}"))
    return [json.loads(line) for line in files[-1].read_text().splitlines()] if files else []


def figures(run: Run, options: EasyDict) -> dict[str, Any]:
    """What the rows do not tell: figures of real images, and mask_fit. Kept beside the run."""
    run_dir = max(run.folder(options.work).glob("[0-9]*-*"))
    path, kimg = run_dir / FIGURES, rows_of(run_dir.parent)[-1]["kimg"]
    found = json.loads(path.read_text()) if path.exists() else {}
    judged = options.mask_fit and run.domain in SOURCES
    if found.get("kimg") == kimg and ("mask_fit" in found or not judged):
        return found
    data = json.loads((run_dir / "training_options.json").read_text())["training_set_kwargs"]
    trained, test = images_of(construct_class_by_name(**data)), unseen_images(data)
    found = {
        "kimg": kimg,
        "similarity": similarity_of_pairs(random_images(trained)),
        "nearest": nearest_distance(test, trained),
    }
    count = sample_count(len(test))  # as many as generated images
    found["swd"] = patch_distance(test, random_images(trained, count)) if len(trained) >= count else None
    if judged:
        found |= fit(run_dir / BEST, run.domain, options)
    write_json(path, found)
    return found


class Merged(torch.nn.Module):
    """A generator with masks of fewer regions.

    Args:
        G: the generator.
        regions: regions of the new masks.
        parts: name of the new region by name of a region of G. Other regions keep their names.
    """

    def __init__(self, G: torch.nn.Module, regions: Regions, parts: Mapping[str, str]):
        super().__init__()
        self.G, self.regions = G, regions
        self.z_dim, self.c_dim, self.img_resolution = G.z_dim, G.c_dim, G.img_resolution
        table = torch.tensor([regions.names.index(parts.get(name, name)) for name in G.regions.names])
        self.register_buffer("table", table)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        out = self.G(*args, **kwargs)
        planes = out.mask.new_zeros(len(out.mask), len(self.regions), *out.mask.shape[2:])
        return EasyDict(image=out.image, mask=planes.index_add(1, self.table, out.mask))


def fit(network: Path, domain: str, options: EasyDict) -> dict[str, float]:
    """Mean IoU of generated masks with what a segmenter of exact masks sees in the images, and of real pairs."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    masks = archive(domain, options.work, options.resolution, masks=True)
    data = EasyDict(class_name="semantic.dataset.MaskedImageDataset", path=str(masks), xflip=False)
    G = legacy.load_network(network)["G_ema"]
    if domain in PARTS:
        G = Merged(G, construct_class_by_name(**data).regions, PARTS[domain])
    G = G.to(device)
    opts = MetricOptions(metric="mask_fit", G=G, dataset_kwargs=data, device=device)
    found = compute_mask_fit(opts, JUDGED, options.judge_images)
    return {"mask_fit": found["mean"], "real_mask_fit": found["real_mean"]}


HEAD = (
    "| domain | mode | images | seed | kimg | SWD before | after (real) | drift | mask_fit (real) | MS-SSIM (real) "
    "| nearest (real) | CPU min |"
)
STOP_HEAD = "| domain | mode | images | seed | ends at kimg | its SWD at kimg | least SWD at kimg | excess |"


def table_row(run: Run, rows: list[dict[str, Any]], real: dict[str, Any]) -> str:
    """One line of the first table."""
    best = rows[best_row(rows, similarity_bound(rows, real), Bounds())]
    cells = [*run, f"{best['kimg']:g}", f"{rows[0]['test']:.1f}", with_real(best["test"], real["swd"], ".1f")]
    cells += [f"{mean_drift(best):.3f}", with_real(real.get("mask_fit"), real.get("real_mask_fit"), ".2f")]
    cells += [with_real(best["msssim"], real["similarity"], ".2f"), with_real(best["nearest"], real["nearest"], ".3f")]
    return line([*cells, f"{best['minutes']:.1f}"])


def stop_row(run: Run, rows: list[dict[str, Any]], real: dict[str, Any], bounds: Bounds) -> str:
    """One line of the second table: the distance to images that are not trained on, of both snapshots."""
    similarity = similarity_bound(rows, real)
    end = next((n for n in range(2, len(rows) + 1) if reason_to_end(rows[:n], similarity, bounds)), len(rows))
    chosen = rows[best_row(rows[:end], similarity, bounds)]
    best = min(rows[1:], key=lambda row: row["test"])
    ends = f"{rows[end - 1]['kimg']:g} of {rows[-1]['kimg']:g}"
    cells = [*run, ends, *(f"{row['test']:.1f} at {row['kimg']:g}" for row in (chosen, best))]
    return line([*cells, f"{chosen['test'] / best['test'] - 1:.1%}"])


def similarity_bound(rows: list[dict[str, Any]], real: dict[str, Any]) -> float:
    """MS-SSIM of pairs that the bound on diversity starts from, as in `AdaptationMonitor.look`."""
    return max(real["similarity"], rows[0]["msssim"])


def with_real(value: float | None, real: float | None, form: str) -> str:
    """'0.61 (0.74)'."""
    if value is None:
        return "-"
    return f"{value:{form}}" + ("" if real is None else f" ({real:{form}})")


def line(cells: list[object]) -> str:
    """A line of a table."""
    return f"| {' | '.join(map(str, cells))} |"


@click.command(context_settings={"show_default": True})
@click.option("--runs", default="*", metavar="LIST", help="Names or patterns of runs, comma-separated")
@click.option("--network", default="faces64", help="Network to adapt")
@click.option("--resolution", default=64, help="Its resolution")
@click.option("--kimg", default=0.5, help="Length of a run; a longer one goes on with what is there")
@click.option("--tick", default=0.25, help="Thousands of images between snapshots")
@click.option("--precision", default="bf16", help="Number format")
@click.option("--locality", type=float, help="Weight that keeps edits in their regions  [default: that of train.py]")
@click.option("--mask-fit/--no-mask-fit", default=True, help="Judge masks by a segmenter that knows exact masks")
@click.option("--judge-images", default=3200, help="Images that this segmenter is trained with")
@click.option("--work", type=click.Path(path_type=Path), default=Path("out/adaptation"), help="Folder for everything")
@click.option("--only-report", is_flag=True, help="Do not train, report the runs that are there")
def main(**options: Any) -> None:
    """Adapt a network to other domains by several modes and print two tables.

    \b
    python -m tests.benchmarks.adaptation
    python -m tests.benchmarks.adaptation --runs='avataaars/*/400/0' --kimg=1.6
    python -m tests.benchmarks.adaptation --only-report
    """
    opts = EasyDict(options, work=options["work"].resolve())
    patterns = opts.runs.split(",")
    names = [name for name in PLAN if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
    names += [pattern for pattern in patterns if "*" not in pattern and pattern not in names]
    if not opts.only_report:
        for name in tqdm(names, desc="Runs", unit="run"):
            train(Run.read(name), opts)
    first, second = [], []
    for run in map(Run.read, names):
        rows = rows_of(run.folder(opts.work))
        if len(rows) > 1:
            real = figures(run, opts)
            first.append(table_row(run, rows, real))
            second.append(stop_row(run, rows, real, Bounds()))
    for head, lines in ((HEAD, first), (STOP_HEAD, second)):
        print("\n".join(["", head, "|---" * (head.count("|") - 1) + "|", *lines]))


if __name__ == "__main__":
    main()
