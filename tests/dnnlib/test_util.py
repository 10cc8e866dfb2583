"""Dictionaries with attributes, objects by name, the log file, downloads."""

import copy
import http.server
import io
import os
import pickle
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from tqdm import tqdm

import dnnlib
from dnnlib import EasyDict, Logger, UserError, call_func_by_name, construct_class_by_name, get_obj_by_name, open_url
from dnnlib.cache import cached_path, find_kept


def test_easy_dict_is_a_dictionary_with_attributes():
    d = EasyDict(a=1)
    d.b = 2
    d["c"] = 3
    assert d == {"a": 1, "b": 2, "c": 3}
    assert (d.a, d.b, d.c) == (1, 2, 3)
    del d.a
    assert "a" not in d
    with pytest.raises(AttributeError):
        d.a  # noqa: B018 - reading is what fails
    with pytest.raises(AttributeError):
        del d.a
    assert getattr(d, "a", 7) == 7
    assert not hasattr(d, "a")


def test_easy_dict_survives_copies_and_pickles():
    d = EasyDict(a=EasyDict(b=[1]))
    for other in (copy.copy(d), copy.deepcopy(d), pickle.loads(pickle.dumps(d))):
        assert type(other) is EasyDict
        assert other.a.b == [1]


def test_objects_by_name():
    assert get_obj_by_name("dnnlib.util.EasyDict") is EasyDict
    assert get_obj_by_name("dnnlib.util.EasyDict.keys") == EasyDict.keys
    assert construct_class_by_name(class_name="collections.Counter", a=2) == {"a": 2}
    assert call_func_by_name("x", func_name="os.path.join") == "x"


@pytest.mark.parametrize("name", ["", "nothing", "nothing.here", "dnnlib.util.Nothing", "dnnlib.util.EasyDict.no", "."])
def test_unknown_names_are_told_in_one_line(name):
    with pytest.raises(UserError, match=r"( has no |Cannot import )") as caught:
        get_obj_by_name(name)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("name", ["a..b", ".dnnlib.util", "dnnlib.", "a b.c", "os.path\n.join"])
def test_what_is_no_dotted_path_is_told_in_one_line(name):
    with pytest.raises(UserError, match="Expected a dotted path"):
        get_obj_by_name(name)


def test_what_cannot_be_called_is_told_in_one_line():
    with pytest.raises(UserError, match="not callable"):
        call_func_by_name(func_name="os.path.sep")


def test_a_module_that_lacks_its_own_requirement_says_which(tmp_path, monkeypatch):
    (tmp_path / "needs_something.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        get_obj_by_name("needs_something.Thing")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.6, "1m 00s"), (185, "3m 05s"), (7269, "2h 01m 09s"), (100800, "1d 04h 00m")],
)
def test_format_time(seconds, text):
    assert dnnlib.format_time(seconds) == text


def test_log_holds_what_was_printed_on_both_streams(tmp_path, capsys):
    before = sys.stdout, sys.stderr
    with Logger(tmp_path / "log.txt"):
        print("first")
        print("second", file=sys.stderr)
        print()
        assert (tmp_path / "log.txt").read_text() == "first\nsecond\n\n"
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr() == ("first\n\n", "second\n")


def test_log_is_continued(tmp_path):
    for text in ("one", "two"):
        with Logger(tmp_path / "log.txt", file_mode="a"):
            print(text)
    assert (tmp_path / "log.txt").read_text() == "one\ntwo\n"


def test_log_works_without_with_and_without_a_file(tmp_path, capsys):
    before = sys.stdout, sys.stderr
    log = Logger(file_name=tmp_path / "log.txt", file_mode="w", should_flush=True)
    assert sys.stdout is not before[0]
    print("first")
    log.write(b"second\n")
    print("an end", end="")
    log.flush()
    log.close()
    log.close()
    assert (sys.stdout, sys.stderr) == before
    assert (tmp_path / "log.txt").read_text() == "first\nsecond\nan end\n"
    with Logger():
        print("no file")
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr().out == "first\nsecond\nan endno file\n"


def test_a_log_gives_back_only_the_streams_that_it_took(tmp_path):
    before = sys.stdout
    outer = Logger(tmp_path / "outer.txt")
    inner = Logger(tmp_path / "inner.txt")
    outer.close()
    print("still logged")
    inner.close()
    sys.stdout = before
    assert (tmp_path / "inner.txt").read_text() == "still logged\n"


