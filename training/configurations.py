"""From what the user asks for to all options of a run."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import torch

from dnnlib import EasyDict, UserError, call_func_by_name, construct_class_by_name, get_obj_by_name
from dnnlib.util import is_url
from training.augment import augpipe_specs
from training.presets import stylegan2_options
from training.warm_start import inherit_arguments

CHANGEABLE = (
    "outdir", "resume", "device", "gpus", "batch_gpu", "kimg", "workers", "dry_run", "data", "snap", "keep_states",
    "max_bad_steps",
)  # fmt: skip
"""What may be different when a run is continued."""

FROM_DATA = ("c_dim", "img_resolution", "img_channels", "regions", "num_regions")

LOSS_WEIGHTS = {
    "gamma": "r1_gamma",
    "gamma_mask": "r1_gamma_mask",
    "mask_weight": "mask_weight",
    "locality": "locality_weight",
}
"""Options and what the loss calls them."""


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
    arguments = {name: value for name, value in args.items() if name not in CHANGEABLE}
    options = EasyDict(description="", arguments=arguments, device=device, training_set_kwargs=training_set_kwargs)
    processes = num_processes(args)
    source = None if args.resume in (None, "noresume") else load_network(args.resume)
    if args.cfg == "semantic":
        about = (training_set.resolution, training_set.regions, precision, args.recipe)
        options.update(call_func_by_name(*about, func_name="semantic.presets.semantic_options"))
    elif args.cfg == "semantic-adapt":
        about = (source, args.resume, precision, args.freeze_local)
        options.update(call_func_by_name(*about, func_name="semantic.adaptation.presets.adaptation_options"))
    else:
        options.update(stylegan2_options(args.cfg, training_set.resolution, processes, precision))
    options.metric_plugins = ["semantic.metrics"] if args.cfg.startswith("semantic") else []
    if source is not None:
        inherit_architecture(options, source, training_set.resolution)
    apply_losses(args, options)
    if args.cbase is not None:
        for widths in (options.G_kwargs.synthesis_kwargs, options.D_kwargs):
            widths["channel_base"] = args.cbase
            widths.pop("channels", None)  # of a network to resume: explicit widths go before
        if source is not None and getattr(source["D"], "c_dim", 0) > 0:  # or it would follow the width at 4²
            options.D_kwargs["cmap_dim"] = source["D"].b4.cmap_dim
    if args.octaves is not None:
        about = (options.G_kwargs.synthesis_kwargs, args.octaves, training_set.resolution, source)
        call_func_by_name(*about, func_name="semantic.presets.limit_octaves")
    apply_augmentation(args, options)
    apply_schedule(args, options, processes)
    apply_performance(args, options, precision)
    if source is not None:
        options.resume = EasyDict(func_name="legacy.load_network", path_or_url=args.resume)
        options.ada_kimg = 100
        options.ema_rampup = 0.05  # the average follows this run, not the source's length
    options.description = describe(args, training_set, options, processes)
    return options


def load_network(path: str) -> EasyDict:
    """Networks of any file, address or name."""
    return call_func_by_name(path, func_name="legacy.load_network")


def inherit_architecture(options: EasyDict, source: EasyDict, resolution: int) -> None:
    """Build networks with the widths and depths of those to resume; what follows from the data stays the data's."""
    for key, network in (("G_kwargs", source["G_ema"]), ("D_kwargs", source["D"])):
        if network is not None and type(network) is get_obj_by_name(options[key].class_name):
            options[key] = inherit_arguments(options[key], network, FROM_DATA)
            if resolution > network.img_resolution and hasattr(network, "grown_arguments"):
                options[key] = EasyDict(network.grown_arguments(options[key], network, resolution))


def check_combinations(args: EasyDict) -> None:
    """Refuse options that contradict each other or the configuration."""
    for name in ("regions", "transparent", "gamma_mask", "locality", "octaves"):
        if args[name] is not None and args.cfg != "semantic":
            raise click.UsageError(f"--{name.replace('_', '-')} needs --cfg=semantic.")
    if args.recipe != "tuned" and args.cfg != "semantic":
        raise click.UsageError("--recipe needs --cfg=semantic.")
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
    if resume in (None, "noresume"):
        return
    source = call_func_by_name(resume, func_name="legacy.resolve")
    if not is_url(source) and not os.path.isfile(source):
        known = ", ".join(get_obj_by_name("legacy.NAMED"))
        raise UserError(f"--resume={resume}: there is no such file, nor a network of that name ({known}).")


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
        about = (args.data, args.regions, args.transparent)
        kwargs.regions = call_func_by_name(*about, func_name="semantic.presets.override_regions")
    training_set = construct_class_by_name(**kwargs)
    for note in training_set.notes:
        click.echo(note, err=args.dry_run)
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


