"""How well a network labels photos, and finds its crop in photos that were moved.

python -m tests.benchmarks.alignment --network=snapshot.pkl --parser=celeba64-test.zip --pairs=celeba64-train.zip
python -m tests.benchmarks.alignment --network=snapshot.pkl --photos=celeba128-test.zip --count=30
python -m tests.benchmarks.alignment --photos=faces128.zip --count=30
"""

import math
import time

import click
import numpy as np
import torch
from torch.nn import functional as F

import legacy
from dnnlib import UserError
from semantic.inversion.align import align
from semantic.inversion.layout import network_layout
from semantic.inversion.parse import build_parser
from semantic.inversion.photos import crop_mask, find_photos
from semantic.metrics.common import overlap_counts, region_ious
from semantic.placement import Placement

CPU = torch.device("cpu")
NEAR = 0.05
"""Share of the picture's side within which the corners of a crop count as found."""


def parser_overlap(networks: dict, path: str, count: int) -> None:
    """The network's parser against the masks of photographs that are cropped already."""
    parser, counts = build_parser(networks, CPU), []
    for file in find_photos(path, limit=count):
        photo = file.read()
        truth = file.read_mask(parser.regions, (photo.shape[2], photo.shape[1]))
        placement = Placement.centered(file.path, (photo.shape[2], photo.shape[1]), parser.resolution)
        truth = crop_mask(truth, placement, len(parser.regions))
        counts.append(overlap_counts(truth[None], parser.masks(placement.crop(photo)[None]), len(parser.regions)))
    overlaps = region_ious(torch.cat(counts).numpy(), parser.regions.names)
    listed = ", ".join(f"{name} {overlap:.2f}" for name, overlap in overlaps.items())
    print(f"parser, {len(counts)} photographs: mean IoU of regions {np.mean(list(overlaps.values())):.3f} ({listed})")


def found_crops(networks: dict, path: str, count: int) -> None:
    """Photographs moved, scaled and turned on a plain and on a busy ground: how near the crop is found.

    A crop is near where all of its corners are. It is compared with the frame of the photograph, and with the crop
    that is found in the photograph itself, which is not the frame: data sets are framed by other rules.
    """
    parser, layout = build_parser(networks, CPU), network_layout(networks["G_ema"], CPU)
    rng = np.random.default_rng(0)
    frame, crop, fails, own, seconds = {True: [], False: []}, {True: [], False: []}, 0, [], []
    for i, file in enumerate(find_photos(path, limit=count)):
        photo = file.read()
        move = random_move(rng, file.path, photo.shape[2])
        moved = on_ground(photo, move, bool(i % 2), rng)
        corners = {"frame": Placement.centered(file.path, (photo.shape[2], photo.shape[1]), photo.shape[2]).corners()}
        since = time.perf_counter()
        try:
            corners["crop"] = align(photo, file.path, parser, layout).corners()
            own.append(away(corners["crop"], corners["frame"]))
        except UserError:
            corners["crop"] = corners["frame"]
        seconds.append(time.perf_counter() - since)
        try:
            found = align(moved, file.path, parser, layout).corners()
        except UserError:
            found, fails = torch.full([4, 2], math.inf), fails + 1
        for name, rows in (("frame", frame), ("crop", crop)):
            rows[bool(i % 2)].append(away(found, carried(move, corners[name])))
        distances = f"{frame[bool(i % 2)][-1]:.3f} from the frame, {crop[bool(i % 2)][-1]:.3f} from the unmoved crop"
        print(f"{i} {'busy' if i % 2 else 'plain'}, scale {move.scale:.2f}: {distances}", flush=True)
    for busy, text in ((False, "plain"), (True, "busy")):
        shares = [np.mean(np.array(rows[busy]) < NEAR) for rows in (frame, crop)]
        print(f"crops on a {text} ground: {shares[0]:.0%} within {NEAR:.0%} of the frame, {shares[1]:.0%} of the "
              f"unmoved photograph's crop; median distances {np.median(frame[busy]):.3f} and "
              f"{np.median(crop[busy]):.3f}")  # fmt: skip
    print(f"unmoved: {np.mean(np.array(own) < NEAR):.0%} within {NEAR:.0%} of the frame, median {np.median(own):.3f}; "
          f"{fails} of {len(seconds)} moved ones were refused; {np.median(seconds):.1f} s each")  # fmt: skip


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
@click.option("--network", default="faces64")
@click.option("--parser", help="Photos with masks, cropped as the network's samples")
@click.option("--photos", help="Photos to move, cropped as the network's samples")
@click.option("--count", type=int, default=100)
def main(network, parser, photos, count):
    """Print rows of figures."""
    networks = legacy.load_network(network)
    if parser:
        parser_overlap(networks, parser, count)
    if photos:
        found_crops(networks, photos, count)


if __name__ == "__main__":
    main()
