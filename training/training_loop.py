"""The training loop, read from top to bottom as the recipe."""

import contextlib
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

import dnnlib
from dnnlib import EasyDict, UserError
from torch_utils import distributed
from torch_utils.interrupt import StopRequest
from training.augment_control import AugmentController
from training.batches import Batches
from training.phases import build_phases
from training.run.evaluation import report_metrics
from training.run.folder import log_sizes, trusting_options
from training.run.memory import Trial, explained, find_share
from training.run.progress import Progress
from training.run.recovery import Recovery
from training.run.snapshots import Previews, load_state, remove_old_states, save_networks, save_state, snapshot_name
from training.sampler import derive_seed
from training.warm_start import copy_networks


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
        metric_plugins: modules that register further metrics.
        device: 'cuda', 'cpu' or 'mps'; with several processes each takes a GPU of its own.
        seed: of all random draws, data order included.
        batch_size: images a step, over all processes.
        batch_gpu: images that one process handles at a time; None finds the most that its memory holds.
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
        keep_states: how many training states are kept.
        max_bad_steps: steps in a row that are skipped, for values that are not finite, before the run goes back.
        resume: trained networks to start from, as `load_network` takes them.
        load_network: gives networks {G, D, G_ema} by path, address or name.
        resume_state: path of a training state to continue exactly.
        G_frozen: parameters of G whose names start with one of these are not trained.
        cpu_threads: threads of a process on a CPU; a run repeats exactly with the same number only.
        cudnn_benchmark, allow_tf32: switches of PyTorch on a GPU.

    Returns:
        True when the run reached its end, False when it was interrupted and its state saved.

    Raises:
        UserError: data, networks and options do not fit together, or something that the run needs is gone.
        RollBack: values were not finite for too long, see `training.run.recovery`.
    """
    rank = distributed.get_rank()
    device = torch.device("cuda", distributed.get_local_rank()) if device == "cuda" else torch.device(device)
    torch.backends.cudnn.benchmark = cudnn_benchmark
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allow_tf32
    if cpu_threads is not None and device.type == "cpu":
        torch.set_num_threads(cpu_threads)
    torch.manual_seed(derive_seed(seed, 0, 0))

    with trusting_options(run_dir, stored=resume_state is not None):
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
        about_source = None
        if resume is not None and resume_state is None and rank == 0:
            about_source = copy_networks(load_network(resume), {"G": G, "D": D, "G_ema": G_ema})
        for network in (G, D, G_ema):
            distributed.broadcast_module(network)

        loss = dnnlib.construct_class_by_name(device=device, G=G, D=D, augment_pipe=augment_pipe, **loss_kwargs)
        G_phases = build_phases("G", G, G_opt_kwargs, G_reg_interval, G_frozen, running=loss.running())
        D_phases = build_phases("D", D, D_opt_kwargs, D_reg_interval, running=loss.running())
        phases = [*G_phases, *D_phases]
        recovery = Recovery(phases, max_bad_steps)
        controller = None
        if augment_pipe is not None:
            controller = AugmentController(augment_pipe, ada_target, ada_interval, batch_size, ada_kimg, device)

    total_images = round(total_kimg * 1000)
    run = EasyDict(images_seen=0, step=0, tick=0, elapsed=0.0)
    parts = {
        "G": G,
        "D": D,
        "G_ema": G_ema,
        "G_opt": G_phases[0].optimizer,
        "D_opt": D_phases[0].optimizer,
        "loss": loss,
        "recovery": recovery,
    }
    if augment_pipe is not None:
        parts |= {"augment_pipe": augment_pipe, "controller": controller}
    state = None
    if resume_state is not None:
        state = distributed.from_first(load_state, resume_state)
        restore(parts, run, state, resume_state)
        if run.images_seen >= total_images:
            raise UserError(f"{run_dir} has reached its {total_kimg:g} kimg: give a larger --kimg to go on.")
    trial = functools.partial(Trial, phases, loss, G, training_set, device)
    if batch_gpu is None:
        batch_gpu = find_share(trial(), batch_size // distributed.get_world_size(), D)

    previews = Previews(run_dir, training_set, G.z_dim, device, batch_gpu) if rank == 0 else None
    if previews and run.images_seen == 0:
        previews.save_reals()
        previews.save_fakes(G_ema, "_init")
    progress = Progress(run_dir, total_kimg, run.images_seen, run.elapsed, device, run.tick)
    at_a_time = f", {batch_gpu} at a time" if batch_gpu < batch_size // distributed.get_world_size() else ""
    progress.say(
        f"Training for {total_kimg:g} kimg on {len(training_set)} images of {training_set.resolution}²{at_a_time}"
    )
    if about_source is not None:
        progress.say(about_source)

    evaluate = functools.partial(report_metrics, metrics, metric_plugins, G_ema, training_set_kwargs, run_dir)
    batches = Batches(training_set, device, batch_size, batch_gpu, seed, run.images_seen, data_loader_kwargs or {})
    with contextlib.closing(progress), contextlib.closing(batches), StopRequest(progress.say) as stop:
        if state is not None:
            restore({"statistics": progress}, EasyDict(), state, resume_state)
            progress.say(f"Going on at {run.images_seen / 1000:g} kimg from {os.path.basename(resume_state)}")
        if state is not None and state.get("metrics_due") is True:
            evaluate(os.path.join(run_dir, snapshot_name(run.images_seen)), device, state["logs"])
        start, state = run.step, None
        real = batches.next()
        while True:
            torch.manual_seed(derive_seed(seed, rank, run.images_seen))
            recovery.set_rate(run.images_seen)
            with explained(trial, batch_gpu, D, first=run.step == start):
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
            done = run.images_seen >= total_images
            real = None if done else stop.attempt(batches.next)
            interrupted = stop.requested_anywhere()
            tick_is_over = done or run.images_seen >= round((run.tick + 1) * kimg_per_tick * 1000)
            last, pause = done or interrupted, tick_is_over or interrupted or run.step == 1
            recovery.check(run.step, run.images_seen, now=pause)
            if not pause:
                continue

            if tick_is_over:
                progress.end_tick(run.images_seen, controller.p if controller else 0.0, recovery.figures())
            run.tick, run.elapsed = progress.tick, progress.elapsed
            name = f"{run.images_seen // 1000:06d}"
            if previews and (last or (tick_is_over and _is_due(run.tick, image_snapshot_ticks))):
                previews.save_fakes(G_ema, name)
            snapshot_is_due = done or (tick_is_over and _is_due(run.tick, network_snapshot_ticks))
            if last or snapshot_is_due or run.step == 1:
                network_path = os.path.join(run_dir, snapshot_name(run.images_seen))
                check_replicas({"G": G, "D": D, "G_ema": G_ema}, run.images_seen)
                recovery.require_finite(parts, run.images_seen)
                state = {key: part.state_dict() for key, part in parts.items()}
                state |= {"run": dict(run), "statistics": progress.state_dict(), "metrics_due": snapshot_is_due}
                if rank == 0:
                    if last or snapshot_is_due:
                        save_networks(
                            network_path, training_set_kwargs, G=G, D=D, G_ema=G_ema, augment_pipe=augment_pipe
                        )
                    state["logs"] = log_sizes(run_dir)
                    save_state(os.path.join(run_dir, f"training-state-{name}.pt"), state)
                    remove_old_states(run_dir, keep_states)
                if metrics and snapshot_is_due and not interrupted:
                    evaluate(network_path, device, state.get("logs", {}))
            if last:
                break
            if tick_is_over:
                progress.begin_tick()
        if interrupted and not done:
            progress.say(f"Stopped at {run.images_seen / 1000:g} kimg, all saved: go on with --resume=latest")
    if stop.failure is not None:
        raise stop.failure
    return done


def restore(parts: Mapping[str, Any], run: EasyDict, state: Mapping[str, Any], path: str) -> None:
    """Load the states of all parts of a run, and where it is.

    Raises:
        UserError: the state belongs to other data or options.
    """
    try:
        for name, part in parts.items():
            if name == "recovery" and name not in state:  # not kept by earlier versions
                continue
            found = state[name]
            if isinstance(part, torch.optim.Optimizer):  # its options are this run's: another device has other ones
                own, theirs = part.state_dict()["param_groups"], found["param_groups"]
                if [len(group["params"]) for group in own] != [len(group["params"]) for group in theirs]:
                    raise ValueError(f"{name} is for another number of parameters")
                check_moments(part, found, name)
                found = {**found, "param_groups": own}
            part.load_state_dict(found)
        run.update({name: type(value)(state["run"][name]) for name, value in run.items()})
        if not all(0 <= value < 1 << 60 for value in run.values()):
            raise ValueError("it is nowhere")
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{path} does not fit the run's data and options: {str(error)[:200]}") from error


def check_moments(optimizer: torch.optim.Optimizer, state: Mapping[str, Any], name: str) -> None:
    """Refuse a state for parameters of other shapes: fused optimizers would write where they must not.

    Raises:
        ValueError: a tensor has not the shape of its parameter.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, parameter in enumerate(parameters):
        for key, value in state["state"].get(number, {}).items():
            wanted = [] if key == "step" else list(parameter.shape)
            if isinstance(value, torch.Tensor) and list(value.shape) != wanted:
                shapes = f"{list(value.shape)} for a parameter of shape {list(parameter.shape)}"
                raise ValueError(f"{name} holds {key} of shape {shapes}")


