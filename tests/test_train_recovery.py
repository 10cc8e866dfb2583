"""A run survives: damaged states, numbers that are not finite, too little memory, a full disk, data that vanish."""

import json
import math
import shutil

import pytest
import torch

from dnnlib import UserError
from tests.runs import SMALL, STEP, difference, make_archive, only_run, run, state, statistics, without_timing
from torch_utils import distributed
from training import training_loop
from training.archive import DataError
from training.batches import Batches
from training.loss import StyleGAN2Loss
from training.phases import Phase
from training.run.checkpoint import check_replicas

PLAIN = ("--cfg=auto", *SMALL, "--tick=0.008", "--snap=1", "--aug=noaug")
CONTINUE = ("--resume=latest", "--workers=0", "--device=cpu")
NETWORKS = ("G", "D", "G_ema", "G_opt", "D_opt", "loss")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return make_archive(tmp_path_factory.mktemp("data") / "faces.zip", masks=False)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory, archive):
    """Six steps, a tick and a snapshot every two."""
    outdir = tmp_path_factory.mktemp("runs")
    assert run(outdir, *PLAIN, f"--data={archive}", steps=6).exit_code == 0
    return only_run(outdir)


@pytest.fixture
def short_run(tmp_path, whole_run_after_two_steps):
    """The first two of those steps, in a folder of its own."""
    run_dir = tmp_path / "short" / whole_run_after_two_steps.name
    shutil.copytree(whole_run_after_two_steps, run_dir)
    return run_dir


@pytest.fixture(scope="module")
def whole_run_after_two_steps(tmp_path_factory, archive):
    outdir = tmp_path_factory.mktemp("short")
    assert run(outdir, *PLAIN, f"--data={archive}", steps=2).exit_code == 0
    return only_run(outdir)


def assert_same(run_dir, expected):
    """The same weights, optimizers and statistics."""
    for part in NETWORKS:
        assert not difference(state(expected)[part], state(run_dir)[part]), part
    assert without_timing(statistics(run_dir)) == without_timing(statistics(expected))


