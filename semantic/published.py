"""Reads published SemanticStyleGAN checkpoints: builds networks from their arguments, and copies their tensors."""

import argparse
import copy
import re
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import torch

from dnnlib import EasyDict, UserError
from semantic.discriminator import DualBranchDiscriminator
from semantic.generator import Generator
from semantic.regions import CELEBAMASK, Regions
from torch_utils.network_files import machine, rebuild

W_AVG_SAMPLES = 10_000
W_AVG_SEED = 0
W_AVG_BATCH = 500

_IGNORED = re.compile(r"(\.kernel|\.noises\.noise_\d+)$")


def load(file: BinaryIO, name: str = "the checkpoint") -> EasyDict:
    """Read a published `.pt`. Executes nothing from the file.

    Args:
        file: file object, open for binary reading.
        name: name of the file in messages.

    Returns:
        G, D (or None), G_ema, augment_pipe and training_set_kwargs. The last two are None: such files lack them.

    Raises:
        UserError: the file is not such a checkpoint, or its tensors do not fit its arguments.
    """
    data = machine.load_torch(file, name)
    known = isinstance(data, Mapping) and isinstance(data.get("args"), (argparse.Namespace, Mapping))
    if not known or "g_ema" not in data:
        raise UserError(f"{name} is not a SemanticStyleGAN checkpoint: it has no 'g_ema' and 'args'.")
    args = vars(data["args"]) if isinstance(data["args"], argparse.Namespace) else dict(data["args"])
    G_ema = _generator(args, data["g_ema"], name)
    G = _generator(args, data["g"], name) if data.get("g") else _generator(args, data["g_ema"], name)
    D = _discriminator(args, data["d"], name) if data.get("d") else None
    return EasyDict(G=G, D=D, G_ema=G_ema, augment_pipe=None, training_set_kwargs=None)


def estimate_w_avg(mapping: torch.nn.Module, num_samples: int = W_AVG_SAMPLES, seed: int = W_AVG_SEED) -> torch.Tensor:
    """Returns the mean of w over `num_samples` random z, [D], the centre of truncation for files without one."""
    mapping = copy.copy(mapping)
    mapping.num_ws = None  # one w per z: repeating w for every slot would take much memory
    latents = torch.randn(num_samples, mapping.z_dim, generator=torch.Generator().manual_seed(seed))
    total = torch.zeros(mapping.w_dim, dtype=torch.float64)
    with torch.no_grad():
        for z in latents.split(W_AVG_BATCH):
            total += mapping(z, torch.zeros(len(z), mapping.c_dim), skip_w_avg_update=True).double().sum(dim=0)
    return (total / num_samples).float()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _regions(args: Mapping[str, Any]) -> Regions:
    """Returns CelebAMask-HQ's regions if there are 13, else numbered regions. Published files have no names."""
    count, transparent = int(args["seg_dim"]), [int(k) for k in args.get("transparent_dims") or ()]
    if count == len(CELEBAMASK):
        return Regions(CELEBAMASK.names, CELEBAMASK.colors, transparent)
    return Regions(["background", *(f"region{k}" for k in range(1, count))], None, transparent)


def _channels(args: Mapping[str, Any]) -> dict[int, int]:
    """Returns the published widths: 512 channels up to 32², then 16384 · channel_multiplier / resolution."""
    octaves = range(2, int(args["size"]).bit_length())
    return {2**i: 512 if i <= 5 else int(args["channel_multiplier"]) * 16384 >> i for i in octaves}


