"""Draws a training run as one self-contained page: curves, pictures over time, options, metrics, region areas."""

import base64
import html
import io
import json
import math
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import PIL.Image

from dnnlib import Command, UserError, atomic_open
from dnnlib.option_types import Number
from dnnlib.util import format_time
from metrics.curves import Curve, axis_ticks, headlines, read_curves

STATISTICS = {
    "Logits of D": ["Loss/scores/real", "Loss/scores/fake"],
    "Mean sign of logits": ["Loss/signs/real", "Loss/signs/fake"],
    "Losses": ["Loss/G/loss", "Loss/D/loss"],
    "R1 penalty": ["Loss/r1_penalty", "Loss/r1_penalty_mask"],
    "Mask consistency": ["Loss/mask_consistency"],
    "Leak of edits": ["Loss/region_leak"],
    "Segmentation by D, cross-entropy": ["Loss/segmentation/real", "Loss/segmentation/fake"],
    "Region prior": ["Loss/region_prior", "Loss/region_squares"],
    "Path length penalty": ["Loss/pl_penalty"],
    "Augmentation probability": ["Progress/augment"],
    "Learning rate factor, skipped steps": ["Progress/learning_rate", "Progress/skipped_steps"],
    "Seconds per kimg": ["Timing/sec_per_kimg"],
}
"""Panels of training curves, and the statistics in each."""
ADAPTATION = {
    "swd": "Distance to held-out data (SWD)",
    "msssim": "Likeness of pairs (MS-SSIM)",
    "nearest": "Distance to the nearest training image",
    "mean drift": "Mean drift of the masks",
}
"""Entries of adaptation.jsonl, and the titles of their panels."""
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 360, 200, 52, 26, 10
MAX_SNAPSHOTS = 24
MAX_SIDE = 1024
MAX_POINTS = 400
STATIC = Path(__file__).parent / "browser" / "static"