def test_a_state_that_does_not_read_back_is_skipped(whole_run, short_run):
    run_dir = short_run
    damaged = bytearray((run_dir / "training-state-000000.pt").read_bytes())
    damaged[len(damaged) // 2] ^= 4
    (run_dir / "training-state-000001.pt").write_bytes(damaged)
    (run_dir / "training-state-000002.pt").write_bytes(damaged[:1000])
    (run_dir / ".training-state-000003-abcdefgh.tmp.pt").write_bytes(b"half")
    result = run(run_dir.parent, *CONTINUE, steps=6)
    assert result.exit_code == 0
    for number in (1, 2):
        assert f"Skipped: Cannot read the training state {run_dir}/training-state-00000{number}.pt" in result.stdout
    assert "Resuming at 0.008 kimg from training-state-000000.pt" in result.stdout
    assert_same(run_dir, whole_run)
    assert [path.name for path in run_dir.glob("*.pt")] == ["training-state-000000.pt"]
    assert [path.name for path in run_dir.glob(".*")] == [".lock"]


def test_where_all_states_are_damaged_the_run_stays_as_it_is(whole_run, tmp_path):
    run_dir = tmp_path / whole_run.name
    shutil.copytree(whole_run, run_dir)
    (run_dir / "training-state-000000.pt").write_bytes(b"")
    result = run(tmp_path, *CONTINUE, steps=8)
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert len(statistics(run_dir)) == 3


def test_a_run_killed_before_its_first_state_starts_anew_in_its_folder(whole_run, tmp_path):
    run_dir = tmp_path / whole_run.name
    run_dir.mkdir()
    shutil.copy(whole_run / "training_options.json", run_dir)
    (run_dir / "stats.jsonl").write_text('{"half')
    result = run(tmp_path, *CONTINUE)
    assert result.exit_code == 0
    assert f"{run_dir} has no state yet. Starting it again." in result.stdout
    assert only_run(tmp_path) == run_dir
    assert_same(run_dir, whole_run)


def test_one_command_starts_a_run_and_goes_on_with_it(archive, whole_run, tmp_path):
    """What a launcher repeats after every failure."""
    command = (*PLAIN, "--resume=latest", f"--data={archive}")
    result = run(tmp_path / "runs", *command, steps=4)
    assert result.exit_code == 0
    assert "Found no run to resume" in result.stdout
    assert run(tmp_path / "runs", *command, steps=6).exit_code == 0
    assert_same(only_run(tmp_path / "runs"), whole_run)
    result = run(only_run(tmp_path / "runs"), *command, "--gamma=3", steps=6)  # the run itself as --outdir
    assert "keeps the options of" in result.stderr
    assert "Remove --gamma" in result.stderr


def test_as_many_states_are_kept_as_asked_for(short_run):
    for kimg in (1, 2, 3):
        shutil.copy(short_run / "training-state-000000.pt", short_run / f"training-state-00000{kimg}.pt")
    assert run(short_run.parent, *CONTINUE, "--keep-states=3", steps=3).exit_code == 0
    assert len(list(short_run.glob("*.pt"))) == 3
    assert json.loads((short_run / "training_options.json").read_text())["keep_states"] == 3


def poison(monkeypatch, when, value=math.nan):
    """Make the generator's loss and its gradients `value` whenever `when(loss)` says so."""
    monkeypatch.setattr(
        StyleGAN2Loss, "generator_terms", lambda self, fake: fake.images.sum() * value if when(self) else 0.0
    )


def finite(tree):
    tensors = [t for t in tree.values() if isinstance(t, torch.Tensor)]
    return all(t.isfinite().all() for t in tensors if t.is_floating_point())


def test_a_step_that_is_not_finite_is_skipped_and_counted(archive, tmp_path, monkeypatch):
    calls = []
    poison(monkeypatch, lambda loss: calls.append(None) or len(calls) in (2, 3, 6))
    assert run(tmp_path, *PLAIN, f"--data={archive}", steps=6).exit_code == 0
    run_dir = only_run(tmp_path)
    assert [line["Progress/skipped_steps"]["mean"] for line in statistics(run_dir)] == [1, 1, 1]
    assert all(line["Progress/rollbacks"]["mean"] == 0 for line in statistics(run_dir))
    assert "NaN" not in (run_dir / "stats.jsonl").read_text()
    assert all(finite(state(run_dir)[name]) for name in ("G", "D", "G_ema"))


def failing_at_full_rate(monkeypatch):
    """The generator breaks down from the third step on, unless it learns more slowly."""
    original, rates = Phase.set_rate, {}

    def set_rate(self, share):
        rates[self.name] = share
        original(self, share)

    monkeypatch.setattr(Phase, "set_rate", set_rate)
    seen = Batches.next

    def note(self):
        self.count = getattr(self, "count", 0) + 1
        rates["step"] = rates["start"] + self.count - 1
        return seen(self)

    original_init = Batches.__init__

    def start(self, *args):
        rates["start"] = args[5] // STEP
        original_init(self, *args)

    monkeypatch.setattr(Batches, "__init__", start)
    monkeypatch.setattr(Batches, "next", note)
    poison(monkeypatch, lambda loss: rates["step"] >= 2 and rates["Gmain"] == 1)


def test_a_breakdown_goes_back_to_the_last_good_state_and_learns_more_slowly(archive, tmp_path, monkeypatch):
    """And a run that is interrupted after that goes on in the same way."""
    failing_at_full_rate(monkeypatch)
    options = (*PLAIN, "--max-bad-steps=2", f"--data={archive}")
    result = run(tmp_path / "a", *options, steps=6)
    assert result.exit_code == 0
    run_dir = only_run(tmp_path / "a")
    line = "Rolling back to training-state-000000.pt (0.008 kimg): phase Gmain: the gradient of "
    assert line in (run_dir / "log.txt").read_text()
    assert "The learning rate is multiplied by 0.5 until " in result.stdout
    lines = statistics(run_dir)
    assert [line["Progress/tick"]["mean"] for line in lines] == [0, 1, 2]
    assert [line["Progress/learning_rate"]["mean"] for line in lines] == [1, 0.5, 0.5]
    assert [line["Progress/rollbacks"]["mean"] for line in lines] == [0, 1, 1]

    assert run(tmp_path / "b", *options, steps=5).exit_code == 0
    assert run(tmp_path / "b", *CONTINUE, steps=6).exit_code == 0
    for part in NETWORKS:
        assert not difference(state(run_dir)[part], state(only_run(tmp_path / "b"))[part]), part


def test_a_breakdown_that_comes_again_ends_in_a_diagnosis(archive, tmp_path, monkeypatch):
    calls = []
    poison(monkeypatch, lambda loss: calls.append(None) or len(calls) > 2)
    result = run(tmp_path, *PLAIN, "--max-bad-steps=3", f"--data={archive}", steps=20)
    assert result.exit_code == 1
    assert result.stdout.count("Rolling back to ") == 3
    assert "The learning rate is multiplied by 0.125 until" in result.stdout
    error = result.stderr.splitlines()[-1]
    assert error.startswith("Error: Training failed at 0.02 kimg: phase Gmain: the gradient of ")
    assert "was not finite 3 times in a row, again after 3 roll backs" in error
    assert all(finite(state(only_run(tmp_path))[name]) for name in ("G", "D", "G_ema"))


def test_no_state_is_saved_that_is_not_finite(archive, tmp_path, monkeypatch):
    update = training_loop.update_ema

    def break_average(G_ema, G, decay):
        update(G_ema, G, decay)
        if calls.append(None) or len(calls) > 3:
            next(G_ema.parameters())[0] = math.inf

    calls = []
    monkeypatch.setattr(training_loop, "update_ema", break_average)
    result = run(tmp_path, *PLAIN, f"--data={archive}", steps=6)
    assert result.exit_code == 1
    assert "G_ema.synthesis.b4.const was not finite when the state was to be saved" in result.stdout
    assert finite(state(only_run(tmp_path))["G_ema"])


def out_of_memory_above(size, monkeypatch):
    def accumulate(self, phase, real, *args, **kwargs):
        if len(real["image"]) > size:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        original(self, phase, real, *args, **kwargs)

    original = StyleGAN2Loss.accumulate_gradients
    monkeypatch.setattr(StyleGAN2Loss, "accumulate_gradients", accumulate)


def test_too_little_memory_leads_to_a_share_that_fits(archive, tmp_path, monkeypatch):
    outdir = tmp_path / "runs"
    options = (*PLAIN, f"--data={archive}", "--gamma=1")
    assert run(tmp_path / "explicit", *options, "--batch-gpu=2", steps=2).exit_code == 0
    out_of_memory_above(2, monkeypatch)
    result = run(outdir, *options, steps=2)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith(
        "Error: 4 images at a time do not fit into memory. Use --batch-gpu=2 "
    )
    assert not list(outdir.iterdir())
    result = run(outdir, *options, "--batch-gpu=auto", steps=2)
    assert result.exit_code == 0, result.output
    assert "of 32², 2 at a time" in result.stdout
    assert_same(only_run(outdir), only_run(tmp_path / "explicit"))
    out_of_memory_above(0, monkeypatch)
    result = run(tmp_path / "none", *options, "--batch-gpu=auto", steps=2)
    assert "A single image does not fit" in result.stderr
    result = run(outdir, *CONTINUE, steps=3)
    assert "A single image does not fit" in result.stderr
    assert len(statistics(only_run(outdir))) == 1


def test_memory_that_runs_out_later_keeps_the_state(archive, tmp_path, monkeypatch):
    def accumulate(self, *args, **kwargs):
        if calls.append(None) or len(calls) > 9:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        original(self, *args, **kwargs)

    calls, original = [], StyleGAN2Loss.accumulate_gradients
    monkeypatch.setattr(StyleGAN2Loss, "accumulate_gradients", accumulate)
    result = run(tmp_path, *PLAIN, f"--data={archive}", steps=9)
    assert result.exit_code == 1
    assert "resume with --resume=latest, or also reduce --batch-gpu to 2" in result.stderr
    assert state(only_run(tmp_path))["run"]["images_seen"] > 0


def test_data_that_vanish_are_told_and_everything_is_saved(whole_run, short_run, monkeypatch):
    def vanish(self):
        if calls.append(None) or len(calls) == 2:
            raise DataError("Cannot read 00000/img00000003.png in faces: No such file or directory.")
        return original(self)

    calls, original = [], Batches.next
    monkeypatch.setattr(Batches, "next", vanish)
    result = run(short_run.parent, *CONTINUE, steps=6)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("Error: Cannot read 00000/img00000003.png in faces")
    assert "Stopped at 0.012 kimg, all saved. Resume with --resume=latest" in result.stdout
    assert run(short_run.parent, *CONTINUE).exit_code == 0
    assert_same(short_run, whole_run)


@pytest.mark.parametrize(
    "what", ["training.run.snapshots.torch.save", "torch_utils.network_files.machine.dump", "os.fsync"]
)
def test_a_full_disk_ends_in_a_line_and_keeps_the_last_state(short_run, monkeypatch, what):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    before = (short_run / "training-state-000000.pt").read_bytes()
    monkeypatch.setattr(what, full)
    result = run(short_run.parent, *CONTINUE, steps=4)
    assert result.exit_code == 1
    assert "No space left on device" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.output
    assert (short_run / "training-state-000000.pt").read_bytes() == before
    assert [path.name for path in short_run.glob(".*")] == [".lock"]


def test_a_start_that_fails_leaves_no_folder(archive, whole_run, tmp_path):
    other = make_archive(tmp_path / "other.zip", side=64, masks=False)
    resume = f"--resume={whole_run / 'network-snapshot-000000.pkl'}"
    result = run(tmp_path / "runs", *PLAIN, f"--data={other}", resume, steps=2)
    assert result.exit_code == 1
    assert not list((tmp_path / "runs").iterdir())


def test_a_clock_that_jumps_back_changes_nothing(whole_run, short_run, monkeypatch):
    clock = iter(range(10**9, 0, -1000))
    monkeypatch.setattr("time.time", lambda: float(next(clock)))
    assert run(short_run.parent, *CONTINUE, steps=6).exit_code == 0
    assert_same(short_run, whole_run)
    for line in statistics(short_run):
        assert min(figure["mean"] for name, figure in line.items() if name.startswith("Timing/")) >= 0


def test_replicas_that_drift_stop_the_run(monkeypatch):
    network = torch.nn.BatchNorm1d(2)
    check_replicas({"G": network}, 4000)
    monkeypatch.setattr(distributed, "find_difference", lambda tensors: (list(tensors)[1], 3))
    with pytest.raises(UserError, match=r"At 4 kimg, G\.bias of process 3 differs from process 0"):
        check_replicas({"G": network}, 4000)


def test_metrics_of_a_plugin_are_computed_once_for_each_snapshot(archive, tmp_path, monkeypatch):
    """A run that died right after a snapshot computes what is missing, and takes the rest from the file."""
    from metrics import metric_main, registry

    values = iter([7.0, 8.0, 9.0, 10.0, 11.0])
    metric_main.list_valid_metrics()  # the framework's own are registered now, not in the list that goes away
    monkeypatch.setattr(registry, "REGISTRY", list(registry.REGISTRY))
    registry.register_metric(lambda opts: {"test_metric": next(values)}, pattern="test_metric")
    options = (*PLAIN, f"--data={archive}", "--metrics=test_metric")
    assert run(tmp_path, *options, steps=4).exit_code == 0
    run_dir = only_run(tmp_path)
    file = run_dir / "metric-test_metric.jsonl"
    recorded = [json.loads(line)["results"]["test_metric"] for line in file.read_text().splitlines()]
    assert recorded == [7, 8]
    assert statistics(run_dir)[1]["Metrics/test_metric"]["mean"] == 7
    assert run(tmp_path, *CONTINUE, steps=6).exit_code == 0
    assert statistics(run_dir)[2]["Metrics/test_metric"]["mean"] == 8
    recorded = [json.loads(line)["results"]["test_metric"] for line in file.read_text().splitlines()]
    assert recorded == [7, 8, 9]
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:2]))  # it died before the third
    assert run(tmp_path, *CONTINUE, steps=8).exit_code == 0
    assert statistics(run_dir)[3]["Metrics/test_metric"]["mean"] == 10
