"""The training loop, from top to bottom."""

import contextlib
import copy
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

import dnnlib
from dnnlib import UserError
from torch_utils import distributed
from torch_utils.interrupt import StopRequest
from torch_utils.sampler import derive_seed
from training.augment_control import AugmentController
from training.batches import Batches
from training.phases import build_phases
from training.run.checkpoint import Checkpoint, check_replicas
from training.run.evaluation import report_metrics
from training.run.folder import report_damaged_options
from training.run.memory import Trial, find_share, report_shortage
from training.run.progress import Position, Progress
from training.run.recovery import Recovery
from training.run.snapshots import Previews, save_networks, snapshot_name
from training.warm_start import copy_networks
from training.weight_average import ema_decay, update_ema


def training_loop(
    run_dir: str,
    training_set_kwargs: Mapping[str, Any],
    G_kwargs: Mapping[str, Any],
    D_kwargs: Mapping[str, Any],
    G_opt_kwargs: Mapping[str, Any],
    D_opt_kwargs: Mapping[str, Any],
    loss_kwargs: Mapping[str, Any],
    augment_kwargs: Mapping[str, Any] | None = None,
    data_loader_kwargs: Mapping[str, Any] | None = None,
    metrics: Sequence[str] = (),
    metric_plugins: Sequence[str] = (),
    device: str = "cpu",
    seed: int = 0,
    batch_size: int = 16,
    batch_gpu: int | None = 16,
    ema_kimg: float = 10,
    ema_rampup: float | None = None,
    G_reg_interval: int | None = 4,
    D_reg_interval: int | None = 16,
    augment_p: float = 0,
    ada_target: float | None = None,
    ada_interval: int = 4,
    ada_kimg: float = 500,
    total_kimg: float = 25000,
    kimg_per_tick: float = 4,
    image_snapshot_ticks: int | None = 50,
    network_snapshot_ticks: int | None = 50,
    keep_states: int = 2,
    max_bad_steps: int = 10,
    resume: str | None = None,
    load_network: Callable[[str], Mapping[str, Any]] | None = None,
    resume_state: str | None = None,
    G_frozen: Sequence[str] = (),
    monitor_kwargs: Mapping[str, Any] | None = None,
    cpu_threads: int | None = None,
    cudnn_benchmark: bool = True,
    allow_tf32: bool = False,
) -> bool:
    """Train a generator against a discriminator.

    Args:
        run_dir: folder of the run; see docs/training.md for what appears in it.
        training_set_kwargs: class name and options of the data set.
        G_kwargs, D_kwargs: class names and options of the networks. Sizes that follow from the data are filled in.
        G_opt_kwargs, D_opt_kwargs: class names and options of the optimizers.
        loss_kwargs: class name and options of the loss.
        augment_kwargs: class name and options of the augmentation, or None.
        data_loader_kwargs: options of `torch.utils.data.DataLoader`.
        metrics: names of metrics to compute at every network snapshot.
        metric_plugins: modules that register further metrics.
        device: 'cuda', 'cpu' or 'mps'. With several processes, each process uses its own GPU.
        seed: seed of all random draws, including the order of the data.
        batch_size: images per step, over all processes.
        batch_gpu: images that one process handles at a time. None finds the largest number that fits into memory.
        ema_kimg: half-life of the moving average of the generator's weights, in thousands of images.
        ema_rampup: limits the half-life to this fraction of the images seen so far. None sets no limit.
        G_reg_interval, D_reg_interval: steps between regularizations. None regularizes in every step.
        augment_p: initial probability of augmentation.
        ada_target: target of the augmentation controller. None keeps the probability constant.
        ada_interval: steps between adjustments of the probability.
        ada_kimg: thousands of images in which the probability can rise from 0 to 1.
        total_kimg: length of the run in thousands of images.
        kimg_per_tick: thousands of images between progress lines.
        image_snapshot_ticks, network_snapshot_ticks: ticks between snapshots. None writes snapshots at the end only.
        keep_states: number of training states that are kept.
        max_bad_steps: number of steps in a row, skipped for values that are not finite, before the run rolls back.
        resume: trained networks to start from, in any form that `load_network` accepts.
        load_network: returns networks {G, D, G_ema} for a path, address or name.
        resume_state: path of a training state to resume exactly.
        G_frozen: parameters of G whose names start with one of these are not trained.
        monitor_kwargs: class name and options of a `training.run.monitor.Monitor`, or None.
        cpu_threads: threads of a process on a CPU. A run repeats exactly only with the same number of threads.
        cudnn_benchmark, allow_tf32: switches of PyTorch on a GPU.

    Returns:
        True if the run reached its end, False if it was interrupted and its state saved.

    Raises:
        UserError: data, networks and options do not fit together, or the run misses a file or device.
        RollBack: values were not finite in too many steps, see `training.run.recovery`.
    """
    # Set up devices and switches of PyTorch.
    rank, share = distributed.get_rank(), batch_size // distributed.get_world_size()
    device = torch.device("cuda", distributed.get_local_rank()) if device == "cuda" else torch.device(device)
    torch.backends.cudnn.benchmark = cudnn_benchmark
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allow_tf32
    if cpu_threads is not None and device.type == "cpu":
        torch.set_num_threads(cpu_threads)
    torch.manual_seed(derive_seed(seed, 0, 0))

    with report_damaged_options(run_dir, stored=resume_state is not None):
        # Open the data and build the networks.
        training_set = dnnlib.construct_class_by_name(**training_set_kwargs)
        size, channels = training_set.resolution, training_set.num_channels
        sizes = {"c_dim": training_set.label_dim, "img_resolution": size, "img_channels": channels}
        G = dnnlib.construct_class_by_name(**G_kwargs, **sizes).to(device)
        D = dnnlib.construct_class_by_name(**D_kwargs, **sizes).to(device)
        G_ema = copy.deepcopy(G).eval().requires_grad_(False)
        networks = {"G": G, "D": D, "G_ema": G_ema}

        # Load trained networks, and copy the weights of process 0 to all processes.
        said = None
        if resume is not None and resume_state is None and rank == 0:
            said = copy_networks(load_network(resume), networks)
        monitor = None
        if monitor_kwargs is not None:
            given = {"run_dir": run_dir, "networks": networks, "device": device}
            given["training_set_kwargs"] = training_set_kwargs
            monitor = dnnlib.construct_class_by_name(**given, **monitor_kwargs)
        for network in networks.values():
            distributed.broadcast_module(network)

        # Set up the augmentation and its controller.
        augment_pipe = controller = None
        if augment_kwargs is not None:
            augment_pipe = dnnlib.construct_class_by_name(**augment_kwargs).requires_grad_(False).to(device)
            augment_pipe.p.copy_(torch.as_tensor(augment_p))
            controller = AugmentController(augment_pipe, ada_target, ada_interval, batch_size, ada_kimg, device)

        # Set up the loss and the optimizers.
        loss = dnnlib.construct_class_by_name(device=device, G=G, D=D, augment_pipe=augment_pipe, **loss_kwargs)
        G_phases = build_phases("G", G, G_opt_kwargs, G_reg_interval, G_frozen, running=loss.running())
        D_phases = build_phases("D", D, D_opt_kwargs, D_reg_interval, running=loss.running())
        phases = [*G_phases, *D_phases]
        recovery = Recovery(phases, max_bad_steps)

    # Collect everything that a resume needs.
    run = Position()
    progress = Progress(run_dir, total_kimg, kimg_per_tick, run, device)
    trained = {**networks, "G_opt": G_phases[0].optimizer, "D_opt": D_phases[0].optimizer, "loss": loss}
    others = {"run": run, "statistics": progress, "recovery": recovery, "monitor": monitor}
    others |= {"augment_pipe": augment_pipe, "controller": controller}
    checkpoint = Checkpoint(run_dir, {**trained, **others}, keep_states)
    metrics_due = resume_state is not None and checkpoint.restore(resume_state)
    if progress.finished:
        raise UserError(f"{run_dir} has reached its {total_kimg:g} kimg. To train longer, give a larger --kimg.")

    # Find how many images fit into memory at a time.
    trial = functools.partial(Trial, phases, loss, G, training_set, device)
    if batch_gpu is None:
        batch_gpu = find_share(trial(), share, D)
    start = run.step
    advice = report_shortage(trial, batch_gpu, D, first=lambda: run.step == start)

    # Write pictures of the data and of the untrained generator, and the first lines.
    previews = Previews(run_dir, training_set, G.z_dim, device, batch_gpu) if rank == 0 else None
    if previews and run.images_seen == 0:
        previews.save_reals()
        previews.save_fakes(G_ema, "_init")
    progress.start()
    at_a_time = f", {batch_gpu} at a time" if batch_gpu < share else ""
    progress.say(f"Training for {total_kimg:g} kimg on {len(training_set)} images of {size}²{at_a_time}")
    if said is not None:
        progress.say(said)
    if resume_state is not None:
        progress.say(f"Resuming at {run.images_seen / 1000:g} kimg from {os.path.basename(resume_state)}")

    evaluate = functools.partial(report_metrics, metrics, metric_plugins, G_ema, training_set_kwargs, run_dir, device)
    batches = Batches(training_set, device, batch_size, batch_gpu, seed, run.images_seen, data_loader_kwargs or {})
    with contextlib.closing(progress), contextlib.closing(batches), StopRequest(progress.say) as stop, advice:
        if metrics_due:
            evaluate(snapshot_name(run.images_seen), checkpoint.logs)
        real = batches.next()
        while True:
            # Step: each phase trains one network on part of the loss, in rounds of `batch_gpu` images.
            torch.manual_seed(derive_seed(seed, rank, run.images_seen))
            recovery.set_rate(run.images_seen)
            for phase in [phase for phase in phases if run.step % phase.interval == 0]:
                phase.begin()
                for part in real:
                    gen_z = torch.randn([len(part["label"]), G.z_dim], device=device)
                    gen_c = batches.random_labels(len(part["label"]))
                    loss.accumulate_gradients(phase.name, part, gen_z, gen_c, gain=phase.interval)
                phase.end(rounds=len(real))

            # Average the weights of G; adjust the augmentation.
            update_ema(G_ema, G, ema_decay(run.images_seen, batch_size, ema_kimg, ema_rampup))
            if controller is not None:
                controller.step(run.step)

            # Fetch the next batch, and find which events are due after this step.
            progress.advance(batch_size)
            real = None if progress.finished else stop.attempt(batches.next)
            last, tick_ends = stop.requested_anywhere() or progress.finished, progress.tick_is_over
            look = last or tick_ends or run.step == 1
            recovery.check(run.step, run.images_seen, now=look)
            if not look:
                continue

            # Report.
            if tick_ends:
                progress.end_tick(controller.p if controller else 0.0, recovery.figures())
            if previews and (last or (tick_ends and run.is_due(image_snapshot_ticks))):
                previews.save_fakes(G_ema, f"{run.images_seen // 1000:06d}")

            # Snapshot: networks for the user, a state to resume from, and metrics. The first step saves a state without
            # a network file: a run that crashes early must have a state to resume from.
            metrics_due = progress.finished or (tick_ends and run.is_due(network_snapshot_ticks))
            if last or metrics_due or run.step == 1:
                check_replicas(networks, run.images_seen)
                recovery.require_finite(trained, run.images_seen)
                path = os.path.join(run_dir, snapshot_name(run.images_seen))
                if rank == 0 and (last or metrics_due):
                    save_networks(path, training_set_kwargs, **networks, augment_pipe=augment_pipe)
                if monitor is not None and metrics_due:
                    progress.follow(distributed.from_first(monitor.look, loss, run.images_seen, path))
                checkpoint.save(metrics_due)
            if metrics_due and not stop.agreed:
                evaluate(snapshot_name(run.images_seen), checkpoint.logs)

            if last or progress.finished:
                break
            if tick_ends:
                progress.begin_tick()
        if not progress.finished:
            progress.say(f"Stopped at {run.images_seen / 1000:g} kimg, all saved. Resume with --resume=latest")
    if stop.failure is not None:
        raise stop.failure
    return progress.finished
