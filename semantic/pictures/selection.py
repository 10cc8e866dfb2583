"""Selects generated pairs: pairs whose mask fits, that are unlike other pairs, and that show rare regions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

DIVERSITY = 0.25
"""Weight of difference from other pairs, relative to the agreement of mask and image."""
RARITY = 1.0
"""Weight of a region that too few kept pairs show, for a pair that is perfect otherwise."""
WANTED = 0.5
"""Fraction of pairs that show a region in balanced data."""


@dataclass(frozen=True)
class Why:
    """Reason for dropping a pair: 'disagreement' (worst in `region`), 'likeness' (to another pair), or 'balance'."""

    reason: str
    region: int | None = None


@dataclass(frozen=True)
class Choice:
    """Positions of the kept pairs of a pool, in order, and the reason for dropping each other pair."""

    kept: list[int]
    dropped: dict[int, Why]


def choose(pool: Sequence[Any], count: int, before: Any, balance: bool = False) -> Choice:
    """Choose pairs to keep.

    For each of its regions, a pair has the rank of its overlap among the pairs with this region. The mean rank is its
    agreement. Pairs with regions that are hard to segment therefore compete with similar pairs, and are kept. Its
    novelty is the rank of its distance to the nearest pair, in the pool or kept before.

    Args:
        pool: pairs with `overlap` [K], `shown` [K] and `look` [D], see `semantic.pictures.factory.Pair`.
        count: number of pairs to keep.
        before: pairs kept before: `kept` pairs, `shown_kept` [K] of them with each region, and their `looks`.
        balance: prefer pairs with regions that less than half of the kept pairs show.
    """
    if count >= len(pool):
        return Choice(list(range(len(pool))), {})
    ranks = region_ranks(np.stack([pair.overlap for pair in pool]))
    there = np.isfinite(ranks)
    agreement = np.where(there, ranks, 0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
    novelty = ranked(distances(np.stack([pair.look for pair in pool]), before.looks))
    value = agreement + DIVERSITY * novelty
    if balance:
        shown = np.stack([pair.shown for pair in pool])
        kept = balanced(value, shown, count, before.shown_kept, before.kept)
    else:
        kept = np.argsort(-value, kind="stable")[:count]
    kept = sorted(int(place) for place in kept)
    lowest = value[kept].min() if kept else np.inf
    dropped = {}
    for place in sorted(set(range(len(pool))) - set(kept)):
        if value[place] >= lowest:
            dropped[place] = Why("balance")
        elif ranked(agreement)[place] <= novelty[place]:
            dropped[place] = Why("disagreement", int(np.nanargmin(ranks[place])) if there[place].any() else None)
        else:
            dropped[place] = Why("likeness")
    return Choice(kept, dropped)


def ranked(values: np.ndarray) -> np.ndarray:
    """Returns ranks of values, from 0 for the smallest to 1 for the largest. Equal values have equal ranks."""
    return (rankdata(values) - 0.5) / len(values)


def region_ranks(overlap: np.ndarray) -> np.ndarray:
    """Returns ranks [N, K] of overlaps [N, K] within each region. NaN stays NaN."""
    ranks = np.full(overlap.shape, np.nan)
    for k in range(overlap.shape[1]):
        there = np.isfinite(overlap[:, k])
        if there.any():
            ranks[there, k] = ranked(overlap[there, k])
    return ranks


def distances(looks: np.ndarray, others: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the distance of each look [N, D] to the nearest other look and to the nearest of `others`."""
    everything = np.concatenate([looks, np.stack(others)]) if len(others) else looks
    squares = (looks**2).sum(axis=1)[:, None] + (everything**2).sum(axis=1) - 2 * looks @ everything.T
    squares[np.arange(len(looks)), np.arange(len(looks))] = np.inf
    return np.sqrt(squares.min(axis=1).clip(min=0))


def balanced(value: np.ndarray, shown: np.ndarray, count: int, seen: np.ndarray, number: int) -> list[int]:
    """Choose pairs one by one: each time the pair with the largest value, including the value of its rarest region.

    Args:
        value: [N], values of the pairs.
        shown: bool [N, K], the regions of the pairs.
        count: number of pairs to choose.
        seen: [K], number of earlier pairs that show each region.
        number: number of earlier pairs.
    """
    chosen, seen, left = [], seen.astype(float), value.astype(float)
    for _ in range(count):
        missing = np.maximum(WANTED - seen / max(number, 1), 0) / WANTED
        best = int(np.argmax(left + RARITY * (shown * missing).max(axis=1)))
        chosen.append(best)
        left[best] = -np.inf
        seen, number = seen + shown[best], number + 1
    return chosen
