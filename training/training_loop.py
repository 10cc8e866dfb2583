"""The training loop, read from top to bottom as the recipe."""

import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch

import dnnlib
from dnnlib import EasyDict, UserError
from torch_utils import distributed, training_stats
from torch_utils.interrupt import StopRequest
from training.augment_control import AugmentController
from training.batches import Batches
from training.phases import build_phases
from training.progress import Progress
from training.sampler import derive_seed
from training.snapshots import Previews, load_state, remove_old_states, save_networks, save_state
from training.transfer import copy_networks


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
    device: str = "cpu",
    seed: int = 0,
    batch_size: int = 16,
    batch_gpu: int = 16,
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
    resume: Mapping[str, Any] | None = None,
    resume_state: str | None = None,
    G_frozen: Sequence[str] = (),
    cpu_threads: int | None = None,
    cudnn_benchmark: bool = True,
    allow_tf32: bool = False,
) -> bool:
    """Train a generator against a discriminator.

    Args:
        run_dir: folder of the run; see docs/training.md for what appears in it.
        training_set_kwargs: class name and options of the data set.
        G_kwargs, D_kwargs: class names and options of the networks; sizes that follow from the data are filled in.
        G_opt_kwargs, D_opt_kwargs: class names and options of the optimizers.
        loss_kwargs: class name and options of the loss.
        augment_kwargs: class name and options of the augmentation; None for none.
        data_loader_kwargs: options of `torch.utils.data.DataLoader`.
        metrics: names of metrics to compute at every network snapshot.
        device: 'cuda', 'cpu' or 'mps'; with several processes each takes a GPU of its own.
        seed: of all random draws, data order included.
        batch_size: images a step, over all processes.
        batch_gpu: images that one process handles at a time.
        ema_kimg: half-life of the moving average of the generator's weights, in thousands of images.
        ema_rampup: the half-life is at most this share of the images seen so far; None for no limit.
        G_reg_interval, D_reg_interval: steps between regularizations; None regularizes in every step.
        augment_p: initial probability of augmentation.
        ada_target: target of the augmentation controller; None keeps the probability.
        ada_interval: steps between its adjustments.
        ada_kimg: thousands of images in which the probability can go from 0 to 1.
        total_kimg: length of the run in thousands of images.
        kimg_per_tick: thousands of images between progress lines.
        image_snapshot_ticks, network_snapshot_ticks: ticks between snapshots; None for none until the end.
        resume: a function by name and its arguments that gives trained networks {G, D, G_ema} to start from.
        resume_state: path of a training state to continue exactly.
        G_frozen: parameters of G whose names start with one of these are not trained.
        cpu_threads: threads of a process on a CPU; a run repeats exactly with the same number only.
        cudnn_benchmark, allow_tf32: switches of PyTorch on a GPU.

    Returns:
        True when the run reached its end, False when it was interrupted and its state saved.

    Raises:
        UserError: data, networks and options do not fit together.
    """
    rank = distributed.get_rank()
    device = torch.device("cuda", distributed.get_local_rank()) if device == "cuda" else torch.device(device)
    torch.backends.cudnn.benchmark = cudnn_benchmark
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allow_tf32
    if cpu_threads is not None and device.type == "cpu":
        torch.set_num_threads(cpu_threads)
    torch.manual_seed(derive_seed(seed, 0, 0))

    training_set = dnnlib.construct_class_by_name(**training_set_kwargs)
    sizes = {
        "c_dim": training_set.label_dim,
        "img_resolution": training_set.resolution,
        "img_channels": training_set.num_channels,
    }
    G = dnnlib.construct_class_by_name(**G_kwargs, **sizes).to(device)
    D = dnnlib.construct_class_by_name(**D_kwargs, **sizes).to(device)
    G_ema = dnnlib.construct_class_by_name(**G_kwargs, **sizes).to(device).eval().requires_grad_(False)
    G_ema.load_state_dict(G.state_dict())
    augment_pipe = None
    if augment_kwargs is not None:
        augment_pipe = dnnlib.construct_class_by_name(**augment_kwargs).requires_grad_(False).to(device)
        augment_pipe.p.copy_(torch.as_tensor(augment_p))
    if resume is not None and resume_state is None and rank == 0:
        copy_networks(dnnlib.call_func_by_name(**resume), {"G": G, "D": D, "G_ema": G_ema})
    for network in (G, D, G_ema):
        distributed.broadcast_module(network)

    G_phases = build_phases("G", G, G_opt_kwargs, G_reg_interval, G_frozen)
    D_phases = build_phases("D", D, D_opt_kwargs, D_reg_interval)
    phases = [*G_phases, *D_phases]
    loss = dnnlib.construct_class_by_name(device=device, G=G, D=D, augment_pipe=augment_pipe, **loss_kwargs)
    controller = None
    if augment_pipe is not None:
        controller = AugmentController(augment_pipe, ada_target, ada_interval, batch_size, ada_kimg, device)

    run = EasyDict(images_seen=0, step=0, tick=0, elapsed=0.0)
    parts = {
        "G": G,
        "D": D,
        "G_ema": G_ema,
        "G_opt": G_phases[0].optimizer,
        "D_opt": D_phases[0].optimizer,
        "loss": loss,
    }
    if augment_pipe is not None:
        parts |= {"augment_pipe": augment_pipe, "controller": controller}
    if resume_state is not None:
        state = load_state(resume_state)
        restore(parts, state, resume_state)
        run.update(state["run"])
        if run.images_seen >= total_kimg * 1000:
            raise UserError(f"{run_dir} has reached its {total_kimg:g} kimg: give a larger --kimg to go on.")

    previews = Previews(run_dir, training_set, G.z_dim, device, batch_gpu) if rank == 0 else None
    if previews and run.images_seen == 0:
        previews.save_reals()
        previews.save_fakes(G_ema, "_init")
    progress = Progress(run_dir, total_kimg, run.images_seen, run.elapsed, device, run.tick)
    if resume_state is not None:
        progress.load_state_dict(state["statistics"])
    progress.say(f"Training for {total_kimg:g} kimg on {len(training_set)} images of {training_set.resolution}²")

    batches = Batches(training_set, device, batch_size, batch_gpu, seed, run.images_seen, data_loader_kwargs or {})
    with contextlib.closing(progress), contextlib.closing(batches), StopRequest(progress.say) as stop:
        while True:
            torch.manual_seed(derive_seed(seed, rank, run.images_seen))
            real = batches.next()
            for phase in phases:
                if run.step % phase.interval == 0:
                    phase.begin()
                    for part in real:
                        gen_z = torch.randn([len(part["label"]), G.z_dim], device=device)
                        gen_c = batches.random_labels(len(part["label"]))
                        loss.accumulate_gradients(phase.name, part, gen_z, gen_c, gain=phase.interval)
                    phase.end(rounds=len(real))

            half_life = ema_kimg * 1000
            if ema_rampup is not None:
                half_life = min(half_life, run.images_seen * ema_rampup)
            update_ema(G_ema, G, 0.5 ** (batch_size / max(half_life, 1e-8)))
            if controller is not None:
                controller.step(run.step)

            run.images_seen += batch_size
            run.step += 1
            progress.advance(batch_size)
            done = run.images_seen >= total_kimg * 1000
            interrupted = stop.requested_anywhere()
            tick_is_over = done or run.images_seen >= (run.tick + 1) * kimg_per_tick * 1000
            if not (tick_is_over or interrupted):
                continue

            if tick_is_over:
                progress.end_tick(run.images_seen, controller.p if controller else 0.0)
            run.tick, run.elapsed = progress.tick, progress.elapsed
            last = done or interrupted
            name = f"{run.images_seen // 1000:06d}"
            if previews and (last or _is_due(run.tick, image_snapshot_ticks)):
                previews.save_fakes(G_ema, name)
            if last or _is_due(run.tick, network_snapshot_ticks):
                network_path = os.path.join(run_dir, f"network-snapshot-{name}.pkl")
                state = {key: part.state_dict() for key, part in parts.items()}
                state |= {"run": dict(run), "statistics": progress.state_dict()}
                if rank == 0:
                    save_networks(network_path, training_set_kwargs, G=G, D=D, G_ema=G_ema, augment_pipe=augment_pipe)
                    save_state(os.path.join(run_dir, f"training-state-{name}.pt"), state)
                    remove_old_states(run_dir)
                if metrics and not interrupted:
                    _report_metrics(metrics, G_ema, training_set_kwargs, run_dir, network_path, device)
            if last:
                break
            progress.begin_tick()
        if interrupted and not done:
            progress.say(f"Stopped at {run.images_seen / 1000:g} kimg, all saved: go on with --resume=latest")
    return done


