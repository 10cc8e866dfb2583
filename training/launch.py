"""Starts or resumes a run: its folder, its processes, its end."""

import contextlib
import json
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from dnnlib import EasyDict, Logger, UserError, construct_class_by_name, write_json
from torch_utils import distributed
from torch_utils.devices import resolve_device
from training.configurations import CHANGEABLE, LoadNetwork, loader_options, num_processes
from training.dataset import compare_data
from training.registry import find_configuration
from training.run.folder import (
    check_options,
    discard_start,
    find_runs,
    lock_run,
    next_run_dir,
    read_options,
    report_damaged_options,
    rewind,
)
from training.run.recovery import train_safely
from training.run.snapshots import find_states, load_state, newest_state
from training.training_loop import training_loop

EXIT_INTERRUPTED = 75
NOT_OF_THE_LOOP = ("description", "arguments", "data_summary", "notes")
NOT_KEPT = ("resume_state", "notes")


def launch(args: EasyDict, explicit: set[str], load_network: LoadNetwork) -> None:
    """Train in this process or in several processes, and exit with the code of the result.

    Args:
        args: options of train.py by name.
        explicit: names of the options that the user gave.
        load_network: reads the networks of --resume.
    """
    device = resolve_device(args.device, args.gpus)
    if "RANK" in os.environ:
        distributed.init(device=device)
        with distributed.first_failure_alone_reports():
            finished = run(args, explicit, device, load_network)
            distributed.shutdown()
    else:
        finished = run(args, explicit, device, load_network)
    sys.exit(0 if finished else EXIT_INTERRUPTED)


def run(args: EasyDict, explicit: set[str], device: str, load_network: LoadNetwork) -> bool:
    """Prepare the run and train. Returns True if the run reached its end."""
    options, run_dir, made = distributed.from_first(prepare, args, explicit, device, load_network)
    if run_dir is None:
        return True
    with discarding(run_dir, made):
        if "RANK" in os.environ or args.gpus == 1:
            return train(options, run_dir, load_network)
        return distributed.spawn(train, args.gpus, options, run_dir, load_network, device=device)


def prepare(
    args: EasyDict, explicit: set[str], device: str, load_network: LoadNetwork
) -> tuple[EasyDict, str | None, bool]:
    """Returns the options of the run, its folder, and whether the folder is new. A dry run prints and has no folder."""
    run_dir, options = None, None
    if args.resume == "latest":
        run_dir, options = resume_latest(args, explicit, device)
    if options is None:
        options = find_configuration(args.cfg, explicit)(args, device).new_run(load_network)
    if args.dry_run:
        click.echo(json.dumps({name: value for name, value in options.items() if name != "notes"}, indent=2))
        return options, None, False
    if run_dir is not None:
        return options, run_dir, False
    return options, next_run_dir(args.outdir, options.description), True


def resume_latest(args: EasyDict, explicit: set[str], device: str) -> tuple[str | None, EasyDict | None]:
    """Returns folder and options of the newest run, to resume it in place.

    Resumes the newest run that has a state. If no run has a state yet, the newest run starts again in its folder.
    If there is no run and --data is given, returns (None, None): a new run can start.
    """
    found, state = None, None
    for folder in find_runs(args.outdir):
        with lock_run(folder, click.echo):
            state = newest_state(folder, click.echo)
        if state is not None:
            found = folder
            break
        if found is None and (folder / "training_options.json").is_file():
            found = folder
    if found is None and "data" in explicit:
        click.echo(f"Found no run to resume under {args.outdir}. Starting a new run.")
        args.resume = None
        return None, None
    if found is None:
        raise UserError(
            f"--resume=latest found no training-state-*.pt under {args.outdir}. Set --outdir to the folder of the "
            f"runs, or start a run with --data."
        )
    options = read_options(found)
    with report_damaged_options(found, stored=True):
        options.device = device
        check_options({name: value for name, value in options.items() if name not in NOT_OF_THE_LOOP}, training_loop)
        apply_changes(options, args, explicit, found)
    if state is not None:
        options.resume_state = str(state)
    else:
        click.echo(f"{found} has no state yet. Starting it again.")
    return str(found), options


def apply_changes(options: EasyDict, args: EasyDict, explicit: set[str], run_dir: Path) -> None:
    """Apply the options that a resume may change. Raises UserError for options that a resume must keep."""
    arguments = dict(options.get("arguments", {}))
    fixed = explicit - set(CHANGEABLE)
    refused = sorted(name for name in fixed if name not in arguments or arguments[name] != args[name])
    if refused:
        given = " ".join(f"--{name.replace('_', '-')}" for name in refused)
        raise UserError(f"--resume=latest keeps the options of {run_dir}. Remove {given}.")
    if "kimg" in explicit:
        options.total_kimg = args.kimg
    if "data" in explicit:
        note = change_data(options, args.data)
        options.notes = [] if note is None else [f"Note: {note}"]
    if "snap" in explicit:
        options.image_snapshot_ticks = options.network_snapshot_ticks = args.snap
    if "workers" in explicit:
        options.data_loader_kwargs = loader_options(args.workers)
    for name in ("keep_states", "max_bad_steps"):
        if name in explicit:
            options[name] = args[name]
    processes = num_processes(args)
    if options.batch_size % processes:
        raise UserError(
            f"{processes} processes cannot share the run's batch of {options.batch_size}: "
            "it must be a multiple of their number."
        )
    share = options.batch_size // processes
    at_a_time = (args.batch_gpu or None) if "batch_gpu" in explicit else options.batch_gpu
    options.batch_gpu = None if at_a_time is None else math.gcd(at_a_time, share)


def change_data(options: EasyDict, path: str) -> str | None:
    """Let a run resume with data of the same kind at another path. Returns a sentence if the number of images differs.

    Raises:
        UserError: the data cannot be opened, or have other regions or labels.
    """
    kwargs = {**options.training_set_kwargs, "path": path}
    then = {"regions": list(kwargs["regions"]["names"])} if "regions" in kwargs else {}
    if "regions" in kwargs and options.get("arguments", {}).get("regions") is None:
        kwargs["regions"] = None  # use the names in the archive
    now = construct_class_by_name(**kwargs).summary()
    note = compare_data({**then, **options.get("data_summary", {})}, now, path)
    options.training_set_kwargs["path"] = path
    return note


@contextlib.contextmanager
def discarding(run_dir: str, made: bool) -> Iterator[None]:
    """Remove the folder of a new run that fails before its first state."""
    try:
        yield
    except BaseException:
        if made and distributed.get_rank() == 0:
            discard_start(run_dir)
        raise


def train(options: EasyDict, run_dir: str, load_network: LoadNetwork) -> bool:
    """Train, and return whether the run reached its end. Process 0 writes options and log."""
    kwargs = {name: value for name, value in options.items() if name not in NOT_OF_THE_LOOP}
    kwargs["load_network"] = load_network
    if distributed.get_rank() != 0:
        return train_safely(training_loop, run_dir, kwargs, click.echo)
    with lock_run(run_dir, click.echo):
        path = options.get("resume_state")
        if path is not None or not find_states(run_dir):
            rewind(run_dir, path, {} if path is None else load_state(path, mmap=True))
        with Logger(os.path.join(run_dir, "log.txt"), file_mode="a"):
            kept = {name: value for name, value in options.items() if name not in NOT_KEPT}
            write_json(os.path.join(run_dir, "training_options.json"), kept)
            click.echo(f"Run directory: {run_dir}")
            for note in options.get("notes", []):
                click.echo(note)
            return train_safely(training_loop, run_dir, kwargs, click.echo)
