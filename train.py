"""Train a GAN: compositional (`--cfg=semantic`) or plain StyleGAN2-ADA."""

import json
import math
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from dnnlib import EasyDict, Logger, UserError, construct_class_by_name, get_obj_by_name, write_json
from dnnlib.util import is_url

CONFIGURATIONS = ("auto", "stylegan2", "paper256", "paper512", "paper1024", "cifar", "semantic", "semantic-adapt")
AUGMENTATIONS = ("blit", "geom", "color", "filter", "noise", "cutout", "bg", "bgc", "bgcf", "bgcfn", "bgcfnc")
FROM_DATA = ("c_dim", "img_resolution", "img_channels", "regions", "num_regions")
EXIT_INTERRUPTED = 75

EPILOG = """\b
Examples:
  # Faces with masks: train the compositional GAN
  python train.py --cfg=semantic --data=celebamask.zip --mirror=1
\b
  # The same without any data of your own, small enough for a laptop
  python dataset_tool.py --source=procedural --dest=faces64.zip --width=64 --height=64 --max-images=2000
  python train.py --cfg=semantic --data=faces64.zip --kimg=50
\b
  # Continue the newest run exactly where it stopped
  python train.py --resume=latest
\b
  # Start from a trained network; plain StyleGAN2-ADA on images alone
  python train.py --data=cats.zip --resume=ffhq256 --gpus=4
\b
  # Two machines with 8 GPUs each
  torchrun --nnodes=2 --nproc-per-node=8 --rdzv-endpoint=HOST:29400 --rdzv-backend=c10d train.py --data=...

Exit codes: 0 finished; 75 interrupted by Ctrl-C or SIGTERM with everything saved (go on with --resume=latest); 1 an
error that one line explains; 2 wrong options.
"""


