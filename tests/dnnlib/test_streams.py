"""Whatever becomes of standard output and error, the work goes on."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tqdm import tqdm

from dnnlib import Command, Logger, SteadyStream
from dnnlib.streams import protected, readable

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import sys, time, click
from pathlib import Path
from tqdm import tqdm
from dnnlib import Command

@click.command(cls=Command)
@click.option("--done")
def main(done):
    "Works on 32² images, 5·10⁻² each – \U0001f600."
    for step in tqdm(range(3)):
        tqdm.write(f"step {step} of 32²")
        click.echo("é" * 3000)
        print("to the other one", file=sys.stderr, flush=True)
    Path(done).write_text("done")

if __name__ == "__main__":
    main()
"""


class Broken(io.StringIO):
    """A stream that fails with an error of the system."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text):
        raise self.error

    def flush(self):
        raise self.error


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("script") / "script.py"
    path.write_text(SCRIPT, encoding="utf-8")
    return path


def run(script, tmp_path, redirect="", args=None, **env):
    """Run the script in a shell; True if its work was done, the exit code, and what was printed."""
    done = tmp_path / "done"
    arguments = f"--done={done}" if args is None else args
    result = subprocess.run(
        ["bash", "-c", f'( "{sys.executable}" "{script}" {arguments}; echo $? > "{tmp_path}/code" ) {redirect}'],
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        check=False,
    )
    return done.exists(), int((tmp_path / "code").read_text()), result


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
@pytest.mark.parametrize(
    "redirect",
    [
        "| head -1", "2>&1 | head -1", "2>&1 >/dev/null | head -1", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-",
        pytest.param("> /dev/full", marks=pytest.mark.skipif(not os.path.exists("/dev/full"), reason="not there")),
        pytest.param("> /dev/full 2>&1", marks=pytest.mark.skipif(not os.path.exists("/dev/full"), reason="not there")),
    ],
)  # fmt: skip
def test_streams_that_break_fill_or_are_closed_cost_no_step(script, tmp_path, redirect):
    done, code, result = run(script, tmp_path, redirect)
    assert (done, code) == (True, 0)
    assert b"Traceback" not in result.stderr
    assert b"Exception ignored" not in result.stderr


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
@pytest.mark.parametrize("encoding", ["ascii", "cp1251", "cp932", "latin-1"])
def test_a_terminal_shows_what_it_can(script, tmp_path, encoding):
    done, code, result = run(script, tmp_path, PYTHONIOENCODING=encoding)
    assert (done, code) == (True, 0)
    square = "²" if encoding in ("latin-1", "utf-8") else "^2"
    assert f"step 2 of 32{square}" in result.stdout.decode(encoding)
    _, code, result = run(script, tmp_path, args="--help", PYTHONIOENCODING=encoding)
    assert code == 0
    assert f"Works on 32{square} images" in result.stdout.decode(encoding)


def test_signs_that_an_encoding_lacks_get_readable_ones():
    assert readable("32² × 5·10⁻¹ é ß …", "ascii") == "32^2 x 5*10^-^1 e ss ..."
    assert readable("Ж²", "cp1251") == "Ж^2"
    assert readable("32²", "gbk") == readable("32²", "big5") == "32^2"
    assert readable("日本", "ascii") == "\\u65e5\\u672c"
    assert readable("name\udcff.png", "utf-8") == "name\\udcff.png"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EPIPE, errno.EAGAIN])
def test_errors_of_the_system_stay_within_the_stream(number):
    stream = SteadyStream(Broken(OSError(number, os.strerror(number))))
    assert stream.write("text") == 4
    stream.flush()
    print("more", file=stream, flush=True)
    tqdm.write("again", file=stream)
    stream.finish()
    assert (stream.failure is None) == (number == errno.EPIPE)  # a reader that has left misses nothing


def test_a_stream_that_is_missing_or_closed_takes_all_text():
    closed = io.StringIO()
    closed.close()
    for stream in (SteadyStream(None), SteadyStream(closed)):
        assert stream.write("text") == 4
        stream.flush()
        assert not stream.isatty()
        with pytest.raises(io.UnsupportedOperation):
            stream.fileno()


def test_the_log_is_kept_where_nothing_can_be_printed(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", Broken(OSError(errno.ENOSPC, "full")))
    with Logger(tmp_path / "log.txt"):
        print("one 32²")
        print("two", file=sys.stderr)
    assert (tmp_path / "log.txt").read_text(encoding="utf-8") == "one 32²\ntwo\n"


def test_afterwards_the_streams_are_as_before():
    before = sys.stdout, sys.stderr
    with protected():
        assert sys.stdout is not before[0]
    assert (sys.stdout, sys.stderr) == before


def test_results_that_are_lost_are_an_error(monkeypatch, capsys):
    class Printing(Command):
        prints_results = True

    for kind, code in ((Command, 0), (Printing, 1)):
        monkeypatch.setattr(sys, "stdout", Broken(OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(SystemExit) as ending:
            kind("script", callback=lambda: print("result")).main([])
        assert ending.value.code == code
        assert "No space left on device" in capsys.readouterr().err


def test_every_script_has_steady_streams():
    import calc_metrics
    import dataset_tool
    import generate
    import legacy
    import train

    for module in (calc_metrics, dataset_tool, generate, legacy, train):
        assert isinstance(module.main, Command), module.__name__
    for path in ROOT.glob("*.py"):
        if "@click.command" in path.read_text(encoding="utf-8"):
            assert "Command" in path.read_text(encoding="utf-8").split("@click.command", 1)[1].split("\n", 1)[0], path
