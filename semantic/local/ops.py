"""The two large products of the local generators: their layers, and the fusion of their features.

Each has a plain form, which defines it (`semantic.local.plain`), and faster forms with the same results.
"""

import torch

from semantic.local import cpu, onednn
from semantic.local.plain import operand_dtype, plain_fuse, plain_layers
from torch_utils.ops import triton_support

# Widths of hidden maps, and data types of operands, that the Triton kernels accept.
_KERNEL_CHANNELS = (16, 32, 64, 128)
_KERNEL_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def run_layers(
    inputs: torch.Tensor,
    weights: torch.Tensor,
    biases: torch.Tensor,
    depth_weight: torch.Tensor,
    depth_bias: torch.Tensor,
    depth_layers: int,
    detach_texture: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """h <- lrelu(W h + b) for all layers, regions and samples, with a linear head after layer `depth_layers`.

    Args:
        inputs: [C, P] for all regions, [K, C, P], or [N, K, C, P].
        weights: [L, N, K, C, C].
        biases: [L, K, C].
        depth_weight: [K, C].
        depth_bias: [K].
        depth_layers: p, from 1 to L.
        detach_texture: gradients of the layers from p on do not reach the layers before p.

    Returns:
        Last hidden maps [N, K, C, P] and depths [N, K, P]. Do not change them in place.
    """
    tensors = _constant(inputs, weights, biases, depth_weight, depth_bias)
    arguments = (*tensors, depth_layers, detach_texture)
    form = _fastest_form(weights, inputs)
    if form == "triton":
        from semantic.local import triton_proof

        if triton_proof.layers_hold(*arguments):
            return triton_proof.triton_layers.run_layers(*arguments)
    if form == "onednn":
        return onednn.Layers.apply(*arguments)
    if form == "cpu":
        return cpu.Layers.apply(*arguments)
    return plain_layers(*arguments)


def fuse(hidden: torch.Tensor, shares: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Returns f = sum_k a_k (W_k h_k + b_k), computed as one product. The K maps of F channels never exist in memory.

    Args:
        hidden: h, [N, K, C, P].
        shares: a, [N, K, P].
        weight: W, [K, F, C].
        bias: b, [K, F].

    Returns:
        [N, F, P]. Do not change it in place.
    """
    hidden, shares, weight, bias = _constant(hidden, shares, weight, bias)
    form = _fastest_form(weight, hidden)
    if form == "triton":
        from semantic.local import triton_proof

        if triton_proof.fusion_holds(hidden, shares, weight, bias):
            return triton_proof.triton_fusion.fuse(hidden, shares, weight, bias)
    if form == "onednn":
        return onednn.Fusion.apply(hidden, shares, weight, bias)
    if form == "cpu":
        return cpu.Fusion.apply(hidden, shares, weight, bias)
    return plain_fuse(hidden, shares, weight, bias)


def _constant(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Returns the tensors, detached if gradients are off. A form then keeps no maps for a backward pass."""
    return tensors if torch.is_grad_enabled() else tuple(tensor.detach() for tensor in tensors)


def _fastest_form(weights: torch.Tensor, maps: torch.Tensor) -> str:
    """Returns the form for weights [..., C] and maps [..., P] on their device: 'triton', 'onednn', 'cpu' or 'plain'.

    Triton needs widths and data types that its kernels accept, and a GPU with tensor cores for bfloat16 and TF32.
    """
    if triton_support.runs_on(weights):
        fits = weights.shape[-1] in _KERNEL_CHANNELS and operand_dtype(weights) in _KERNEL_DTYPES
        if fits and (not weights.is_cuda or _has_tensor_cores(weights.device)):
            return "triton"
    if weights.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return "plain"
    return "onednn" if onednn.fits(weights, maps) else "cpu"


def _has_tensor_cores(device: torch.device) -> bool:
    return torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)