class Number(click.FloatRange):
    """A float in a range, neither infinite nor NaN."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


@click.command(epilog=EPILOG, context_settings={"max_content_width": 110, "show_default": True})
@click.option("--outdir", default="training-runs", metavar="DIR", help="Folder that holds the run directories.")
@click.option("--cfg", type=click.Choice(CONFIGURATIONS), default="auto", help="Configuration.")
@click.option("--data", metavar="PATH", help="Training data: an archive or folder made by dataset_tool.py.")
@click.option("--gpus", type=click.IntRange(min=1), default=1, metavar="INT", help="Processes on this machine.")
@click.option("--device", type=click.Choice(["auto", "cuda", "cpu", "mps"]), default="auto", help="Where to train.")
@click.option("--dry-run", "-n", is_flag=True, help="Print the options of the run and stop.")
@click.option("--seed", type=click.IntRange(min=0), default=0, metavar="INT", help="Seed of all random draws.")
@click.option("--kimg", type=Number(min=0, min_open=True), metavar="KIMG", help="Length in thousands of images.")
@click.option("--batch", type=click.IntRange(min=1), metavar="INT", help="Images a step, over all processes.")
@click.option("--batch-gpu", type=click.IntRange(min=1), metavar="INT", help="Images a process handles at a time.")
@click.option(
    "--tick",
    type=Number(min=0, min_open=True),
    metavar="KIMG",
    help="Between progress lines.  [default: 4, or a 20th of the run]",
)
@click.option(
    "--snap",
    type=click.IntRange(min=1),
    metavar="TICKS",
    help="Ticks between snapshots.  [default: 50, or 5 in runs under 1000 kimg]",
)
@click.option(
    "--metrics", default="none", metavar="LIST", help="Metrics at every snapshot, comma-separated, or 'none'."
)
@click.option("--cond", type=bool, default=False, metavar="BOOL", help="Train with the labels of the data.")
@click.option("--subset", type=click.IntRange(min=1), metavar="INT", help="Train on that many images only.")
@click.option("--mirror", type=bool, default=False, metavar="BOOL", help="Add the mirror image of every image.")
@click.option("--regions", metavar="JSON", help="Region names and colours instead of the archive's, file or text.")
@click.option("--transparent", metavar="LIST", help="Regions that others show through, e.g. glasses,earring.")
@click.option("--gamma", type=Number(min=0), metavar="FLOAT", help="Weight of R1 on images.")
@click.option("--gamma-mask", type=Number(min=0), metavar="FLOAT", help="Weight of R1 on masks.")
@click.option("--mask-weight", type=Number(min=0), metavar="FLOAT", help="Weight of the mask consistency term.")
@click.option("--cbase", type=click.IntRange(min=32), metavar="INT", help="Width: CBASE / r channels at resolution r.")
@click.option("--aug", type=click.Choice(["noaug", "ada", "fixed"]), default="ada", help="Augmentation mode.")
@click.option("--p", type=Number(0, 1), metavar="FLOAT", help="Augmentation probability for --aug=fixed.")
@click.option("--target", type=Number(0, 1), metavar="FLOAT", help="Target of --aug=ada.  [default: 0.6]")
@click.option("--augpipe", type=click.Choice(AUGMENTATIONS), default="bgc", help="Which augmentations.")
@click.option(
    "--resume",
    metavar="SOURCE",
    help="Network file, URL or name (ffhq256, celebamask512, ...) to start from; 'latest' continues the newest run.",
)
@click.option("--freezed", type=click.IntRange(min=0), default=0, metavar="INT", help="Layers of D to freeze.")
@click.option("--freeze-local", is_flag=True, help="Keep the local generators as they are (semantic-adapt).")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "bf16"]),
    help="Number format.  [default: fp32; on CUDA bf16 for semantic, else fp16]",
)
@click.option("--fp32", type=bool, default=False, metavar="BOOL", help="The same as --precision=fp32.")
@click.option("--nhwc", type=bool, default=False, metavar="BOOL", help="Channels-last memory format in half precision.")
@click.option(
    "--nobench", type=bool, default=False, metavar="BOOL", help="Do not let cuDNN search for the fastest algorithm."
)
@click.option("--allow-tf32", type=bool, default=False, metavar="BOOL", help="Let PyTorch use TF32.")
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    metavar="INT",
    help="Loader processes.  [default: by the machine, at most 3]",
)
@click.pass_context
def main(context: click.Context, **given: Any) -> None:
    """Train a GAN on an archive made by dataset_tool.py.

    --cfg=semantic trains the compositional GAN on images with masks: one small generator for each region, image and
    mask rendered together. The other configurations train StyleGAN2-ADA on images alone. Everything that a run makes
    appears in a new folder under --outdir.
    """
    args = EasyDict(given)
    explicit = {n for n in given if context.get_parameter_source(n) == click.core.ParameterSource.COMMANDLINE}
    device = resolve_device(args.device, args.gpus)
    if args.resume == "latest":
        run_dir, options = resume_latest(args, explicit, device)
    else:
        run_dir, options = None, new_run(args, device)
    if args.dry_run:
        click.echo(json.dumps(options, indent=2))
        return
    launch(args, options, run_dir)


def resolve_device(name: str, gpus: int) -> str:
    """The device to train on, checked to be there."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if found == 0:
            raise UserError(
                "No GPU was found: PyTorch sees no CUDA device. Train with --device=cpu, or check the driver."
            )
        if gpus > found:
            raise UserError(f"--gpus={gpus} asks for more GPUs than this machine has ({found}).")
    if name == "mps" and not torch.backends.mps.is_available():
        raise UserError("--device=mps asks for an Apple GPU, but PyTorch sees none. Train with --device=cpu.")
    if name == "mps" and gpus > 1:
        raise UserError("--device=mps trains in one process: leave --gpus away.")
    return name


def num_processes(args: Mapping[str, Any]) -> int:
    """How many processes share a batch: torchrun's word, else --gpus."""
    return int(os.environ.get("WORLD_SIZE", args["gpus"])) if "RANK" in os.environ else args["gpus"]


def new_run(args: EasyDict, device: str) -> EasyDict:
    """All options of a new run, from the configuration's table and what the user asked for."""
    if args.data is None:
        raise click.UsageError("--data is missing: name an archive made by dataset_tool.py.")
    precision = "fp32" if args.fp32 else args.precision
    if precision is None:
        precision = "fp32" if device != "cuda" else "bf16" if args.cfg.startswith("semantic") else "fp16"
    check_combinations(args)
    check_source(args.resume)
    training_set_kwargs, training_set = open_data(args)
    options = EasyDict(description="", device=device, training_set_kwargs=training_set_kwargs)
    processes = num_processes(args)
    if args.cfg == "semantic":
        from semantic.presets import semantic_options

        options.update(semantic_options(training_set.resolution, training_set.regions, precision))
    elif args.cfg == "semantic-adapt":
        import legacy
        from semantic.presets import adaptation_options

        source = legacy.load_network(args.resume)
        options.update(adaptation_options(source, args.resume, precision, args.freeze_local))
    else:
        from training.presets import stylegan2_options

        options.update(stylegan2_options(args.cfg, training_set.resolution, processes, precision))
    if args.resume not in (None, "noresume"):
        inherit_architecture(options, args.resume)
    apply_losses(args, options)
    if args.cbase is not None:
        for widths in (options.G_kwargs.synthesis_kwargs, options.D_kwargs):
            widths["channel_base"] = args.cbase
    apply_augmentation(args, options)
    apply_schedule(args, options, processes)
    apply_performance(args, options, precision)
    if args.resume not in (None, "noresume"):
        options.resume = EasyDict(func_name="legacy.load_network", path_or_url=args.resume)
        options.ada_kimg = 100
        options.ema_rampup = None
    options.description = describe(args, training_set, options, processes)
    return options


