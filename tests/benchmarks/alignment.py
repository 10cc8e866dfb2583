"""How well a network labels photos, and finds its crop in photos that were moved.

python -m tests.benchmarks.alignment --network=snapshot.pkl --parser=celeba64-test.zip --pairs=celeba64-train.zip
python -m tests.benchmarks.alignment --network=snapshot.pkl --photos=celeba128-test.zip --count=30
python -m tests.benchmarks.alignment --photos=faces128.zip --count=30
python -m tests.benchmarks.alignment --samples=30 --steps=60
"""

import contextlib
import math
import time
from collections.abc import Iterable, Iterator

import click
import numpy as np
import torch
from torch.nn import functional as F

import legacy
from dnnlib import UserError
from semantic.editing.latents import seed_latents
from semantic.inversion.align import align
from semantic.inversion.distance import Distance, Targets, psnr
from semantic.inversion.layout import network_layout
from semantic.inversion.optimize import Schedule, invert
from semantic.inversion.parse import Parser, build_parser
from semantic.inversion.photos import crop_mask, find_photos
from semantic.inversion.project import render
from semantic.inversion.space import code_space
from semantic.metrics.common import overlap_counts, region_ious
from semantic.metrics.mask_fit import TRAIN_IMAGES
from semantic.metrics.segmenter import train_segmenter
from semantic.placement import Placement

CPU = torch.device("cpu")
FIRST_SEED, PSI = 1000, 0.7
NEAR = 0.05
"""Share of the picture's side within which the corners of a crop count as found."""


def parser_overlap(networks: dict, path: str, count: int, pairs: str | None) -> None:
    """The network's parser against masks of photographs, beside a segmenter that learned from other photographs."""
    parser = build_parser(networks, CPU)
    names = parser.regions.names
    photos, truth = real_pairs(path, count, parser)
    columns = {"parser": parser.masks(photos)}
    if pairs:
        images, masks = real_pairs(pairs, None, parser)
        mirror = parser.regions.mirror_table()
        learned = train_segmenter(
            to_bytes(images), masks.byte(), len(names), TRAIN_IMAGES, CPU, 0, mirror, None, "Pairs"
        )
        columns["segmenter"] = learned.predict(to_bytes(photos)).long()
    found = {
        name: region_ious(overlap_counts(truth, masks, len(names)).numpy(), names) for name, masks in columns.items()
    }
    for name, overlaps in found.items():
        listed = ", ".join(f"{region} {overlap:.2f}" for region, overlap in overlaps.items())
        mean = np.mean(list(overlaps.values()))
        print(f"{name}, {len(photos)} photographs: mean IoU of regions {mean:.3f} ({listed})", flush=True)


def to_bytes(images: torch.Tensor) -> torch.Tensor:
    """Images in [-1, 1] as bytes."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def real_pairs(path: str, count: int | None, parser: Parser) -> tuple[torch.Tensor, torch.Tensor]:
    """Photographs [N, 3, R, R] in [-1, 1] and their masks, int64 [N, R, R]."""
    found = []
    for file in find_photos(path, limit=count):
        photo = file.read()
        size = (photo.shape[2], photo.shape[1])
        placement = Placement.centered(file.path, size, parser.resolution)
        truth = crop_mask(file.read_mask(parser.regions, size), placement, len(parser.regions))
        found.append((placement.crop(photo), truth))
    images, masks = zip(*found, strict=True)
    return torch.stack(images), torch.stack(masks)


def found_crops(networks: dict, photos: Iterable[tuple[str, torch.Tensor]], steps: int) -> None:
    """Photographs moved, scaled and turned on a plain and on a busy ground: how near the crop is found.

    A crop is near where all of its corners are. It is compared with the frame of the photograph, and with the crop
    that is found in the photograph itself, which is not the frame: data sets are framed by other rules. With `steps`
    both crops are also searched, for the difference in PSNR.
    """
    parser, layout = build_parser(networks, CPU), network_layout(networks["G_ema"], CPU)
    rng = np.random.default_rng(0)
    frame, crop, fails, own, seconds, pairs = {True: [], False: []}, {True: [], False: []}, 0, [], [], []
    for i, (name, photo) in enumerate(photos):
        busy, move = bool(i % 2), random_move(rng, name, photo.shape[2])
        moved = on_ground(photo, move, busy, rng)
        since, found, unmoved = time.perf_counter(), None, Placement.centered(name, (photo.shape[2],) * 2, 1)
        corners = {"frame": unmoved.corners(), "crop": unmoved.corners()}
        with contextlib.suppress(UserError):
            unmoved = align(photo, name, parser, layout)
            corners["crop"] = unmoved.corners()
            own.append(away(corners["crop"], corners["frame"]))
        seconds.append(time.perf_counter() - since)
        with contextlib.suppress(UserError):
            found = align(moved, name, parser, layout)
        fails += found is None
        if found is not None and unmoved.resolution > 1:
            pairs.append((unmoved.crop(photo), found.crop(moved)))
        there = torch.full([4, 2], math.inf) if found is None else found.corners()
        for kind, rows in (("frame", frame), ("crop", crop)):
            rows[busy].append(away(there, carried(move, corners[kind])))
        distances = f"{frame[busy][-1]:.3f} from the frame, {crop[busy][-1]:.3f} from the unmoved crop"
        print(f"{i} {'busy' if busy else 'plain'}, scale {move.scale:.2f}: {distances}", flush=True)
    for busy, text in ((False, "plain"), (True, "busy")):
        shares = [np.mean(np.array(rows[busy]) < NEAR) for rows in (frame, crop)]
        print(f"crops on a {text} ground: {shares[0]:.0%} within {NEAR:.0%} of the frame, {shares[1]:.0%} of the "
              f"unmoved photograph's crop; median distances {np.median(frame[busy]):.3f} and "
              f"{np.median(crop[busy]):.3f}")  # fmt: skip
    print(f"unmoved: {np.mean(np.array(own) < NEAR):.0%} within {NEAR:.0%} of the frame, median {np.median(own):.3f}; "
          f"{fails} of {len(seconds)} moved ones were refused; {np.median(seconds):.1f} s each",
          flush=True)  # fmt: skip
    if steps:
        compare_searches(networks, parser, pairs, steps)


def compare_searches(
    networks: dict, parser: Parser, pairs: list[tuple[torch.Tensor, torch.Tensor]], steps: int
) -> None:
    """PSNR of searches for the crops of unmoved photographs and of moved ones."""
    G = networks["G_ema"].eval().requires_grad_(False)
    space, distance = code_space(G, CPU), Distance(networks["D"])
    figures = []
    for images in (torch.stack(side) for side in zip(*pairs, strict=True)):
        rows = []
        for part in images.clamp(-1, 1).split(8):
            targets = Targets(part, parser.masks(part))
            start = space.mean.expand(len(part), G.num_ws, -1).clone()
            found = invert(G, space, distance, targets, start, Schedule(num_steps=steps))
            rows.append(psnr(render(G, found.ws)[0], part))
        figures.append(torch.cat(rows))
    loss = figures[0] - figures[1]
    print(f"{len(loss)} searches of {steps} steps: {figures[0].median():.2f} dB unmoved, {figures[1].median():.2f} dB "
          f"moved; {(loss < 1).float().mean():.0%} lose less than 1 dB, median {loss.median():.2f} dB")  # fmt: skip


@torch.no_grad()
def own_samples(networks: dict, count: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Samples of the network, whose frame is the frame of its data."""
    G = networks["G_ema"].eval()
    for seed in range(FIRST_SEED, FIRST_SEED + count):
        ws = G.mapping(seed_latents([seed], G.z_dim), None, truncation_psi=PSI)
        yield f"seed{seed}", G.synthesis(ws, noise_mode="const")[0].clamp(-1, 1)


