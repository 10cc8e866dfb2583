"""`python -m tests.benchmarks.directions`: whether boundaries raise their scores and leave other regions alone.

Each direction is applied at seven strengths, -REACH to REACH deviations, to images of seeds. Counted are images in
which the score can be measured at all strengths. Images that show the region, but not at all strengths, are `hidden`.
The table tells:
- in how many the score rises at every step (for presence the area, which may stay the same where it is zero),
- the mean score at the weakest strength, unedited, and at the strongest,
- the edited pixels: of the region in one of both pictures alone, from the weakest to the strongest; for colours, all of
  the region,
- the change of the background's area, and the largest change of another region's, in proportion to the edited pixels,
- how many pixels change hands between two other regions, in proportion to the edited pixels,
- the leak: the share of the change of the image outside the region, over both ends, in pixels and at a distance (see
  `semantic.metrics.region_leak.outside_share`).
"""

from pathlib import Path

import click
import numpy as np
import torch
from tqdm import tqdm

import legacy
from semantic.editing.directions import Direction, load_directions
from semantic.editing.edits import Apply
from semantic.editing.latents import seed_latents
from semantic.editing.scores import SCORES
from semantic.editing.state import EditState
from semantic.masks import MIN_AREA, mask_areas
from semantic.metrics.region_leak import outside_share

STEPS = (-1, -2 / 3, -1 / 3, 0, 1 / 3, 2 / 3, 1)
BATCH = 10
COLORS = ("brightness", "saturation", "hue")
HEAD = (
    "| direction | images | rises | scores | edited | background | largest other | elsewhere | leak | at a distance |"
)


@torch.no_grad()
def measure(
    G: torch.nn.Module, direction: Direction, count: int, psi: float, reach: float = 3.0
) -> dict[str, np.ndarray]:
    """Scores [N, 7], areas [N, 7, K] and largest planes of the masks [N, 7, R, R] of seeds 0 to N - 1.

    `leak` [N, 4] is the change from the weakest to the strongest, see `outside_share`.
    """
    region, name = G.regions.index(direction.region), direction.measured.split()[0]
    score = SCORES["area" if name == "presence" else name]
    found = {"score": [], "area": [], "mask": [], "leak": []}
    for start in tqdm(range(0, count, BATCH), desc=direction.name, leave=False):
        ws = G.mapping(seed_latents(range(start, min(start + BATCH, count)), G.z_dim), None, truncation_psi=psi)
        state, rows, images = EditState.of(ws, G.regions), {key: [] for key in ("score", "area", "mask")}, []
        for step in STEPS:
            edited = Apply(region, direction, step * reach).apply(G, state)
            out = G.synthesis(**edited.inputs(G.synthesis.grid), noise_mode="const", return_mask=True)
            rows["score"].append(score(out.image, out.mask, region))
            rows["area"].append(mask_areas(out.mask))
            rows["mask"].append(out.mask.argmax(dim=1))
            images.append(out.image.clamp(-1, 1))
        for key, parts in rows.items():
            found[key].append(torch.stack(parts, dim=1))
        inside = (found["mask"][-1][:, [0, -1]] == region).any(dim=1)
        found["leak"].append(outside_share(images[0], images[-1], inside))
    return {key: torch.cat(parts).numpy() for key, parts in found.items()}


def row(G: torch.nn.Module, direction: Direction, found: dict[str, np.ndarray]) -> str:
    """One line of the table."""
    region = G.regions.index(direction.region)
    shown = found["area"][:, len(STEPS) // 2, region] >= MIN_AREA if "presence" not in direction.name else True
    there = np.isfinite(found["score"]).all(axis=1)
    hidden = (shown & ~there).sum()
    scores, areas, masks, leak = (found[key][there] for key in ("score", "area", "mask", "leak"))
    rises = ((np.diff(scores, axis=1) >= 0).all(axis=1) & (scores[:, -1] > scores[:, 0])).mean()
    change = np.abs(areas[:, -1] - areas[:, 0]).mean(axis=0)
    inside = masks == region
    colored = direction.measured.split()[0] in COLORS
    own = max((inside[:, 3] if colored else inside[:, 0] != inside[:, -1]).mean(), 1e-9)
    others = {name: change[k] / own for k, name in enumerate(G.regions.names) if k not in (0, region)}
    most = max(others, key=others.get)
    elsewhere = (masks[:, 0] != masks[:, -1]) & ~inside.any(axis=1)
    outside, total, far, pyramid = leak.sum(axis=0)
    means = ", ".join(f"{value:.3f}" for value in scores.mean(axis=0)[[0, 3, 6]])
    return (
        f"| {direction.name} | {there.sum()}, {hidden} hidden | {rises:.0%} | {means} | {own:.4f} | "
        f"{change[0] / own:.2f} | {most} {others[most]:.2f} | {elsewhere.mean() / own:.3f} | "
        f"{outside / max(total, 1e-9):.3f} | {far / max(pyramid, 1e-9):.3f} |"
    )


@click.command(context_settings={"show_default": True})
@click.option("--network", help="Network  [default: the bundled one]")
@click.option("--directions", "path", type=click.Path(path_type=Path), help="[default: those beside the network]")
@click.option("--names", help="Some of them, comma-separated")
@click.option("--count", default=100, help="Images")
@click.option("--psi", default=0.7, help="Truncation of the images")
@click.option("--reach", default=3.0, help="Largest strength, in deviations")
def main(network: str | None, path: Path | None, names: str | None, count: int, psi: float, reach: float) -> None:
    """Measure directions that edit.py --find=boundary found."""
    file = Path(legacy.choose_network(network))
    G = legacy.load_network(file)["G_ema"].eval()
    known = load_directions(path or file.with_name(f"{file.stem}-directions.npz"), G)
    chosen = names.split(",") if names else [name for name, d in known.items() if d.method == "boundary"]
    print(HEAD)
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in chosen:
        print(row(G, known[name], measure(G, known[name], count, psi, reach)), flush=True)


if __name__ == "__main__":
    main()