def inherit_architecture(options: EasyDict, path: str) -> None:
    """Build networks with the widths and depths of those to resume; what follows from the data stays the data's."""
    import legacy

    source = legacy.load_network(path)
    for key, network in (("G_kwargs", source["G_ema"]), ("D_kwargs", source["D"])):
        if network is not None and type(network) is get_obj_by_name(options[key].class_name):
            options[key].update((k, v) for k, v in network.init_kwargs.items() if k not in FROM_DATA)


def check_combinations(args: EasyDict) -> None:
    """Refuse options that contradict each other or the configuration."""
    for name in ("regions", "transparent", "gamma_mask"):
        if args[name] is not None and args.cfg != "semantic":
            raise click.UsageError(f"--{name.replace('_', '-')} needs --cfg=semantic.")
    if args.mask_weight is not None and not args.cfg.startswith("semantic"):
        raise click.UsageError("--mask-weight needs --cfg=semantic or semantic-adapt.")
    if args.freeze_local and args.cfg != "semantic-adapt":
        raise click.UsageError("--freeze-local needs --cfg=semantic-adapt.")
    if args.cfg == "semantic-adapt" and args.resume in (None, "noresume"):
        raise click.UsageError("--cfg=semantic-adapt needs --resume=NETWORK, the trained pair to start from.")
    if args.p is not None and args.aug != "fixed":
        raise click.UsageError("--p needs --aug=fixed.")
    if args.aug == "fixed" and args.p is None:
        raise click.UsageError("--aug=fixed needs --p, the probability.")
    if args.target is not None and args.aug != "ada":
        raise click.UsageError("--target needs --aug=ada.")


def check_source(resume: str | None) -> None:
    """Refuse a network to start from that is not there, before anything is made."""
    import legacy

    source = resume if resume in (None, "noresume") else legacy.resolve(resume)
    if source in (None, "noresume") or is_url(source) or os.path.isfile(source):
        return
    raise UserError(
        f"--resume={resume}: there is no such file, nor a network of that name ({', '.join(legacy.DOWNLOADS)})."
    )


def open_data(args: EasyDict) -> tuple[EasyDict, Any]:
    """Options of the data set, checked by opening it."""
    masked = args.cfg == "semantic"
    kwargs = EasyDict(
        class_name="semantic.dataset.MaskedImageDataset" if masked else "training.dataset.ImageFolderDataset",
        path=args.data,
        use_labels=args.cond,
        max_size=args.subset,
        xflip=args.mirror,
        random_seed=args.seed,
    )
    if masked and (args.regions is not None or args.transparent is not None):
        kwargs.regions = override_regions(args)
    training_set = construct_class_by_name(**kwargs)
    kwargs.resolution = training_set.resolution
    if masked:
        kwargs.regions = training_set.regions.to_dict()
    if args.cond and not training_set.has_labels:
        raise UserError(f"--cond=1 needs labels, but dataset.json of {args.data} has none.")
    images = len(training_set) // (2 if args.mirror else 1)
    if args.subset is not None and args.subset > images:
        raise UserError(f"--subset={args.subset} asks for more than the {images} images of {args.data}.")
    if masked and training_set.resolution < 32:
        raise UserError(f"--cfg=semantic needs 32² or more, but {args.data} is {training_set.resolution}².")
    return kwargs, training_set


