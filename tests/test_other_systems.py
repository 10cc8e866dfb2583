"""The main commands on systems that lack what only Linux has, such as Windows and macOS."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHIM = """
import builtins, os, signal, sys

import psutil  # its version for Linux needs what goes away below

for module in ("fcntl", "pwd", "grp", "resource", "termios"):
    sys.modules[module] = None
for name in ("SIGKILL", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGPIPE"):
    delattr(signal, name)
for name in ("fork", "forkpty", "killpg", "getuid", "geteuid", "sched_getaffinity", "mkfifo", "fchmod"):
    if hasattr(os, name):
        delattr(os, name)

OTHERS = ("psutil", "torch", "numpy")  # packages that have files of their own for each system


def without_linux(function):
    def call(path, *args, **kwargs):
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if str(path).startswith(("/proc", "/sys", "/dev/shm")) and not caller.startswith(OTHERS):
            raise FileNotFoundError(2, "No such file or directory", path)
        return function(path, *args, **kwargs)
    return call


builtins.open = without_linux(builtins.open)
os.listdir, os.stat = without_linux(os.listdir), without_linux(os.stat)
"""
COMMANDS = """
import traceback
from pathlib import Path

from click.testing import CliRunner

import calc_metrics, dataset_tool, generate, legacy, train

def run(command, *args):
    result = CliRunner().invoke(command.main, args)
    if result.exit_code:
        trace = "".join(traceback.format_exception(result.exception))
        raise SystemExit(f"{command.__name__} {args}: {result.output} {trace}")

run(dataset_tool, "--source=procedural", "--width=32", "--height=32", "--max-images=4", "--workers=0", "--dest=d.zip")
small = ("--device=cpu", "--workers=0", "--snap=1", "--tick=0.004")
run(train, "--cfg=semantic", "--data=d.zip", "--batch=4", "--cbase=64", "--kimg=0.008", *small)
run(train, "--resume=latest", "--kimg=0.012", "--device=cpu", "--workers=0")
network = str(next(Path("training-runs").glob("*/network-*.pkl")))
run(generate, f"--network={network}", "--seeds=0", "--save-masks", "--device=cpu")
run(legacy, f"--source={network}", "--dest=copy.pkl")
print("all done")
"""


def test_nothing_that_only_linux_has_is_needed(tmp_path):
    (tmp_path / "shim").mkdir()
    (tmp_path / "shim" / "sitecustomize.py").write_text(SHIM)
    path = os.pathsep.join([str(tmp_path / "shim"), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "DNNLIB_CACHE_DIR": str(tmp_path / "c")}
    command = [sys.executable, "-c", COMMANDS]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.endswith("all done\n")
