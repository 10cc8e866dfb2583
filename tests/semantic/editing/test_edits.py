"""Edits, their states and their texts, on a small random network."""

import numpy as np
import pytest
import torch

from dnnlib import UserError
from semantic.editing import edits
from semantic.editing.directions import Direction
from semantic.editing.edits import Apply, Drop, EditTools, Move, Swap, Truncate, apply_edits, options_of, parse_edit
from semantic.editing.latents import seed_latents
from semantic.editing.state import EditState, load_state, save_state
from semantic.editing.transforms import RegionTransform, region_grid
from semantic.masks import region_centers
from tests.networks import tiny_generator

SKIN, HAIR, GLASSES = 1, 2, 3


@pytest.fixture(scope="module")
def G():
    return tiny_generator()


def codes(G, *seeds):
    return G.mapping(seed_latents(seeds, G.z_dim), None)


@pytest.fixture
def start(G):
    return EditState.of(codes(G, 0, 1), G.regions)


@pytest.fixture(scope="module")
def tools(G):
    step = torch.randn(3, G.w_dim, generator=torch.Generator().manual_seed(5))
    own = torch.stack([torch.zeros(G.w_dim), step[1], step[2]])
    known = {
        "hair/big": Direction("hair/big", "pca", "hair", "both", "", own),
        "hair/all": Direction("hair/all", "pca", "hair", "whole", "", step),
    }
    return EditTools(G, lambda seed: codes(G, seed), known)


def picture(G, state):
    return G.synthesis(**state.inputs(G.synthesis.grid), noise_mode="const", return_mask=True)


def changed_slots(before, after):
    return {i for i in range(before.ws.shape[1]) if not torch.equal(before.ws[:, i], after.ws[:, i])}


def test_a_fresh_state_is_the_plain_image(G, start):
    inputs = start.inputs(G.synthesis.grid)
    assert inputs["keep_regions"] is None
    assert inputs["coords"] is None
    assert torch.equal(inputs["ws"], codes(G, 0, 1))


@pytest.mark.parametrize(("part", "slots"), [("shape", {6}), ("texture", {7}), ("both", {6, 7})])
def test_a_swap_takes_the_part_from_its_donor(G, start, part, slots):
    donor = codes(G, 9)
    after = Swap(HAIR, part, donor, "9").apply(G, start)
    assert changed_slots(start, after) == slots
    for slot in slots:
        assert torch.equal(after.ws[:, slot].float(), donor[:, slot].expand(2, -1))
    assert after.touched.tolist() == [[False, False, True, False]] * 2


def test_a_whole_swap_takes_base_codes_for_this_region_alone(G, start):
    donor = codes(G, 9)
    after = Swap(HAIR, "whole", donor, "9").apply(G, start)
    layers = 6
    own = slice(HAIR * layers, (HAIR + 1) * layers)
    assert torch.equal(after.ws[:, own].float(), G.synthesis.expand(donor)[:, own].expand(2, -1, -1))
    others = [i for i in range(4 * layers) if not own.start <= i < own.stop]
    assert torch.equal(after.ws[:, others].float(), G.synthesis.expand(codes(G, 0, 1))[:, others])


def test_edits_after_a_whole_swap_reach_the_same_layers_as_without(G, start, tools):
    """Expanding codes first changes nothing about what an edit does."""
    wide = EditState.of(G.synthesis.expand(codes(G, 0, 1)), G.regions)
    for edit in (
        Swap(HAIR, "texture", codes(G, 9), "9"),
        Swap(0, "both", G.synthesis.expand(codes(G, 9)), "x.npz"),
        Apply(HAIR, tools.directions["hair/big"], 2),
        Truncate(SKIN, 0.3),
    ):
        narrow = edit.apply(G, start)
        assert torch.equal(G.synthesis.expand(narrow.ws.float()), G.synthesis.expand(edit.apply(G, wide).ws.float()))


def test_a_direction_moves_the_slots_of_its_part(G, start, tools):
    direction = tools.directions["hair/big"]
    after = Apply(HAIR, direction, 2).apply(G, start)
    assert changed_slots(start, after) == {6, 7}
    assert torch.allclose((after.ws - start.ws)[:, 6].float(), 2 * direction.codes[1].expand(2, -1), atol=1e-6)


def test_a_whole_direction_moves_base_codes_of_its_region_alone(G, start, tools):
    direction = tools.directions["hair/all"]
    after = Apply(HAIR, direction, 1).apply(G, start)
    change = (after.ws - G.synthesis.expand(start.ws)).float().unflatten(1, (4, 6))
    assert not change[:, [0, 1, 3]].any()
    roles = [0, 0, 1, 1, 2, 2]  # two base layers, then shape up to layer 4, then texture
    assert torch.allclose(change[:, HAIR], direction.codes[roles].expand(2, -1, -1), atol=1e-6)