def write_report(run_dir: Path, dest: Path, refresh: float | None = None) -> None:
    """Write the page of a run, completely or not at all.

    Args:
        run_dir: folder of the run.
        dest: the HTML file.
        refresh: seconds after which an open page reloads. None for never.

    Raises:
        UserError: the folder holds no run, or the file cannot be written.
    """
    options = read_options(run_dir)
    statistics = read_lines(run_dir / "stats.jsonl")
    title = html.escape(run_dir.resolve().name)
    again = f'<meta http-equiv="refresh" content="{refresh:g}">' if refresh else ""
    style, script = ((STATIC / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>{again}',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{style}</style></head><body><h1>{title}</h1>",
        f"<p>{html.escape(summary(options, statistics))}</p>",
        pictures(run_dir),
        panels("Metrics", metric_curves(run_dir)),
        panels("Adaptation", adaptation_curves(run_dir)),
        panels("Training", training_curves(statistics)),
        region_table(run_dir, options),
        option_table(options),
        log_tail(run_dir),
        f"<script>{script}</script></body></html>\n",
    ]
    with atomic_open(dest) as file:
        file.write("\n".join(part for part in parts if part))


def read_options(run_dir: Path) -> dict[str, Any]:
    """Returns the recorded options of a run.

    Raises:
        UserError: the folder has no readable options.
    """
    try:
        data = json.loads((run_dir / "training_options.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{run_dir} is not a run directory: it has no readable training_options.json. "
            "Name a folder that train.py made."
        ) from error
    return data if isinstance(data, dict) else {}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Returns the objects of a .jsonl file, without incomplete lines. A missing file has no objects."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    found = []
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            found.append(entry)
    return found


def value_of(entry: Any) -> float:
    """Returns a statistic's mean, or a plain number, or NaN if there is none."""
    entry = entry.get("mean") if isinstance(entry, dict) else entry
    return float(entry) if isinstance(entry, (int, float)) and not isinstance(entry, bool) else math.nan


def summary(options: dict[str, Any], statistics: Sequence[dict[str, Any]]) -> str:
    """Returns one line about a run: its progress, its speed, and its device."""
    if not statistics:
        return "This run has not finished a tick yet."
    last = statistics[-1]
    kimg, speed = value_of(last.get("Progress/kimg")), value_of(last.get("Timing/sec_per_kimg"))
    total = options.get("total_kimg")
    goal = f" of {total:g}" if isinstance(total, (int, float)) else ""
    rest = (total - kimg) * speed if goal else math.nan
    left = f" About {format_time(rest)} are left." if math.isfinite(rest) and rest > 0 else ""
    return f"{kimg:g}{goal} kimg, {speed:.1f} seconds per kimg on {options.get('device', 'an unknown device')}.{left}"


def training_curves(statistics: Sequence[dict[str, Any]]) -> list[tuple[str, dict[str, Curve]]]:
    """Returns panels of training statistics over kimg."""
    found = []
    for panel, names in STATISTICS.items():
        curves = {name: curve_of(statistics, "Progress/kimg", name) for name in names}
        found.append((panel, {name: curve for name, curve in curves.items() if len(curve) > 1}))
    return [(panel, curves) for panel, curves in found if curves]


def curve_of(rows: Iterable[dict[str, Any]], key: str, name: str) -> Curve:
    """Returns the points (kimg, value) of one name, where both are finite."""
    points = [(value_of(row.get(key)), value_of(row.get(name))) for row in rows]
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def metric_curves(run_dir: Path) -> list[tuple[str, dict[str, Curve]]]:
    """Returns a panel for each metric with results."""
    try:
        curves = read_curves(run_dir)
    except UserError:
        return []
    return [(name, {name: curves[name]}) for name in headlines(curves)]


def adaptation_curves(run_dir: Path) -> list[tuple[str, dict[str, Curve]]]:
    """Returns panels of adaptation.jsonl: distance, diversity, copying, and mean drift of the masks."""
    rows = read_lines(run_dir / "adaptation.jsonl")
    for row in rows:
        drift = row.get("drift")
        values = [value_of(v) for v in drift.values()] if isinstance(drift, dict) else [value_of(drift)]
        values = [v for v in values if math.isfinite(v)]
        row["mean drift"] = sum(values) / len(values) if values else None
    found = [(title, {name: curve_of(rows, "kimg", name)}) for name, title in ADAPTATION.items()]
    return [(title, curves) for title, curves in found if any(curves.values())]


def last_drifts(run_dir: Path) -> dict[str, float]:
    """Returns the newest drift of each region's mask in adaptation.jsonl. A run without adaptation has none."""
    rows = [row["drift"] for row in read_lines(run_dir / "adaptation.jsonl") if isinstance(row.get("drift"), dict)]
    found = {name: value_of(value) for name, value in rows[-1].items()} if rows else {}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def panels(title: str, found: Sequence[tuple[str, dict[str, Curve]]]) -> str:
    """Returns a section of drawn curves, or an empty text without curves."""
    if not found:
        return ""
    figures = "".join(f"<figure>{caption(name, curves)}{draw(curves, name)}</figure>" for name, curves in found)
    return f'<h2>{html.escape(title)}</h2><div class="panels">{figures}</div>'


def caption(title: str, curves: dict[str, Curve]) -> str:
    """Returns the title of a panel, with the colour and the last value of each curve."""
    keys = " ".join(
        f'<span><i style="background:{COLORS[i % len(COLORS)]}"></i>{html.escape(name)} '
        f"<b>{curve[-1][1]:.4g}</b></span>"
        for i, (name, curve) in enumerate(curves.items())
    )
    return f'<figcaption><b>{html.escape(title)}</b><div class="key">{keys}</div></figcaption>'


def draw(curves: dict[str, Curve], title: str) -> str:
    """Returns the curves over kimg as SVG."""
    points = [point for curve in curves.values() for point in curve]
    xs = axis_ticks(min(x for x, _ in points), max(x for x, _ in points), 4)
    ys = axis_ticks(min(y for _, y in points), max(y for _, y in points), 4)
    right, low = WIDTH - 8, HEIGHT - BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - xs[0]) / (xs[-1] - xs[0]) * (right - LEFT) + LEFT
        return across, low - (y - ys[0]) / (ys[-1] - ys[0]) * (low - TOP)

    lines = []
    for y in ys:
        _, v = place(xs[0], y)
        lines.append(f'<path class="grid" d="M{LEFT} {v:.1f}H{right}"/>')
        lines.append(f'<text x="{LEFT - 5}" y="{v + 4:.1f}" text-anchor="end">{y:.4g}</text>')
    for x in xs:
        u, _ = place(x, ys[0])
        lines.append(f'<text x="{u:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{x:g}</text>')
    for i, curve in enumerate(curves.values()):
        shown = curve[:: max(len(curve) // MAX_POINTS, 1)]
        path = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in shown)
        color = COLORS[i % len(COLORS)]
        lines.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.8"/>')
        if len(shown) == 1:
            lines.append('<circle cx="{:.1f}" cy="{:.1f}" r="3" fill="{}"/>'.format(*place(*shown[0]), color))
    label = html.escape(f"{title} over thousands of images", quote=True)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(lines)}</svg>'


def snapshots(run_dir: Path) -> list[tuple[str, Path]]:
    """Returns names and paths of grids of generated images in order of time, at most `MAX_SNAPSHOTS`."""
    grids = sorted(path for path in run_dir.glob("fakes*.png") if re.fullmatch(r"fakes\d+", path.stem))
    found = [(f"{int(path.stem[5:])} kimg", path) for path in grids]
    if (run_dir / "fakes_init.png").is_file():
        found.insert(0, ("start", run_dir / "fakes_init.png"))
    if len(found) > MAX_SNAPSHOTS:
        chosen = np.linspace(0, len(found) - 1, MAX_SNAPSHOTS).round().astype(int)
        found = [found[i] for i in chosen]
    return found


def pictures(run_dir: Path) -> str:
    """Returns the generated images and masks over time, with a slider, beside the real ones."""
    shots = []
    for text, path in snapshots(run_dir):
        shot = {"text": text, "fakes": embedded(path), "masks": embedded(path.with_name(f"{path.stem}_mask.png"))}
        if shot["fakes"]:
            shots.append({key: value for key, value in shot.items() if value})
    if not shots:
        return ""
    last = shots[-1]
    images = f'<figure><img id="fakes" src="{last["fakes"]}" alt="Generated images"></figure>'
    if "masks" in last:
        images += f'<figure><img id="masks" src="{last["masks"]}" alt="Masks of the generated images"></figure>'
    data = json.dumps(shots).replace("</", "<\\/")
    parts = [
        '<h2>Generated images</h2><label for="when">Snapshot: <output id="kimg" for="when"></output></label>',
        f'<input id="when" type="range" min="0" max="{len(shots) - 1}" value="{len(shots) - 1}">',
        f'<div class="pair">{images}</div><script type="application/json" id="shots">{data}</script>',
    ]
    reals = [(embedded(run_dir / name), text) for name, text in REALS.items()]
    figures = "".join(f'<figure><img src="{uri}" alt="{text}"></figure>' for uri, text in reals if uri)
    if figures:
        parts.append(f'<h2>Data</h2><div class="pair">{figures}</div>')
    return "".join(parts)


REALS = {"reals.png": "Images of the data", "reals_mask.png": "Masks of the data"}


def embedded(path: Path) -> str | None:
    """Returns a picture as a data address, at most `MAX_SIDE` wide, or None if it cannot be read."""
    image = opened(path)
    if image is None:
        return None
    image.thumbnail((MAX_SIDE, MAX_SIDE), PIL.Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def opened(path: Path) -> PIL.Image.Image | None:
    """Returns a picture in RGB, or None if the file is missing or incomplete."""
    try:
        with PIL.Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError):
        return None


def region_table(run_dir: Path, options: dict[str, Any]) -> str:
    """Returns a table of the regions: colour, mean share in the masks of data and last snapshot, drift of the mask."""
    regions = (options.get("training_set_kwargs") or {}).get("regions")
    if not isinstance(regions, dict) or not regions.get("names") or not regions.get("colors"):
        return ""
    shots = snapshots(run_dir)
    columns = {"data": run_dir / "reals_mask.png"}
    if shots:
        text, path = shots[-1]
        columns[text] = path.with_name(f"{path.stem}_mask.png")
    shares = {text: region_shares(path, regions["colors"]) for text, path in columns.items()}
    shares = {text: found for text, found in shares.items() if found is not None}
    cells = {text: [f"{100 * share:.2f}%" for share in found] for text, found in shares.items()}
    drifts = last_drifts(run_dir)
    if drifts:
        cells["drift"] = [f"{drifts[name]:.3f}" if name in drifts else "" for name in regions["names"]]
    if not cells:
        return ""
    head = "".join(f'<th class="n">{html.escape(text)}</th>' for text in cells)
    rows = "".join(
        f'<tr><td><i style="background:rgb({",".join(str(int(c)) for c in color)})"></i>{html.escape(str(name))}</td>'
        + "".join(f'<td class="n">{column[k]}</td>' for column in cells.values())
        + "</tr>"
        for k, (name, color) in enumerate(zip(regions["names"], regions["colors"], strict=False))
    )
    note = "Colour in the masks, and mean share of the picture in the grids above."
    table = f"<table><tr><th>region</th>{head}</tr>{rows}</table>"
    return f'<h2>Regions</h2><p>{note}</p><div class="scroll">{table}</div>'


def region_shares(path: Path, colors: Sequence[Sequence[int]]) -> list[float] | None:
    """Returns the share of each region's colour in a picture of masks, or None without a picture."""
    image = opened(path)
    if image is None:
        return None
    pixels = np.asarray(image, np.int64)
    codes = (pixels[:, :, 0] << 16 | pixels[:, :, 1] << 8 | pixels[:, :, 2]).ravel()
    wanted = [r << 16 | g << 8 | b for r, g, b in colors]
    return [float((codes == code).mean()) for code in wanted]


def option_table(options: dict[str, Any]) -> str:
    """Returns a table of all options. Options in dictionaries have dotted names."""
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(json.dumps(value))}</td></tr>"
        for name, value in flat(options)
    )
    table = f'<div class="scroll"><table>{rows}</table></div>'
    return f"<h2>Options</h2><details><summary>All options</summary>{table}</details>"


