"""Edits by words, with a CLIP of random weights."""

import json
import sys
from dataclasses import replace

import pytest
import torch

from dnnlib import UserError
from semantic.editing import text as words
from semantic.editing.edits import Swap, apply_edits
from semantic.editing.latents import seed_latents
from semantic.editing.state import EditState
from tests.networks import tiny_generator
from tests.semantic.editing.clip_stub import TinyClip, open_clip_stub

HAIR = 2
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def G():
    return tiny_generator().requires_grad_(False)


@pytest.fixture
def open_clip(monkeypatch):
    stub = open_clip_stub()
    monkeypatch.setitem(sys.modules, "open_clip", stub)
    return stub


@pytest.fixture
def clip(open_clip):
    return words.open_clip_model("tiny", "random", CPU)


def state_of(G, *seeds):
    return EditState.of(G.mapping(seed_latents(seeds, G.z_dim), None, truncation_psi=0.7), G.regions)


def test_a_search_makes_the_image_more_like_the_text_and_changes_the_named_region_alone(G, clip):
    state, distances = state_of(G, 0, 1), []
    found = words.find_codes(G, state, [HAIR], "both", "red hair", clip, num_steps=25, report=distances.append)
    assert len(distances) == 25
    wanted = clip.text("red hair")
    with torch.no_grad():
        before, after = (
            clip.images(G.synthesis(ws.float(), noise_mode="const")) @ wanted.mT for ws in (state.ws, found)
        )
    assert (after > before).all()
    own = [G.regions.slots(HAIR)[name] for name in ("shape", "texture")]
    others = [slot for slot in range(G.num_ws) if slot not in own]
    assert torch.equal(found[:, others], state.ws[:, others])
    assert (found[:, own] != state.ws[:, own]).any(dim=-1).all()


def test_the_same_seed_gives_the_same_codes(G, clip):
    state = state_of(G, 3)
    first, again, other = (
        words.find_codes(G, state, [HAIR], "texture", "grey", clip, seed=seed, num_steps=4) for seed in (5, 5, 6)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    shape = G.regions.slots(HAIR)["shape"]
    assert torch.equal(first[:, shape], state.ws[:, shape])


def test_expanded_codes_of_the_region_move(G, clip):
    state = state_of(G, 0)
    expanded = EditState.of(G.synthesis.expand(state.ws.float()), G.regions)
    found = words.find_codes(G, expanded, [HAIR], "texture", "grey", clip, num_steps=2)
    assert (found != expanded.ws).any(dim=-1).sum() == 2  # layers of the hair that see its texture code


def test_an_edit_searches_once_for_each_state_and_can_be_weaker(G, clip, monkeypatch):
    state, edit = state_of(G, 0), words.TextEdit((HAIR,), "both", "red", clip, num_steps=3)
    whole = edit.apply(G, state)
    assert whole.touched.tolist() == [[False, False, True, False]]
    monkeypatch.setattr(words, "find_codes", None)  # no other search
    half = edit.scaled(0.5).apply(G, state)
    assert torch.allclose(half.ws, (state.ws + whole.ws) / 2)
    assert edit.scaled(0).apply(G, state).same_as(state)
    assert edit.scaled(0).apply(G, state_of(G, 9)).same_as(state_of(G, 9))  # without a search


def test_the_option_names_what_differs_from_the_defaults(G, clip):
    usual = replace(clip, name=words.MODEL, weights=words.WEIGHTS)
    assert words.TextEdit((HAIR,), "both", "red", usual).option(G) == "--text=red --regions=hair --part=both"
    edit = words.TextEdit((HAIR,), "shape", "red", clip, seed=4, num_steps=3)
    others = "--text-steps=3 --text-seed=4 --clip=tiny --clip-weights=random"
    assert edit.option(G) == f"--text=red --regions=hair --part=shape {others}"


def test_settled_texts_scale_the_step_of_the_whole_edits(G, clip, monkeypatch):
    state, other = state_of(G, 0), state_of(G, 5)
    edits = [Swap(HAIR, "shape", other.ws, "5"), words.TextEdit((HAIR,), "texture", "red", clip, num_steps=3)]
    whole = apply_edits(G, state, edits)
    settled = words.settle_texts(G, state, edits)
    monkeypatch.setattr(words, "find_codes", None)  # no other search
    assert apply_edits(G, state, settled).same_as(whole)
    half = apply_edits(G, state, [edit.scaled(0.5) for edit in settled])
    assert torch.allclose(half.ws, (state.ws + whole.ws) / 2)


def test_views_lie_in_the_image():
    column = torch.linspace(0, 1, 32).view(1, 1, 1, 32).expand(1, 3, 32, 32)
    views = words.random_views(column, torch.Generator().manual_seed(0))
    assert views.shape == (words.VIEWS, 3, 32, 32)
    spans = views[:, 0, 0, -1] - views[:, 0, 0, 0]
    assert (spans > words.LEAST_VIEW * 0.95).all()
    assert spans.std() > 0.01


def test_the_factor_is_a_root_of_the_covariance_of_codes(G):
    factor = words.code_factor(G)
    w = G.mapping(seed_latents(range(4000), G.z_dim), None)[:, 0].double()
    spread = torch.cov(w.mT)
    assert torch.allclose(factor @ factor.mT, spread, atol=0.1 * float(spread.diagonal().mean()))


def test_weights_come_from_the_users_file(open_clip, tmp_path):
    wanted = TinyClip()
    with torch.no_grad():
        wanted.words.weight.add_(1)
    torch.save(wanted.state_dict(), tmp_path / "clip.pt")
    clip = words.open_clip_model("tiny", str(tmp_path / "clip.pt"), CPU)
    assert torch.equal(clip.model.words.weight, wanted.words.weight)
    assert (clip.side, clip.mean) == (24, (0.48, 0.46, 0.41))


def test_what_is_missing_is_told_in_one_line(monkeypatch, open_clip):
    with pytest.raises(UserError, match=r"cannot open the model huge .*not found.*--clip-weights") as caught:
        words.open_clip_model("huge", "random", CPU)
    assert "\n" not in caught.value.message
    with pytest.raises(UserError, match=r"cannot open the model tiny with the weights none\.pt"):
        words.open_clip_model("tiny", "none.pt", CPU)
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(UserError, match=r"pip install .*\[text\]"):
        words.open_clip_model("tiny", "random", CPU)


def test_a_clip_of_open_clip_itself(tmp_path, G):
    open_clip = pytest.importorskip("open_clip", reason="the extra [text] is not installed", exc_type=ImportError)
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    vision = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 8}
    (tmp_path / "small.json").write_text(json.dumps({"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(tmp_path / "small.json")
    torch.save(open_clip.create_model("small").state_dict(), tmp_path / "clip.pt")
    clip = words.open_clip_model("small", str(tmp_path / "clip.pt"), CPU)
    distances = []
    words.find_codes(G, state_of(G, 0), [HAIR], "both", "red hair", clip, num_steps=12, report=distances.append)
    assert min(distances[-3:]) < distances[0]