def test_truncation_moves_one_region_to_the_average(G, start):
    after = Truncate(HAIR, 0).apply(G, start)
    assert changed_slots(start, after) == {6, 7}
    assert torch.allclose(after.ws[:, 6].float(), G.mapping.w_avg.expand(2, -1))


def test_a_move_is_that_of_a_region_grid_about_the_measured_centre(G, start):
    change = RegionTransform(dx=0.2, dy=-0.1, scale=1.3, rotate=20)
    before = picture(G, start)
    centers = region_centers(before.coarse_mask, G.synthesis.grid)
    expected = region_grid(G.regions, G.synthesis.grid, {HAIR: change}, centers)
    after = Move(HAIR, change).apply(G, start)
    assert torch.allclose(after.inputs(G.synthesis.grid)["coords"], expected, atol=1e-5)


def test_two_moves_are_one_after_the_other(G, start):
    """A place in the picture goes back through the last move first."""
    after = apply_edits(G, start, [Move(HAIR, RegionTransform(dx=0.2)), Move(HAIR, RegionTransform(scale=2))])
    center = after.centers[0, HAIR]
    first = start.frames[0, HAIR]
    assert torch.equal(first, torch.eye(2, 3, dtype=torch.float64))
    frame = after.frames[0, HAIR]
    there = frame[:, :2] @ center + frame[:, 2]
    assert torch.allclose(there, center - torch.tensor([0.2, 0.0], dtype=torch.float64))
    beside = center + torch.tensor([0.4, 0.0], dtype=torch.float64)
    assert torch.allclose(frame[:, :2] @ beside + frame[:, 2], there + torch.tensor([0.2, 0.0], dtype=torch.float64))


def test_edits_go_back_exactly(G, start, tools):
    """Opposite edits give the same picture bit for bit, also around other edits."""
    move = Move(HAIR, RegionTransform(dx=0.13, dy=-0.07, scale=1.37, rotate=23))
    direction = tools.directions["hair/big"]
    own = Swap(SKIN, "both", start.ws[:1], "0")
    there = [Apply(HAIR, direction, 1.7), move, Swap(SKIN, "both", codes(G, 5), "5"), Truncate(0, 0.3)]
    back = [Truncate(0, 1 / 0.3), own, move.inverse(), Apply(HAIR, direction, -1.7)]
    first = start[:1]
    after = apply_edits(G, first, there)
    assert not after.same_as(first)
    again = apply_edits(G, after, back)
    assert again.same_as(first)
    assert torch.equal(picture(G, again).image, picture(G, first).image)


def test_edits_leave_the_state_that_they_start_from(G, start, tools):
    copy = EditState(**{name: value.clone() for name, value in vars(start).items()})
    for edit in (
        Swap(HAIR, "whole", codes(G, 3), "3"),
        Swap(HAIR, "both", codes(G, 3), "3"),
        Apply(HAIR, tools.directions["hair/big"], 1),
        Move(HAIR, RegionTransform(dx=1)),
        Drop(GLASSES),
        Truncate(HAIR, 0),
    ):
        edit.apply(G, start)
        for name, value in vars(start).items():
            assert torch.equal(value.nan_to_num(), vars(copy)[name].nan_to_num()), name


def test_dropped_regions_are_left_out(G, start):
    after = Drop(HAIR).apply(G, start)
    assert (picture(G, after).coarse_mask[:, HAIR] <= -1 + 1e-6).all()
    with pytest.raises(UserError, match="All regions are dropped"):
        apply_edits(G, start, [Drop(k) for k in range(4)])


def test_scaled_edits_start_from_nothing_and_end_in_themselves(G, start, tools):
    for edit in (
        Swap(HAIR, "both", codes(G, 3), "3"),
        Apply(HAIR, tools.directions["hair/big"], 1.5),
        Move(HAIR, RegionTransform(dx=0.3, scale=2, rotate=40)),
        Drop(GLASSES),
        Truncate(HAIR, 0.2),
    ):
        assert edit.scaled(0).apply(G, start).same_as(start), edit
        assert edit.scaled(1).apply(G, start).same_as(edit.apply(G, start)), edit
        assert not edit.scaled(0.5).apply(G, start).same_as(start), edit


def test_a_saved_state_renders_the_same(G, start, tools, tmp_path):
    chain = [Move(HAIR, RegionTransform(dx=0.3)), Drop(GLASSES), Apply(HAIR, tools.directions["hair/big"], 1)]
    after = apply_edits(G, start, chain)
    save_state(tmp_path / "edit.npz", after, options_of(G, chain))
    again = load_state(tmp_path / "edit.npz", G)
    assert again.same_as(after)
    assert torch.equal(again.touched, after.touched)
    with np.load(tmp_path / "edit.npz") as file:  # no pickle
        assert file["w"].dtype == np.float32
        assert file["edits"].tolist()[1] == "--drop=glasses"
    more = Move(HAIR, RegionTransform(scale=2))  # about the centre where the first move took it
    assert more.apply(G, again).same_as(more.apply(G, after))


