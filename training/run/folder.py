"""The folder of a run: create it, lock it, and rewind it to a saved state."""

import contextlib
import errno
import inspect
import json
import math
import os
import re
import shutil
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock

from dnnlib import EasyDict, UserError, remove_temporary
from training.run.snapshots import NETWORK_PATTERN, STATE_PATTERN, find_states

LOGS = ("log.txt", "stats.jsonl")
LOCK = ".lock"  # the file that the process in this folder keeps locked
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # errors of file systems without locks
WAIT = 30.0  # seconds that a run waits for another process to leave the folder


def next_run_dir(outdir: str | os.PathLike, description: str) -> str:
    """Create the next numbered folder under `outdir` and return its path.

    Raises:
        UserError: the folder cannot be created.
    """
    try:
        Path(outdir).mkdir(parents=True, exist_ok=True)
        numbers = [int(path.name[:5]) for path in Path(outdir).iterdir() if re.match(r"\d{5}-", path.name)]
        run_dir = Path(outdir) / f"{max(numbers, default=-1) + 1:05d}-{description}"
        run_dir.mkdir()
    except OSError as error:
        raise UserError(
            f"Cannot create a run folder under {outdir}: {error.strerror}. Choose another --outdir."
        ) from error
    return str(run_dir)


def read_options(run_dir: str | os.PathLike) -> EasyDict:
    """Returns the options of a run, as its first start saved them.

    Raises:
        UserError: the options cannot be read.
    """
    path = Path(run_dir) / "training_options.json"
    try:
        options = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(options, dict):
            raise ValueError("not a JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"Cannot read {path}: the run cannot be resumed.") from error
    return EasyDict(options)


def find_runs(outdir: str | os.PathLike) -> list[Path]:
    """Returns the run directories under `outdir`, newest first, or `outdir` itself if it is a run directory."""
    folder = Path(outdir)
    if not folder.is_dir():
        return []
    if find_states(folder) or (folder / "training_options.json").is_file():
        return [folder]
    return sorted((path for path in folder.glob("[0-9]" * 5 + "-*") if path.is_dir()), key=lambda p: p.name)[::-1]


@contextlib.contextmanager
def report_damaged_options(run_dir: str | os.PathLike, stored: bool) -> Iterator[None]:
    """Turn errors into one line that names the stored options of a run. Does nothing if `stored` is False."""
    try:
        yield
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if not stored:
            raise
        reason = f"{type(error).__name__}: {error}"[:200]
        raise UserError(
            f"{Path(run_dir) / 'training_options.json'} does not describe a run that can be resumed: {reason}"
        ) from error


def check_options(options: Mapping[str, Any], function: Callable[..., Any]) -> None:
    """Compare stored options with the parameters of a function: names, types, and signs of numbers.

    Raises:
        TypeError, ValueError: the options do not fit.
    """
    hints = typing.get_type_hints(function)
    inspect.signature(function).bind("", **options)
    for name, value in options.items():
        if not _fits(value, hints[name]):
            raise ValueError(f"{name} is {str(value)[:50]!r}")
        limit = math.inf if name == "seed" else 1 << 31
        if isinstance(value, (int, float)) and not 0 <= value < limit:
            raise ValueError(f"{name} is {value}")
        if type(value) is int and hints[name] in (int, int | None) and value < 1 and name != "seed":
            raise ValueError(f"{name} is {value}")


def _fits(value: Any, hint: Any) -> bool:
    kind = typing.get_origin(hint)
    if kind in (typing.Union, types.UnionType):
        return any(_fits(value, choice) for choice in typing.get_args(hint))
    if kind is Mapping:
        return isinstance(value, dict)
    if kind is Sequence:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    if hint is float:
        return type(value) in (int, float)
    return type(value) is hint


@contextlib.contextmanager
def lock_run(run_dir: str | os.PathLike, say: Callable[[str], None]) -> Iterator[None]:
    """Keep other processes from working in a run's folder; the lock goes with the process that holds it.

    Waits for a process that is still ending, for example after its launcher was killed. On a file system without
    locks, the folder is not locked.

    Raises:
        UserError: another process works in the folder.
    """
    lock = filelock.FileLock(os.path.join(run_dir, LOCK))
    try:
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            say(f"Waiting for another process to leave {run_dir}")
            lock.acquire(timeout=WAIT, poll_interval=0.1)
    except filelock.Timeout as error:
        raise UserError(f"Another process works in {run_dir}. End that process, or wait until it has ended.") from error
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            raise UserError(f"Cannot open {run_dir}: {error.strerror}. Check the permissions.") from error
    try:
        yield
    finally:
        lock.release()


def discard_start(run_dir: str | os.PathLike) -> None:
    """Remove the folder of a new run that failed before its first state."""
    if os.path.isdir(run_dir) and not find_states(run_dir):
        shutil.rmtree(run_dir, ignore_errors=True)


def log_sizes(run_dir: str | os.PathLike) -> dict[str, int]:
    """Returns the size in bytes of every log file of a run. Flushes the files to disk first."""
    sizes = {}
    for path in sorted(Path(run_dir).iterdir()):
        if path.name in LOGS or _is_metric(path):
            with open(path, "rb") as file:
                os.fsync(file.fileno())
                sizes[path.name] = os.fstat(file.fileno()).st_size
    return sizes


def rewind(
    run_dir: str | os.PathLike, state_path: str | os.PathLike | None, state: Mapping[str, Any], keep_log: bool = False
) -> None:
    """Remove unfinished files of killed processes, and everything written after a state was saved.

    Logs are cut to their sizes at that time. Metric results of the state's own snapshot stay. Results that other tools
    added for earlier snapshots stay too.

    Args:
        run_dir: folder of the run. No other process may work there.
        state_path: the state from which the run resumes. None empties the folder for a new start.
        keep_log: do not change log.txt.
        state: content of the state file. Its `logs` are the sizes, see `log_sizes`. Logs not listed there are removed.
    """
    sizes = state.get("logs", {})
    logs = LOGS if state_path is None or "logs" in state else ()
    try:
        remove_temporary(run_dir)
        for path in Path(run_dir).iterdir():
            if _is_metric(path):
                _rewind_metric(path, sizes.get(path.name, 0), state_path)
            elif path.name in logs and not (keep_log and path.name == "log.txt"):
                _cut(path, sizes.get(path.name, 0))
        if state_path is not None:
            for path in find_states(run_dir):
                if path.name > os.path.basename(state_path):
                    path.unlink()
    except OSError as error:
        raise UserError(
            f"Cannot rewind {run_dir} to its last state: {error.strerror}. Check the permissions."
        ) from error


def recorded_result(run_dir: str | os.PathLike, metric: str, network_path: str, size: int) -> dict[str, Any] | None:
    """Returns the result that a metric file recorded for a snapshot after its first `size` bytes, or None."""
    path = Path(run_dir) / f"metric-{metric}.jsonl"
    if path.is_file():
        for line in path.read_bytes()[size:].splitlines():
            with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
                entry = json.loads(line)
                if os.path.basename(entry["snapshot_pkl"]) == os.path.basename(network_path):
                    return dict(entry["results"])
    return None


def _is_metric(path: Path) -> bool:
    return path.name.startswith("metric-") and path.suffix == ".jsonl"


def _cut(path: Path, size: int) -> None:
    """Cut a file of lines to at most `size` bytes. Removes incomplete lines."""
    with open(path, "r+b") as file:
        head = file.read(size)
        if not head.endswith(b"\n"):
            head = head[: head.rfind(b"\n") + 1]
        file.truncate(len(head))
        os.fsync(file.fileno())


def _rewind_metric(path: Path, size: int, state_path: str | os.PathLike | None) -> None:
    """Drop lines beyond `size` that belong to later snapshots, and repeated lines of the state's own snapshot."""
    name = STATE_PATTERN.fullmatch(os.path.basename(state_path)) if state_path is not None else None
    own = int(name[1]) if name else -1
    data = path.read_bytes()
    kept, seen_own = [], False
    for line in data[size:].splitlines(keepends=True):
        number = _snapshot_number(line)
        if line.endswith(b"\n") and (number is None or number < own or (number == own and not seen_own)):
            kept.append(line)
            seen_own |= number == own
    _replace_tail(path, size, b"".join(kept), data[size:])


def _replace_tail(path: Path, size: int, tail: bytes, before: bytes) -> None:
    if tail != before:
        with open(path, "r+b") as file:
            file.seek(size)
            file.write(tail)
            file.truncate()
            os.fsync(file.fileno())
    if path.stat().st_size == 0:
        path.unlink()


def _snapshot_number(line: bytes) -> int | None:
    """Returns the thousands of images in a snapshot's name, from a line of a metric file."""
    with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
        name = NETWORK_PATTERN.fullmatch(os.path.basename(json.loads(line)["snapshot_pkl"]))
        return int(name[1]) if name else None
    return None
