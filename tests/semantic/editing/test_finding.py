"""Directions against linear algebra written anew, and against scores whose directions are known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dnnlib import UserError
from semantic.editing import finding
from semantic.editing.directions import Direction, list_directions, load_directions, save_directions
from semantic.editing.latents import seed_latents
from semantic.editing.scores import Score, find_score
from tests.networks import tiny_generator

HAIR = 2


@pytest.fixture(scope="module")
def G():
    return tiny_generator()


def parallel(a, b) -> float:
    a, b = (np.asarray(v, np.float64) for v in (a, b))
    return abs(a @ b) / np.linalg.norm(a) / np.linalg.norm(b)


def test_factorisation_is_that_of_the_singular_vectors(G):
    weight = G.synthesis.local.affine_weight.numpy().astype(np.float64)  # [L, K, C, D]
    layers = {"shape": [2, 3], "texture": [4, 5], "both": [2, 3, 4, 5], "whole": range(6)}
    for part, of_part in layers.items():
        stacked = np.concatenate([weight[layer, HAIR] for layer in of_part])
        _, sizes, vectors = np.linalg.svd(stacked)
        found = finding.factorised(G, HAIR, part, 3)
        assert [d.name for d in found] == [f"hair/{'' if part == 'both' else part + '-'}sefa{i}" for i in (1, 2, 3)]
        for i, direction in enumerate(found):
            roles = {"shape": [1], "texture": [2], "both": [1, 2], "whole": [0, 1, 2]}[part]
            for role in range(3):
                moved = direction.codes[role]
                assert parallel(moved, vectors[i]) > 1 - 1e-6 if role in roles else not moved.any()
            share = sizes[i] ** 2 / (sizes**2).sum()
            assert direction.measured.startswith(f"{share:.1%}")


def test_the_background_has_no_base_codes_but_layers_of_its_own(G):
    weight = G.synthesis.local.affine_weight.numpy().astype(np.float64)
    stacked = np.concatenate([weight[layer, 0] for layer in range(4)])
    _, _, vectors = np.linalg.svd(stacked)
    assert parallel(finding.factorised(G, 0, "shape", 1)[0].codes[1], vectors[0]) > 1 - 1e-6


def test_components_are_those_of_the_mapped_codes(G):
    w = finding.sample_codes(G, finding.MAPPED_SAMPLES, seed=1)[0].numpy().astype(np.float64)
    centred = w - w.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred / (len(w) - 1))
    for i, direction in enumerate(finding.principal(G, HAIR, "shape", 3)):
        assert direction.name == f"hair/shape-pc{i + 1}"
        step = direction.codes[1].numpy()
        assert parallel(step, vectors[:, -1 - i]) > 1 - 1e-6
        assert np.linalg.norm(step) == pytest.approx(np.sqrt(values[-1 - i]), rel=1e-4)  # one standard deviation
        assert step[np.abs(step).argmax()] > 0  # the same sign every time


def test_sampled_codes_have_the_mappings_distribution(G):
    ours = finding.sample_codes(G, 4000, seed=3)[0]
    theirs = G.mapping(seed_latents(range(4000), G.z_dim), None)[:, 0]
    assert torch.allclose(ours.mean(dim=0), theirs.mean(dim=0), atol=0.1 * theirs.std())


def test_conditional_networks_are_sampled_over_their_classes():
    G = tiny_generator(c_dim=3)
    assert finding.sample_codes(G, 50, seed=0, sets=2).shape == (2, 50, G.w_dim)


def test_a_step_raises_its_score_and_holds_the_others():
    random = torch.Generator().manual_seed(0)
    mixing = torch.randn(6, 6, generator=random, dtype=torch.float64)
    codes = torch.randn(20000, 6, generator=random, dtype=torch.float64) @ mixing
    wanted, other = torch.randn(2, 6, generator=random, dtype=torch.float64)
    values, held = codes @ wanted, (codes @ other)[:, None]
    step, slope = finding.score_direction(codes, values, held)
    assert slope == pytest.approx(float(step @ wanted), rel=0.1)
    assert slope > 0
    assert abs(step @ other) < 0.05 * abs(step @ wanted)
    assert (codes @ step / step.norm()).std() == pytest.approx(float(step.norm()), rel=1e-3)
    alone, _ = finding.score_direction(codes, values, held[:, :0])
    assert parallel(alone, np.cov(codes.T) @ wanted.numpy()) > 0.999  # the mean of codes that score high


def test_a_code_without_influence_does_not_move():
    random = torch.Generator().manual_seed(1)
    codes = torch.randn(1200, 40, generator=random, dtype=torch.float64)
    wanted = torch.randn(20, generator=random, dtype=torch.float64)
    values = codes[:, :20] @ wanted + torch.randn(1200, generator=random, dtype=torch.float64)
    step, _ = finding.score_direction(codes, values, codes[:, :0], roles=2)
    assert parallel(step[:20], wanted) > 0.97
    assert step[20:].norm() < 0.06 * step.norm()  # by chance it is 0.13


def test_scores_of_pure_noise_have_no_step_and_hold_nothing():
    random = torch.Generator().manual_seed(0)
    codes = torch.randn(240, 40, generator=random, dtype=torch.float64)
    noise = torch.randn(240, 30, generator=random, dtype=torch.float64)
    found = [finding.score_direction(codes, column, noise[:, :0]) for column in noise.unbind(dim=1)]
    assert sum(slope == 0 and not step.any() for step, slope in found) > 5
    assert all(bool(step.isfinite().all()) for step, _ in found)
    step, slope = finding.score_direction(codes, codes[:, 0], noise)
    assert slope > 0.5
    assert step.argmax() == 0
    unrelated = noise[:, [not slope for _, slope in found]]
    alone, held = (finding.score_direction(codes, codes[:, 0], other)[0] for other in (noise[:, :0], unrelated))
    assert torch.allclose(alone, held, atol=1e-9)


def test_samples_are_compared_within_their_image_and_left_out_where_nothing_is_measured():
    random = torch.Generator().manual_seed(2)
    image = torch.arange(400).repeat_interleave(4)
    codes = torch.randn(1600, 5, generator=random, dtype=torch.float64)
    values = codes[:, 1] + 100 * torch.randn(400, generator=random, dtype=torch.float64)[image]
    values[::3] = torch.nan
    step, slope = finding.score_direction(codes, values, codes[:, 2:3], image)
    assert parallel(step, torch.eye(5)[1]) > 0.98
    assert slope == pytest.approx(1, abs=0.05)


def test_a_boundary_finds_what_a_score_depends_on(monkeypatch):
    """Brightness of the whole picture is one number of the hair's texture code here."""
    G = tiny_generator()
    slot = G.regions.slots("hair")["texture"]

    def synthesis(ws, **options):
        image = ws[:, slot, 3].view(-1, 1, 1, 1).expand(-1, 3, 32, 32) / 10
        mask = torch.zeros(len(ws), 4, 32, 32)
        mask[:, HAIR, :16] = 1
        return SimpleNamespace(image=image, mask=mask)

    monkeypatch.setattr(G.synthesis, "forward", synthesis)
    done = []
    (found,) = finding.boundaries(G, HAIR, "texture", [find_score("brightness")], 600, batch=50, progress=done.append)
    assert sum(done) == 600
    assert (found.name, found.method, found.region, found.part) == ("hair/brightness", "boundary", "hair", "texture")
    assert not found.codes[:2].any()
    codes = finding.sample_codes(G, 5000, seed=9)[0].double()
    assert parallel(found.codes[2], np.cov(codes.T)[3]) > 0.97
    assert found.codes[2][3] > 0
    with pytest.raises(UserError, match="the same in all"):
        finding.boundaries(G, HAIR, "shape", [find_score("area")], 60)
    with pytest.raises(UserError, match="in only 0 of 60 samples"):
        finding.boundaries(G, 1, "shape", [find_score("height")], 60)
    with pytest.raises(UserError, match="must return a tensor"):
        finding.boundaries(G, 1, "shape", [Score("odd", lambda image, mask, region: 3, "shape")], 60)


