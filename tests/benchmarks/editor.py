"""Latencies of the editor by size and kind of edit, and its memory with many sessions.

    python -m tests.benchmarks.editor
    python -m tests.benchmarks.editor --sizes=128 --threads=2 --repeats=50
    python -m tests.benchmarks.editor --device=cuda --sizes=512

Each row is one request of the page: draw the scene, and encode image and mask. Sizes: 64 and 128 are the bundled
networks, 512 is a network of the published shape, with random weights.
`--network=FILE` measures a network of yours instead. CPU time, over all threads, does not depend on other work of the
machine.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator

if __name__ == "__main__":  # as in visualizer.py
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import psutil
import torch

import legacy
from dnnlib import EasyDict
from semantic.browser.desk import Desk
from semantic.browser.networks import NetworkShelf
from semantic.generator import Generator
from semantic.regions import CELEBAMASK

SESSIONS = 20
GOALS = {("cpu", 64, False): 150, ("cpu", 128, False): 150, ("cpu", 512, True): 400, ("cuda", 512, False): 30}
"""Milliseconds by device, size, and whether it is a preview."""


def network_of(size: str) -> EasyDict:
    """Returns the networks to measure at a size, or those of a file."""
    if not size.isdigit():
        return legacy.load_network(size)
    if f"faces{size}" in legacy.NAMED:
        return legacy.load_network(f"faces{size}")
    torch.manual_seed(0)
    return EasyDict(G_ema=Generator(512, 0, 512, int(size), 3, CELEBAMASK.to_dict()), D=None)


def scenes(step: int) -> dict[str, dict]:
    """Returns a scene for each kind of edit. `step` makes each request differ from the request before."""
    start = {"seed": 2, "latents": None, "psi": 0.7, "edits": []}

    def edited(**edit: object) -> dict:
        return {**start, "edits": [{"region": "hair", **edit}]}

    return {
        "seed": {**start, "seed": step},
        "texture": edited(op="swap", seed=step, part="texture"),
        "shape": edited(op="swap", seed=step, part="shape"),
        "move": edited(op="transform", dx=step / 100, dy=0, scale=1, rotate=0),
        "on and off": edited(op="drop") if step % 2 else start,
        "truncation": edited(op="psi", psi=step / 100),
    }


def timed(work: Callable[[int], object], repeats: int, device: str) -> tuple[float, float, float]:
    """Returns median and 95th percentile of the time, and the median CPU time, in milliseconds."""
    times = []
    for step in range(-2, repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        work(step + 3)
        if device == "cuda":
            torch.cuda.synchronize()
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    wall, cpu = np.array(times[2:]).T * 1000
    return float(np.median(wall)), float(np.percentile(wall, 95)), float(np.median(cpu))


def measure(desk: Desk, repeats: int, device: str) -> Iterator[tuple[str, bool, tuple[float, float, float]]]:
    """Yields each kind of request, whether it is a preview, and its times."""
    session, network = desk.sessions.create(desk.first), desk.shelf.get(desk.first)
    for name in scenes(0):
        for preview in (False, True) if network.G.img_resolution >= 256 else (False,):

            def draw(step: int, name: str = name, preview: bool = preview) -> None:
                desk.draw(session, scenes(step)[name], preview)

            yield name, preview, timed(draw, repeats, device)


def more_memory(desk: Desk) -> float:
    """Returns how many MiB `SESSIONS` more sessions take, each with a picture."""
    process = psutil.Process(os.getpid())
    before = process.memory_info().rss
    for index in range(SESSIONS):
        desk.draw(desk.sessions.create(desk.first), scenes(index)["seed"], False)
    desk.sessions.tidy()
    return (process.memory_info().rss - before) / 2**20


def numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", help="file to measure instead of the sizes")
    parser.add_argument("--sizes", default="64,128,512", help="sizes to measure")
    parser.add_argument("--threads", type=numbers, default=[1, 2], help="numbers of threads, such as 1,2")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    threads = [1] if options.device == "cuda" else options.threads
    print(f"Load of the machine: {psutil.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
    print("| size | threads | request | median, ms | 95th percentile, ms | CPU, ms | goal, ms |")
    print("| ---: | ---: | --- | ---: | ---: | ---: | ---: |")
    memory = {}
    for size in [options.network] if options.network else options.sizes.split(","):
        desk = Desk(NetworkShelf(network_of, {size: size}, device=options.device), size)
        resolution = desk.shelf.get(size).G.img_resolution
        for count in threads:
            torch.set_num_threads(count)
            for name, preview, times in measure(desk, options.repeats, options.device):
                goal = GOALS.get((options.device, resolution, preview), "")
                cells = [f"{resolution}²", count, name + ", preview" * preview, *(f"{t:.0f}" for t in times), goal]
                print("|", " | ".join(map(str, cells)), "|", flush=True)
        memory[resolution] = more_memory(desk)
        desk.close()
    for resolution, found in memory.items():
        print(f"\n{SESSIONS} more sessions at {resolution}²: {found:.0f} MiB more memory")


if __name__ == "__main__":
    main()
