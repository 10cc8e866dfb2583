"""Photographs kept aside: how near encoder, search and tuning come, and how far edits stay edits.

Each photograph gives a row. Rows can be kept in a file, and a later run measures the missing ones.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch

from metrics.structural_similarity import ms_ssim
from semantic.editing.codes import mix_regions
from semantic.editing.directions import Direction, load_directions
from semantic.editing.edits import Apply
from semantic.editing.latents import seed_latents
from semantic.editing.scores import SCORES
from semantic.editing.state import EditState
from semantic.encoder import Start
from semantic.inversion.distance import Distance, Targets, mask_iou, psnr
from semantic.inversion.optimize import Schedule, invert
from semantic.inversion.photos import find_photos
from semantic.inversion.project import Plan, Projector, render
from semantic.inversion.tuning import TuningSchedule, tune
from semantic.masks import is_present, mask_areas
from semantic.metrics.region_leak import outside_share, shown

CPU = torch.device("cpu")
WAYS = ("encoder", "W+", "encoder, masks", "W+, masks", "tuned")
DONOR_SEED, PSI = 5000, 0.7
STRENGTH = 2.0


def measure_photos(
    networks: Mapping,
    encode: Start | None,
    directions: Mapping[str, Direction],
    files: list,
    steps: int,
    pti_steps: int,
    pti_count: int,
    batch: int,
    known: set[str],
) -> Iterator[dict]:
    """Rows of photographs that are cropped already and have masks. The first `pti_count` are also tuned."""
    plan = Plan(schedule=Schedule(num_steps=steps), use_alignment=False)
    projector = Projector(networks, CPU, plan, Distance(networks["D"]), encode)
    G, numbers = projector.G, {file.name: i for i, file in enumerate(files)}
    files = [file for file in files if file.name not in known]
    for first in range(0, len(files), batch):
        ready = [projector.prepare(file) for file in files[first : first + batch]]
        images, masks = (torch.stack([getattr(photo, name) for photo in ready]) for name in ("image", "mask"))
        rows, found = [{"name": photo.file.name} for photo in ready], None
        for text, given in (("", None), (", masks", masks)):
            start = projector.start(images, given)
            found = invert(G, projector.space, projector.distance, Targets(images, given), start, plan.schedule).ws
            for name, ws in (("encoder", start), ("W+", found)):
                for row, figures in zip(rows, near(G, ws, images, masks), strict=True):
                    row[name + text] = figures
        for i, (row, photo) in enumerate(zip(rows, ready, strict=True)):
            number, ws, one = numbers[photo.file.name], found[i : i + 1], Targets(images[i : i + 1], masks[i : i + 1])
            row["leak"] = leaks(G, ws, number)
            row["moves"] = moves(G, ws, directions)
            if pti_steps and number < pti_count:
                schedule = TuningSchedule(num_steps=pti_steps)
                tuned = tune(G, projector.space, projector.distance, one, ws, schedule)
                (row["tuned"],) = near(tuned, ws, one.images, one.masks)
                row["tuned leak"] = leaks(tuned, ws, number)
                row["tuned moves"] = moves(tuned, ws, directions)
            yield row


@torch.no_grad()
def near(G: torch.nn.Module, ws: torch.Tensor, images: torch.Tensor, masks: torch.Tensor) -> list[list[float]]:
    """PSNR, MS-SSIM and IoU with the masks of photographs, for each photograph."""
    image, mask = render(G, ws)
    alike = ms_ssim(*(x.clamp(-1, 1).add(1).mul(127.5) for x in (image, images)))
    columns = psnr(image, images), alike, mask_iou(mask.argmax(dim=1), masks, mask.shape[1])
    return torch.stack(columns, dim=1).tolist()


@torch.no_grad()
def leaks(G: torch.nn.Module, ws: torch.Tensor, number: int) -> dict[str, list[float]]:
    """Change outside a region and in total, in pixels and in the pyramid, if a seed gives the codes of this region."""
    donor = G.mapping(seed_latents([DONOR_SEED + number], G.z_dim), None, truncation_psi=PSI)
    swapped = [mix_regions(ws, donor, G.regions, [k]) for k in range(len(G.regions))]
    image, mask = render(G, torch.cat([ws, *swapped]))
    labels, found = mask.argmax(dim=1), {}
    for k, name in enumerate(G.regions.names):
        union = (labels[:1] == k) | (labels[k + 1 : k + 2] == k)
        if is_present((labels[0] == k).float().mean()):
            share = outside_share(shown(image[:1]), shown(image[k + 1 : k + 2]), union)
            found[name] = share[0].tolist()
    return found


@torch.no_grad()
def moves(G: torch.nn.Module, ws: torch.Tensor, directions: Mapping[str, Direction]) -> dict[str, float]:
    """By how much the score of a direction grows from -2 to 2 deviations."""
    found = {}
    for name, direction in directions.items():
        region, score = G.regions.index(direction.region), SCORES[direction.measured.split()[0]]
        states = [Apply(region, direction, x).apply(G, EditState.of(ws, G.regions)) for x in (-STRENGTH, STRENGTH)]
        outs = [G.synthesis(**s.inputs(G.synthesis.grid), noise_mode="const", return_mask=True) for s in states]
        if all(bool(is_present(mask_areas(out.mask)[0, region])) for out in outs):
            low, high = (float(score(out.image, out.mask, region)) for out in outs)
            found[name] = high - low
    return found


def leak_shares(rows: list[dict], key: str, column: int) -> dict[str, float]:
    """Share of the change outside, over all photographs, for each region. Column 0 is pixels, 2 the pyramid."""
    names = dict.fromkeys(name for row in rows for name in row[key])
    sums = {name: np.sum([row[key][name] for row in rows if name in row[key]], axis=0) for name in names}
    return {name: total[column] / total[column + 1] for name, total in sums.items() if total[column + 1] > 0}


def report(rows: list[dict]) -> Iterator[str]:
    """Lines of medians and shares."""
    for way in WAYS:
        measured = [row[way] for row in rows if way in row]
        if measured:
            level, alike, iou = np.median(measured, axis=0)
            yield f"{way}: {level:.2f} dB, MS-SSIM {alike:.3f}, mask IoU {iou:.3f} ({len(measured)} photographs)"
    tuned = [row for row in rows if "tuned" in row]
    for text, some, key in (
        ("leak", rows, "leak"),
        ("leak of the tuned ones before", tuned, "leak"),
        ("leak of the tuned ones after", tuned, "tuned leak"),
    ):
        for column, space in ((0, "pixels"), (2, "pyramid")) if some else ():
            shares = leak_shares(some, key, column)
            listed = ", ".join(f"{name} {share:.2f}" for name, share in shares.items())
            yield f"{text}, {space}: mean {np.mean(list(shares.values())):.3f} ({listed})"
    for key, some in (("moves", rows), ("tuned moves", tuned)):
        for name in dict.fromkeys(name for row in some for name in row[key]):
            values = np.array([row[key][name] for row in some if name in row[key]])
            yield f"{key}, {name}: rises in {(values > 0).mean():.0%} of {len(values)}, median {np.median(values):+.4f}"
    for name in dict.fromkeys(name for row in tuned for name in row["moves"]):
        both = [row for row in tuned if name in row["moves"] and name in row["tuned moves"]]
        pairs = [(row["moves"][name], row["tuned moves"][name]) for row in both]
        before, after = np.median(np.array(pairs), axis=0) if pairs else (0, 0)
        yield f"{name}, tuned ones: median {before:+.4f} before, {after:+.4f} after"


def kept_photos(
    networks: Mapping,
    encode: Start | None,
    path: str,
    first: int,
    count: int,
    steps: int,
    pti_steps: int,
    pti_count: int,
    batch: int,
    directions: Path | None,
    kept: Path | None,
) -> None:
    """Measure photographs and print a report. Rows of the file `kept` are not measured again."""
    rows = [json.loads(line) for line in kept.read_text().splitlines()] if kept and kept.is_file() else []
    chosen = load_directions(directions, networks["G_ema"]) if directions else {}
    scored = {name: d for name, d in chosen.items() if d.method == "boundary" and d.measured.split()[0] in SCORES}
    files, known = find_photos(path, limit=first + count)[first:], {row["name"] for row in rows}
    for row in measure_photos(networks, encode, scored, files, steps, pti_steps, pti_count, batch, known):
        rows.append(row)
        print(f"{row['name']}: " + ", ".join(f"{way} {row[way][0]:.1f} dB" for way in WAYS if way in row), flush=True)
        if kept:
            with open(kept, "a") as file:
                file.write(json.dumps(row) + "\n")
    for line in report(rows):
        print(line)