def log_and_fail(path):
    with Logger(path):
        print("a")
        raise ValueError("no")


def test_log_is_closed_after_an_error(tmp_path):
    before = sys.stdout
    with pytest.raises(ValueError, match="no"):
        log_and_fail(tmp_path / "log.txt")
    assert sys.stdout is before
    assert (tmp_path / "log.txt").read_text() == "a\n"


def test_log_holds_one_line_of_a_progress_bar(tmp_path):
    with Logger(tmp_path / "log.txt"):
        bar = tqdm(total=500, mininterval=0, miniters=1, ncols=60, desc="Work")
        for i in range(500):
            bar.update()
            if i == 250:
                tqdm.write("halfway")
        waiting = len(sys.stderr._line)
        bar.close()
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert "halfway" in lines
    assert len([line for line in lines if line.startswith("Work")]) == 1
    assert len(lines) <= 3
    assert waiting < 200  # what the bar redraws is not kept


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` at any path; `breaks` answers in the middle of which the connection is cut."""

    content = bytes(range(256)) * 8000

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.breaks, self.ranges, self.seen, self.status = 0, True, [], 200
        self.url = f"http://127.0.0.1:{self.server_port}/some/net%20work.pkl"

    def handle_error(self, *_):
        pass


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.seen.append(asked)
        if self.server.status != 200:
            self.send_error(self.server.status)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.ranges else 0
        body = self.server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.server.breaks:
            self.server.breaks -= 1
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.connection.close()
            return
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("dnnlib.util.time.sleep", lambda seconds: None)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = Server()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def cache_of(tmp_path):
    return [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_downloads_once(server, tmp_path):
    for _ in range(2):
        with open_url(server.url, verbose=False) as file:
            assert file.read() == server.content
    assert len(server.seen) == 1
    (cached,) = cache_of(tmp_path)
    assert cached == cached_path(server.url)
    assert cached.name.endswith("_net_work.pkl")


def test_without_the_cache_nothing_is_kept(server, tmp_path):
    with open_url(server.url, cache=False, verbose=False) as file:
        assert file.read() == server.content
    assert not cache_of(tmp_path)


@pytest.mark.parametrize("cache", [True, False])
def test_a_broken_download_is_continued(server, tmp_path, cache):
    server.breaks = 2
    with open_url(server.url, cache=cache, verbose=False) as file:
        assert file.read() == server.content
    assert [asked is None for asked in server.seen] == [True, False, False]
    assert len(cache_of(tmp_path)) == cache


def test_a_broken_download_starts_over_where_it_cannot_be_continued(server):
    server.breaks, server.ranges = 1, False
    with open_url(server.url, verbose=False) as file:
        assert file.read() == server.content


def test_a_download_that_never_ends_leaves_nothing(server, tmp_path):
    server.breaks = 100
    with pytest.raises(UserError, match="Cannot download") as caught:
        open_url(server.url, verbose=False)
    assert str(cached_path(server.url)) in str(caught.value)
    assert not cache_of(tmp_path)


@pytest.mark.parametrize(("status", "attempts"), [(404, 1), (503, 4)])
def test_a_refusal_is_told_in_one_line(server, tmp_path, status, attempts):
    server.status = status
    with pytest.raises(UserError, match=f"the server answered {status}") as caught:
        open_url(server.url, verbose=False)
    assert server.url in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(server.seen) == attempts
    assert not cache_of(tmp_path)


def test_local_files(tmp_path):
    path = tmp_path / "a b.bin"
    path.write_bytes(b"x")
    for name in (path, str(path), path.as_uri()):
        with open_url(name) as file:
            assert file.read() == b"x"


def test_the_path_of_a_file_instead_of_the_file(server, tmp_path):
    path = tmp_path / "a b.bin"
    path.write_bytes(b"x")
    assert open_url(path.as_uri(), return_filename=True) == str(path)
    found = open_url(server.url, cache_dir=tmp_path / "mine", verbose=False, return_filename=True)
    assert Path(found).parent == tmp_path / "mine"
    assert Path(found).read_bytes() == server.content
    open_url(server.url, str(tmp_path / "mine"), 1, False).close()
    assert len(server.seen) == 1
    with pytest.raises(ValueError, match="has no path"):
        open_url(server.url, return_filename=True, cache=False)


def test_a_download_is_tried_as_often_as_asked(server, tmp_path):
    server.status = 503
    with pytest.raises(UserError, match=f"answered 503.*{tmp_path / 'mine'}"):
        open_url(server.url, tmp_path / "mine", num_attempts=2, verbose=False)
    assert len(server.seen) == 2


def test_addresses_are_told_from_paths():
    assert dnnlib.is_url("https://example.com/a.pkl")
    assert not any(map(dnnlib.is_url, ("a.pkl", "C:\\a.pkl", "file:///a.pkl", None, Path("a"))))
    assert dnnlib.is_url("file:///a.pkl", allow_file_urls=True)


def test_the_module_of_a_dotted_name():
    module, name = dnnlib.get_module_from_obj_name("dnnlib.util.Logger.close")
    assert (module.__name__, name) == ("dnnlib.util", "Logger.close")
    with pytest.raises(UserError, match=r"dnnlib.util has no 'Nobody'"):
        dnnlib.get_module_from_obj_name("dnnlib.util.Nobody")


def test_yes_or_no_is_asked_until_it_is_answered(monkeypatch, capsys):
    for text, expected in (("maybe\nYes\n", True), ("n\n", False)):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        assert dnnlib.ask_yes_no("Really?") is expected
    assert capsys.readouterr().out.count("Really? [y/n]") == 3


@pytest.mark.parametrize("name", ["nothing.pkl", "folder"])
def test_local_files_that_cannot_be_opened_are_told_in_one_line(tmp_path, name):
    (tmp_path / "folder").mkdir()
    for address in (str(tmp_path / name), (tmp_path / name).as_uri()):
        with pytest.raises(UserError, match="Check the path"):
            open_url(address)


def test_cache_folder_is_the_users_choice(monkeypatch):
    monkeypatch.setenv("DNNLIB_CACHE_DIR", os.path.join("x", "y"))
    assert dnnlib.make_cache_dir_path("a", "b") == dnnlib.make_cache_dir_path() / "a" / "b"
    assert str(dnnlib.make_cache_dir_path()) == os.path.join("x", "y")
    monkeypatch.delenv("DNNLIB_CACHE_DIR")
    assert dnnlib.make_cache_dir_path().parts[-2:] == (".cache", "dnnlib")


def test_a_user_without_a_home_has_a_cache(monkeypatch):
    def no_home(*_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("DNNLIB_CACHE_DIR", raising=False)
    monkeypatch.setattr("pathlib.Path.home", no_home)
    assert str(dnnlib.make_cache_dir_path()).startswith(tempfile.gettempdir())


def test_a_download_is_used_where_the_cache_cannot_be_written(server, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path / "file"))
    for _ in range(2):
        with open_url(server.url, verbose=False) as file:
            assert file.read() == server.content
            assert os.path.isfile(file.name)
    assert len(server.seen) == 1
    line = f"Cannot write the cache {tmp_path / 'file'}"
    said = capsys.readouterr().err.splitlines()
    assert [text.startswith(line) for text in said] == [True]
    assert "DNNLIB_CACHE_DIR" in said[0]
    assert find_kept(cached_path("http://nowhere/x")) is None


def test_where_nothing_can_be_written_the_error_names_the_cache(server, tmp_path, monkeypatch):
    (tmp_path / "other").touch()
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path / "other"))
    monkeypatch.setattr("dnnlib.cache._stand_in", lambda path, make=False: None)
    with pytest.raises(UserError, match=r"Cannot write the cache .*DNNLIB_CACHE_DIR"):
        open_url(server.url, verbose=False)


def test_a_failed_download_is_told_as_one_where_the_cache_cannot_be_written(server, tmp_path, monkeypatch):
    (tmp_path / "another").touch()
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path / "another"))
    server.status = 404
    with pytest.raises(UserError, match="the server answered 404"):
        open_url(server.url, verbose=False)


def test_bars_show_on_the_terminal(server, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    open_url(server.url).close()
    assert "Downloading net%20work.pkl" in sys.stderr.getvalue()


def test_a_log_on_a_full_disk_is_told_once(tmp_path, monkeypatch, capsys):
    def full(handle, data):
        raise OSError(28, "No space left on device")

    with Logger(tmp_path / "log.txt"):
        print("one")
        monkeypatch.setattr("os.write", full)
        with pytest.raises(UserError, match=r"Cannot write .*log.txt: No space left on device"):
            print("two")
        print("three")
    assert (tmp_path / "log.txt").read_text() == "one\n"
    assert "three" in capsys.readouterr().out
