"""Metric curves of training runs in one picture, drawn by matplotlib."""

import json
import math
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import PIL.Image

from dnnlib import UserError, atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DPI = 100
PANEL = (480, 320)
MARGIN_LEFT, MARGIN_TOP, MARGIN_RIGHT, MARGIN_BOTTOM = 76, 40, 20, 52
LEGEND_LINE = 20
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#8c6d1f")
"""Colours that people with any colour vision can distinguish (Okabe and Ito)."""

Curve = list[tuple[float, float]]


def read_curves(run_dir: str | os.PathLike, metrics: Sequence[str] | None = None) -> dict[str, Curve]:
    """Returns the curves of a run from its ``metric-*.jsonl``: result name -> [(kimg, value)], sorted by kimg.

    For a snapshot with several results, the last result counts. Incomplete lines are ignored.

    Args:
        run_dir: folder of the run.
        metrics: names of the metrics to read. None reads all.

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
        raise UserError(f"{run_dir} has no results: no {asked}. Train with --metrics, or run calc_metrics.py.")
    return curves


def axis_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Returns about `count` round numbers from at most `low` to at least `high`."""
    if high <= low:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    rough = (high - low) / count
    magnitude = 10 ** math.floor(math.log10(rough))
    step = next(factor for factor in (1, 2, 5, 10) if factor * magnitude >= rough * 0.999) * magnitude
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def headlines(names: Iterable[str]) -> list[str]:
    """Returns the results that get a panel: ``a_mean`` replaces all other ``a_*`` that are not means."""
    names = list(names)
    means = tuple(name.removesuffix("mean") for name in names if name.endswith("_mean"))
    return [name for name in names if name.endswith("_mean") or not name.startswith(means)]


def draw_curves(runs: Sequence[tuple[str, dict[str, Curve]]]) -> PIL.Image.Image:
    """A picture of curves: one panel for each result (see `headlines`), one colour for each run.

    Args:
        runs: names with their curves, as from `read_curves`.

    Raises:
        UserError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D
    except ModuleNotFoundError as error:
        raise UserError("Curves need matplotlib: install it with `pip install 'semantic-stylegan[plots]'`.") from error
    names = headlines(dict.fromkeys(name for _, curves in runs for name in curves))
    columns = min(len(names), 3)
    width, height = columns * PANEL[0], -(-len(names) // columns) * PANEL[1]
    below = LEGEND_LINE * len(runs) + 16
    figure = Figure(figsize=(width / DPI, (height + below) / DPI), dpi=DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    for number, name in enumerate(names):
        left = number % columns * PANEL[0] + MARGIN_LEFT
        bottom = height + below - (number // columns + 1) * PANEL[1] + MARGIN_BOTTOM
        size = PANEL[0] - MARGIN_LEFT - MARGIN_RIGHT, PANEL[1] - MARGIN_TOP - MARGIN_BOTTOM
        place = left / width, bottom / (height + below), size[0] / width, size[1] / (height + below)
        curves = [(color_of(i), curves[name]) for i, (_, curves) in enumerate(runs) if name in curves]
        draw_panel(figure.add_axes(place), name, curves)
    lines = [Line2D([], [], color=color_of(number), linewidth=2) for number in range(len(runs))]
    figure.legend(lines, [run for run, _ in runs], loc="lower left", fontsize=9, frameon=False, labelspacing=0.4)
    canvas.draw()
    return PIL.Image.fromarray(np.asarray(canvas.buffer_rgba())[:, :, :3])


def draw_panel(axes: "Axes", title: str, curves: Sequence[tuple[str, Curve]]) -> None:
    """Draw curves into a diagram with round numbers along its axes.

    Args:
        curves: colours with the points of each.
    """
    for color, curve in curves:
        axes.plot(*zip(*curve, strict=True), color=color, linewidth=1.5, marker="o", markersize=4, clip_on=False)
    points = [point for _, curve in curves for point in curve]
    xs, ys = (axis_ticks(min(values), max(values)) for values in zip(*points, strict=True))
    axes.set(title=title, xlabel="kimg", xticks=xs, yticks=ys, xlim=(xs[0], xs[-1]), ylim=(ys[0], ys[-1]))
    axes.set_xticklabels([f"{tick:.6g}" for tick in xs])
    axes.set_yticklabels([f"{tick:.6g}" for tick in ys])
    axes.grid(axis="y", color="#dddddd")
    axes.tick_params(labelsize=8)
    axes.title.set_size(10)
    axes.set_axisbelow(True)


def plot_runs(
    run_dirs: Sequence[str | os.PathLike], dest: str | os.PathLike, metrics: Sequence[str] | None = None
) -> None:
    """Draw the curves of runs into the picture `dest`.

    Raises:
        UserError: a run has no results, or the picture cannot be written.
    """
    runs = [(Path(os.path.abspath(run_dir)).name, read_curves(run_dir, metrics)) for run_dir in run_dirs]
    if Path(dest).suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp", ".bmp"):
        raise UserError(f"Cannot write {dest}: the name must end in .png.")
    with atomic_path(dest) as temporary:
        draw_curves(runs).save(temporary)


def color_of(number: int) -> str:
    """Returns the colour of run number `number`."""
    return COLORS[number % len(COLORS)]
