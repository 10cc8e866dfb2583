"""Which of many generated pairs are kept: those whose mask fits, that are unlike others, and that show rare regions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

DIVERSITY = 0.25
"""Weight of being unlike the other pairs, beside the agreement of mask and image."""
RARITY = 1.0
"""Weight of showing a region that too few of the kept pairs show, for a pair that lacks nothing else."""
WANTED = 0.5
"""Share of pairs that shows a region in balanced data."""


@dataclass(frozen=True)
class Why:
    """Why a pair was dropped: 'disagreement' (worst in `region`), 'likeness' (to another), or 'balance'."""

    reason: str
    region: int | None = None


@dataclass(frozen=True)
class Choice:
    """Places of the kept pairs of a pool, in their order, and why each of the others was dropped."""

    kept: list[int]
    dropped: dict[int, Why]


def choose(pool: Sequence[Any], count: int, before: Any, balance: bool = False) -> Choice:
    """Choose pairs.

    A pair's agreement is the mean over its regions of the rank of its overlap among the pairs that show the region. So
    pairs with regions that are hard to see compete with their like, and stay. Its novelty is the rank of its distance
    to the nearest of the pool and of the pairs that were kept before.

    Args:
        pool: pairs with `overlap` [K], `shown` [K] and `look` [D], see `semantic.pictures.factory.Pair`.
        count: how many to keep.
        before: what was kept before: `kept` of them, `shown_kept` [K] of them show each region, and their `looks`.
        balance: prefer pairs that show regions that less than half of the kept pairs show.
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
    """Ranks of values, between 0 for the least and 1 for the greatest; equal values have equal ranks."""
    return (rankdata(values) - 0.5) / len(values)


def region_ranks(overlap: np.ndarray) -> np.ndarray:
    """Ranks [N, K] of overlaps [N, K] within each region, NaN where the overlap is."""
    ranks = np.full(overlap.shape, np.nan)
    for k in range(overlap.shape[1]):
        there = np.isfinite(overlap[:, k])
        if there.any():
            ranks[there, k] = ranked(overlap[there, k])
    return ranks


def distances(looks: np.ndarray, others: Sequence[np.ndarray]) -> np.ndarray:
    """Distance of each look [N, D] to the nearest of the rest and of the others."""
    everything = np.concatenate([looks, np.stack(others)]) if len(others) else looks
    squares = (looks**2).sum(axis=1)[:, None] + (everything**2).sum(axis=1) - 2 * looks @ everything.T
    squares[np.arange(len(looks)), np.arange(len(looks))] = np.inf
    return np.sqrt(squares.min(axis=1).clip(min=0))


def balanced(value: np.ndarray, shown: np.ndarray, count: int, seen: np.ndarray, number: int) -> list[int]:
    """Choose one after the other, each time the pair that is worth most, with what its rarest region adds.

    Args:
        value: [N] of the pairs.
        shown: bool [N, K], the regions of the pairs.
        count: how many to choose.
        seen: [K] how many of the pairs chosen before show each region.
        number: how many these are.
    """
    chosen, seen, left = [], seen.astype(float), value.astype(float)
    for _ in range(count):
        missing = np.maximum(WANTED - seen / max(number, 1), 0) / WANTED
        best = int(np.argmax(left + RARITY * (shown * missing).max(axis=1)))
        chosen.append(best)
        left[best] = -np.inf
        seen, number = seen + shown[best], number + 1
    return chosen