def override_regions(args: EasyDict) -> dict[str, Any]:
    """The archive's regions with what --regions and --transparent change."""
    from semantic.dataset import MaskedImageDataset
    from semantic.regions import Regions

    if args.regions is None:
        regions = MaskedImageDataset(args.data).regions
    else:
        text = args.regions
        if not text.lstrip().startswith("{"):
            try:
                text = Path(text).read_text(encoding="utf-8")
            except OSError as error:
                raise UserError(f"Cannot read --regions={args.regions}: {error.strerror}.") from error
            except UnicodeDecodeError as error:
                raise UserError(f"--regions={args.regions} is not a text file.") from error
        try:
            data = json.loads(text)
        except ValueError as error:
            raise UserError(f"--regions={args.regions} is not JSON: {error}.") from error
        regions = Regions.from_dict(data.get("regions", data) if isinstance(data, dict) else data, where="--regions")
    transparent = regions.select(args.transparent) if args.transparent is not None else regions.transparent
    return Regions(regions.names, regions.colors, transparent).to_dict()


def apply_losses(args: EasyDict, options: EasyDict) -> None:
    """Weights of the loss that the user chose."""
    names = {"gamma": "r1_gamma", "gamma_mask": "r1_gamma_mask", "mask_weight": "mask_weight"}
    for option, name in names.items():
        if args[option] is not None:
            options.loss_kwargs[name] = args[option]


def apply_augmentation(args: EasyDict, options: EasyDict) -> None:
    """Augmentation pipe and its control."""
    from training.augment import augpipe_specs

    if args.aug == "noaug":
        return
    options.augment_kwargs = EasyDict(class_name="training.augment.AugmentPipe", **augpipe_specs[args.augpipe])
    if args.aug == "ada":
        options.ada_target = 0.6 if args.target is None else args.target
    else:
        options.augment_p = args.p


def apply_schedule(args: EasyDict, options: EasyDict, processes: int) -> None:
    """Length, batch, ticks, snapshots."""
    options.seed = args.seed
    options.total_kimg = options.total_kimg if args.kimg is None else args.kimg
    options.batch_size = options.batch_size if args.batch is None else args.batch
    if options.batch_size % processes:
        raise UserError(f"--batch={options.batch_size} cannot be shared by {processes} processes: make it a multiple.")
    share = options.batch_size // processes
    at_a_time = args.batch_gpu or (options.get("batch_gpu") if args.batch is None else None) or share
    options.batch_gpu = min(at_a_time, share)
    if share % options.batch_gpu:
        raise UserError(f"--batch-gpu={options.batch_gpu} must divide the {share} images of each process.")
    options.kimg_per_tick = min(4, options.total_kimg / 20) if args.tick is None else args.tick
    snap = (50 if options.total_kimg >= 1000 else 5) if args.snap is None else args.snap
    options.image_snapshot_ticks = options.network_snapshot_ticks = snap
    options.metrics = check_metrics(args.metrics)


def check_metrics(text: str) -> list[str]:
    """Names of metrics, each known."""
    names = [name.strip() for name in text.split(",") if name.strip() not in ("", "none")]
    if names:
        from metrics import metric_main

        for name in names:
            if not metric_main.is_valid_metric(name):
                known = ", ".join(metric_main.list_valid_metrics())
                raise UserError(f"There is no metric {name!r}. Choose from: {known}.")
    return names