def test_a_score_that_does_not_depend_on_the_codes_is_named(monkeypatch):
    G = tiny_generator()
    mask = torch.zeros(50, 4, 32, 32)
    mask[:, HAIR, :16] = 1
    out = SimpleNamespace(image=torch.zeros(50, 3, 32, 32), mask=mask)
    monkeypatch.setattr(G.synthesis, "forward", lambda ws, **options: out)
    draws = iter(torch.randn(10, 8, 50, generator=torch.Generator().manual_seed(3)).flatten(0, 1))
    scores = [Score(f"noise{i}", lambda image, mask, region: next(draws), "texture", holds=False) for i in range(8)]
    reasons = []
    found = finding.boundaries(G, HAIR, "texture", scores, 500, batch=50, skipped=reasons.append)
    assert reasons
    assert len(found) + len(reasons) == 8
    name = str(reasons[0]).split()[0]
    assert str(reasons[0]).startswith(f"{name} of hair does not depend on its texture codes in 500 samples.")
    assert name not in [direction.name.split("/")[1] for direction in found]


def test_angles_are_measured_around_their_mean():
    degrees = finding._unwrapped(torch.tensor([350.0, 10.0, 30.0, 330.0]))
    assert torch.allclose(degrees, torch.tensor([-10.0, 10.0, 30.0, -30.0]), atol=1e-3)