def update_ema(G_ema: torch.nn.Module, G: torch.nn.Module, decay: float) -> None:
    """Move the averaged weights towards the current ones, keeping the share `decay`; buffers are copied."""
    with torch.no_grad():
        averaged, current = list(G_ema.parameters()), list(G.parameters())
        torch._foreach_lerp_(averaged, current, 1 - decay)
        for kept, buffer in zip(G_ema.buffers(), G.buffers(), strict=True):
            kept.copy_(buffer)


def check_replicas(networks: Mapping[str, torch.nn.Module], images_seen: int) -> None:
    """Compare the networks of all processes; `w_avg` follows each one's own latents.

    Raises:
        UserError: they have drifted apart.
    """
    tensors = {f"{key}.{n}": t for key, network in networks.items() for n, t in network.state_dict().items()}
    found = distributed.find_difference({n: t for n, t in tensors.items() if not n.endswith("w_avg")})
    if found is not None:
        raise UserError(
            f"At {images_seen / 1000:g} kimg {found[0]} of process {found[1]} differs from that of process 0: the "
            f"processes have drifted apart. Go on from the last state with --resume=latest, and check the devices."
        )


def _is_due(tick: int, interval: int | None) -> bool:
    """Whether the snapshot after `tick` ticks is due."""
    return interval is not None and tick % interval == 0
