"""The configurations of --cfg: the base class of all configurations, and plain StyleGAN2-ADA."""

import os
import re
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import click
import torch

from dnnlib import EasyDict, UserError, construct_class_by_name, get_obj_by_name
from metrics import registry
from training.augment import augpipe_specs
from training.presets import stylegan2_options
from training.warm_start import inherit_arguments

CHANGEABLE = (
    "outdir", "resume", "device", "gpus", "batch_gpu", "kimg", "workers", "dry_run", "data", "snap", "keep_states",
    "max_bad_steps",
)  # fmt: skip
"""Options of train.py that may change when a run is resumed."""

FIXED = (
    "cfg", "seed", "batch", "tick", "metrics", "cond", "subset", "mirror", "gamma", "cbase", "aug", "p", "target",
    "augpipe", "freezed", "glr", "dlr", "precision", "fp32", "nhwc", "nobench", "allow_tf32",
)  # fmt: skip
"""Options of train.py that all configurations accept and that a resume keeps."""

FROM_DATA = ("c_dim", "img_resolution", "img_channels")

LoadNetwork = Callable[[str], Mapping[str, Any]]
"""Maps a path, address or name to networks G, D, G_ema. `load_network` of legacy.py is of this type."""


class Configuration:
    """Translates the options of train.py into the options of a run, for one value of --cfg.

    A subclass sets the networks and the loss in `training_options`, and overrides other methods where it differs.

    Args:
        args: options of train.py by name.
        device: 'cuda', 'cpu' or 'mps'.

    Attributes:
        options: defaults of the options of train.py that this configuration accepts beyond `CHANGEABLE` and `FIXED`.
        dataset_class: class name of the data set.
        gpu_precision: default number format on a GPU.
        loss_weights: maps options of train.py to names of weights in the loss.
        from_data: arguments of networks that follow from the data, even if a trained network sets the other arguments.
        metric_plugins: modules that register further metrics.
    """

    options: ClassVar[Mapping[str, Any]] = {}
    dataset_class: ClassVar[str] = "training.dataset.ImageFolderDataset"
    gpu_precision: ClassVar[str] = "fp16"
    loss_weights: ClassVar[Mapping[str, str]] = {"gamma": "r1_gamma"}
    from_data: ClassVar[Sequence[str]] = FROM_DATA
    metric_plugins: ClassVar[Sequence[str]] = ()

    def __init__(self, args: Mapping[str, Any], device: str):
        defaults = {name: default for name, default in self.options.items() if args[name] is None}
        self.args = EasyDict({**args, **defaults})
        self.device = device
        self.processes = num_processes(args)
        self.resume = None if args["resume"] == "noresume" else args["resume"]
        chosen = "fp32" if args["fp32"] else args["precision"]
        self.precision = chosen or self.default_precision()

    @classmethod
    def accepted(cls) -> set[str]:
        """Returns the names of all options of train.py that this configuration accepts."""
        return {*CHANGEABLE, *FIXED, *cls.options}

    def default_precision(self) -> str:
        """Returns the number format where the user chooses none."""
        return self.gpu_precision if self.device == "cuda" else "fp32"

    def check(self) -> None:
        """Refuse options that contradict each other.

        Raises:
            click.UsageError: options contradict each other.
        """
        args = self.args
        if args.data is None:
            raise click.UsageError("--data is missing. Name an archive made by dataset_tool.py.")
        if args.p is not None and args.aug != "fixed":
            raise click.UsageError("--p needs --aug=fixed.")
        if args.aug == "fixed" and args.p is None:
            raise click.UsageError("--aug=fixed needs --p, the probability.")
        if args.target is not None and args.aug != "ada":
            raise click.UsageError("--target needs --aug=ada.")

    def data_options(self) -> dict[str, Any]:
        """Returns the options of the data set that only this configuration sets."""
        return {}

    def open_data(self) -> tuple[EasyDict, Any]:
        """Returns class name and options of the data set, and the data set itself.

        Raises:
            UserError: the data set cannot be opened, or has too few images or no labels.
        """
        args = self.args
        kwargs = EasyDict(
            class_name=self.dataset_class,
            path=args.data,
            use_labels=args.cond,
            max_size=args.subset,
            xflip=args.mirror,
            random_seed=args.seed,
            **self.data_options(),
        )
        training_set = construct_class_by_name(**kwargs)
        kwargs.resolution = training_set.resolution
        if training_set.has_labels:
            kwargs.classes = training_set.classes
        if args.cond and not training_set.has_labels:
            raise UserError(f"--cond=1 needs labels, but dataset.json of {args.data} has none.")
        images = training_set.summary()["images"]
        if args.subset is not None and args.subset > images:
            raise UserError(f"--subset={args.subset} asks for more than the {images} images of {args.data}.")
        return kwargs, training_set

    def training_options(self, training_set: Any, source: Mapping[str, Any] | None) -> EasyDict:
        """Returns the options of the training loop: networks, loss, optimizers and other options of this configuration.

        Args:
            training_set: the opened data set.
            source: trained networks to start from, or None.
        """
        raise NotImplementedError

    def adjust(self, options: EasyDict, training_set: Any, source: Mapping[str, Any] | None) -> None:
        """Apply the user's options to networks and loss, after a trained network has set its own options."""
        for option, name in self.loss_weights.items():
            if self.args[option] is not None:
                options.loss_kwargs[name] = self.args[option]
        for network, rate in (("G", self.args.glr), ("D", self.args.dlr)):
            if rate is not None:
                options[f"{network}_opt_kwargs"].lr = rate
        if self.args.cbase is not None:
            for widths in (options.G_kwargs.synthesis_kwargs, options.D_kwargs):
                widths["channel_base"] = self.args.cbase
                widths.pop("channels", None)  # a list of widths from a trained network would override channel_base
            if source is not None and getattr(source["D"], "c_dim", 0) > 0:  # or it would follow the width at 4²
                options.D_kwargs["cmap_dim"] = source["D"].b4.cmap_dim
        options.D_kwargs.block_kwargs = dict(options.D_kwargs.get("block_kwargs") or {})
        options.D_kwargs.block_kwargs.pop("freeze_layers", None)  # --freezed decides, not the network to resume
        if self.args.freezed:
            options.D_kwargs.block_kwargs["freeze_layers"] = self.args.freezed

    def name_parts(self) -> list[str]:
        """Returns the parts of a run's name that only this configuration adds."""
        return []

    def load_source(self, load_network: LoadNetwork) -> Mapping[str, Any] | None:
        """Returns the networks of --resume, or None without the option.

        Raises:
            UserError: the networks cannot be read. The message begins with --resume.
        """
        if self.resume is None:
            return None
        try:
            return load_network(self.resume)
        except UserError as error:
            raise UserError(f"--resume={self.resume}: {error.message}") from error

    def new_run(self, load_network: LoadNetwork) -> EasyDict:
        """Returns all options of a new run, checked.

        Raises:
            click.UsageError, UserError: options, data and networks do not fit together.
        """
        self.check()
        training_set_kwargs, training_set = self.open_data()
        source = self.load_source(load_network)
        if source is not None and training_set.num_channels == 1 and source["G_ema"].img_channels == 3:
            training_set_kwargs.num_channels = 3  # grey images teach a network of colour images, too
        options = self.training_options(training_set, source)
        options.data_summary = training_set.summary()
        options.notes = list(training_set.notes)
        options.arguments = {name: value for name, value in self.args.items() if name not in CHANGEABLE}
        options.update(device=self.device, training_set_kwargs=training_set_kwargs)
        if source is not None:
            inherit_architecture(options, source, training_set.resolution, self.from_data)
            # The average of the weights starts from the source's weights and follows the length of this run.
            options.update(resume=self.resume, ada_kimg=100, ema_rampup=0.05)
        self.adjust(options, training_set, source)
        apply_augmentation(self.args, options)
        apply_schedule(self.args, options, self.processes)
        apply_performance(self.args, options, self.processes)
        options.metric_plugins = list(self.metric_plugins)
        options.metrics = check_metrics(self.args.metrics, self.metric_plugins)
        options.description = describe(self, training_set.name)
        return options