def _generator(args: Mapping[str, Any], state: Mapping[str, torch.Tensor], name: str) -> Generator:
    """Build a generator from published arguments, and copy its published tensors."""
    try:
        options = dict(
            z_dim=int(args["latent"]),
            c_dim=0,
            w_dim=int(args["latent"]),
            img_resolution=int(args["size"]),
            img_channels=3,
            regions=_regions(args).to_dict(),
            mapping_kwargs={"num_layers": int(args["n_mlp"])},
            synthesis_kwargs={
                "coarse_size": int(args["coarse_size"]),
                "coarse_channels": int(args["coarse_channel"]),
                "local_channels": int(args["local_channel"]),
                "local_layers": int(args["local_layers"]),
                "base_layers": int(args["base_layers"]),
                "depth_layers": int(args["depth_layers"]),
                "min_feat_size": int(args["min_feat_size"]),
                "channels": _channels(args),
                "residual_refine": bool(args.get("residual_refine", False)),
                "detach_texture": bool(args.get("detach_texture", False)),
            },
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{name} has incomplete arguments: {_first_line(error)}.") from error
    G = _filled(Generator, options, _fill_generator, state, name)
    G.mapping.w_avg.copy_(estimate_w_avg(G.mapping))
    return G.eval().requires_grad_(False)


def _filled(
    cls: type[torch.nn.Module],
    options: dict[str, Any],
    fill: Callable[[torch.nn.Module, "_Taker"], None],
    state: Mapping[str, torch.Tensor],
    name: str,
) -> torch.nn.Module:
    """Returns a network of the class `cls` with the tensors of a published state.

    All shapes are compared before memory is allocated, so that arguments cannot request more memory than the file has.
    """
    options = rebuild.plain_arguments(options, name)
    take = _Taker(state, name)
    try:
        with rebuild.Blueprint(len(take.state)):
            blueprint = cls(**options)
    except RuntimeError as error:  # PyTorch raises this error for impossible sizes
        raise UserError(f"{name} has arguments that do not fit together: {_first_line(error)}.") from error
    fill(blueprint, take)
    take.finish(blueprint)
    with rebuild.Undrawn():
        network = cls(**options)
    fill(network, take)
    return network


def _fill_generator(G: torch.nn.Module, take: "_Taker") -> None:
    for i in range(G.mapping.num_layers):
        layer = getattr(G.mapping, f"fc{i}")
        take(layer.weight, f"style.{i + 1}.weight")
        take(layer.bias, f"style.{i + 1}.bias")
    _fill_local(G.synthesis.local, take)
    _fill_render(G.synthesis.render, take)


def _fill_local(local: torch.nn.Module, take: "_Taker") -> None:
    num_layers, num_regions = local.bias.shape[:2]
    take(local.position.weight, "pos_embed.weights")
    for k in range(num_regions):
        for layer in range(num_layers):
            prefix = f"local_nets.{k}.linears.{layer}"
            take(local.weight[layer, k], f"{prefix}.conv.weight")
            take(local.affine_weight[layer, k], f"{prefix}.conv.modulation.weight")
            take(local.affine_bias[layer, k], f"{prefix}.conv.modulation.bias")
            take(local.bias[layer, k], f"{prefix}.activate.bias")
        take(local.feature_weight[k], f"local_nets.{k}.to_feat.conv.weight")
        take(local.feature_gain[k], f"local_nets.{k}.to_feat.conv.modulation")
        take(local.feature_bias[k], f"local_nets.{k}.to_feat.bias")
        if k > 0:
            take(local.depth_weight[k - 1], f"local_nets.{k}.to_depth.conv.weight")
            take(local.depth_gain[k - 1], f"local_nets.{k}.to_depth.conv.modulation")
            take(local.depth_bias[k - 1], f"local_nets.{k}.to_depth.bias")


def _fill_render(render: torch.nn.Module, take: "_Taker") -> None:
    for i, resolution in enumerate(render.resolutions):
        stage = getattr(render, f"b{resolution}")
        for j, conv in enumerate([stage.up, stage.conv], start=2 * i):
            take(conv.weight, f"render_net.convs.{j}.weight")
            take(conv.gain, f"render_net.convs.{j}.modulation")
            take(conv.noise_strength, f"render_net.convs.{j}.noise.weight")
            take(conv.bias, f"render_net.convs.{j}.activate.bias")
            take(conv.noise_const, f"render_net.noises.noise_{j}")
        for head, theirs in [(stage.to_rgb, "to_rgbs"), (stage.to_seg, "to_segs")]:
            take(head.weight, f"render_net.{theirs}.{i}.conv.weight")
            take(head.gain, f"render_net.{theirs}.{i}.conv.modulation")
            take(head.bias, f"render_net.{theirs}.{i}.bias")


def _discriminator(args: Mapping[str, Any], state: Mapping[str, torch.Tensor], name: str) -> DualBranchDiscriminator:
    """Build a discriminator from published arguments, and copy its published tensors."""
    options = dict(
        c_dim=0,
        img_resolution=int(args["size"]),
        img_channels=3,
        num_regions=int(args["seg_dim"]),
        channels=_channels(args),
    )
    return _filled(DualBranchDiscriminator, options, _fill_discriminator, state, name).eval().requires_grad_(False)


def _fill_discriminator(D: torch.nn.Module, take: "_Taker") -> None:
    for branch, theirs in [(D.image, "convs_img"), (D.mask, "convs_seg")]:
        for i, resolution in enumerate(branch.resolutions):
            block = getattr(branch, f"b{resolution}")
            if i == 0:
                take(block.fromrgb.weight, f"{theirs}.0.0.weight")
                take(block.fromrgb.bias, f"{theirs}.0.1.bias")
            take(block.conv0.weight, f"{theirs}.{i + 1}.conv1.0.weight")
            take(block.conv0.bias, f"{theirs}.{i + 1}.conv1.1.bias")
            take(block.conv1.weight, f"{theirs}.{i + 1}.conv2.1.weight")
            take(block.conv1.bias, f"{theirs}.{i + 1}.conv2.2.bias")
            take(block.skip.weight, f"{theirs}.{i + 1}.skip.1.weight")
    for layer, theirs in [(D.b4.conv, "final_conv"), (D.b4.fc, "final_linear.0"), (D.b4.out, "final_linear.1")]:
        take(layer.weight, f"{theirs}.0.weight" if theirs == "final_conv" else f"{theirs}.weight")
        take(layer.bias, f"{theirs}.1.bias" if theirs == "final_conv" else f"{theirs}.bias")


class _Taker:
    """Copies tensors out of a published state by name, and records the copied names."""

    def __init__(self, state: Mapping[str, torch.Tensor], name: str):
        if not isinstance(state, Mapping):
            raise UserError(f"{name} does not hold a state dictionary of its networks.")
        self.state, self.name = state, name
        self.taken: set[str] = set()
        self.numbers = 0

    def __call__(self, target: torch.Tensor, key: str) -> None:
        """Copy entry `key` into `target`. Axes of length 1 may differ. On the meta device, only compare the shapes."""
        value = self.state.get(key)
        if not isinstance(value, torch.Tensor):
            raise UserError(f"{self.name} has no tensor {key!r}. It does not fit its own arguments.")
        if [n for n in value.shape if n != 1] != [n for n in target.shape if n != 1]:
            raise UserError(
                f"{self.name}: {key!r} has shape {list(value.shape)}, but its arguments require {list(target.shape)}."
            )
        if not target.is_meta:
            with torch.no_grad():
                target.copy_(value.reshape(target.shape))
        self.taken.add(key)
        self.numbers += target.numel()

    def finish(self, network: torch.nn.Module) -> None:
        """Check that `network` got all its learned tensors, and that no tensors of the state are left.

        Low-pass filters, which are not learned, and unused noise may be left.
        """
        extra = sorted(key for key in self.state if key not in self.taken and not _IGNORED.search(key))
        if extra:
            raise UserError(
                f"{self.name} holds {len(extra)} tensors that do not belong to its arguments, such as {extra[0]!r}."
            )
        tensors = rebuild.named_tensors(network)
        learned = dict(network.named_parameters())
        if self.numbers != sum(t.numel() for n, t in tensors.items() if n in learned or n.endswith("noise_const")):
            raise UserError(f"{self.name} has fewer tensors than its arguments require.")
