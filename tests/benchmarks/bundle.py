"""`python -m tests.benchmarks.bundle RESULTS`: make a trained recipe the network that comes with the project."""

import json
import os
import re
from pathlib import Path
from typing import Any

import click

import legacy
from dnnlib import UserError, write_json
from legacy import BUNDLED

LIMIT = 20 * 2**20


def without_folders(value: Any) -> Any:
    """The same, with absolute paths in texts cut to the names of their files."""
    if isinstance(value, dict):
        return {key: without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_folders(item) for item in value]
    return re.sub(r"(?<![\w.~])/(?:[^\s'\"=,/]+/)+", "", value) if isinstance(value, str) else value


def counted_on(row: dict, kimg: float) -> dict:
    """Figures of a snapshot whose training had seen so many thousand images before."""
    return {**row, "kimg": round(row["kimg"] + kimg, 1)}


def means(row: dict) -> dict:
    """Figures of a snapshot without those of single regions."""
    return {key: value for key, value in row.items() if key in ("kimg", "file") or key.endswith("_mean")}


@click.command(context_settings={"show_default": True})
@click.argument("results", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--name", default="faces128", help="Name of the files")
@click.option("--outdir", type=click.Path(path_type=Path), default=BUNDLED, help="Where networks are looked for")
@click.option("--note", default="", help="What else there is to say of how it was trained")
@click.option("--start", default=0.0, metavar="KIMG", help="Thousands of images seen before this run")
@click.option(
    "--before",
    multiple=True,
    type=(click.Path(exists=True, path_type=Path), float),
    metavar="JSON KIMG",
    help="An earlier stage: the file beside its network, and the images seen before it in thousands",
)
def main(
    results: Path, name: str, outdir: Path, note: str, start: float, before: tuple[tuple[Path, float], ...]
) -> None:
    """Bundle the newest snapshot of a recipe, from the folder RESULTS of `python -m tests.benchmarks.quality`.

    G, D and G_ema are stored in half precision, so that training can go on from them. Beside them stands a file with
    the command that made them, all options of the training, and the figures of all snapshots, those of earlier stages
    included.
    """
    results = results.resolve()
    figures = json.loads((results / "results.json").read_text())
    if "run" not in figures:
        raise UserError(f"{results} is of an earlier version: make it again with --only-report.")
    run_dir = results.parent / figures["run"]
    snapshot = run_dir / figures["snapshots"][-1]["file"]
    data = legacy.load_network(snapshot)
    options = json.loads((run_dir / "training_options.json").read_text())
    for known in (data.training_set_kwargs, options["training_set_kwargs"]):
        known["path"] = f"drawn-{os.path.basename(known['path'])}"  # no file of the user's has this name
    outdir.mkdir(parents=True, exist_ok=True)
    path = outdir / f"{name}.pkl"
    legacy.save_network(legacy.halved(data), path)
    if path.stat().st_size > LIMIT:
        path.unlink()
        raise UserError("The networks take more than 20 MiB: train smaller ones.")
    rows = [counted_on(row, start) for row in figures["snapshots"]]
    for file, seen in reversed(before):
        rows = [means(counted_on(row, seen)) for row in json.loads(file.read_text())["snapshots"]] + rows
    about = {**figures, "snapshots": rows, "note": note, "training_options": options}
    write_json(path.with_suffix(".json"), without_folders(about))
    click.echo(f"Wrote {path} ({path.stat().st_size / 2**20:.1f} MiB) and {path.with_suffix('.json')}.")


if __name__ == "__main__":
    main()
