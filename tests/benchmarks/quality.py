"""`python -m tests.benchmarks.quality RECIPE`: train a fixed recipe and put together what came of it.

Data, training, metrics of every snapshot, curves and pictures come from the project's own commands, which are printed
as they run. Everything is continued where it stopped: a longer --kimg goes on with the same run.
"""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from dnnlib import UserError, atomic_open, write_json
from training.run.snapshots import NETWORK_PATTERN

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
METRICS = ("swd2k", "region_leak100", "coarse_fit500", "mask_fit500", "msssim1k")
FASSEG = {
    "background": [255, 0, 0], "face": [255, 255, 0], "hair": [127, 0, 0],
    "eye": [0, 0, 255], "nose": [0, 255, 255], "mouth": [0, 255, 0],
}  # fmt: skip
"""Colours of the FASSEG label pictures; regions are called as in drawn faces, so that networks can start from those."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Data and options of a run.

    Attributes:
        title: for the report.
        data: options of dataset_tool.py, but for size and destination; {shared} and {work} are filled in.
        train: options of train.py.
        mixing: options of generate.py for the mixing sheet.
        wide: the pictures are upright: their width is two thirds of the resolution, padded to a square.
        chosen: options of dataset_tool.py that choose the pictures to train on.
        aside: options of dataset_tool.py that choose pictures for measurements alone. Their archive is NAME-aside.zip.
        last: further metrics of the newest snapshot.
    """

    title: str
    data: tuple[str, ...]
    train: tuple[str, ...]
    mixing: tuple[str, ...] = ()
    wide: bool = False
    chosen: tuple[str, ...] = ()
    aside: tuple[str, ...] = ()
    last: tuple[str, ...] = ()


RECIPES = {
    "faces": Recipe(
        "Drawn faces, 13 regions",
        ("--source=procedural", "--max-images=20000"),
        ("--mirror=1", "--aug=noaug"),
    ),
    "fasseg": Recipe(
        "FASSEG, photographs of faces in all poses, 6 regions",
        (
            "--source={shared}/fasseg/images", "--masks={shared}/fasseg/labels", "--palette={work}/fasseg.json",
            "--transform=center-crop",
        ),
        ("--mirror=1",),
    ),
    "ccp": Recipe(
        "CCP, photographs of people, clothes in 12 groups",
        (
            "--source={shared}/ccp/images", "--masks={shared}/ccp/masks", "--mask-map={shared}/ccp/groups.json",
            "--transform=center-crop-wide",
        ),
        ("--mirror=1",),
        wide=True,
    ),
    "celebamask": Recipe(
        "CelebAMask-HQ, 700 photographs of faces, 13 regions",
        (
            "--source={shared}/celebamask/images", "--masks={shared}/celebamask/masks",
            "--mask-map={shared}/celebamask/regions13.json",
        ),
        ("--mirror=1", "--locality=2", "--resume=faces64"),
        chosen=("--max-images=700",),
        aside=("--skip-images=700",),
        last=("train_on_fakes1k", "train_on_fakes10k"),
    ),
}  # fmt: skip


def run(*arguments: object) -> None:
    """Run one of the project's scripts and show it.

    Raises:
        UserError: it failed.
    """
    line = [str(argument) for argument in arguments]
    print("\n$ python " + " ".join(line), flush=True)
    code = subprocess.run([sys.executable, *line], cwd=ROOT).returncode
    if code:
        raise UserError(f"{line[0]} ended with exit code {code}: what it printed says why. Run the same command again.")


def make_data(name: str, recipe: Recipe, resolution: int, work: Path) -> Path:
    """Returns the recipe's archive. Makes missing archives, also of the pictures that are set aside."""
    path = work / f"{name}{resolution}.zip"
    parts = {path: recipe.chosen}
    if recipe.aside:
        parts[work / f"{name}{resolution}-aside.zip"] = recipe.aside
    parts = {dest: choice for dest, choice in parts.items() if not dest.exists()}
    if not parts:
        return path
    fill = {"shared": SHARED, "work": work}
    if "{shared}" in recipe.data[0] and not SHARED.exists():
        raise UserError(f"The photographs of {name} are not there: expected {SHARED}.")
    work.mkdir(parents=True, exist_ok=True)
    write_json(work / "fasseg.json", FASSEG)
    width = resolution * 2 // 3 if recipe.wide else resolution
    options = [option.format(**fill) for option in recipe.data]
    for dest, choice in parts.items():
        run("dataset_tool.py", *options, *choice, f"--width={width}", f"--height={resolution}", f"--dest={dest}")
    return path


def train(recipe: Recipe, data: Path, runs: Path, kimg: float, more: Sequence[str]) -> Path:
    """Train, or go on; the run directory."""
    options = [f"--data={data}", f"--outdir={runs}", f"--kimg={kimg:g}"]
    started = runs.exists() and any(runs.glob("[0-9]*-*/training-state-*.pt"))
    if started:
        folder = max(runs.glob("[0-9]*-*"))
        if json.loads((folder / "training_options.json").read_text())["total_kimg"] < kimg or not finished(
            folder, kimg
        ):
            run("train.py", "--resume=latest", *options)
        return folder
    run("train.py", "--cfg=semantic", *recipe.train, *more, *options)
    return max(runs.glob("[0-9]*-*"))


