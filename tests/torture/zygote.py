"""A process that has imported everything and forks one training at a time, so that twenty kills need one start.

It reads a line of JSON for each training ({"args", "log", "plan"}) and answers with two: the number of the process,
then how it ended. A `plan` ({"place", "count"}) makes the training kill itself with SIGKILL at a place that no clock
could hit: see `PLACES`.
"""

import importlib
import io
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

PLAN = "TORTURE_PLAN"
IMPORTED = (
    "train", "training.launch", "training.augment", "semantic.presets", "semantic.dataset", "semantic.generator",
    "semantic.discriminator", "semantic.loss",
)  # fmt: skip
PLACES = ("half a state", "half a network", "before a rename", "before a state", "before old states go", "half a line")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def counted(function: Callable[..., Any], count: int, last: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, but the call with that number (from 1) goes to `last`."""
    calls = []

    def call(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        return (last if len(calls) == count else function)(*args, **kwargs)

    return call


def apply(place: str, count: int) -> None:
    """Have this process die when it comes to `place` for the time `count`."""
    import torch

    from dnnlib import atomic_open
    from dnnlib.files import LineFile
    from torch_utils.network_files import machine
    from training.run import checkpoint

    def half_pickle(data: Any, file: Any) -> None:
        buffer = io.BytesIO()
        dump(data, buffer)
        file.write(buffer.getvalue()[: buffer.tell() // 2])
        file.flush()
        die()

    def half_state(path: str, state: Any) -> None:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        with atomic_open(path, "wb") as file:
            file.write(buffer.getvalue()[: buffer.tell() // 2])
            file.flush()
            die()

    def half_line(self: LineFile, text: str, sync: bool = False) -> None:
        data = text.encode()
        os.write(self._handle, data[: len(data) // 2])
        die()

    dump = machine.dump
    owner, name, last = {
        "half a state": (checkpoint, "save_state", half_state),
        "half a network": (machine, "dump", half_pickle),
        "before a rename": (os, "replace", lambda *_: die()),
        "before a state": (checkpoint, "save_state", lambda *_: die()),
        "before old states go": (checkpoint, "remove_old_states", lambda *_: die()),
        "half a line": (LineFile, "write", half_line),
    }[place]
    setattr(owner, name, counted(getattr(owner, name), count, last))


def become_training(args: list[str], log: str, plan: dict[str, Any] | None) -> int:
    """Train, with all words going to the file `log`; returns the exit code."""
    import train

    os.setsid()
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for number in (1, 2):
        os.dup2(handle, number)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    if plan is not None:
        apply(**plan)
        os.environ[PLAN] = json.dumps(plan)
    try:
        train.main(args, prog_name="train.py")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 70
    return 0


def main() -> None:
    """Fork trainings until stdin closes."""
    for name in IMPORTED:
        importlib.import_module(name)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            sys.exit(become_training(order["args"], order["log"], order.get("plan")))
        answers.write(json.dumps({"pid": child}) + "\n")
        _, status = os.waitpid(child, 0)
        answers.write(json.dumps({"code": os.waitstatus_to_exitcode(status)}) + "\n")


if __name__ == "__mp_main__" and PLAN in os.environ:  # a process that the training has started
    apply(**json.loads(os.environ[PLAN]))
if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    main()
