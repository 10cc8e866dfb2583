"""The modes of generate.py: pictures, masks, sheets, videos and labelled data from one network."""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from dnnlib import EasyDict, UserError, atomic_open
from semantic.adaptation.layer_swap import check_codes
from semantic.editing.codes import build_up, loop_regions, mix_regions
from semantic.editing.latents import read_latents
from semantic.editing.transforms import parse_transforms, region_grid
from semantic.masks import mask_to_indices, region_centers
from semantic.pictures import sheets
from semantic.pictures.video import grid_frames, write_video
from semantic.regions import Regions
from semantic.studio import Studio
from training.images import image_grid, save_image

LOOP_DONORS = 3


def progress(what: str, total: int) -> tqdm:
    """Returns the progress bar of one mode."""
    return tqdm(total=total, desc=what, unit="img", leave=False, dynamic_ncols=True)


def subjects(studio: Studio, opts: EasyDict, seeds: Sequence[int]) -> tuple[list[str], torch.Tensor]:
    """Returns file names and codes of the images: codes of --projected-w, else codes of seeds."""
    if opts.projected_w is not None:
        ws = read_latents(opts.projected_w, studio.G).to(studio.device)
        names = [f"proj{i:02d}" for i in range(len(ws))]
    else:
        ws = studio.codes(seeds)
        names = [f"seed{seed:04d}" for seed in seeds]
    if opts.save_latents:
        for name, w in zip(names, ws, strict=True):
            if name in studio.latents:
                continue
            studio.latents.add(name)
            with atomic_open(studio.outdir / f"{name}.npz", "wb") as file:
                np.savez(file, w=w.unsqueeze(0).cpu().numpy())
            studio.saved(f"{name}.npz")
    return names, ws


def title(name: str) -> str:
    """Returns ``seed 12`` for the file name ``seed0012``."""
    return re.sub(r"([a-z]+)0*(\d+)", r"\1 \2", name)


def chosen(regions: Regions, text: str | None) -> list[int] | None:
    """Returns the regions of --regions, or None without this option."""
    if text is None:
        return None
    which = regions.select(text)
    if not which:
        raise UserError(f"--regions names no region. The regions are: {', '.join(regions.names)}.")
    return which


def save_masks(studio: Studio, name: str, mask: torch.Tensor, regions: Regions) -> None:
    """Save one mask [1, K, R, R] as a coloured picture and as class indices."""
    save_image(studio.outdir / f"{name}_mask.png", image_grid(regions.paint(mask), (1, 1)))
    save_image(studio.outdir / f"{name}_mask_index.png", mask_to_indices(mask)[0])
    studio.saved(f"{name}_mask.png, {name}_mask_index.png")


def write_images(studio: Studio, opts: EasyDict) -> None:
    """Write one picture per seed, optionally with its mask."""
    regions = studio.regions("--save-masks") if opts.save_masks else None
    names, ws = subjects(studio, opts, opts.seeds or range(8))
    rest = iter(names)
    with progress("Images", len(names)) as bar:
        for out in studio.render(ws):
            for i, name in zip(range(len(out.image)), rest, strict=False):
                save_image(studio.outdir / f"{name}.png", image_grid(out.image[i : i + 1], (1, 1)))
                studio.saved(f"{name}.png")
                if regions is not None:
                    save_masks(studio, name, out.mask[i : i + 1], regions)
            bar.update(len(out.image))


def for_part(studio: Studio, ws: torch.Tensor, part: str) -> torch.Tensor:
    """Returns codes of a kind that allows to replace this part of a region."""
    return studio.G.synthesis.expand(ws) if part == "whole" else ws


def write_mixing(studio: Studio, opts: EasyDict) -> None:
    """Write the region-mixing sheet: one source per row, one region and donor per column."""
    regions = studio.regions("--mix-regions")
    names, sources = subjects(studio, opts, opts.rows or opts.seeds or range(4))
    columns = sheets.mixing_columns(regions, chosen(regions, opts.regions), opts.cols)
    seeds = sorted({seed for _, seed in columns})
    donors = studio.codes(seeds)
    sources, donors = (for_part(studio, codes, opts.part) for codes in (sources, donors))
    codes = [sources, donors]
    for source in sources:
        for region, seed in columns:
            donor = donors[seeds.index(seed)]
            codes.append(mix_regions(source[None], donor[None], regions, [region], opts.part))

    size = sheets.cell_size(studio.G.img_resolution)
    images, masks = [], []
    with progress("Mixing sheet", sum(map(len, codes))) as bar:
        for out in studio.render(torch.cat(codes)):
            images.append(sheets.image_cells(out.image, size))
            masks.append(sheets.mask_cells(out.mask, regions, size))
            bar.update(len(out.image))
    form = {"both": "{}", "whole": "whole {}"}.get(opts.part, f"{{}} {opts.part}")
    over = [sheets.Label(form.format(regions.names[k]), f"from seed {seed}", regions.colors[k]) for k, seed in columns]
    beside = [sheets.Label(title(name)) for name in names]
    of_columns = [len(names) + seeds.index(seed) for _, seed in columns]
    for name, cells in [("mix-regions.png", images), ("mix-regions-masks.png", masks if opts.save_masks else [])]:
        if cells:
            cells = np.concatenate(cells)
            mixes = cells[len(names) + len(seeds) :].reshape(len(names), len(columns), size, size, 3)
            sheet = sheets.mixing_sheet(cells[: len(names)], cells[of_columns], mixes, over, beside)
            save_image(studio.outdir / name, sheet)
            studio.saved(name)