def restore(parts: Mapping[str, Any], state: Mapping[str, Any], path: str) -> None:
    """Load the states of all parts of a run.

    Raises:
        UserError: the state belongs to other data or options.
    """
    try:
        for name, part in parts.items():
            part.load_state_dict(state[name])
    except (KeyError, RuntimeError, ValueError, TypeError) as error:
        raise UserError(f"{path} does not fit the run's data and options: {str(error)[:200]}") from error


def update_ema(G_ema: torch.nn.Module, G: torch.nn.Module, decay: float) -> None:
    """Move the averaged weights towards the current ones, keeping the share `decay`; buffers are copied."""
    with torch.no_grad():
        averaged, current = list(G_ema.parameters()), list(G.parameters())
        torch._foreach_lerp_(averaged, current, 1 - decay)
        for kept, buffer in zip(G_ema.buffers(), G.buffers(), strict=True):
            kept.copy_(buffer)


def _is_due(tick: int, interval: int | None) -> bool:
    """Whether the snapshot after `tick` ticks is due."""
    return interval is not None and tick % interval == 0


def _report_metrics(
    metrics: Sequence[str],
    G: torch.nn.Module,
    training_set_kwargs: Mapping[str, Any],
    run_dir: str,
    network_path: str,
    device: torch.device,
) -> None:
    """Compute metrics on all processes and write them into the run directory; those that cannot be are left out."""
    results, _ = dnnlib.call_func_by_name(
        metrics,
        func_name="metrics.metric_main.evaluate",
        run_dir=run_dir,
        snapshot_pkl=network_path,
        rank=distributed.get_rank(),
        G=G,
        dataset_kwargs=training_set_kwargs,
        num_gpus=distributed.get_world_size(),
        device=device,
    )
    for result in results:
        for name, value in result["results"].items():
            training_stats.report0(f"Metrics/{name}", value)
