"""Draws labelled sheets of pictures: region mixing, components, before and after."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import torch
import torch.nn.functional as F

from semantic.regions import Regions
from training.images import to_uint8

FIRST_DONOR = 100
MOST_COLUMNS = 12
SMALLEST_TYPE = 10
SMALLEST_CELL, LARGEST_CELL = 192, 256  # pixels: labels stay readable, and a dozen columns fit on a slide
PAPER, INK, FAINT_INK, BLANK = (255, 255, 255), (32, 34, 40), (118, 122, 132), (240, 241, 244)
DEPTH_STOPS = [(24, 18, 62), (66, 48, 132), (42, 116, 150), (74, 178, 128), (250, 226, 96)]  # far to near


@dataclass(frozen=True)
class Label:
    """Label of a row or column: a title, a fainter second line, and a bar in the colour of a region."""

    title: str = ""
    subtitle: str = ""
    color: tuple[int, int, int] | None = None


def cell_size(resolution: int) -> int:
    """Returns the side of images of `resolution` on a sheet."""
    return min(max(resolution, SMALLEST_CELL), LARGEST_CELL)


def image_cells(images: torch.Tensor, size: int) -> np.ndarray:
    """Returns images [N, C, R, R] in [-1, 1], C = 1 or 3, at the size of a cell: uint8 [N, size, size, 3]."""
    pixels = to_uint8(images).transpose(0, 2, 3, 1)
    if pixels.shape[3] == 1:
        pixels = pixels.repeat(3, axis=3)
    if pixels.shape[1] == size:
        return pixels
    pictures = (PIL.Image.fromarray(p).resize((size, size), PIL.Image.Resampling.LANCZOS) for p in pixels)
    return np.stack([np.asarray(picture) for picture in pictures])


def mask_cells(mask: torch.Tensor, regions: Regions, size: int) -> np.ndarray:
    """Returns mask planes [N, K, R, R] in the colours of the regions: uint8 [N, size, size, 3].

    The planes are resized before the largest plane is chosen, so enlarged borders are smooth.
    """
    return to_uint8(regions.paint(_resize(mask, size))).transpose(0, 2, 3, 1)


def plane_cells(mask: torch.Tensor, colors: Sequence[Sequence[int]], size: int) -> np.ndarray:
    """Returns all planes of one mask, from light grey (absent) to colour: [K, R, R] -> uint8 [K, size, size, 3]."""
    share = ((_resize(mask.unsqueeze(0), size)[0].clamp(-1, 1) + 1) / 2).unsqueeze(-1).cpu().numpy()
    ink = np.array(colors, np.float32).reshape(-1, 1, 1, 3)
    return (share * ink + (1 - share) * np.array(BLANK, np.float32)).round().astype(np.uint8)


def depth_cells(depth: torch.Tensor, size: int) -> np.ndarray:
    """Returns pseudo-depth maps of one sample, dark (behind) to bright (in front): [K, H, H] -> [K, size, size, 3].

    The scale is common to all maps. It runs from their 1st to their 99th percentile.
    """
    values = _resize(depth.unsqueeze(0), size)[0].cpu().numpy()
    low, high = np.percentile(values, [1, 99])
    place = np.clip((values - low) / max(high - low, 1e-8), 0, 1) * (len(DEPTH_STOPS) - 1)
    stops = np.array(DEPTH_STOPS, np.float64)
    return np.stack([np.interp(place, range(len(stops)), c) for c in stops.T], axis=-1).round().astype(np.uint8)


def draw_sheet(
    cells: Sequence[Sequence[np.ndarray | None]],
    columns: Sequence[Label],
    rows: Sequence[Label],
    header: bool = False,
) -> np.ndarray:
    """Returns pictures in rows and columns on white paper, labelled above and to the left.

    Args:
        cells: rows of equally many pictures, uint8 [S, S, 3]. None leaves a cell empty.
        columns, rows: labels.
        header: first row and column show the ingredients of the other cells. A wider gap separates them.

    Returns:
        uint8 [H, W, 3].
    """
    size = next(cell.shape[0] for row in cells for cell in row if cell is not None)
    gap, margin = max(size // 32, 4), size // 5
    large, small = max(size // 9, 15), max(size // 12, 13)
    label_height = _label_height(columns, large, small)
    label_width = max([_label_width(label, large, small) for label in rows], default=0)
    label_width += large if label_width else 0

    extra = 3 * gap if header else 0
    left = [margin + label_width + i * (size + gap) + (extra if i else 0) for i in range(len(columns))]
    top = [margin + label_height + i * (size + gap) + (extra if i else 0) for i in range(len(rows))]
    paper = PIL.Image.new("RGB", (left[-1] + size + margin, top[-1] + size + margin), PAPER)
    draw = PIL.ImageDraw.Draw(paper)
    for x, label in zip(left, columns, strict=True):
        _draw_column_label(draw, label, x, margin, size, large, small)
        if label.color is not None:
            draw.rectangle([x, top[0] - 0.48 * large, x + size - 1, top[0] - 0.2 * large], fill=label.color)
    for y, label, row in zip(top, rows, cells, strict=True):
        _draw_row_label(draw, label, margin, y, size, large, small)
        for x, cell in zip(left, row, strict=True):
            if cell is not None:
                paper.paste(PIL.Image.fromarray(np.ascontiguousarray(cell)), (x, y))
    return np.asarray(paper)


def mixing_columns(
    regions: Regions, which: Sequence[int] | None, donors: Sequence[int] | None
) -> list[tuple[int, int]]:
    """Returns region and donor seed of every column of a mixing sheet.

    If regions and donors are both set, all combinations are used. Otherwise they alternate, one per column. With more
    than `MOST_COLUMNS` regions, the background and then the last regions are omitted.

    Args:
        which: indices of the regions. None chooses them.
        donors: seeds. None uses 100, 101, ..
    """
    if which is not None and donors is not None:
        return list(itertools.product(which, donors))
    if which is None:
        which = range(len(regions)) if len(regions) <= MOST_COLUMNS else range(1, MOST_COLUMNS + 1)
    donors = donors or range(FIRST_DONOR, FIRST_DONOR + len(which))
    return [(which[i % len(which)], donors[i % len(donors)]) for i in range(max(len(which), len(donors)))]


def mixing_sheet(
    sources: np.ndarray,
    donors: np.ndarray,
    mixes: np.ndarray,
    columns: Sequence[Label],
    rows: Sequence[Label],
) -> np.ndarray:
    """Returns the sheet of region mixing: donors along the top, sources on the left, each pair's mixture in its cell.

    Args:
        sources: uint8 [rows, S, S, 3].
        donors: uint8 [columns, S, S, 3].
        mixes: uint8 [rows, columns, S, S, 3].
        columns, rows: labels of donors and of sources.

    Returns:
        uint8 [H, W, 3].
    """
    cells = [[None, *donors]] + [[source, *row] for source, row in zip(sources, mixes, strict=True)]
    return draw_sheet(cells, [Label(), *columns], [Label(), *rows], header=True)


def components_sheet(
    built: torch.Tensor, mask: torch.Tensor, depth: torch.Tensor, regions: Regions, order: Sequence[int], title: str
) -> np.ndarray:
    """Returns a sheet with one image built up region by region, above each region's mask and pseudo-depth.

    Args:
        built: images with the first 1, 2, .. regions of `order`, [len(order), 3, R, R] in [-1, 1].
        mask: planes of the last image, [K, R, R].
        depth: pseudo-depths, [K, H, H]. The background's depth is constant.
        order: the regions in the order of the build-up.
        title: name of the image.

    Returns:
        uint8 [H, W, 3].
    """
    size = cell_size(built.shape[-1])
    order = list(order)
    cells = [
        image_cells(built, size),
        plane_cells(mask[order], [regions.colors[k] for k in order], size),
        depth_cells(depth[order], size),
    ]
    columns = [
        Label(("+ " if step else "") + regions.names[k], color=regions.colors[k]) for step, k in enumerate(order)
    ]
    rows = [Label("image", title), Label("mask", "of the region"), Label("pseudo-depth", "bright is in front")]
    return draw_sheet(cells, columns, rows)


def _resize(planes: torch.Tensor, size: int) -> torch.Tensor:
    planes = planes.detach().float()
    if planes.shape[-1] == size:
        return planes
    return F.interpolate(planes, size=(size, size), mode="bilinear", align_corners=False, antialias=True)


def _font(size: int) -> PIL.ImageFont.FreeTypeFont:
    return PIL.ImageFont.load_default(size=size)


def _label_height(labels: Sequence[Label], large: int, small: int) -> int:
    lines = 1.35 * large * any(label.title for label in labels) + 1.35 * small * any(label.subtitle for label in labels)
    return round(lines + 0.6 * large * bool(lines))


def _label_width(label: Label, large: int, small: int) -> int:
    return round(max(_font(large).getlength(label.title), _font(small).getlength(label.subtitle)))


def _draw_column_label(
    draw: PIL.ImageDraw.ImageDraw, label: Label, x: int, y: int, size: int, large: int, small: int
) -> None:
    """Draw title and subtitle centred over the column."""
    middle = x + size / 2
    if label.title:
        _draw_fitting(draw, (middle, y), label.title, large, INK, size)
        y += round(1.35 * large)
    if label.subtitle:
        _draw_fitting(draw, (middle, y), label.subtitle, small, FAINT_INK, size)


def _draw_row_label(
    draw: PIL.ImageDraw.ImageDraw, label: Label, x: int, y: int, size: int, large: int, small: int
) -> None:
    """Draw title and subtitle at the left edge, centred on the height of the row."""
    height = 1.35 * large + (1.35 * small if label.subtitle else 0)
    y = y + (size - height) / 2
    draw.text((x, y), label.title, fill=INK, font=_font(large))
    draw.text((x, y + 1.35 * large), label.subtitle, fill=FAINT_INK, font=_font(small))


def _draw_fitting(
    draw: PIL.ImageDraw.ImageDraw, where: tuple[float, float], text: str, height: int, ink: tuple, width: int
) -> None:
    """Draw centred text. Text wider than `width` gets smaller, and is cut at the smallest readable size."""
    shrunk = min(height, max(int(height * width / max(_font(height).getlength(text), 1)), SMALLEST_TYPE))
    font = _font(shrunk)
    if font.getlength(text) > width:
        while text and font.getlength(text + "…") > width:
            text = text[:-1]
        text += "…"
    draw.text((where[0], where[1] + height - shrunk), text, fill=ink, font=font, anchor="ma")
