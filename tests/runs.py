"""Small training runs, for the tests that need them."""

import json
from pathlib import Path

import numpy as np
import torch
from click.testing import CliRunner

import train
from training.archive import create_archive, encode_png, image_name

REGIONS = {"names": ["background", "skin", "hair", "hat"], "colors": [[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]]}
STEP = 4  # images; runs of so few that everything happens within the first thousand
SMALL = ("--batch=4", "--cbase=64", "--workers=0", "--device=cpu")
SEMANTIC = ("--cfg=semantic", *SMALL)


def make_archive(
    path, count=16, side=32, width=None, regions=3, indices=None, masks=True, labels=None, without=(), mask_side=None
):
    """An archive of random images and masks; the last mask is `mask_side` wide and holds indices up to `indices`."""
    random = np.random.default_rng(0)
    with create_archive(path) as add:
        for i in range(count):
            last = i == count - 1
            add(image_name(i), encode_png(random.integers(0, 256, [side, width or side, 3], np.uint8)))
            if masks and i not in without:
                size = [mask_side if last and mask_side else side] * 2
                largest = indices if last and indices else regions
                add(f"masks/{image_name(i)}", encode_png(random.integers(0, largest, size, np.uint8)))
        described = {key: values[:regions] for key, values in REGIONS.items()}
        add("dataset.json", json.dumps({"labels": labels and labels(count), "regions": described}).encode())
    return str(path)


def run(outdir, *args, steps=None):
    """Run train.py; what it prints to stderr must hold no traceback."""
    length = [f"--kimg={steps * STEP / 1000}"] if steps else []
    result = CliRunner(env={"OMP_NUM_THREADS": "1"}).invoke(train.main, [f"--outdir={outdir}", *length, *args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def only_run(outdir):
    (run_dir,) = Path(outdir).iterdir()
    return run_dir


def statistics(run_dir):
    return [json.loads(line) for line in (run_dir / "stats.jsonl").read_text().splitlines()]


def without_timing(lines):
    """Statistics without what depends on the clock and the machine."""
    untimed = ("Timing/", "Resources/", "timestamp")
    return [{name: figure for name, figure in line.items() if not name.startswith(untimed)} for line in lines]


def state(run_dir):
    return torch.load(run_dir / "training-state-000000.pt", weights_only=True)


def difference(first, second, path=""):
    """Where two states differ, as a list of paths."""
    if isinstance(first, dict):
        if first.keys() != second.keys():
            return [f"{path}: {first.keys() ^ second.keys()}"]
        return [found for key in first for found in difference(first[key], second[key], f"{path}/{key}")]
    if isinstance(first, (list, tuple)):
        return [found for i in range(len(first)) for found in difference(first[i], second[i], f"{path}/{i}")]
    same = torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second
    return [] if same else [path]