def random_move(rng: np.random.Generator, name: str, side: int) -> Placement:
    """Where a photograph lies on a ground of twice its side: shifted, scaled by 0.5 to 2, turned by 30 degrees."""
    scale, angle = 2 ** rng.uniform(-1, 1), math.radians(rng.uniform(-30, 30))
    a, b = scale * math.cos(angle), scale * math.sin(angle)
    x, y = side + rng.uniform(-0.3, 0.3, 2) * side * scale
    half = side / 2
    matrix = ((a, -b, float(x - a * half + b * half)), (b, a, float(y - b * half - a * half)))
    return Placement(photo=name, photo_size=(2 * side, 2 * side), resolution=side, matrix=matrix)


def on_ground(photo: torch.Tensor, move: Placement, busy: bool, rng: np.random.Generator) -> torch.Tensor:
    """A photograph drawn on a ground of one colour, or on one of blurs and rectangles."""
    side = move.photo_size[0]
    ground = torch.from_numpy(rng.uniform(-1, 1, 3)).float()[:, None, None].repeat(1, side, side)
    if busy:
        noise = torch.from_numpy(rng.normal(0, 0.4, [1, 3, 24, 24])).float()
        ground = F.interpolate(noise, side, mode="bicubic")[0]
        for _ in range(40):
            (width, height), (x, y) = rng.integers(side // 25, side // 2, 2), rng.integers(0, side, 2)
            ground[:, y : y + height, x : x + width] = torch.from_numpy(rng.uniform(-1, 1, [3, 1, 1])).float()
    drawn, cover = move.to_photo(photo)
    return torch.lerp(ground.clamp(-1, 1), drawn, cover)


def carried(move: Placement, corners: torch.Tensor) -> torch.Tensor:
    """Points of a photograph after its move."""
    matrix = torch.tensor(move.matrix, dtype=torch.float64)
    return corners @ matrix[:, :2].T + matrix[:, 2]


def away(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """The largest distance of corners, as a share of the side of the crop that is wanted."""
    return float((found - wanted).norm(dim=1).max() / (wanted[1] - wanted[0]).norm())


@click.command()
@click.option("--network", default="faces128")
@click.option("--parser", help="Photos with masks, cropped as the network's samples")
@click.option("--pairs", help="With --parser: photos with masks from which a segmenter learns, for comparison")
@click.option("--photos", help="Photos to move, cropped as the network's samples")
@click.option("--samples", type=int, default=0, help="Samples of the network to move")
@click.option("--steps", type=int, default=0, help="Also search moved and unmoved crops with so many steps")
@click.option("--count", type=int, default=100)
def main(network, parser, pairs, photos, samples, steps, count):
    """Print rows of figures."""
    networks = legacy.load_network(network)
    if parser:
        parser_overlap(networks, parser, count, pairs)
    if samples:
        found_crops(networks, own_samples(networks, samples), steps)
    if photos:
        files = find_photos(photos, limit=count)
        found_crops(networks, ((file.path, file.read()) for file in files), steps)


if __name__ == "__main__":
    main()