def finished(folder: Path, kimg: float) -> bool:
    """Whether the run has reached its length."""
    last = max(snapshot_kimg(path) for path in snapshots(folder))
    return last >= int(kimg)


def snapshots(folder: Path) -> list[Path]:
    """Network snapshots of a run, oldest first."""
    return sorted(path for path in folder.iterdir() if NETWORK_PATTERN.fullmatch(path.name))


def snapshot_kimg(path: Path) -> int:
    """Thousands of images that a snapshot has seen."""
    return int(NETWORK_PATTERN.fullmatch(path.name).group(1))


def measure(folder: Path, metrics: Sequence[str], last: Sequence[str] = ()) -> list[dict]:
    """Metrics of every snapshot, computed where they are missing: [{'kimg': .., 'swd2k_mean': .., ..}].

    The newest snapshot also gets the metrics `last`.
    """
    rows, paths = [], snapshots(folder)
    for path in paths:
        metrics = [*metrics, *(last if path == paths[-1] else ())]
        missing = [metric for metric in metrics if result(folder, metric, path) is None]
        if missing:
            run("calc_metrics.py", f"--network={path}", f"--metrics={','.join(missing)}")
        row = {"kimg": snapshot_kimg(path), "file": path.name}
        for metric in metrics:
            row.update(result(folder, metric, path) or {})
        rows.append(row)
    return rows


def result(folder: Path, metric: str, snapshot: Path) -> dict | None:
    """What was measured of a snapshot."""
    path = folder / f"metric-{metric}.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return next((line["results"] for line in lines[::-1] if line["snapshot_pkl"] == snapshot.name), None)


def draw(recipe: Recipe, folder: Path, dest: Path) -> None:
    """Curves, samples, mixing sheet and components of the newest snapshot."""
    dest.mkdir(parents=True, exist_ok=True)
    network = snapshots(folder)[-1]
    run("calc_metrics.py", "--plot", folder, f"--dest={dest / 'curves.png'}")
    run("generate.py", f"--network={network}", "--mix-regions", "--save-masks", f"--outdir={dest}", *recipe.mixing)
    run("generate.py", f"--network={network}", "--components", "--seeds=0-3", f"--outdir={dest}")
    run("generate.py", f"--network={network}", "--seeds=0-15", "--trunc=0.7", f"--outdir={dest / 'samples'}")


def report(name: str, recipe: Recipe, folder: Path, rows: list[dict], command: str, dest: Path) -> None:
    """The figures as `results.json` and as a table in `results.md`."""
    options = json.loads((folder / "training_options.json").read_text())
    seconds = [json.loads(line)["Timing/sec_per_kimg"]["mean"] for line in (folder / "stats.jsonl").open()]
    run_dir = os.path.relpath(folder, dest.parent)
    write_json(dest / "results.json", {"command": command, "run": run_dir, "snapshots": rows, "seed": options["seed"]})
    columns = [key for key in rows[-1] if key == "kimg" or key.endswith("mean") or key.startswith("msssim")]
    lines = [
        f"# {recipe.title}",
        "",
        f"`{command}`",
        "",
        f"{sorted(seconds)[len(seconds) // 2]:.0f} s/kimg (median)",
        "",
    ]
    lines += ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = (f"{row[key]:.4g}" if key in row else "" for key in columns)
        lines.append("| " + " | ".join(cells) + " |")
    with atomic_open(dest / "results.md", "w") as file:
        file.write("\n".join(lines) + "\n")
    print(f"\n{name}: figures and pictures are in {dest}")


@click.command(context_settings={"show_default": True})
@click.argument("name", type=click.Choice(list(RECIPES)))
@click.option("--resolution", type=int, default=64, help="Side of the pictures: 64 on a CPU, 128 on a GPU")
@click.option("--kimg", type=float, default=40, help="Length in thousands of images")
@click.option("--work", type=click.Path(path_type=Path), default=Path("out/quality"), help="Folder for everything")
@click.option("--metrics", default=",".join(METRICS), help="Metrics of every snapshot")
@click.option("--train-options", default="", help="Further options of train.py, such as '--batch=8 --cbase=1024'")
@click.option("--only-report", is_flag=True, help="Do not train, report what is there")
def main(name, resolution, kimg, work, metrics, train_options, only_report):
    """Train a fixed recipe, measure every snapshot, draw curves and pictures.

    \b
    python -m tests.benchmarks.quality faces --kimg=100 --train-options='--batch=8 --cbase=1024 --snap=4'
    python -m tests.benchmarks.quality fasseg --resolution=128 --kimg=1000
    """
    recipe, work = RECIPES[name], work.resolve()
    data = make_data(name, recipe, resolution, work)
    runs = work / f"{name}{resolution}-runs"
    if only_report:
        folders = sorted(runs.glob("[0-9]*-*"))
        if not folders:
            raise UserError(f"There is no run under {runs}: leave out --only-report.")
        folder = folders[-1]
    else:
        folder = train(recipe, data, runs, kimg, train_options.split())
    rows = measure(folder, metrics.split(","), recipe.last)
    dest = work / f"{name}{resolution}-results"
    draw(recipe, folder, dest)
    more = f" --train-options='{train_options}'" if train_options else ""
    command = f"python -m tests.benchmarks.quality {name} --resolution={resolution} --kimg={kimg:g}{more}"
    report(name, recipe, folder, rows, command, dest)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
