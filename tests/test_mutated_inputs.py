"""Damaged and hostile archives, networks, states and options: each ends well or in one plain line, and harms nothing.

A few of each family run here; all of them with the environment variable TORTURE=1 (`make torture`). A case is a family
and a number: `run_case("archives", 17, samples)` of `tests.torture.harness` repeats one.
"""

import os

import pytest

import train
from tests.torture import cases, options
from tests.torture.harness import Worker, judge
from tests.torture.samples import make_samples

LONG = os.environ.get("TORTURE") == "1"
SHORT = {"archives": 45, "pictures": 8, "descriptions": 20, "networks": 12, "codes": 6, "states": 6, "options": 30}


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return make_samples(tmp_path_factory.mktemp("samples"))


@pytest.fixture(scope="module")
def worker(samples):
    with Worker(samples) as worker:
        yield worker


def test_the_long_version_has_more_than_500_cases_of_every_kind():
    assert cases.COUNTS.keys() == cases.FAMILIES.keys() == SHORT.keys()
    assert sum(cases.COUNTS.values()) >= 500


@pytest.mark.parametrize("family", cases.COUNTS)
def test_mutated_inputs_end_well_or_in_one_plain_line(family, worker):
    wrong = {}
    for seed in range(cases.COUNTS[family] if LONG else SHORT[family]):
        answer = worker.run(family, seed)
        if answer["wrong"]:
            wrong[seed] = answer
    assert not wrong


def test_every_option_of_train_is_tried():
    tried = options.TRAIN.keys() | {"--data", "--outdir", "--dry-run"}
    assert options.known_options(train.main) - tried <= {"--keep-states", "--max-bad-steps", "--help"}


@pytest.mark.parametrize(
    ("code", "exception", "errors", "fault"),
    [
        (1, None, "Error: File or folder x does not exist. Check the path.\n", None),
        (2, None, "Usage: train.py [OPTIONS]\nTry 'train.py --help' for help.\n\nError: No such option: --x\n", None),
        (0, None, " 50%|#####     | 1/2 [00:00<00:00]\r", None),
        (1, None, "", "0 error lines"),
        (1, None, "Error: a\nError: b\n", "2 error lines"),
        (1, None, "Warning: a\nError: b\n", "more than an error"),
        (1, None, "Error: \x1b[2J\n", "not plain text"),
        (139, None, "Error: a\n", "exit code 139"),
        (1, ValueError("boom"), "", "ValueError: boom"),
        (1, None, "Traceback (most recent call last):\nError: a\n", "a traceback"),
    ],
)
def test_the_judge_knows_good_endings_from_bad_ones(code, exception, errors, fault):
    found = judge(code, exception, "", errors)
    assert not found if fault is None else fault in found[0]


def test_the_worker_notices_hangs_floods_and_strays(samples, monkeypatch, tmp_path):
    """What the harness must see, by commands that do it."""
    import time

    import click

    from tests.torture import harness

    @click.command()
    @click.option("--do")
    def misbehave(do):
        if do == "write":
            (harness.Path.cwd() / "stray.txt").write_text("x")
        if do == "flood":
            bytearray(b"x") * (harness.MEMORY_LIMIT + (1 << 20))
        while do == "hang":
            time.sleep(0.01)

    monkeypatch.setitem(cases.TOOLS, "misbehave", misbehave)

    def answer(do):
        command = lambda seed, folder, out, samples: harness.Command("misbehave", [f"--do={do}"], out)  # noqa: E731
        monkeypatch.setitem(cases.FAMILIES, "misbehave", command)
        return harness.run_case("misbehave", 0, samples)["wrong"]

    assert not answer("nothing")
    assert "stray.txt" in answer("write")[0]
    if harness.Peak().bytes():
        assert "took 10" in answer("flood")[0]
    monkeypatch.setattr(harness, "TIMERS", [(*timer[:2], 0.3) for timer in harness.TIMERS])
    assert "not done" in answer("hang")[0]
