"""Latencies of the editor by kind of edit, and its memory with many sessions.

    python -m tests.benchmarks.editor
    python -m tests.benchmarks.editor --network=network.pkl --repeats=50

Each row is one request of the page: draw the scene, encode image and mask. `plain` draws the whole network anew.
`--random=512` measures a network of the published format with random weights, 13 regions and that resolution.
"""

import argparse
import os
import time

import numpy as np
import psutil
import torch

import legacy
from semantic.browser.desk import Desk
from semantic.browser.networks import NetworkShelf
from semantic.generator import Generator
from semantic.regions import CELEBAMASK

SESSIONS = 20


def random_network(resolution: str) -> dict:
    """Networks of the paper's architecture with random weights."""
    torch.manual_seed(0)
    G = Generator(512, 0, 512, int(resolution), 3, CELEBAMASK.to_dict()).eval().requires_grad_(False)
    return {"G_ema": G, "D": None}


def scenes(step: int) -> dict[str, dict]:
    """A scene for each kind of edit; `step` makes each request differ from the one before."""
    start = {"seed": 2, "latents": None, "psi": 0.7, "edits": []}

    def edited(**edit: object) -> dict:
        return {**start, "edits": [{"region": "hair", **edit}]}

    return {
        "another face": {**start, "seed": step},
        "texture of one region": edited(op="swap", seed=step, part="texture"),
        "shape of one region": edited(op="swap", seed=step, part="shape"),
        "move of one region": edited(op="transform", dx=step / 100, dy=0, scale=1, rotate=0),
        "truncation of one region": edited(op="psi", psi=step / 100),
        "leave one region out": edited(op="drop") if step % 2 else start,
    }


def measure(desk: Desk, repeats: int) -> list[tuple[str, float, float]]:
    """Name, median and 95th percentile of each kind of request, in milliseconds."""
    session = desk.sessions.create(desk.first)
    rows = []
    for name in scenes(0):
        for preview in (True, False):
            times = []
            for step in range(-2, repeats):
                scene = scenes(step + 3)[name]
                since = time.perf_counter()
                desk.draw(session, scene, preview)
                times.append(time.perf_counter() - since)
            found = np.percentile(np.array(times[2:]) * 1000, [50, 95])
            rows.append((f"{name}, {'preview' if preview else 'whole'}", *found))
    G = desk.shelf.get(desk.first).G
    ws = desk.shelf.get(desk.first).codes(1)
    times = []
    for _ in range(min(repeats, 10)):
        since = time.perf_counter()
        with torch.no_grad():
            G.synthesis(ws, noise_mode="const", return_mask=True)
        times.append(time.perf_counter() - since)
    rows.append(("plain: the whole network, nothing encoded", *np.percentile(np.array(times) * 1000, [50, 95])))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", help="network to measure; the bundled one by default")
    parser.add_argument("--random", type=int, metavar="RESOLUTION", help="measure random weights instead")
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    name = f"random, {options.random}²" if options.random else options.network or "faces64"
    load = random_network if options.random else legacy.load_network
    source = str(options.random or options.network or legacy.find_network())
    desk = Desk(NetworkShelf(load, {name: source}), name)
    resolution = desk.shelf.get(name).G.img_resolution
    print(f"{name}: {resolution}², {torch.get_num_threads()} threads\n")
    print("| request | median, ms | 95th percentile, ms |\n| --- | ---: | ---: |")
    for row in measure(desk, options.repeats):
        print("| {} | {:.0f} | {:.0f} |".format(*row), flush=True)

    process = psutil.Process(os.getpid())
    before = process.memory_info().rss
    for index in range(SESSIONS):
        desk.draw(desk.sessions.create(name), scenes(index)["another face"], False)
    desk.sessions.tidy()
    print(f"\n{SESSIONS} more sessions: {(process.memory_info().rss - before) / 2**20:.0f} MiB more memory")
    desk.close()


if __name__ == "__main__":
    main()
