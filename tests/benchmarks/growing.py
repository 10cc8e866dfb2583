"""`python -m tests.benchmarks.growing`: what growing a trained network saves, against training anew in the same time.

Every variant trains networks of the same layout on the same data with the same options. Time is the CPU time of the
training process, so other work on the machine hardly matters. At each point the run is stopped, its newest snapshot is
measured, and the run resumes.
"""

import copy
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
import psutil
import torch

import legacy
from dnnlib import UserError, atomic_open, write_json
from tests.benchmarks.ablations import mean_and_spread
from tests.benchmarks.quality import ROOT, measure, snapshots

SAVED = 75  # exit code of a run that was interrupted and saved its state


def train_for(seconds: float, arguments: list[str]) -> float:
    """Returns the CPU seconds of train.py, which is interrupted after `seconds` of CPU time."""
    print("$ python train.py " + shlex.join(arguments), flush=True)
    with subprocess.Popen([sys.executable, "train.py", *arguments], cwd=ROOT) as process:
        used, watched = 0.0, psutil.Process(process.pid)
        stopped = False
        while process.poll() is None:
            try:
                used = sum(watched.cpu_times()[:2])
            except psutil.NoSuchProcess:
                break
            if used >= seconds and not stopped:
                process.send_signal(signal.SIGINT)
                stopped = True
            time.sleep(1)
    if process.returncode not in (0, SAVED):
        raise UserError(f"train.py ended with exit code {process.returncode}. Its output says why.")
    return used


def random_networks(grown: Path, seed: int, path: Path) -> Path:
    """Write networks with the layout of a grown run and random weights. Returns their file.

    Raises:
        UserError: there is no grown run yet.
    """
    runs = sorted((grown / "runs").glob("[0-9]*-*"))
    if not runs:
        raise UserError(f"There is no run in {grown}, whose layout training anew takes. Run the variant 'grown' first.")
    data = legacy.load_network(snapshots(runs[-1])[-1])
    torch.manual_seed(seed)
    for name in ("G", "D"):
        data[name] = type(data[name])(**data[name].init_kwargs)
    data["G_ema"] = copy.deepcopy(data["G"])
    path.parent.mkdir(parents=True, exist_ok=True)
    legacy.save_network(data, path)
    return path


def run_variant(options: list[str], seed: int, folder: Path, points: list[float], metrics: list[str]) -> list[dict]:
    """Returns figures of one run at each point, in minutes of CPU time. Measured points are not measured again."""
    known = folder / "results.json"
    rows = json.loads(known.read_text()) if known.exists() else []
    runs = folder / "runs"
    for point in points[len(rows) :]:
        used = rows[-1]["seconds"] if rows else 0.0
        start = ["--resume=latest"] if rows else [*options, f"--seed={seed}"]
        used += train_for(point * 60 - used, [*start, f"--outdir={runs}"])
        run_dir = max(runs.glob("[0-9]*-*"))
        for path in snapshots(run_dir)[:-1]:
            path.unlink()
        rows.append({"minutes": point, "seconds": used, **measure(run_dir, metrics)[-1]})
        write_json(known, rows)
    return rows


def table(results: dict[str, list[list[dict]]], points: list[float]) -> str:
    """Returns one line per variant and point: the mean over seeds, with the spread."""
    columns = [name for name in next(iter(results.values()))[0][0] if name.endswith("_mean")]
    lines = [f"| variant | minutes | kimg | {' | '.join(columns)} |", "|---" * (3 + len(columns)) + "|"]
    for name, runs in results.items():
        for index, point in enumerate(points):
            rows = [rows[index] for rows in runs]
            cells = [name, f"{point:g}", f"{np.mean([row['kimg'] for row in rows]):.3g}"]
            cells += [mean_and_spread([row.get(column, np.nan) for row in rows]) for column in columns]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


@click.command(context_settings={"show_default": True})
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True, help="Archive of the larger size")
@click.option("--source", default="faces64", help="Network to grow, a file or a name")
@click.option("--minutes", default="10,20,40", help="Points in minutes of CPU time, comma-separated")
@click.option("--seeds", type=click.IntRange(min=1), default=2, help="Runs of every variant")
@click.option("--variant", "more", multiple=True, metavar="'NAME: OPTIONS'", help="A further variant of growing")
@click.option("--only", help="Variants to run, comma-separated  [all]")
@click.option(
    "--train-options",
    default="--mirror=1 --aug=noaug --batch=16 --workers=0",
    help="Options of train.py for all variants",
)
@click.option("--metrics", default="swd2k,mask_fit500,region_leak100", help="Metrics at each point")
@click.option("--work", type=click.Path(path_type=Path), default=Path("out/growing"), help="Folder of all runs")
def main(data, source, minutes, seeds, more, only, train_options, metrics, work):
    """Grow a network, train another one anew, and compare both at equal CPU time.

    \b
    python dataset_tool.py --source=procedural --width=128 --height=128 --max-images=10000 --dest=faces128.zip
    python -m tests.benchmarks.growing --data=faces128.zip --minutes=10,20,40
    python -m tests.benchmarks.growing --data=faces128.zip --variant='half the rates: --glr=0.001 --dlr=0.001'
    """
    points = sorted(float(text) for text in minutes.split(","))
    variants = {"grown": "", "anew": ""}
    variants |= dict(map(str.strip, text.partition(":")[::2]) for text in more)
    chosen = [name for name in variants if only is None or name in only.split(",")]
    if not chosen:
        raise click.UsageError(f"--only={only} names no variant. Choose from: {', '.join(variants)}.")
    common = ["--cfg=semantic", f"--data={data.resolve()}", "--kimg=100000", "--tick=1", "--snap=1000"]
    common += shlex.split(train_options)
    results = {}
    for name in chosen:
        results[name] = []
        for seed in range(seeds):
            folder = work.resolve() / name.replace(" ", "-") / str(seed)
            grown = folder.parents[1] / "grown" / str(seed)
            start = random_networks(grown, seed, folder / "random.pkl") if name == "anew" else source
            parts = [*common, f"--resume={start}", *shlex.split(variants[name])]
            results[name].append(run_variant(parts, seed, folder, points, metrics.split(",")))
    text = table(results, points)
    print(text)
    with atomic_open(work / "table.md", "w") as file:
        file.write(text + "\n")


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