class StyleGAN2(Configuration):
    """StyleGAN2-ADA on images: 'auto' and the published configurations."""

    def training_options(self, training_set: Any, source: Mapping[str, Any] | None) -> EasyDict:
        return stylegan2_options(self.args.cfg, training_set.resolution, self.processes, self.precision)

    def adjust(self, options: EasyDict, training_set: Any, source: Mapping[str, Any] | None) -> None:
        super().adjust(options, training_set, source)
        if self.args.nhwc and self.precision != "fp32":
            options.G_kwargs.synthesis_kwargs["fp16_channels_last"] = True
            options.D_kwargs.block_kwargs["fp16_channels_last"] = True


def inherit_architecture(
    options: EasyDict, source: Mapping[str, Any], resolution: int, from_data: Container[str] = FROM_DATA
) -> None:
    """Set widths and depths of the networks to resume as options of the new networks.

    Args:
        options: options of the run, changed in place.
        source: networks to resume.
        resolution: resolution of the data. Networks of a lower resolution grow.
        from_data: names of arguments that follow from the data.
    """
    for key, network in (("G_kwargs", source["G_ema"]), ("D_kwargs", source["D"])):
        if network is not None and type(network) is get_obj_by_name(options[key].class_name):
            options[key] = inherit_arguments(options[key], network, from_data)
            if resolution > network.img_resolution and hasattr(network, "grown_arguments"):
                options[key] = EasyDict(network.grown_arguments(options[key], network, resolution))


