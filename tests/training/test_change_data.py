"""A run that goes on with other data: the same kind, or one line that says what is different."""

import json
import zipfile

import pytest

from dnnlib import EasyDict, UserError
from tests.runs import SMALL, make_archive, only_run, run
from training.dataset import ImageFolderDataset
from training.launch import change_data


def relabel(path, names):
    """The archive's regions under other names."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    metadata = json.loads(files["dataset.json"])
    metadata["regions"] = {"names": names}
    files["dataset.json"] = json.dumps(metadata).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return str(path)


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """What training_options.json of a run on 16 images with three regions holds."""
    folder = tmp_path_factory.mktemp("run")
    data = relabel(make_archive(folder / "a.zip"), ["background", "head", "hair"])
    result = run(folder / "runs", "--cfg=semantic", *SMALL, f"--data={data}", "--dry-run")
    return json.loads(result.stdout)


def changed(options, path):
    copy = EasyDict(json.loads(json.dumps(options)))
    return change_data(copy, str(path)), copy


def test_the_same_data_elsewhere_go_on(options, tmp_path):
    other = relabel(make_archive(tmp_path / "moved.zip"), ["background", "head", "hair"])
    note, after = changed(options, other)
    assert note is None
    assert after["training_set_kwargs"]["path"] == other
    assert after["training_set_kwargs"]["regions"] == options["training_set_kwargs"]["regions"]


def test_other_regions_are_refused(options, tmp_path):
    for number, names in enumerate((["background", "face", "hair"], ["background", "head", "hair", "hat"])):
        other = relabel(make_archive(tmp_path / f"{number}.zip"), names)
        with pytest.raises(UserError, match=r"other regions .*(face|hat)") as error:
            changed(options, other)
        assert "\n" not in str(error.value)
        old = {**options, "data_summary": {}}  # a run that did not note its data
        with pytest.raises(UserError, match="other regions"):
            changed(old, other)


def test_more_images_are_told(options, tmp_path):
    other = relabel(make_archive(tmp_path / "more.zip", count=20), ["background", "head", "hair"])
    note, _ = changed(options, other)
    assert "holds 20 images, but the run began with 16" in note


def test_the_command_line_refuses_them_too(options, tmp_path):
    data = relabel(make_archive(tmp_path / "a.zip"), ["background", "head", "hair"])
    other = relabel(make_archive(tmp_path / "b.zip"), ["background", "face", "hair"])
    folder = tmp_path / "runs" / "00000-a"
    folder.mkdir(parents=True)
    (folder / "training_options.json").write_text(json.dumps({**options, "device": "cpu"}))
    command = ("--resume=latest", "--device=cpu", "--dry-run")
    assert run(tmp_path / "runs", *command, f"--data={data}").exit_code == 0
    result = run(tmp_path / "runs", *command, f"--data={other}")
    assert result.exit_code == 1
    assert "other regions" in result.stderr
    assert only_run(tmp_path / "runs") == folder


def test_labels_of_another_kind_are_refused(tmp_path):
    def labels(classes):
        return lambda count: [[f"00000/img{i:08d}.png", classes[i % len(classes)]] for i in range(count)]

    data = make_archive(tmp_path / "a.zip", labels=labels([1, 3]))
    options = json.loads(run(tmp_path / "r", "--cfg=auto", *SMALL, f"--data={data}", "--cond=1", "--dry-run").stdout)
    assert options["training_set_kwargs"]["classes"] == [1, 3]
    few = make_archive(tmp_path / "few.zip", labels=labels([1]))
    assert changed(options, few)[0] is None, "class 3 exists, though no image here has it"
    assert ImageFolderDataset(few, use_labels=True, classes=[1, 3]).label_dim == 4
    with pytest.raises(UserError, match="holds the class 2"):
        changed(options, make_archive(tmp_path / "foreign.zip", labels=labels([2])))
    with pytest.raises(UserError, match="other labels"):
        changed(options, make_archive(tmp_path / "none.zip"))