def apply_losses(args: EasyDict, options: EasyDict) -> None:
    """Weights of the loss that the user chose."""
    for option, name in LOSS_WEIGHTS.items():
        if args[option] is not None:
            options.loss_kwargs[name] = args[option]


def apply_augmentation(args: EasyDict, options: EasyDict) -> None:
    """Augmentation pipe and its control."""
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
    if args.batch_gpu == 0:
        options.batch_gpu = None
    else:
        at_a_time = args.batch_gpu or (options.get("batch_gpu") if args.batch is None else None) or share
        options.batch_gpu = min(at_a_time, share)
        if share % options.batch_gpu:
            raise UserError(f"--batch-gpu={options.batch_gpu} must divide the {share} images of each process.")
    options.kimg_per_tick = min(4, options.total_kimg / 20) if args.tick is None else args.tick
    snap = (50 if options.total_kimg >= 1000 else 5) if args.snap is None else args.snap
    options.image_snapshot_ticks = options.network_snapshot_ticks = snap
    options.keep_states = args.keep_states
    options.max_bad_steps = args.max_bad_steps
    options.metrics = check_metrics(args.metrics, options.metric_plugins)


def check_metrics(text: str, plugins: list[str]) -> list[str]:
    """Names of metrics, each known to the framework or to a plugin."""
    names = [name.strip() for name in text.split(",") if name.strip() not in ("", "none")]
    if names:
        call_func_by_name(plugins, func_name="metrics.metric_main.load_plugins")
        for name in names:
            if not call_func_by_name(name, func_name="metrics.metric_main.is_valid_metric"):
                known = ", ".join(call_func_by_name(func_name="metrics.metric_main.list_valid_metrics"))
                raise UserError(f"There is no metric {name!r}. Choose from: {known}.")
    return names


def apply_performance(args: EasyDict, options: EasyDict, precision: str) -> None:
    """Loader processes, memory format, freezing, switches of the GPU."""
    workers = min(3, max((os.cpu_count() or 1) // 2, 1)) if args.workers is None else args.workers
    options.data_loader_kwargs = loader_options(workers)
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


def loader_options(workers: int) -> EasyDict:
    """Options of `torch.utils.data.DataLoader` for so many processes."""
    return EasyDict(num_workers=workers, **({"prefetch_factor": 2} if workers else {}))


def describe(args: EasyDict, training_set: Any, options: EasyDict, processes: int) -> str:
    """The run's name: data, configuration and what differs from its defaults."""
    parts = [re.sub(r"[^0-9A-Za-z_.-]", "_", training_set.name)]
    parts += ["cond"] * bool(args.cond) + ["mirror"] * bool(args.mirror)
    parts += [f"subset{args.subset}"] if args.subset else []
    parts += [f"{args.cfg}{processes if processes > 1 else ''}"] + [args.recipe] * (args.recipe != "tuned")
    parts += [
        f"{key}{args[key]:g}"
        for key in ("kimg", "batch", "cbase", "octaves", "gamma", "locality", "p", "target")
        if args[key] is not None
    ]
    parts += [args.aug] * (args.aug != "ada") + [args.augpipe] * (args.augpipe != "bgc")
    if "resume" in options:
        name = Path(args.resume).stem if len(args.resume) > 20 or os.sep in args.resume else args.resume
        parts.append("resume" + re.sub(r"[^0-9A-Za-z_]", "", name)[:20])
    parts += [f"freezed{args.freezed}"] * bool(args.freezed) + ["freezelocal"] * args.freeze_local
    return "-".join(parts)


def num_processes(args: Mapping[str, Any]) -> int:
    """How many processes share a batch: torchrun's word, else --gpus."""
    return int(os.environ.get("WORLD_SIZE", args["gpus"])) if "RANK" in os.environ else args["gpus"]
