"""Tests whether the Triton kernels of the local generators compute the results of the plain forms on this device."""

from pathlib import Path

import torch

from semantic.local import plain, triton_fusion, triton_layers
from torch_utils.ops import proof

proof.add_sources(Path(__file__).resolve().parent)

_SAMPLES, _REGIONS, _PIXELS, _FEATURES = 2, 2, 80, 24


def layers_hold(
    inputs: torch.Tensor,
    weights: torch.Tensor,
    biases: torch.Tensor,
    depth_weight: torch.Tensor,
    depth_bias: torch.Tensor,
    depth_layers: int,
    detach_texture: bool,
) -> bool:
    """Whether the kernels of the layers are correct for such arguments, see `semantic.local.ops.run_layers`."""
    layers, channels = weights.shape[0], weights.shape[-1]
    precision = triton_layers.Precision.present(weights)
    sizes = {2: (), 3: (_REGIONS,), 4: (_SAMPLES, _REGIONS)}[inputs.ndim]
    options = depth_layers, detach_texture
    traits = f"{channels} channels, {layers} layers, depth after {depth_layers}, inputs of {inputs.ndim} dimensions"
    traits += ", texture cut" if detach_texture else ""

    def draw(generator: torch.Generator) -> list[torch.Tensor]:
        shapes = [(*sizes, channels, _PIXELS), (layers, _SAMPLES, _REGIONS, channels, channels)]
        shapes += [(layers, _REGIONS, channels), (_REGIONS, channels), (_REGIONS,)]
        drawn = [torch.randn(shape, generator=generator) for shape in shapes]
        drawn[1] *= (2 / channels) ** 0.5
        given = inputs, weights, biases, depth_weight, depth_bias
        return [d.to(like.dtype) for d, like in zip(drawn, given, strict=True)]

    def ask() -> bool:
        return proof.holds(
            f"Local layers ({traits}, {_precision(precision)})",
            weights.device,
            kernel=lambda *tensors: triton_layers.run_layers(*tensors, *options),
            plain=lambda *tensors: plain.plain_layers(*tensors, *options),
            inputs=draw,
            tolerance=_tolerance(precision),
        )

    return proof.answer(("layers", traits, precision), weights.device, ask)


def fusion_holds(hidden: torch.Tensor, shares: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> bool:
    """Whether the kernels of the fusion are correct for such arguments, see `semantic.local.ops.fuse`."""
    channels = hidden.shape[2]
    precision = triton_layers.Precision.present(weight)

    def draw(generator: torch.Generator) -> list[torch.Tensor]:
        shapes = [(_SAMPLES, _REGIONS, channels, _PIXELS), (_SAMPLES, _REGIONS, _PIXELS)]
        shapes += [(_REGIONS, _FEATURES, channels), (_REGIONS, _FEATURES)]
        drawn = [torch.randn(shape, generator=generator) for shape in shapes]
        drawn[2] /= channels**0.5
        return [d.to(like.dtype) for d, like in zip(drawn, (hidden, shares, weight, bias), strict=True)]

    def ask() -> bool:
        return proof.holds(
            f"Fusion ({channels} channels, {_precision(precision)})",
            weight.device,
            kernel=lambda *tensors: triton_fusion.fuse(*tensors),
            plain=plain.plain_fuse,
            inputs=draw,
            tolerance=_tolerance(precision),
        )

    return proof.answer(("fusion", channels, precision), weight.device, ask)


def _precision(precision: triton_layers.Precision) -> str:
    kind = f" as {precision.products}" if precision.dtype == torch.float32 else ""
    return f"{proof.dtype_name(precision.dtype)}{kind}{' by autocast' if precision.autocast else ''}"


def _tolerance(precision: triton_layers.Precision) -> float:
    tf32 = precision.dtype == torch.float32 and precision.products == "tf32"
    return proof.TF32_TOLERANCE if tf32 else proof.TOLERANCES[precision.dtype]
