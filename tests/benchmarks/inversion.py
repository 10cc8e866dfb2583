"""How well photos are found: samples with known codes, photographs kept aside, labels and crops of photographs.

python -m tests.benchmarks.inversion --samples=32
python -m tests.benchmarks.inversion --samples=32 --init=encoder --steps=20
python -m tests.benchmarks.inversion --network=snapshot.pkl --photos=celeba64-test.zip --count=100 --pti-steps=100
python -m tests.benchmarks.inversion --network=snapshot.pkl --parser=celeba64-test.zip
python -m tests.benchmarks.inversion --network=snapshot.pkl --alignment=celeba128-test.zip --count=30
"""

import math
import time

import click
import numpy as np
import torch
from torch.nn import functional as F

import legacy
from dnnlib import UserError
from semantic.editing.latents import seed_latents
from semantic.encoder import Start, start_of
from semantic.inversion.align import align
from semantic.inversion.distance import Distance, Targets, mask_iou, psnr
from semantic.inversion.layout import network_layout
from semantic.inversion.optimize import Schedule, invert
from semantic.inversion.parse import build_parser
from semantic.inversion.photos import crop_mask, find_photos
from semantic.inversion.project import Plan, Projector, render
from semantic.inversion.space import code_space
from semantic.inversion.tuning import TuningSchedule, tune
from semantic.metrics.common import overlap_counts, region_ious
from semantic.placement import Placement

CPU = torch.device("cpu")
FIRST_SEED, PSI = 1000, 0.7
NEAR = 0.05
"""Share of the picture's side within which the corners of a crop count as found."""


def known_samples(networks: dict, count: int, steps: int, batch: int, encode: Start | None) -> None:
    """Samples of psi 0.7, found from an encoder's codes, or from the mean."""
    G = networks["G_ema"].eval().requires_grad_(False)
    space = code_space(G, CPU)
    figures, agree, seconds, first_figures = [], [], 0.0, []
    for first in range(0, count, batch):
        seeds = range(FIRST_SEED + first, FIRST_SEED + min(first + batch, count))
        with torch.no_grad():
            image, mask = render(G, G.mapping(seed_latents(seeds, G.z_dim), None, truncation_psi=PSI))
        targets = Targets(image.clamp(-1, 1), mask.argmax(dim=1))
        if encode is None:
            start = space.mean.expand(len(seeds), G.num_ws, -1).clone()
        else:
            start = encode(targets.images, targets.masks)
        with torch.no_grad():
            first_figures.append(psnr(render(G, start)[0], targets.images))
        since = time.perf_counter()
        found = invert(G, space, Distance(networks["D"]), targets, start, Schedule(num_steps=steps))
        seconds += time.perf_counter() - since
        with torch.no_grad():
            image, mask = render(G, found.ws)
        figures.append(psnr(image, targets.images))
        print(f"seeds {seeds[0]} to {seeds[-1]}: {', '.join(f'{figure:.1f}' for figure in figures[-1])} dB", flush=True)
        agree.append((mask.argmax(dim=1) == targets.masks).float().mean(dim=(1, 2)))
    figures, agree = torch.cat(figures), torch.cat(agree).quantile(0.5)
    good = (figures > 30).float().mean()
    print(f"start: {torch.cat(first_figures).quantile(0.5):.2f} dB (median)")
    print(f"{count} samples, {steps} steps: {figures.quantile(0.5):.2f} dB, {good:.0%} over 30 dB; "
          f"masks agree on {agree:.1%} of pixels; {seconds / count:.1f} s each")  # fmt: skip


def kept_photos(networks: dict, path: str, count: int, steps: int, pti_steps: int, batch: int) -> None:
    """Photographs that are cropped already: the parser, the search with and without masks, and tuning."""
    files = find_photos(path, limit=count)
    for use_masks in (False, True):
        plan = Plan(schedule=Schedule(num_steps=steps), use_masks=use_masks, use_alignment=False)
        projector = Projector(networks, CPU, plan, Distance(networks["D"]))
        rows = {"search": [], "tuned": []}
        for first in range(0, len(files), batch):
            ready = [projector.prepare(file) for file in files[first : first + batch]]
            images = torch.stack([photo.image for photo in ready])
            masks = torch.stack([photo.mask for photo in ready]) if use_masks else None
            targets, start = Targets(images, masks), projector.mean_start(images, masks)
            found = invert(projector.G, projector.space, projector.distance, targets, start, plan.schedule)
            for i in range(len(ready)):
                one, ws = targets[i : i + 1], found.ws[i : i + 1]
                rows["search"].append(measure(projector.G, ws, one))
                if pti_steps and use_masks:
                    schedule = TuningSchedule(num_steps=pti_steps)
                    tuned = tune(projector.G, projector.space, projector.distance, one, ws, schedule)
                    rows["tuned"].append(measure(tuned, ws, one))
        for name, found in rows.items():
            if found:
                medians = torch.tensor(found).median(dim=0).values.tolist()
                print(f"{name}, {'with' if use_masks else 'without'} masks: {medians[0]:.2f} dB, IoU {medians[1]:.3f}")


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


@torch.no_grad()
def measure(G: torch.nn.Module, ws: torch.Tensor, target: Targets) -> tuple[float, float]:
    """PSNR and overlap of masks; the latter is 0 without masks."""
    image, mask = render(G, ws)
    iou = 0.0 if target.masks is None else float(mask_iou(mask.argmax(dim=1), target.masks, mask.shape[1]))
    return float(psnr(image, target.images)), iou


@click.command()
@click.option("--network", default="faces64")
@click.option("--init", type=click.Choice(["encoder", "mean"]), default="mean", help="Start of samples' searches")
@click.option("--encoder", help="Encoder  [default: the one beside the network]")
@click.option("--samples", type=int, default=0)
@click.option("--photos")
@click.option("--parser")
@click.option("--alignment")
@click.option("--count", type=int, default=100)
@click.option("--steps", type=int, default=200)
@click.option("--pti-steps", type=int, default=0)
@click.option("--batch", type=int, default=8)
def main(network, init, encoder, samples, photos, parser, alignment, count, steps, pti_steps, batch):
    """Print rows of figures."""
    networks = legacy.load_network(network)
    if samples:
        encode = start_of(networks, legacy.resolve(network), encoder) if init == "encoder" else None
        if encode is None and init == "encoder":
            raise UserError(f"There is no encoder beside {network}: train one with train_encoder.py.")
        known_samples(networks, samples, steps, batch, encode)
    if photos:
        kept_photos(networks, photos, count, steps, pti_steps, batch)
    if parser:
        parser_overlap(networks, parser, count)
    if alignment:
        found_crops(networks, alignment, count)


if __name__ == "__main__":
    main()