def test_options_say_what_was_done_and_do_it_again(G, start, tools):
    given = [
        ("swap", "hair:5:texture"),
        ("apply", "hair/big:1.1"),
        ("transform", "hair:dx=0.1,rotate=3"),
        ("drop", "glasses"),
        ("swap", "skin:4:whole"),
        ("psi", "skin:0.7"),
    ]
    first = [parse_edit(name, text, tools) for name, text in given]
    options = options_of(G, first)
    again = [parse_edit(*option.removeprefix("--").split("=", 1), tools) for option in options]
    assert options_of(G, again) == options
    assert apply_edits(G, start, again).same_as(apply_edits(G, start, first))


def test_a_donor_may_come_from_a_file(G, start, tools, tmp_path):
    np.savez(tmp_path / "a:b.npz", w=codes(G, 9).numpy())
    swap = parse_edit("swap", f"hair:{tmp_path}/a:b.npz:shape", tools)
    assert swap.part == "shape"
    assert swap.apply(G, start).same_as(Swap(HAIR, "shape", codes(G, 9), "9").apply(G, start))


def test_a_donor_may_lie_on_a_drive_with_a_letter(G, tools, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (r"C:\x.npz", r"D:x.npz"):
        np.savez(tmp_path / path, w=codes(G, 9).numpy())
        for text, part in ((f"hair:{path}", "both"), (f"hair:{path}:shape", "shape")):
            swap = parse_edit("swap", text, tools)
            assert (swap.region, swap.part, swap.source) == (HAIR, part, path)
            assert torch.equal(swap.donor, codes(G, 9))


def test_names_of_regions_may_hold_commas_and_colons():
    names = ["background", "hair", "hair:long, dark", "a:5", "a"]
    G = tiny_generator(names=names)
    name = "hair:long, dark/big"
    known = {name: Direction(name, "pca", names[2], "both", "", torch.ones(3, G.w_dim))}
    tools = EditTools(G, lambda seed: codes(G, seed), known)
    given = [("swap", "hair:long, dark:5:shape"), ("swap", "hair:5"), ("swap", "a:5:5"), ("psi", "a:5:0.5"),
             ("apply", "hair:long, dark/big:2"), ("drop", "hair:long, dark"), ("transform", "a:5:dx=1")]  # fmt: skip
    edits = [parse_edit(option, text, tools) for option, text in given]
    assert [edit.region for edit in edits] == [2, 1, 3, 3, 2, 2, 3]
    again = [parse_edit(*option.removeprefix("--").split("=", 1), tools) for option in options_of(G, edits)]
    assert options_of(G, again) == options_of(G, edits)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("swap", "hair", "Write REGION:SEED"),
        ("swap", "tail:5", "Unknown region 'tail'"),
        ("swap", "hair:5:colour", "no part 'colour'"),
        ("swap", "hair:99999999999", "largest seed"),
        ("swap", "hair:missing.npz", "Cannot open missing.npz"),
        ("apply", "hair/big", "Write NAME:STRENGTH"),
        ("apply", "hair/small:1", r"no direction 'hair/small'. The directions are: hair/big, hair/all"),
        ("apply", "hair/big:much", "STRENGTH must be a finite number"),
        ("apply", "hair/big:nan", "STRENGTH must be a finite number"),
        ("transform", "hair:up=1", "unknown setting 'up'"),
        ("drop", "", "Unknown region ''"),
        ("psi", "hair", "Write REGION:PSI"),
        ("psi", "hair:inf", "PSI must be a finite number"),
    ],
)
def test_mistakes_in_texts(tools, name, text, message):
    with pytest.raises(UserError, match=message):
        parse_edit(name, text, tools)


def test_every_option_has_a_reader_with_the_name_of_the_option(tools):
    texts = {"swap": "hair:1", "apply": "hair/big:1", "transform": "hair:dx=1", "drop": "hair", "psi": "hair:1"}
    assert set(edits.PARSERS) == set(texts)
    for name, text in texts.items():
        assert parse_edit(name, text, tools).option(tools.G).startswith(f"--{name}=")


def test_edits_of_other_networks_are_refused(G, start, tmp_path):
    save_state(tmp_path / "edit.npz", start)
    other = tiny_generator(names=["background", "hair"])
    with pytest.raises(UserError, match="this network takes"):
        load_state(tmp_path / "edit.npz", other)
    np.savez(tmp_path / "odd.npz", w=codes(G, 0).numpy(), keep=np.ones([1, 9]))
    with pytest.raises(UserError, match="other regions: keep"):
        load_state(tmp_path / "odd.npz", G)
    np.savez(tmp_path / "nan.npz", w=codes(G, 0).numpy() * np.nan)
    with pytest.raises(UserError, match="not finite"):
        load_state(tmp_path / "nan.npz", G)