def apply_augmentation(args: EasyDict, options: EasyDict) -> None:
    """Set the augmentation pipe and its controller."""
    if args.aug == "noaug":
        return
    options.augment_kwargs = EasyDict(class_name="training.augment.AugmentPipe", **augpipe_specs[args.augpipe])
    if args.aug == "ada":
        options.ada_target = 0.6 if args.target is None else args.target
    else:
        options.augment_p = args.p


def apply_schedule(args: EasyDict, options: EasyDict, processes: int) -> None:
    """Set length, batch size, ticks and snapshots."""
    options.seed = args.seed
    options.total_kimg = options.total_kimg if args.kimg is None else args.kimg
    options.batch_size = options.batch_size if args.batch is None else args.batch
    if options.batch_size % processes:
        raise UserError(f"{processes} processes cannot share --batch={options.batch_size}. Make it a multiple of them.")
    share = options.batch_size // processes
    if args.batch_gpu == 0:
        options.batch_gpu = None
    else:
        at_a_time = args.batch_gpu or (options.get("batch_gpu") if args.batch is None else None) or share
        options.batch_gpu = min(at_a_time, share)
        if share % options.batch_gpu:
            raise UserError(f"--batch-gpu={options.batch_gpu} must divide the {share} images of each process.")
    tick = options.get("kimg_per_tick", min(4, options.total_kimg / 20))
    options.kimg_per_tick = tick if args.tick is None else args.tick
    snap = options.pop("snap", 50 if options.total_kimg >= 1000 else 5)
    snap = snap if args.snap is None else args.snap
    options.image_snapshot_ticks = options.network_snapshot_ticks = snap
    options.keep_states = args.keep_states
    options.max_bad_steps = args.max_bad_steps


def check_metrics(text: str, plugins: Sequence[str]) -> list[str]:
    """Returns the names of metrics. The framework or a plugin must have registered each name.

    Raises:
        UserError: a metric does not exist.
    """
    names = [name for name in registry.split_names(text) if name != "none"]
    registry.load_plugins(plugins if names else ())
    for name in names:
        registry.require(name)
    return names


def apply_performance(args: EasyDict, options: EasyDict, processes: int) -> None:
    """Set loader processes, threads and switches of the GPU."""
    workers = min(3, max((os.cpu_count() or 1) // 2, 1)) if args.workers is None else args.workers
    options.data_loader_kwargs = loader_options(workers)
    if options.device == "cpu":
        # The loaders keep their own cores. Two threads on one core would wait for each other.
        share = (os.cpu_count() or 1) // processes - workers
        options.cpu_threads = torch.get_num_threads() if os.environ.get("OMP_NUM_THREADS") else max(share, 1)
    options.cudnn_benchmark = not args.nobench
    options.allow_tf32 = args.allow_tf32


def loader_options(workers: int) -> EasyDict:
    """Returns options of `torch.utils.data.DataLoader` for `workers` processes."""
    return EasyDict(num_workers=workers, **({"prefetch_factor": 2} if workers else {}))


def describe(configuration: Configuration, data_name: str) -> str:
    """Returns the run's name: data, configuration and options that differ from their defaults."""
    args, processes, resume = configuration.args, configuration.processes, configuration.resume
    parts = [re.sub(r"[^0-9A-Za-z_.-]", "_", data_name)]
    parts += ["cond"] * bool(args.cond) + ["mirror"] * bool(args.mirror)
    parts += [f"subset{args.subset}"] if args.subset else []
    parts += [f"{args.cfg}{processes if processes > 1 else ''}", *configuration.name_parts()]
    numbers = ("kimg", "batch", "cbase", "gamma", "glr", "dlr", "p", "target")
    parts += [f"{key}{args[key]:g}" for key in numbers if args[key] is not None]
    parts += [args.aug] * (args.aug != "ada") + [args.augpipe] * (args.augpipe != "bgc")
    if resume is not None:
        name = Path(resume).stem if len(resume) > 20 or os.sep in resume else resume
        parts.append("resume" + re.sub(r"[^0-9A-Za-z_]", "", name)[:20])
    parts += [f"freezed{args.freezed}"] * bool(args.freezed)
    return "-".join(parts)


def num_processes(args: Mapping[str, Any]) -> int:
    """Returns the number of processes that share a batch: as torchrun sets it, else --gpus."""
    return int(os.environ.get("WORLD_SIZE", args["gpus"])) if "RANK" in os.environ else args["gpus"]
