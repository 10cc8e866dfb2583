"""How well photos are found: samples with known codes, and photographs kept aside.

python -m tests.benchmarks.inversion --samples=32
python -m tests.benchmarks.inversion --samples=32 --init=encoder --steps=20
python -m tests.benchmarks.inversion --network=snapshot.pkl --photos=celeba64-test.zip --count=100 --pti-steps=100
"""

import time

import click
import torch

import legacy
from dnnlib import UserError
from semantic.editing.latents import seed_latents
from semantic.encoder import Start, start_of
from semantic.inversion.distance import Distance, Targets, mask_iou, psnr
from semantic.inversion.optimize import Schedule, invert
from semantic.inversion.photos import find_photos
from semantic.inversion.project import Plan, Projector, render
from semantic.inversion.space import code_space
from semantic.inversion.tuning import TuningSchedule, tune

CPU = torch.device("cpu")
FIRST_SEED, PSI = 1000, 0.7


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
@click.option("--count", type=int, default=100)
@click.option("--steps", type=int, default=200)
@click.option("--pti-steps", type=int, default=0)
@click.option("--batch", type=int, default=8)
def main(network, init, encoder, samples, photos, count, steps, pti_steps, batch):
    """Print rows of figures."""
    networks = legacy.load_network(network)
    if samples:
        encode = start_of(networks, legacy.resolve(network), encoder) if init == "encoder" else None
        if encode is None and init == "encoder":
            raise UserError(f"There is no encoder beside {network}: train one with train_encoder.py.")
        known_samples(networks, samples, steps, batch, encode)
    if photos:
        kept_photos(networks, photos, count, steps, pti_steps, batch)


if __name__ == "__main__":
    main()
