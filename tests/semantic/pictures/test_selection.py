"""Of many generated pairs those are kept that fit, that differ, and on request those with rare regions."""

from types import SimpleNamespace

import numpy as np
import pytest

from semantic.pictures import factory, selection
from semantic.pictures.selection import choose

NOTHING = SimpleNamespace(kept=0, shown_kept=np.zeros(3), looks=[])


def pair(overlap, shown=(True, True, True), look=(0, 0, 0, 0)):
    return SimpleNamespace(overlap=np.array(overlap, float), shown=np.array(shown), look=np.array(look, float))


def test_pairs_that_fit_are_kept_and_the_worst_region_is_named():
    pool = [pair([0.9, 0.8 + i / 100, 0.1 if i < 4 else 0.7 + i / 100]) for i in range(12)]
    choice = choose(pool, 8, NOTHING)
    assert choice.kept == list(range(4, 12))
    assert {why.reason for why in choice.dropped.values()} == {"disagreement"}
    assert all(why.region in (1, 2) for why in choice.dropped.values())


def test_regions_that_are_hard_to_see_compete_with_their_like():
    hard = [pair([0.9, np.nan, 0.05 + i / 1000]) for i in range(6)]
    easy = [pair([0.9, 0.6 + i / 1000, np.nan]) for i in range(6)]
    kept = choose([*hard, *easy], 6, NOTHING).kept
    assert kept == [3, 4, 5, 9, 10, 11]


def test_copies_go_before_others_of_the_same_fit():
    looks = [[10 * i, 0, 0, 0] for i in range(8)] + [[0.1, 0, 0, 0], [10.1, 0, 0, 0]]
    pool = [pair([0.5, 0.5, 0.5], look=look) for look in looks]
    for places in ([0, 8], [1, 9]):
        assert not set(places) <= set(choose(pool, 6, NOTHING).kept)
    kept_before = SimpleNamespace(kept=1, shown_kept=np.ones(3), looks=[np.array([50.05, 0, 0, 0])])
    near, far = (selection.distances(np.stack([p.look for p in pool]), kept_before.looks)[i] for i in (5, 6))
    assert near == pytest.approx(0.05, abs=1e-3)
    assert far == pytest.approx(9.95, abs=1e-3)


def test_balance_prefers_rare_regions_to_half_of_the_pairs_at_most():
    pool = [pair([0.9, 0.9 - i / 1000, np.nan], (True, True, False)) for i in range(30)]
    pool += [pair([0.8, 0.8, 0.3 + i / 1000], (True, True, True)) for i in range(10)]
    plain, balanced = (choose(pool, 16, NOTHING, balance) for balance in (False, True))
    shown = [sum(pool[place].shown[2] for place in choice.kept) for choice in (plain, balanced)]
    assert shown[0] < shown[1]
    assert shown[1] <= 8
    assert "balance" in {why.reason for why in balanced.dropped.values()}


def test_all_are_kept_where_none_has_to_go():
    pool = [pair([0.1, 0.2, 0.3]), pair([np.nan, 0.2, 0.3])]
    assert choose(pool, 2, NOTHING) == selection.Choice([0, 1], {})


def test_agreement_is_the_overlap_of_mask_and_guess():
    masks, seen = np.zeros((2, 2, 8, 8), np.uint8)
    masks[0, :2], seen[0, :4] = 1, 1
    seen[1, 0, 0] = 2
    overlap, shown = factory.agreement(masks, seen, 4)
    np.testing.assert_allclose(overlap[0], [32 / 48, 0.5, np.nan, np.nan])
    np.testing.assert_allclose(overlap[1], [63 / 64, np.nan, 0, np.nan])
    assert shown.tolist() == [[True, True, False, False], [True, False, False, False]]
