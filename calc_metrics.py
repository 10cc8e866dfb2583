"""Computes metrics of a trained network, and draws curves of training runs."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import click
import torch

import legacy
from dnnlib import Command, EasyDict, UserError
from dnnlib.option_types import kernels_option
from dnnlib.util import is_url
from metrics import curves, metric_main, registry
from semantic.adaptation.layer_swap import blend_option, load_blended
from semantic.tuned import apply_tuned
from torch_utils import distributed
from torch_utils.devices import select_device
from training.archive import Archive
from training.labels import read_metadata

PLUGINS = ["semantic.metrics"]
MASKED, PLAIN = "semantic.dataset.MaskedImageDataset", "training.dataset.ImageFolderDataset"
DATASET_OPTIONS = ("class_name", "path", "regions", "use_labels", "max_size", "xflip", "random_seed", "classes")
"""Metadata that is copied from files."""


class MetricsCommand(Command):
    """A command whose help ends with the list of metrics."""

    prints_results = True

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        registry.load_plugins(PLUGINS)
        with formatter.section("Metrics"):
            formatter.write_dl(registry.describe_metrics())
        formatter.write_paragraph()
        formatter.write_text(
            "A name may contain another count of generated images: fid5k_full, swd16k. Metrics of regions also accept "
            "plain counts: mask_fit500. See docs/metrics.md."
        )


@click.command(cls=MetricsCommand, context_settings={"show_default": True}, no_args_is_help=True)
@click.option(
    "--network",
    metavar="FILE|URL|DIR",
    help="Network, or run directory for its newest snapshot.  [default: the bundled or newest one]",
)
@click.option("--tuned", metavar="NPZ", help="File of projector.py --pti-steps with its changes to the network.")
@blend_option
@click.option("--metrics", metavar="LIST", help="Metrics, comma-separated.  [default: fid50k_full]")
@click.option("--data", metavar="PATH", help="Real images.  [default: the training data of the network]")
@click.option(
    "--mirror", type=bool, metavar="BOOL", help="Add mirrored images to the real images.  [default: as in training]"
)
@click.option("--gpus", type=click.IntRange(min=1), default=1, metavar="INT", help="Processes that share the work.")
@click.option("--verbose", type=bool, default=True, metavar="BOOL", help="Print each step, show progress bars.")
@kernels_option
@click.option(
    "--device", type=click.Choice(["auto", "cuda", "cpu", "mps"]), default="auto", help="Device for the computation."
)
@click.option(
    "--detector", metavar="PATH", help="Feature network, or folder of feature networks, instead of downloads."
)
@click.option(
    "--plot",
    is_flag=False,
    flag_value="",
    multiple=True,
    metavar="RUN_DIR",
    help="Draw curves of runs instead of computing metrics.  [default: all runs under training-runs]",
)
@click.option("--dest", default="metrics.png", metavar="FILE", help="Picture file for --plot.")
@click.argument("runs", nargs=-1)
def main(runs: tuple[str, ...], **options: Any) -> None:
    """Compute metrics of a trained network, or draw the curves of training runs (--plot).

    Each result is one line of JSON. Results of a snapshot are also added to metric-NAME.jsonl in its run directory.

    \b
    A snapshot against the data of its run:
      python calc_metrics.py --network=training-runs/00000-faces-semantic/network-snapshot-000500.pkl
    Other data, several metrics, fewer images:
      python calc_metrics.py --network=snapshot.pkl --data=faces.zip --metrics=fid10k_full,kid10k_full,ppl2k_wend
    Without any download:
      python calc_metrics.py --network=snapshot.pkl --data=faces.zip --metrics=swd,msssim
    Metrics of networks with regions, with few samples:
      python calc_metrics.py --network=snapshot.pkl --metrics=region_leak100,mask_fit500,mask_stats1k,coarse_fit200
    Local feature networks:
      python calc_metrics.py --network=snapshot.pkl --metrics=fid5k_full --detector=inception-2015-12-05.pt
    Four GPUs:
      python calc_metrics.py --network=snapshot.pkl --metrics=fid50k_full,pr50k3_full --gpus=4
    Curves of two runs in one picture:
      python calc_metrics.py --plot training-runs/00000-faces-semantic training-runs/00001-faces-semantic
    """
    opts = EasyDict(options)
    registry.load_plugins(PLUGINS)
    names = None if opts.metrics is None else registry.split_names(opts.metrics)
    if opts.plot:
        plot([*filter(None, opts.plot), *runs], opts.dest, names)
        return
    if runs:
        raise click.UsageError(f"Unexpected argument {runs[0]}: name networks with --network, runs with --plot.")
    names = names or ["fid50k_full"]
    for name in names:
        registry.require(name)
    opts.network = legacy.choose_network(opts.network)
    opts.device = select_device(opts.device).type
    try:
        if "RANK" in os.environ:
            distributed.init(device=opts.device)
            complete = compute(names, opts)
            distributed.shutdown()
        elif opts.gpus > 1:
            complete = distributed.spawn(compute, opts.gpus, names, opts, device=opts.device)
        else:
            complete = compute(names, opts)
    except KeyboardInterrupt:
        click.echo("Stopped. The results so far are kept.", err=True)
        sys.exit(130)
    except torch.OutOfMemoryError as error:
        raise UserError("The GPU is out of memory. Use --device=cpu, or another GPU.") from error
    sys.exit(0 if complete else 1)


def plot(run_dirs: list[str], dest: str, metrics: list[str] | None) -> None:
    """Draw the curves of runs. Without names, draw all runs under training-runs that have results."""
    if not run_dirs:
        run_dirs = sorted({str(path.parent) for path in Path("training-runs").glob("*/metric-*.jsonl")})
        if not run_dirs:
            raise UserError("There are no results under training-runs. Name run directories after --plot.")
    curves.plot_runs(run_dirs, dest, metrics)
    click.echo(f"Wrote {dest}.")


def compute(metrics: list[str], opts: EasyDict) -> bool:
    """Compute metrics on this process. Returns False if a metric could not be computed."""
    rank = distributed.get_rank()
    device = torch.device("cuda", distributed.get_local_rank()) if opts.device == "cuda" else torch.device(opts.device)
    data = legacy.load_network(opts.network)
    if opts.get("tuned") is not None:
        apply_tuned(data["G_ema"], opts.tuned)
    data["G_ema"] = load_blended(data, opts.get("blend", ()), legacy.load_network)
    run_dir = run_dir_of(opts.network)
    dataset_kwargs = find_data(opts, data, run_dir)
    if rank == 0 and opts.verbose:
        click.echo(f"Network: {opts.network}", err=True)
        click.echo(f"Data: {dataset_kwargs.get('path', 'none')}", err=True)
    _, missing = metric_main.evaluate(
        metrics,
        run_dir,
        opts.network,
        rank,
        G=data["G_ema"],
        dataset_kwargs=dataset_kwargs,
        num_gpus=distributed.get_world_size(),
        device=device,
        detector=opts.detector,
        plugins=PLUGINS,
        progress=None if opts.verbose else False,
    )
    return not missing


def compare_regions(archive: Archive, names: list[str]) -> None:
    """Refuse data whose region names differ from the names in the network.

    Raises:
        UserError: names or number of the regions differ.
    """
    found = read_metadata(archive).get("regions")
    found = found.get("names") if isinstance(found, dict) else None
    if found is not None and list(found) != list(names):
        raise UserError(
            f"{archive.path} has the regions {', '.join(map(str, found))}, but the network has {', '.join(names)}. "
            f"Name data with the same regions, or merge classes with dataset_tool.py --mask-map."
        )


def run_dir_of(network: str) -> str | None:
    """Returns the run directory of a network file, or None."""
    if is_url(network) or not Path(network).is_file():
        return None
    folder = Path(network).parent
    return str(folder) if (folder / "training_options.json").is_file() else None


def find_data(opts: EasyDict, data: EasyDict, run_dir: str | None) -> EasyDict:
    """Returns class name and options of the real data: of --data, the run, or the network file. Empty if unknown."""
    known = dict(data.get("training_set_kwargs") or {})
    if run_dir is not None:
        path = os.path.join(run_dir, "training_options.json")
        try:
            with open(path, encoding="utf-8") as file:
                known = dict(json.load(file)["training_set_kwargs"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"Cannot read the training data from {path}. Name the data with --data.") from error
    if opts.data is None and not known:
        return EasyDict()
    if opts.data is not None:
        archive = Archive(opts.data)
        masked = any(name.startswith("masks/") for name in archive.names)
        if masked and hasattr(data["G_ema"], "regions") and opts.data != known.get("path"):
            compare_regions(archive, data["G_ema"].regions.names)
        kept = (
            ("use_labels", "xflip", "regions", "classes")
            if known.get("class_name") == MASKED and masked
            else ("xflip",)
        )
        known = {name: known[name] for name in kept if name in known}
        known |= {"class_name": MASKED if masked else PLAIN, "path": opts.data}
    elif not is_url(known.get("path"), allow_file_urls=True) and not os.path.exists(str(known.get("path"))):
        if opts.verbose and distributed.get_rank() == 0:
            click.echo(f"The training data {known.get('path')} do not exist. Name real images with --data.", err=True)
        return EasyDict()
    if known.get("class_name") not in (MASKED, PLAIN):  # a network file must not choose the class to run
        known["class_name"] = MASKED if "regions" in known else PLAIN
    known = {name: value for name, value in known.items() if name in DATASET_OPTIONS}
    if opts.mirror is not None:
        known["xflip"] = opts.mirror
    return EasyDict(known, resolution=data["G_ema"].img_resolution)


if __name__ == "__main__":
    main()
