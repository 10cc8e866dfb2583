import pytest
import torch

from semantic.browser import partial as module
from semantic.browser.partial import PartialSynthesis
from semantic.generator import Generator
from tests.helpers import assert_close
from torch_utils.ops import upfirdn2d

NAMES = ["background", "face", "eye", "hair"]


@pytest.fixture
def G():
    torch.manual_seed(0)
    regions = {"names": NAMES, "transparent": [2]}
    sizes = dict(coarse_size=16, coarse_channels=24, local_channels=16, min_feat_size=8, channel_base=512)
    G = Generator(16, 0, 16, 64, 3, regions, synthesis_kwargs=sizes).eval().requires_grad_(False)
    for parameter in G.parameters():
        if parameter.ndim == 0:
            parameter.fill_(0.3)  # the noise counts
    return G


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, 1e-5)


def test_edits_give_what_the_whole_network_gives_and_run_the_changed_regions_alone(G):
    partial = PartialSynthesis(G.synthesis)
    ws = G.mapping(torch.randn(1, 16), None)
    other = G.mapping(torch.randn(1, 16), None)
    keep, coords = torch.ones(1, 4), G.synthesis.grid.expand(1, 4, -1, -1, -1).clone()
    assert_same(partial(ws), G.synthesis(ws, noise_mode="const", return_mask=True))
    assert list(partial.recomputed) == [0, 1, 2, 3]

    ws = ws.clone()
    ws[:, G.regions.slots("hair")["texture"]] = other[:, G.regions.slots("hair")["texture"]]
    assert_same(partial(ws), G.synthesis(ws, noise_mode="const", return_mask=True))
    assert list(partial.recomputed) == [3]

    coords[:, 1] *= 0.8
    keep[:, 2] = 0
    expected = G.synthesis(ws, noise_mode="const", return_mask=True, keep_regions=keep, coords=coords)
    assert_same(partial(ws, keep, coords), expected)
    assert list(partial.recomputed) == [1]
    assert_same(partial(ws, keep, coords), expected)
    assert list(partial.recomputed) == []

    ws[:, 0] = other[:, 0]  # a base code, which all but the background share
    assert_same(partial(ws), G.synthesis(ws, noise_mode="const", return_mask=True))
    assert list(partial.recomputed) == [1, 2, 3]


def test_a_preview_stops_at_an_intermediate_resolution(G, monkeypatch):
    monkeypatch.setattr(module, "multiplies_bfloat16", lambda device: False)
    ws = G.mapping(torch.randn(1, 16), None)
    preview = PartialSynthesis(G.synthesis)(ws, size=32)
    assert preview.image.shape == (1, 3, 32, 32)
    assert preview.mask.shape == (1, 4, 32, 32)
    details = []
    hook = G.synthesis.render.b64.to_rgb.register_forward_hook(lambda module, args, result: details.append(result))
    whole = G.synthesis(ws, noise_mode="const")
    hook.remove()
    coarse = upfirdn2d.upsample2d(preview.image, upfirdn2d.setup_filter([1, 3, 3, 1]))
    assert_close(coarse + details[0], whole, 1e-5)


def test_a_preview_in_bfloat16_looks_like_the_picture(G, monkeypatch):
    monkeypatch.setattr(module, "multiplies_bfloat16", lambda device: True)
    ws = G.mapping(torch.randn(1, 16), None)
    synthesis = PartialSynthesis(G.synthesis)
    assert synthesis.renders.preview.dtype == torch.bfloat16
    quick, exact = synthesis(ws, size=64), synthesis(ws)
    assert_close(quick.image, exact.image, 0.03 * float(exact.image.std()))
    assert (quick.mask.argmax(1) == exact.mask.argmax(1)).float().mean() > 0.98
    assert_same(exact, G.synthesis(ws, noise_mode="const", return_mask=True))


def test_an_editor_keeps_no_second_copy_of_the_weights(G):
    renders = PartialSynthesis(G.synthesis).renders
    kept = sum(tensor.numel() for tensor in renders.whole.parameters())
    assert kept < 0.1 * sum(tensor.numel() for tensor in G.synthesis.render.parameters())