def write_loops(studio: Studio, opts: EasyDict) -> None:
    """Write one mp4 per region. Only the codes of this region change, from random code to random code and back."""
    regions = studio.regions("--interpolate-regions")
    _, ws = subjects(studio, opts, opts.seeds or [0])
    donors = studio.codes(opts.cols or range(sheets.FIRST_DONOR, sheets.FIRST_DONOR + LOOP_DONORS))
    ws, donors = (for_part(studio, codes, opts.part) for codes in (ws, donors))
    side = max(studio.G.img_resolution, sheets.LARGEST_CELL)
    for k in chosen(regions, opts.regions) or range(len(regions)):
        codes = loop_regions(ws, donors, regions, [k], opts.frames, opts.part)
        name = f"interpolate-{file_name(regions.names[k])}.mp4"
        with progress(f"Loop of {regions.names[k]}", opts.frames * len(ws)) as bar:
            pairs = loop_pairs(studio, codes.flatten(0, 1), regions, side, bar)
            write_video(studio.outdir / name, grid_frames(pairs, len(ws)), opts.fps)
        studio.saved(name)


def loop_pairs(studio: Studio, codes: torch.Tensor, regions: Regions, side: int, bar: tqdm) -> Iterator[np.ndarray]:
    """Yields every image beside its mask, uint8 [3, side, 2 * side]."""
    for out in studio.render(codes):
        images, masks = sheets.image_cells(out.image, side), sheets.mask_cells(out.mask, regions, side)
        yield from np.concatenate([images, masks], axis=2).transpose(0, 3, 1, 2)
        bar.update(len(images))


def file_name(region: str) -> str:
    """Returns the name of a region without characters that file systems refuse."""
    return re.sub(r"[^\w.-]+", "_", region)


def write_components(studio: Studio, opts: EasyDict) -> None:
    """Write a sheet per seed: the image built up region by region, with masks and pseudo-depth."""
    regions = studio.regions("--components")
    names, ws = subjects(studio, opts, opts.seeds or [0])
    order = chosen(regions, opts.regions) or range(len(regions))
    keep = build_up(order, len(regions))
    with progress("Components", len(names) * len(order)) as bar:
        for name, w in zip(names, ws, strict=True):
            built = []
            for out in studio.render(w.expand(len(order), -1, -1), keep=keep):
                built.append(out.image)
                bar.update(len(out.image))
            sheet = sheets.components_sheet(torch.cat(built), out.mask[-1], out.depth[-1], regions, order, title(name))
            save_image(studio.outdir / f"{name}-components.png", sheet)
            studio.saved(f"{name}-components.png")


def write_transforms(studio: Studio, opts: EasyDict) -> None:
    """Move, scale and rotate regions. Write the result, and a sheet with before and after."""
    regions = studio.regions("--transform")
    changes = parse_transforms(opts.transform, regions)
    names, ws = subjects(studio, opts, opts.seeds or range(4))
    said = "; ".join(f"{regions.names[k]}: {change}" for k, change in changes.items())
    size = sheets.cell_size(studio.G.img_resolution)
    with progress("Transforms", len(names)) as bar:
        for name, w in zip(names, ws, strict=True):
            (before,) = studio.render(w[None])
            grid = studio.G.synthesis.grid
            centers = region_centers(before.coarse_mask, grid)
            (after,) = studio.render(w[None], coords=region_grid(regions, grid, changes, centers))
            pictures = [sheets.image_cells(out.image, size)[0] for out in (before, after)]
            painted = [sheets.mask_cells(out.mask, regions, size)[0] for out in (before, after)]
            columns = [sheets.Label("before", title(name)), sheets.Label("after", said)]
            sheet = sheets.draw_sheet([pictures, painted], columns, [sheets.Label(), sheets.Label()])
            save_image(studio.outdir / f"{name}-before-after.png", sheet)
            save_image(studio.outdir / f"{name}-transform.png", image_grid(after.image, (1, 1)))
            studio.saved(f"{name}-before-after.png, {name}-transform.png")
            if opts.save_masks:
                save_masks(studio, f"{name}-transform", after.mask, regions)
            bar.update()


def write_comparison(studio: Studio, opts: EasyDict) -> None:
    """The same codes through two networks, side by side with their masks."""
    studio.regions("--compare")
    check_codes(studio.G, opts.other, f"--compare={opts.compare}")
    names, ws = subjects(studio, opts, opts.seeds or range(8))
    size = sheets.cell_size(studio.G.img_resolution)
    columns = []
    with progress("Comparison", 2 * len(names)) as bar:
        for G in (studio.G, opts.other):
            images, masks = [], []
            for out in dataclasses.replace(studio, G=G).render(ws):
                images.append(sheets.image_cells(out.image, size))
                masks.append(sheets.mask_cells(out.mask, G.regions, size))
                bar.update(len(out.image))
            columns += [np.concatenate(images), np.concatenate(masks)]
    labels = [sheets.Label(text) for text in ("network", "its masks", Path(opts.compare).name, "its masks")]
    rows = [list(cells) for cells in zip(*columns, strict=True)]
    sheet = sheets.draw_sheet(rows, labels, [sheets.Label(title(name)) for name in names])
    save_image(studio.outdir / "compare.png", sheet)
    studio.saved("compare.png")
