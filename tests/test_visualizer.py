import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("fastapi", reason="the extra web is not installed")
import visualizer


def run(*options):
    return CliRunner().invoke(visualizer.main, ["--no-browser", *options])


def test_mistakes_end_in_one_line(tmp_path):
    (tmp_path / "x.pkl").write_bytes(b"nothing")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = f"--port={taken.getsockname()[1]}"
        for options, reason in [
            ([port], "Choose another --port"),
            (["--host=192.0.2.1"], "Cannot serve on 192.0.2.1"),
            ([f"--network={tmp_path / 'x.pkl'}"], "not a network file"),
            ([f"--network={tmp_path}"], "no network-snapshot"),
            ([f"--networks={tmp_path / 'none'}"], "does not exist"),
        ]:
            result = run(*options)
            assert result.exit_code in (1, 2), result.output
            assert reason in result.output + str(getattr(result.exception, "message", ""))


def test_a_network_of_the_user_takes_the_place_of_a_bundled_network_of_the_same_name():
    bundled, path = visualizer.find(None)
    assert visualizer.name_networks(None, None, ())[bundled].path == path
    for tuned, names in ((None, ["faces128"]), (Path("me/tuned.npz"), ["faces128 (tuned)", "faces128"])):
        named = visualizer.name_networks("/elsewhere/faces128.pkl", tuned, ())
        assert list(named)[: len(names)] == names
        assert {named[name].path for name in names} == {"/elsewhere/faces128.pkl"}
        assert named["faces128"].tuned is None


def test_networks_have_names(tmp_path, monkeypatch):
    assert visualizer.find(None)[0] == "faces128"
    monkeypatch.chdir(tmp_path)
    run_dir = tmp_path / "runs" / "00000-x"
    run_dir.mkdir(parents=True)
    (run_dir / "network-snapshot-000004.pkl").touch()
    assert visualizer.find("runs/00000-x") == ("network-snapshot-000004", "runs/00000-x/network-snapshot-000004.pkl")
