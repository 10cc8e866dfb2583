"""Metric curves of training runs in one picture."""

import json
import math
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from dnnlib import UserError, atomic_path

PANEL = (480, 320)
MARGIN_LEFT, MARGIN_TOP, MARGIN_RIGHT, MARGIN_BOTTOM = 76, 40, 20, 52
LEGEND_LINE = 20
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#8c6d1f")
"""Told apart with any colour vision (Okabe and Ito)."""

Curve = list[tuple[float, float]]


def read_curves(run_dir: str | os.PathLike, metrics: Sequence[str] | None = None) -> dict[str, Curve]:
    """The curves of a run from its ``metric-*.jsonl``: result name -> [(kimg, value)], in the order of kimg.

    A snapshot that was measured several times counts with its last result; lines that are cut off are left out.

    Args:
        metrics: take these metrics alone.

    Raises:
        UserError: the run has no results.
    """
    wanted = None if metrics is None else set(metrics)
    found: dict[str, dict[float, float]] = {}
    for path in sorted(Path(run_dir).glob("metric-*.jsonl")):
        if wanted is not None and path.stem.removeprefix("metric-") not in wanted:
            continue
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
                kimg = re.search(r"network-snapshot-(\d+)", str(entry.get("snapshot_pkl")))
                results = {str(name): float(value) for name, value in entry["results"].items()}
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
            for name, value in results.items():
                points = found.setdefault(name, {})
                if math.isfinite(value):
                    points[float(kimg[1]) if kimg else float(len(points))] = value
    curves = {name: sorted(points.items()) for name, points in found.items() if points}
    if not curves:
        asked = "metric-*.jsonl" if metrics is None else " or ".join(f"metric-{name}.jsonl" for name in metrics)
        raise UserError(f"There are no results in {run_dir}: no {asked}. Train with --metrics, or run calc_metrics.py.")
    return curves


def axis_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers from at most `low` to at least `high`."""
    if high <= low:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    rough = (high - low) / count
    magnitude = 10 ** math.floor(math.log10(rough))
    step = next(factor for factor in (1, 2, 5, 10) if factor * magnitude >= rough * 0.999) * magnitude
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def headlines(names: Iterable[str]) -> list[str]:
    """The results worth a panel: ``a_mean`` stands for every ``a_*`` beside it that is no mean itself."""
    names = list(names)
    means = tuple(name.removesuffix("mean") for name in names if name.endswith("_mean"))
    return [name for name in names if name.endswith("_mean") or not name.startswith(means)]


def draw_curves(runs: Sequence[tuple[str, dict[str, Curve]]]) -> PIL.Image.Image:
    """One panel a result (see `headlines`), one colour a run.

    Args:
        runs: names with their curves, as from `read_curves`.
    """
    names = headlines(dict.fromkeys(name for _, curves in runs for name in curves))
    columns = min(len(names), 3)
    rows = -(-len(names) // columns)
    width, height = columns * PANEL[0], rows * PANEL[1]
    picture = PIL.Image.new("RGB", (width, height + LEGEND_LINE * len(runs) + 16), "white")
    draw = PIL.ImageDraw.Draw(picture)
    for number, name in enumerate(names):
        curves = [(color_of(i), curves[name]) for i, (_, curves) in enumerate(runs) if name in curves]
        draw_panel(draw, (number % columns * PANEL[0], number // columns * PANEL[1]), name, curves)
    for number, (run, _) in enumerate(runs):
        y = height + number * LEGEND_LINE + 12
        draw.line([(MARGIN_LEFT, y), (MARGIN_LEFT + 28, y)], fill=color_of(number), width=3)
        draw.text((MARGIN_LEFT + 38, y), run, fill="black", font=_font(13), anchor="lm")
    return picture


def draw_panel(
    draw: PIL.ImageDraw.ImageDraw, corner: tuple[int, int], title: str, curves: Sequence[tuple[str, Curve]]
) -> None:
    """One diagram with labelled axes, of the size `PANEL`, its upper left corner at `corner`."""
    left, top = corner[0] + MARGIN_LEFT, corner[1] + MARGIN_TOP
    right, bottom = corner[0] + PANEL[0] - MARGIN_RIGHT, corner[1] + PANEL[1] - MARGIN_BOTTOM
    x_ticks = axis_ticks(*_range([x for _, curve in curves for x, _ in curve]))
    y_ticks = axis_ticks(*_range([y for _, curve in curves for _, y in curve]))

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
        up = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return left + across * (right - left), bottom - up * (bottom - top)

    for tick in y_ticks:
        y = place(x_ticks[0], tick)[1]
        draw.line([(left, y), (right, y)], fill="#dddddd")
        draw.text((left - 6, y), f"{tick:.6g}", fill="black", font=_font(11), anchor="rm")
    for tick in x_ticks:
        x = place(tick, y_ticks[0])[0]
        draw.line([(x, bottom), (x, bottom + 4)], fill="black")
        draw.text((x, bottom + 7), f"{tick:.6g}", fill="black", font=_font(11), anchor="mt")
    draw.rectangle([left, top, right, bottom], outline="black")
    draw.text(((left + right) / 2, top - 8), title, fill="black", font=_font(14), anchor="mb")
    draw.text(((left + right) / 2, bottom + 24), "kimg", fill="black", font=_font(12), anchor="mt")
    for color, curve in curves:
        points = [place(x, y) for x, y in curve]
        if len(points) > 1:
            draw.line(points, fill=color, width=2, joint="curve")
        for x, y in points:
            draw.ellipse([x - 3, y - 3, x + 3, y + 3], fill=color)


def plot_runs(
    run_dirs: Sequence[str | os.PathLike], dest: str | os.PathLike, metrics: Sequence[str] | None = None
) -> None:
    """Draw the curves of runs into the picture `dest`.

    Raises:
        UserError: a run has no results, or the picture cannot be written.
    """
    runs = [(Path(os.path.abspath(run_dir)).name, read_curves(run_dir, metrics)) for run_dir in run_dirs]
    if Path(dest).suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp", ".bmp"):
        raise UserError(f"Cannot write {dest}: name the picture .png.")
    with atomic_path(dest) as temporary:
        draw_curves(runs).save(temporary)


def color_of(number: int) -> str:
    """Colour of the run of that number."""
    return COLORS[number % len(COLORS)]


def _range(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def _font(size: int) -> PIL.ImageFont.ImageFont:
    return PIL.ImageFont.load_default(size)
