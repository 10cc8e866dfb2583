"""One hostile case: a command run in a folder of its own, and a verdict on how it ended.

Cases run one after the other in a worker process (`python -m tests.torture.harness SAMPLES`), so that a hang, a crash
of a C library or a flood of memory ends the worker alone. It reads one case a line and answers one line of JSON each.
"""

import contextlib
import json
import os
import re
import resource
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TIME_LIMIT = 30  # seconds of a processor a case
WAIT_LIMIT = 120  # seconds by the clock, for cases that wait for what never comes
MEMORY_LIMIT = 1 << 30  # bytes above what the process had before the case
ADDRESS_SPACE = 4 << 30  # what a case may reserve before the system refuses it
TIMERS = ((signal.SIGALRM, signal.ITIMER_REAL, WAIT_LIMIT), (signal.SIGPROF, signal.ITIMER_PROF, TIME_LIMIT))
PROGRESS = re.compile(r"\d+%\||\d+img \[|^\s*$|\x1b\[A")


@dataclass
class Command:
    """What a case runs: the name of a tool and its arguments; `out` is the only folder that it may write into."""

    tool: str
    args: list[str]
    out: Path


class TimeLimit(BaseException):
    """A case took longer than `TIME_LIMIT`."""


def judge(exit_code: int, exception: BaseException | None, output: str, errors: str) -> list[str]:
    """What is wrong with the way in which a command ended; empty where nothing is."""
    if exception is not None and not isinstance(exception, SystemExit):
        frames = traceback.extract_tb(exception.__traceback__)[-1:]
        place = "".join(f" in {Path(frame.filename).name}:{frame.lineno}" for frame in frames)
        return [f"{type(exception).__name__}: {str(exception)[:200]}{place}"]
    wrong = []
    if exit_code not in (0, 1, 2):
        wrong.append(f"exit code {exit_code}")
    if "Traceback" in output + errors:
        wrong.append("a traceback")
    lines = [line for line in re.split(r"[\r\n]", errors) if not PROGRESS.search(line)]
    if exit_code == 2:
        lines = [line for line in lines if not line.startswith(("Usage: ", "Try "))]
    said = [line for line in lines if line.startswith("Error: ")]
    if exit_code and len(said) != 1:
        wrong.append(f"{len(said)} error lines: {errors[-300:]!r}")
    if len(lines) > len(said):
        wrong.append(f"more than an error on stderr: {[line for line in lines if line not in said][:3]}")
    if exit_code == 0 and said:
        wrong.append("an error line, but exit code 0")
    for line in said:
        if not line.isprintable():
            wrong.append(f"an error line that is not plain text: {line[:300]!r}")
        if len(line) > 1500:
            wrong.append(f"an error line of {len(line)} letters: {line[:200]!r}")
    return wrong


def tree(folder: Path, without: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of everything below `folder`, apart from what is in `without`."""
    found = {}
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if Path(parent, name) != without]
        for name in [*folders, *files]:
            path = Path(parent, name)
            status = path.lstat()
            found[str(path.relative_to(folder))] = (0 if name in folders else status.st_size, status.st_mtime_ns)
    return {name: entry for name, entry in found.items() if Path(folder, name) != without.parent}


class Peak:
    """The most memory that this process takes from now on, above what it has now; 0 where the system does not tell."""

    def __init__(self):
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        self._start = self._status("VmRSS")

    def bytes(self) -> int:
        return self._status("VmHWM") - self._start

    @staticmethod
    def _status(name: str) -> int:
        with contextlib.suppress(OSError):
            found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
            return int(found[1]) << 10 if found else 0
        return 0


@contextlib.contextmanager
def limits() -> Iterator[None]:
    """Bound time and address space, so that a fault ends as one of Python's exceptions and not on the whole machine."""

    def too_long(*_: Any) -> None:
        raise TimeLimit(f"not done after {TIME_LIMIT} s of work or {WAIT_LIMIT} s by the clock")

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ADDRESS_SPACE, hard))
    for number, timer, limit in TIMERS:
        signal.signal(number, too_long)
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for number, timer, _ in TIMERS:
            signal.setitimer(timer, 0)
            signal.signal(number, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def run_case(family: str, seed: int, samples: Path) -> dict[str, Any]:
    """Build one case, run it and judge it."""
    from click.testing import CliRunner

    from tests.torture import cases

    # Three folders above the output, so that a name like ../../x lands where it is seen.
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    out = folder / "work" / "deep" / "out"
    out.parent.mkdir(parents=True)
    here = Path.cwd()
    try:
        (folder / "in").mkdir()
        try:
            command = cases.FAMILIES[family](seed, folder / "in", out, samples)
        except Exception:
            return {"wrong": [f"cannot be built: {traceback.format_exc()}"], "code": -1}
        os.chdir(out.parent)
        before = tree(folder, command.out), tree(samples, out)
        peak, start = Peak(), time.monotonic()
        try:
            with limits():
                result = CliRunner().invoke(cases.TOOLS[command.tool], command.args, prog_name=command.tool)
        except TimeLimit as error:
            return {"wrong": [str(error)], "code": -1, "command": [command.tool, *command.args]}
        seconds, memory = time.monotonic() - start, peak.bytes()
        wrong = judge(result.exit_code, result.exception, result.stdout, result.stderr)
        after = tree(folder, command.out), tree(samples, out)
        for old, new in zip(before, after, strict=True):
            changed = [name for name in {**old, **new} if old.get(name) != new.get(name)]
            if changed:
                wrong.append(f"changed outside of the output folder: {sorted(changed)[:5]}")
        left = [path.name for path in command.out.glob("**/*.tmp*")] if command.out.is_dir() else []
        if left:
            wrong.append(f"left {left[:3]}")
        if memory > MEMORY_LIMIT:
            wrong.append(f"took {memory >> 20} MB")
        line = next((line for line in result.stderr.splitlines() if line.startswith("Error: ")), "")
        return {
            "wrong": wrong,
            "code": result.exit_code,
            "line": line[:300],
            "seconds": round(seconds, 2),
            "memory": memory >> 20,
            "command": [command.tool, *(arg[:200] for arg in command.args)],
        }
    finally:
        os.chdir(here)
        shutil.rmtree(folder, ignore_errors=True)


class Worker:
    """The process that runs cases; it is started again after a case that ended it.

    Args:
        samples: folder of what the cases damage, see `cases.make_samples`.
    """

    def __init__(self, samples: Path):
        self._samples = samples
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def run(self, family: str, seed: int) -> dict[str, Any]:
        """The answer of `run_case`, or what became of the process."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.torture.harness", str(self._samples)],
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        self._process.stdin.write(f"{family} {seed}\n")
        self._process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            answered = selector.select(WAIT_LIMIT + 60)  # the first case waits for imports
        line = self._process.stdout.readline() if answered else ""
        if line:
            return json.loads(line)
        code = self._stop() if not answered else self._process.wait(10)
        self._stop()
        what = f"hangs for more than {WAIT_LIMIT} s" if not answered else f"ended its process with code {code}"
        return {"wrong": [what], "code": code, "line": "", "seconds": 0, "memory": 0, "command": []}

    def _stop(self) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        process.kill()
        process.stdin.close()
        process.stdout.close()
        return process.wait()


def main() -> None:
    """Answer cases from stdin until it closes."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nothing that a library prints may mix with the answers
    for line in sys.stdin:
        family, seed = line.split()
        answers.write(json.dumps(run_case(family, int(seed), Path(sys.argv[1]))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