def apply_performance(args: EasyDict, options: EasyDict, precision: str) -> None:
    """Loader processes, memory format, freezing, switches of the GPU."""
    import torch

    workers = min(3, max((os.cpu_count() or 1) // 2, 1)) if args.workers is None else args.workers
    options.data_loader_kwargs = EasyDict(num_workers=workers, **({"prefetch_factor": 2} if workers else {}))
    if options.device == "cpu":
        # The loaders keep their cores: two threads that share one core spend their time waiting for each other.
        share = (os.cpu_count() or 1) // num_processes(args) - workers
        options.cpu_threads = torch.get_num_threads() if os.environ.get("OMP_NUM_THREADS") else max(share, 1)
    options.cudnn_benchmark = not args.nobench
    options.allow_tf32 = args.allow_tf32
    if args.freezed:
        options.D_kwargs.block_kwargs = {**options.D_kwargs.get("block_kwargs", {}), "freeze_layers": args.freezed}
    if args.nhwc and precision != "fp32" and not args.cfg.startswith("semantic"):
        options.G_kwargs.synthesis_kwargs["fp16_channels_last"] = True
        options.D_kwargs.block_kwargs["fp16_channels_last"] = True


def describe(args: EasyDict, training_set: Any, options: EasyDict, processes: int) -> str:
    """The run's name: data, configuration and what differs from its defaults."""
    parts = [re.sub(r"[^0-9A-Za-z_.-]", "_", training_set.name)]
    parts += ["cond"] * bool(args.cond) + ["mirror"] * bool(args.mirror)
    parts += [f"subset{args.subset}"] if args.subset else []
    parts += [f"{args.cfg}{processes if processes > 1 else ''}"]
    parts += [
        f"{key}{args[key]:g}" for key in ("kimg", "batch", "cbase", "gamma", "p", "target") if args[key] is not None
    ]
    parts += [args.aug] * (args.aug != "ada") + [args.augpipe] * (args.augpipe != "bgc")
    if "resume" in options:
        name = Path(args.resume).stem if len(args.resume) > 20 or os.sep in args.resume else args.resume
        parts.append("resume" + re.sub(r"[^0-9A-Za-z_]", "", name)[:20])
    parts += [f"freezed{args.freezed}"] * bool(args.freezed) + ["freezelocal"] * args.freeze_local
    return "-".join(parts)


def resume_latest(args: EasyDict, explicit: set[str], device: str) -> tuple[str, EasyDict]:
    """Directory and options of the newest run, to be continued in place."""
    from training.snapshots import find_latest

    state = find_latest(args.outdir)
    if state is None:
        raise UserError(
            f"--resume=latest found no training-state-*.pt under {args.outdir}: start a run first, or set --outdir."
        )
    try:
        options = EasyDict(json.loads((state.parent / "training_options.json").read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise UserError(
            f"Cannot read {state.parent / 'training_options.json'}: the run cannot be continued."
        ) from error
    allowed = {"outdir", "resume", "device", "gpus", "kimg", "workers", "dry_run", "data", "snap"}
    refused = sorted(f"--{name.replace('_', '-')}" for name in explicit - allowed)
    if refused:
        raise UserError(f"--resume=latest keeps the options of {state.parent}: leave {' '.join(refused)} away.")
    if "kimg" in explicit:
        options.total_kimg = args.kimg
    if "data" in explicit:
        options.training_set_kwargs["path"] = args.data
    if "snap" in explicit:
        options.image_snapshot_ticks = options.network_snapshot_ticks = args.snap
    processes = num_processes(args)
    if options.batch_size % processes:
        raise UserError(f"The run's batch of {options.batch_size} cannot be shared by {processes} processes.")
    options.batch_gpu = min(options.batch_gpu, options.batch_size // processes)
    options.device = device
    options.resume_state = str(state)
    return str(state.parent), options


def next_run_dir(outdir: str, description: str) -> str:
    """Make the next numbered folder under `outdir`."""
    try:
        Path(outdir).mkdir(parents=True, exist_ok=True)
        numbers = [int(path.name[:5]) for path in Path(outdir).iterdir() if re.match(r"\d{5}-", path.name)]
        run_dir = Path(outdir) / f"{max(numbers, default=-1) + 1:05d}-{description}"
        run_dir.mkdir()
    except OSError as error:
        raise UserError(
            f"Cannot make a run folder under {outdir}: {error.strerror}. Choose another --outdir."
        ) from error
    return str(run_dir)


def launch(args: EasyDict, options: EasyDict, run_dir: str | None) -> None:
    """Run the training in this process, or in several."""
    import torch

    from torch_utils import distributed

    if "RANK" in os.environ:
        distributed.init(device=options.device)
        names = [run_dir]
        if distributed.get_rank() == 0 and run_dir is None:
            names = [next_run_dir(args.outdir, options.description)]
        torch.distributed.broadcast_object_list(names, src=0)
        finished = train(options, names[0])
        distributed.shutdown()
        sys.exit(0 if finished else EXIT_INTERRUPTED)
    if run_dir is None:
        run_dir = next_run_dir(args.outdir, options.description)
    if args.gpus == 1:
        finished = train(options, run_dir)
    else:
        finished = distributed.spawn(train, args.gpus, options, run_dir, device=options.device)
    sys.exit(0 if finished else EXIT_INTERRUPTED)


def train(options: EasyDict, run_dir: str) -> bool:
    """The training itself; process 0 keeps options and log."""
    from torch_utils import distributed
    from training.training_loop import training_loop

    kwargs = {name: value for name, value in options.items() if name != "description"}
    if distributed.get_rank() != 0:
        return training_loop(run_dir, **kwargs)
    with Logger(os.path.join(run_dir, "log.txt")):
        kept = {name: value for name, value in options.items() if name != "resume_state"}
        write_json(os.path.join(run_dir, "training_options.json"), kept)
        click.echo(f"Run directory: {run_dir}")
        return training_loop(run_dir, **kwargs)


if __name__ == "__main__":
    main()