def flat(data: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Returns dotted names and values."""
    found: list[tuple[str, Any]] = []
    for name, value in data.items():
        if isinstance(value, dict) and value:
            found += flat(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", value))
    return found


def log_tail(run_dir: Path, lines: int = 40) -> str:
    """Returns the last lines of log.txt."""
    try:
        text = (run_dir / "log.txt").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return f"<h2>Log</h2><pre>{html.escape(chr(10).join(text.splitlines()[-lines:]))}</pre>"


@click.command(cls=Command, context_settings={"show_default": True})
@click.argument("run_dir", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option(
    "--dest", type=click.Path(path_type=Path, dir_okay=False), help="File to write.  [default: RUN_DIR/report.html]"
)
@click.option("--watch", is_flag=True, help="Update the page during the run, until Ctrl-C.")
@click.option("--every", type=Number(min=1), default=30, metavar="SECONDS", help="Time between updates with --watch.")
def main(run_dir: Path, dest: Path | None, watch: bool, every: float) -> None:
    """Write a training run as one self-contained HTML page: curves, pictures over time, options, metrics.

    \b
    python -m semantic.report training-runs/00000-faces-semantic
    python -m semantic.report training-runs/00000-faces-semantic --watch
    """
    dest = dest or run_dir / "report.html"
    write_report(run_dir, dest, every if watch else None)
    click.echo(f"Wrote {dest}")
    try:
        while watch:
            time.sleep(every)
            write_report(run_dir, dest, every)
    except KeyboardInterrupt:
        write_report(run_dir, dest)


if __name__ == "__main__":
    main()
