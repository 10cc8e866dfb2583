"""generate.py: labelled data sets of generated pairs, and the classes of conditional networks."""

import functools
import json
import zipfile

import numpy as np
import pytest
import torch

import generate
from semantic.dataset import MaskedImageDataset
from tests.painter import REGIONS, RESOLUTION, Network, run_generate, ws_of
from training.archive import create_archive, encode_png, image_name
from training.images import to_uint8


@pytest.fixture
def run(tmp_path, monkeypatch):
    return functools.partial(run_generate, monkeypatch, tmp_path / "out")


def test_data_set_is_an_archive_that_loads(run):
    done = run("--dataset=5", "--batch=2", "--seeds=10")
    assert done.code == 0, done.output
    data = MaskedImageDataset(done.out / "dataset.zip")
    assert len(data) == 5
    assert data.regions.names == REGIONS.names
    out = done.G.synthesis(ws_of(done.G, [12], 1), return_mask=True)
    assert np.array_equal(data[2].image, to_uint8(out.image)[0])
    assert np.array_equal(data[2].mask, out.mask[0].argmax(dim=0).numpy())


def test_data_set_of_a_conditional_network_is_labelled(run):
    done = run("--dataset=12", network=Network(c_dim=3))
    with zipfile.ZipFile(done.out / "dataset.zip") as archive:
        labels = json.loads(archive.read("dataset.json"))["labels"]
    assert {label for _, label in labels} == {0, 1, 2}
    again = run("--dataset=12", "--class=2", network=Network(c_dim=3))
    with zipfile.ZipFile(again.out / "dataset.zip") as archive:
        assert {label for _, label in json.loads(archive.read("dataset.json"))["labels"]} == {2}


def drawn_labels(done):
    with zipfile.ZipFile(done.out / "dataset.zip") as archive:
        return [label for _, label in json.loads(archive.read("dataset.json"))["labels"]]


def test_classes_that_no_image_has_are_not_drawn(run, tmp_path):
    assert set(drawn_labels(run("--dataset=12", network=Network(c_dim=4), data={"classes": [1, 3]}))) == {1, 3}
    labels = [[image_name(i), 1 + i % 2] for i in range(4)]
    data = {"path": write_labels(tmp_path / "old.zip", labels)}  # of a network that does not know its classes
    assert set(drawn_labels(run("--dataset=12", network=Network(c_dim=3), data=data))) == {1, 2}
    told = run("--seeds=1", "--class=0", network=Network(c_dim=3), data={"classes": [1, 2]})
    assert "the training data had no image of class 0, only 1, 2" in told.output
    assert "classes: 1, 2" in run("--seeds=1", network=Network(c_dim=3), data={"classes": [1, 2]}).output


def write_labels(path, labels):
    with create_archive(path) as add:
        for name, _ in labels:
            add(name, encode_png(np.zeros([RESOLUTION, RESOLUTION, 3], np.uint8)))
        add("dataset.json", json.dumps({"labels": labels}).encode())
    return str(path)


def test_vectors_are_given_and_drawn(run, tmp_path):
    vectors = {"classes": []}
    done = run("--class=0.5,1,-2", "--seeds=1", "--save-latents", network=Network(c_dim=3), data=vectors)
    assert done.code == 0, done.output
    assert np.allclose(np.load(done.out / "seed0001.npz")["w"], ws_of(done.G, [1], 1) + 1 - 4)
    for options, message in (
        (("--class=1",), "3 numbers"),
        (("--class=1,2",), "2 numbers, but labels of this network have 3"),
        (("--class=nan,1,2",), "finite"),
        (("--class=a",), "neither a class nor a vector"),
        ((), "Set --class to 3 numbers"),
        (("--dataset=2",), "to draw labels from"),
    ):
        done = run(*options, network=Network(c_dim=3), data=vectors)
        assert done.code in (1, 2)
        assert message in done.output.replace("\n", " "), done.output
    labels = [[image_name(i), [0.5 * i, 1, 2]] for i in range(4)]
    data = {**vectors, "path": write_labels(tmp_path / "vectors.zip", labels)}
    drawn = drawn_labels(run("--dataset=6", network=Network(c_dim=3), data=data))
    assert all(label in [vector for _, vector in labels] for label in drawn)
    assert len({tuple(label) for label in drawn}) > 1


def test_filter_keeps_the_better_pairs_and_says_what_was_dropped(run, monkeypatch):
    def sees_discs_in_the_left_half(images):
        scores = torch.zeros(len(images), 3, RESOLUTION, RESOLUTION)
        scores[:, 1, :, : RESOLUTION // 2] = 1
        return scores

    monkeypatch.setattr(generate, "build_parser", lambda networks, device: sees_discs_in_the_left_half)
    done = run("--dataset=4", "--filter=0.5", "--balance", "--batch=3", "--seeds=10")
    assert done.code == 0, done.output
    report = json.loads((done.out / "dataset-filter.json").read_text())
    assert (report["made"], report["kept"]) == (8, 4)
    dropped = {found["seed"] for found in report["dropped"]}
    assert dropped | set(report["kept_seeds"]) == set(range(10, 18))
    assert report["regions"]["disc"]["shown_made"] == 1
    assert "Kept 4 of 8 pairs. Of the dropped pairs" in done.output
    data = MaskedImageDataset(done.out / "dataset.zip")
    assert len(data) == 4
    out = done.G.synthesis(ws_of(done.G, [report["kept_seeds"][1]], 1), return_mask=True)
    assert np.array_equal(data[1].image, to_uint8(out.image)[0])


def test_class_is_needed_checked_and_used(run):
    assert "Set --class to one of its classes: 0, 1, 2" in run(network=Network(c_dim=3)).output
    assert "no class 3" in run("--class=3", network=Network(c_dim=3)).output
    done = run("--class=2", "--seeds=1", "--save-latents", network=Network(c_dim=3))
    assert np.allclose(np.load(done.out / "seed0001.npz")["w"], ws_of(done.G, [1], 1) + 2)
    assert "--class is ignored" in run("--class=1", "--seeds=1").output
