"""Trainings that are killed and continued, and what must be the same afterwards."""

import contextlib
import json
import math
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import psutil
import torch

import legacy
from torch_utils.network_files.rebuild import named_tensors

ROOT = Path(__file__).resolve().parents[2]
COMPLETE = re.compile(r"Error: .* has reached its [\d.]+ kimg")
LOST = re.compile("Error: SIGKILL ended one of the 2 processes")
UNTIMED = ("Timing/", "Resources/", "timestamp")


class Trainings:
    """Runs train.py, one process (or group of processes) at a time.

    Args:
        folder: where the logs of the processes go.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._started = 0

    def __enter__(self) -> "Trainings":
        self._zygote = subprocess.Popen(
            [sys.executable, "-m", "tests.torture.zygote"],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._zygote.kill()
        self._zygote.wait()
        self._zygote.stdin.close()
        self._zygote.stdout.close()

    def start(self, args: list[str], plan: dict[str, Any] | None = None) -> SimpleNamespace:
        """Start a training; `pid` leads a process group of its own, `log` is what it prints."""
        self._started += 1
        log = self.folder / f"{self._started:03d}.txt"
        self._zygote.stdin.write(json.dumps({"args": args, "log": str(log), "plan": plan}) + "\n")
        self._zygote.stdin.flush()
        return SimpleNamespace(pid=self._answer(60)["pid"], log=log)

    def wait(self, seconds: float) -> int | None:
        """The exit code of the training, negative for a signal; None if it still runs after so many seconds."""
        answer = self._answer(seconds)
        return None if answer is None else answer["code"]

    def run(self, args: list[str], plan: dict[str, Any] | None = None, seconds: float = 600) -> tuple[int, str]:
        """Start a training and wait for its end: exit code and what it printed."""
        training = self.start(args, plan)
        code = self.wait(seconds)
        if code is None:
            kill_group(training.pid)
            raise TimeoutError(f"a training went on for {seconds} s: {training.log.read_text()[-2000:]}")
        return code, training.log.read_text()

    def _answer(self, seconds: float) -> dict[str, Any] | None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._zygote.stdout, selectors.EVENT_READ)
            return json.loads(self._zygote.stdout.readline()) if selector.select(seconds) else None


def members_of(pid: int) -> list[psutil.Process]:
    """The training processes that process `pid` has started, oldest first."""
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(pid).children()
        return sorted((c for c in children if "spawn_main" in " ".join(c.cmdline())), key=psutil.Process.create_time)
    return []


def kill_group(pid: int) -> None:
    """SIGKILL for a process and all of its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def kill_and_resume(
    trainings: Trainings,
    new: list[str],
    resume: list[str],
    outdirs: list[Path],
    places: Sequence[str | None],
    random: Random,
) -> tuple[Path, list[str]]:
    """Kill a training again and again, and continue it each time.

    A run that ends before it was killed often enough starts once more, in the next of `outdirs`.

    Args:
        trainings: runs them.
        new, resume: arguments that start and that continue a run, without --outdir.
        outdirs: empty folders.
        places: where to kill, one a kill: one of `zygote.PLACES`, or None for a random moment.
        random: chooses the moments.

    Returns:
        The run directory of the last run, which reached its end, and what each kill hit.
    """
    hits: list[str] = []
    for outdir in outdirs:
        finished = False
        while not finished:
            begun = any(outdir.glob("*/training_options.json"))
            args = [f"--outdir={outdir}", *(resume if begun else new)]
            place = places[len(hits)] if len(hits) < len(places) else None
            plan = {"place": place, "count": random.randint(1, 3)} if place else None
            training = trainings.start(args, plan)
            code, moment = None, None
            if len(hits) < len(places) and place is None:
                moment = random.uniform(0.0, 4.0)
                code = trainings.wait(moment)
                if code is None:
                    kill_group(training.pid)
            if code is None:
                code = trainings.wait(600)
            kill_group(training.pid)  # what is left of a group whose first process died
            if code == -signal.SIGKILL or (code == 1 and LOST.search(training.log.read_text())):
                hits.append(place or f"after {moment:.1f} s")
            elif code == 1 and COMPLETE.search(training.log.read_text()):
                code = 0  # the kill before came after the last state
            elif code != 0:
                raise AssertionError(f"exit code {code} after {hits}: {training.log.read_text()[-2000:]}")
            finished = code == 0
        if len(hits) == len(places):
            (run_dir,) = (path.parent for path in outdir.glob("*/training_options.json"))
            return run_dir, hits
    raise AssertionError(f"all runs ended after {len(hits)} of {len(places)} kills")


