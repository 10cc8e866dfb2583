"""Every network with regions labels photos."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dnnlib import UserError
from semantic.inversion import parse
from semantic.inversion.disturb import disturb, new_backgrounds
from semantic.inversion.kept import kept_arrays
from tests.semantic.helpers import build_discriminator
from tests.semantic.inversion.doll import REGIONS, SIDE, Doll, shares

CPU = torch.device("cpu")


def test_the_head_of_the_discriminator_labels_where_there_is_one():
    D = build_discriminator(count=len(REGIONS), resolution=SIDE, segmentation=True).eval()
    parser = parse.build_parser({"G_ema": Doll(), "D": D}, CPU)
    images = torch.rand(2, 3, SIDE, SIDE) * 2 - 1
    _, expected = D(images, None, return_segmentation=True)
    assert torch.allclose(parser(images), expected, atol=1e-5)
    assert parser(torch.rand(1, 3, 50, 70)).shape == (1, len(REGIONS), SIDE, SIDE)


def test_other_networks_get_a_segmenter_that_learned_from_generated_pairs():
    doll = Doll()
    parser = parse.build_parser(
        {"G_ema": doll, "D": None}, CPU, cache=False, pairs=24, train_images=960, hide_progress=True
    )
    planes = shares(4, scale=0.9)
    images = torch.einsum("nkhw,kc->nchw", planes, torch.tensor(REGIONS.colors) / 127.5 - 1)
    assert (parser.masks(images) == planes.argmax(dim=1)).float().mean() > 0.85


def test_what_was_learned_is_kept_for_the_same_weights_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path))
    calls = []

    def build():
        calls.append(1)
        return {"x": np.arange(3)}

    doll, other = Doll(), Doll()
    other.synthesis.bright.data += 1
    for network, count in ((doll, 1), (doll, 1), (other, 2)):
        assert kept_arrays(network, "x", build)["x"].tolist() == [0, 1, 2]
        assert len(calls) == count
    for path in (tmp_path / "networks").iterdir():
        path.write_bytes(b"damaged")
    assert kept_arrays(doll, "x", build)["x"].tolist() == [0, 1, 2]
    assert len(calls) == 3


def test_without_a_cache_that_can_be_written_the_work_goes_on(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path / "file"))
    assert kept_arrays(Doll(), "x", lambda: {"x": np.ones(1)})["x"].tolist() == [1]


def test_networks_without_regions_or_colours_are_refused_in_one_line():
    with pytest.raises(UserError, match="no regions"):
        parse.build_parser({"G_ema": SimpleNamespace(), "D": None}, CPU)
    with pytest.raises(UserError, match="3 channels"):
        parse.build_parser({"G_ema": SimpleNamespace(regions=REGIONS, img_channels=1), "D": None}, CPU)


def test_disturbed_images_keep_their_layout_and_range():
    images = torch.einsum("nkhw,kc->nchw", shares(8), torch.tensor(REGIONS.colors) / 127.5 - 1)
    masks = shares(8).argmax(dim=1)
    rng = np.random.default_rng(0)
    changed = disturb(images, masks, rng)
    assert changed.shape == images.shape
    assert changed.isfinite().all()
    assert changed.abs().max() < 3
    assert (changed - images).abs().mean(dim=(1, 2, 3)).min() > 0.02


def test_new_backgrounds_leave_the_regions_alone():
    images, masks = torch.rand(8, 3, 32, 32), shares(8).argmax(dim=1)
    changed = new_backgrounds(images, masks, np.random.default_rng(0))
    moved = (changed != images).any(dim=1)
    assert moved.any()
    assert not moved[masks != 0].any()


def test_generated_pairs_repeat_themselves():
    first, second = (parse.generated_pairs(Doll(), CPU, 4, hide_progress=True) for _ in range(2))
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))
    assert first[0].dtype == torch.uint8
    assert first[0].shape == (4, 3, SIDE, SIDE)
