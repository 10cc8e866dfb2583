"""Edits that stay in their regions: the term against plain loops, which edits are tried, and that the term works."""

import pytest
import torch

from semantic import generator
from semantic.terms.locality import ABSENT, EDITS, HALF_LIFE, LEAST_LEAK, EditSums
from tests.helpers import assert_close
from tests.semantic.helpers import (
    BATCH,
    COUNT,
    CPU,
    RESOLUTION,
    accumulate,
    build_loss,
    check_gradients,
    gradients,
    random_tensor,
)


def everywhere_visible(G, missing=None):
    """Every region wins somewhere, but for one; and noise does not decide ties."""
    with torch.no_grad():
        for name, buffer in G.named_buffers():
            if name.endswith("noise_const"):
                buffer.zero_()
        mask = G(random_tensor(BATCH, 4, seed=3), None, noise_mode="const", return_mask=True).mask
        bias = G.synthesis.render.b32.to_seg.bias
        bias -= mask.mean(dim=(0, 2, 3))
        if missing is not None:
            bias[missing] -= 1000


def plain_edits(G, z, others, codes):
    """(code, change outside, change in all) of every edit of a sample of which the region is there."""
    found = []
    for n, code in enumerate(codes):
        ws, donor = G.mapping(z, None), G.mapping(others[n : n + 1], None)
        changed = ws.clone()
        changed[0, 1 + code] = donor[0, 1 + code]  # after the one base code
        one, two = (G.synthesis(w, noise_mode="const", return_mask=True) for w in (ws, changed))
        region = (one.mask[0].argmax(0) == code // 2) | (two.mask[0].argmax(0) == code // 2)
        if region.sum() >= 0.001 * RESOLUTION**2:
            change = (two.image.clamp(-1, 1) - one.image.clamp(-1, 1))[0].abs()
            found.append((code, sum(plane[~region].sum() for plane in change), change.sum()))
    return found


def plain_term(edits):
    """Mean of the shares outside, each beside the mean change of its code."""
    sizes = {}
    for code, _, everywhere in edits:
        sizes.setdefault(code, []).append(everywhere.item())
    usual = {code: sum(values) / len(values) for code, values in sizes.items()}
    return sum(out / (total + 0.1 * usual[code]) for code, out, total in edits) / len(edits)


@pytest.mark.parametrize(("codes", "missing"), [((0, 1, 5), None), ((3, 4, 2), None), ((0, 5, 1), 0)])
def test_the_term_is_the_leak_of_one_code_of_one_region(G, D, monkeypatch, codes, missing):
    everywhere_visible(G, missing)
    z, others = random_tensor(16, 4, seed=3), random_tensor(EDITS, 4, seed=7)
    monkeypatch.setattr(torch, "randn_like", lambda x: others)
    monkeypatch.setattr(EditSums, "choose", lambda self, mask, edits: torch.tensor([codes]))
    G.requires_grad_(True)
    build_loss(G, D, locality_weight=2).terms["locality"].step(z, torch.zeros(16, 0))
    actual = gradients(G)
    shape_layers = actual["synthesis.local.weight"][: G.synthesis.local.depth_layers]
    assert not shape_layers.any()
    assert actual["synthesis.local.feature_weight"].any()
    fixed = ("mapping.", "synthesis.local.depth", "synthesis.local.position")
    assert all(grad is None or not grad.any() for name, grad in actual.items() if name.startswith(fixed))
    G.mapping.requires_grad_(False)
    monkeypatch.setattr(G.synthesis.local, "detach_texture", True)  # an oracle: the option of the whole network
    shares = generator.coarse_mask
    monkeypatch.setattr(generator, "coarse_mask", lambda depth, keep: shares(depth.detach(), keep))
    expected = 2 * plain_term(plain_edits(G, z[:1], others, codes))
    # rounding decides the sign of tiny changes
    check_gradients(
        {name.removeprefix("synthesis."): grad for name, grad in actual.items()},
        G.synthesis, expected, tolerance=1e-2, floor=1e-4,
    )  # fmt: skip


def some_edits(count, seed, codes=2 * COUNT):
    changes = random_tensor(count, 2, seed=seed).abs()
    changes[:, 1] += changes[:, 0]
    numbers = torch.randint(codes, [count], generator=torch.Generator().manual_seed(seed))
    return numbers, changes, torch.arange(count) % 4 != 0


def test_the_sums_are_those_of_edits_that_count_with_a_half_life():
    edits, plain = EditSums(COUNT, CPU), torch.zeros(3, 2 * COUNT)
    for seed in range(3):
        codes, changes, there = some_edits(8, seed)
        edits.observe(codes, changes, there)
        plain *= 0.5 ** (8 / HALF_LIFE)
        for code, (outside, total), counts in zip(codes, changes, there, strict=True):
            if counts:
                plain[:, code] += torch.stack([outside, total, torch.tensor(1.0)])
    assert_close(edits.sums, plain, 1e-5)
    known = plain[1] > 0
    assert_close(edits.leaks()[known], (plain[0] / plain[1])[known], 1e-5)
    assert (edits.leaks()[~known] == 1).all()
    assert_close(edits.sizes()[known], (plain[1] / plain[2])[known], 1e-5)


def test_nothing_is_nothing():
    edits = EditSums(COUNT, CPU)
    assert (edits.leaks() == 1).all()
    assert (edits.sizes() == 0).all()
    image, mask = torch.zeros(EDITS, 3, 8, 8, requires_grad=True), torch.zeros(EDITS, COUNT, 8, 8)
    term = edits.leak(torch.tensor([0, 2, 5]), image, mask, mask)
    term.backward()
    assert term == 0
    assert image.grad.isfinite().all()


def test_codes_that_leak_and_regions_that_are_there_are_tried_most():
    edits = EditSums(2, CPU)
    leaks = torch.tensor([0.0, 0.4, 0.9, 0.1])
    edits.sums = torch.stack([leaks, torch.ones(4), torch.ones(4)])
    mask = torch.zeros(6000, 2, 4, 4)
    mask[:, 0] = 1  # only the first region is seen
    chosen = edits.choose(mask)
    assert chosen.shape == (6000, EDITS)
    assert all(len(set(row)) == EDITS for row in chosen[:50].tolist())
    odds = (leaks + LEAST_LEAK) * torch.tensor([1, 1, ABSENT, ABSENT])
    first = torch.bincount(chosen[:, 0], minlength=4) / 6000
    assert (first - odds / odds.sum()).abs().max() < 0.03


def test_the_sums_are_kept(G, D):
    everywhere_visible(G)
    loss = build_loss(G, D, locality_weight=1)
    accumulate(loss, G, "Greg")
    assert not loss.terms["locality"].edits.sums.any()
    accumulate(loss, G, "Gmain")
    assert loss.terms["locality"].edits.sums.abs().max() > 0
    other = build_loss(G, D, locality_weight=1)
    other.load_state_dict(loss.state_dict())
    assert torch.equal(other.terms["locality"].edits.sums, loss.terms["locality"].edits.sums)
    assert any(tensor is loss.terms["locality"].edits.sums for tensor in loss.running())


@pytest.mark.parametrize(("batch", "renders"), [(1, 2), (8, 2), (12, 3), (16, 4), (31, 4), (64, 16)])
def test_a_quarter_of_the_batch_is_rendered(G, D, monkeypatch, batch, renders):
    loss, counts = build_loss(G, D, locality_weight=1), []
    term = loss.terms["locality"]
    render = term.render
    monkeypatch.setattr(term, "render", lambda ws: counts.append(len(ws)) or render(ws))
    G.requires_grad_(True)
    term.step(torch.randn(batch, 4), torch.zeros(batch, 0))
    assert sum(counts) == renders


def test_a_network_learns_to_keep_edits_in_their_regions(G, D):
    torch.manual_seed(0)
    everywhere_visible(G)
    with torch.no_grad():  # the term looks at what a picture shows
        for resolution in (16, 32):
            getattr(G.synthesis.render, f"b{resolution}").to_rgb.gain.mul_(0.1)
    term = build_loss(G, D, locality_weight=1).terms["locality"]
    z, others = torch.randn(32, 4), torch.randn(32, 4)
    codes = torch.arange(32) % (2 * COUNT)

    def leak():
        with torch.no_grad():
            ws, changed = G.mapping(z, None), G.mapping(z, None)
            changed[torch.arange(32), codes + 1] = G.mapping(others, None)[torch.arange(32), codes + 1]
            (before, first), (after, second) = term.render(ws), term.render(changed)
            return EditSums(COUNT, CPU).leak(codes, after - before, first, second).item()

    start = leak()
    G.requires_grad_(True)
    optimizer = torch.optim.Adam(G.synthesis.render.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        term.step(torch.randn(64, 4), torch.zeros(64, 0))
        optimizer.step()
    assert leak() < start - 0.03