def kill_one_rank(trainings: Trainings, args: list[str], run_dir: Path, random: Random) -> tuple[float, int, str]:
    """Kill one process of a group in the middle of its work.

    Returns:
        Seconds until all were gone, the exit code, and what was printed.
    """
    training = trainings.start(args)
    deadline = time.monotonic() + 300
    while not any(run_dir.glob("*/training-state-*.pt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    members = members_of(training.pid)
    assert len(members) == 2, training.log.read_text()[-2000:]
    time.sleep(random.uniform(0, 1))
    start = time.monotonic()
    random.choice(members).kill()
    code = trainings.wait(60)
    psutil.wait_procs(members, 60)
    seconds = time.monotonic() - start
    kill_group(training.pid)
    return seconds, code, training.log.read_text()


def differences(first: Path, second: Path) -> list[str]:
    """In what two runs differ, apart from the time they took: states, networks, statistics, pictures, options."""
    found = []
    names = [{path.name for path in folder.iterdir() if "tfevents" not in path.name} for folder in (first, second)]
    found += [f"only one has {name}" for name in sorted(names[0] ^ names[1])]
    for name in sorted(names[0] & names[1]):
        if name.endswith(".pt"):
            states = [torch.load(folder / name, weights_only=True) for folder in (first, second)]
            for state in states:
                state["run"].pop("elapsed")
                state.pop("logs", None)  # lengths of files that tell times
            found += [f"{name}{place}" for place in unequal(*states) if not any(word in place for word in UNTIMED)]
        elif name == "stats.jsonl":
            lines = [(folder / name).read_text().splitlines() for folder in (first, second)]
            kept = [
                [{k: v for k, v in json.loads(line).items() if not k.startswith(UNTIMED)} for line in part]
                for part in lines
            ]
            found += [f"{name}{place}" for place in unequal(*kept)]
        elif name.endswith(".pkl"):
            found += [f"{name}{place}" for place in unequal(*(_networks(folder / name) for folder in (first, second)))]
        elif name.endswith((".png", ".json")) and (first / name).read_bytes() != (second / name).read_bytes():
            found.append(name)
    return found


def _networks(path: Path) -> dict[str, Any]:
    """Tensors and constructor arguments of a snapshot."""
    data = legacy.load_network(path)
    networks = {key: data[key] for key in ("G", "D", "G_ema", "augment_pipe")}
    tensors = {key: None if n is None else {**named_tensors(n), **n.init_kwargs} for key, n in networks.items()}
    return {**tensors, "training_set_kwargs": dict(data.training_set_kwargs)}


def unequal(first: Any, second: Any, place: str = "") -> list[str]:
    """Where two structures of plain data and tensors differ, bit for bit."""
    if isinstance(first, (int, float)) and isinstance(second, (int, float)):
        return [] if first == second or (math.isnan(first) and math.isnan(second)) else [place]
    if type(first) is not type(second):
        return [f"{place} ({type(first).__name__} and {type(second).__name__})"]
    if isinstance(first, dict):
        if first.keys() != second.keys():
            return [f"{place} (keys {sorted(map(str, first.keys() ^ second.keys()))})"]
        return [found for key in first for found in unequal(first[key], second[key], f"{place}/{key}")]
    if isinstance(first, (list, tuple)):
        if len(first) != len(second):
            return [f"{place} ({len(first)} and {len(second)} items)"]
        return [found for i in range(len(first)) for found in unequal(first[i], second[i], f"{place}/{i}")]
    same = torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second
    return [] if same else [place]