def directions(G, *names):
    return [Direction(name, "pca", "hair", "both", f"of {name}", torch.randn(3, G.w_dim)) for name in names]


def test_a_file_gives_directions_back(G, tmp_path):
    path = tmp_path / "directions.npz"
    saved = directions(G, "hair/a", "hair/ü")
    save_directions(path, saved, G)
    with np.load(path, allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file.files)
    for one, other in zip(saved, load_directions(path, G).values(), strict=True):
        assert {**vars(one), "codes": 0} == {**vars(other), "codes": 0}
        assert torch.equal(one.codes, other.codes)
    assert list_directions(path).splitlines()[1].split() == ["hair/a", "pca", "hair", "both", "of", "hair/a"]


def test_directions_that_are_not_finite_leave_the_file_as_it_is(G, tmp_path):
    path = tmp_path / "directions.npz"
    good, broken = directions(G, "hair/a", "hair/b")
    save_directions(path, [good], G)
    broken.codes[1, 2] = torch.nan
    with pytest.raises(UserError, match="hair/b has numbers that are not finite"):
        save_directions(path, [good, broken], G)
    assert list(load_directions(path, G)) == ["hair/a"]


def test_a_new_direction_replaces_one_of_its_name(G):
    old, new = directions(G, "hair/a", "hair/b"), directions(G, "hair/b", "hair/c")
    merged = finding.merge(old, new)
    assert [d.name for d in merged] == ["hair/a", "hair/b", "hair/c"]
    assert merged[1] is new[0]


def test_files_that_do_not_fit_are_refused_in_one_line(G, tmp_path):
    path = tmp_path / "directions.npz"
    save_directions(path, directions(G, "hair/a"), G)
    for other, why in (
        (tiny_generator(names=["background", "hair"]), "their regions are background, skin, hair, glasses"),
        (tiny_generator(w_dim=16), "their codes have 8 numbers, those of this network 16"),
        (tiny_generator(seed=7), "average codes of both networks differ"),
    ):
        with pytest.raises(UserError, match=why):
            load_directions(path, other)
    np.savez(tmp_path / "w.npz", w=np.zeros([1, 2, 3]))
    (tmp_path / "text.npz").write_text("hello")
    np.savez(tmp_path / "object.npz", names=np.array([{}], object))
    for name in ("w.npz", "text.npz", "object.npz"):
        with pytest.raises(UserError, match=r"that edit\.py --find wrote"):
            load_directions(tmp_path / name, G)
