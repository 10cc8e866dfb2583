"""The two large products of the local generators: their layers, and the fusion of their features.

Each has a plain form in differentiable PyTorch, which defines it, and faster forms that compute the same. A faster form
has a first derivative of its own; where a graph of the derivative is asked for, as path length regularization does,
the plain form is differentiated instead.
"""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F

from torch_utils.ops import triton_support

LRELU_SLOPE = 0.2

# Widths of hidden maps, and data types of operands, that the Triton kernels take.
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
        detach_texture: gradients of the layers from p on do not reach those before.

    Returns:
        Last hidden maps [N, K, C, P] and depths [N, K, P], not to be changed in place.
    """
    tensors = _constant(inputs, weights, biases, depth_weight, depth_bias)
    arguments = (*tensors, depth_layers, detach_texture)
    form = _fastest_form(weights, inputs)
    if form == "triton":
        from semantic import local_triton

        return local_triton.run_layers(*arguments)
    if form == "onednn":
        from semantic import local_onednn

        return local_onednn.Layers.apply(*arguments)
    if form == "cpu":
        from semantic import local_cpu

        return local_cpu.Layers.apply(*arguments)
    return plain_layers(*arguments)


def fuse(hidden: torch.Tensor, shares: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """f = sum_k a_k (W_k h_k + b_k) as one product; the K maps of F channels never exist.

    Args:
        hidden: h, [N, K, C, P].
        shares: a, [N, K, P].
        weight: W, [K, F, C].
        bias: b, [K, F].

    Returns:
        [N, F, P], not to be changed in place.
    """
    hidden, shares, weight, bias = _constant(hidden, shares, weight, bias)
    form = _fastest_form(weight, hidden)
    if form == "triton":
        from semantic import fusion_triton

        return fusion_triton.fuse(hidden, shares, weight, bias)
    if form == "onednn":
        from semantic import local_onednn

        return local_onednn.Fusion.apply(hidden, shares, weight, bias)
    if form == "cpu":
        from semantic import local_cpu

        return local_cpu.Fusion.apply(hidden, shares, weight, bias)
    return plain_fuse(hidden, shares, weight, bias)


def _constant(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The tensors; cut from their graph where none is made, of which a form is not told, so that it keeps no maps."""
    return tensors if torch.is_grad_enabled() else tuple(tensor.detach() for tensor in tensors)


def operand_dtype(x: torch.Tensor) -> torch.dtype:
    """The data type of products with `x`: autocast's inside autocast, else its own."""
    autocast = torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64
    return torch.get_autocast_dtype(x.device.type) if autocast else x.dtype


def _fastest_form(weights: torch.Tensor, maps: torch.Tensor) -> str:
    """The form to use for weights [..., C] and maps [..., P] on their device: 'triton', 'onednn', 'cpu' or 'plain'.

    Triton needs its kernels' widths and data types, and a GPU with tensor cores for bfloat16 and TF32.
    """
    if triton_support.runs_on(weights):
        fits = weights.shape[-1] in _KERNEL_CHANNELS and operand_dtype(weights) in _KERNEL_DTYPES
        if fits and (not weights.is_cuda or _has_tensor_cores(weights.device)):
            return "triton"
    if weights.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return "plain"
    from semantic import local_onednn

    return "onednn" if local_onednn.fits(weights, maps) else "cpu"


def _has_tensor_cores(device: torch.device) -> bool:
    return torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)


def plain_layers(
    inputs: torch.Tensor,
    weights: torch.Tensor,
    biases: torch.Tensor,
    depth_weight: torch.Tensor,
    depth_bias: torch.Tensor,
    depth_layers: int,
    detach_texture: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`run_layers` in differentiable PyTorch."""
    _, N, K, C, _ = weights.shape
    hidden = inputs.expand(N, K, -1, -1).reshape(N * K, C, -1)
    depth = None
    for layer, (weight, bias) in enumerate(zip(weights.unbind(), biases.unbind(), strict=True), start=1):
        hidden = torch.baddbmm(bias.expand(N, K, C).reshape(N * K, C, 1), weight.flatten(0, 1), hidden)
        # In place is safe for the derivatives, and on a tensor that is no view it costs no copy.
        hidden = F.leaky_relu(hidden, LRELU_SLOPE, inplace=True)
        if layer == depth_layers:
            depth = (depth_weight.unsqueeze(1) @ hidden.unflatten(0, (N, K))).squeeze(2) + depth_bias.unsqueeze(1)
            hidden = hidden.detach() if detach_texture and layer < len(weights) else hidden
    return hidden.unflatten(0, (N, K)), depth


def plain_fuse(hidden: torch.Tensor, shares: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """`fuse` in differentiable PyTorch."""
    shares = shares.to(hidden.dtype)
    weighted = (hidden * shares.unsqueeze(2)).flatten(1, 2)
    return weight.transpose(0, 1).flatten(1) @ weighted + bias.t() @ shares


def fusion_matrix(weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """[W_0 .. W_K-1, b_0 .. b_K-1]: [F, K·C + K]."""
    return torch.cat([weight.transpose(0, 1).flatten(1), bias.t()], dim=1)


def second_derivatives_of(plain: Callable) -> Callable:
    """Decorator of a faster form's `backward`: where a graph of it is asked for, the plain form is differentiated.

    The form saves its tensors first of all, in their order; `ctx.options` is what follows them.
    """

    def decorate(backward):
        @functools.wraps(backward)
        def choose(ctx, *gradients):
            if not torch.is_grad_enabled():
                return backward(ctx, *gradients)
            count = len(ctx.needs_input_grad) - len(ctx.options)
            arguments, wanted = ctx.saved_tensors[:count], ctx.needs_input_grad[:count]
            return *differentiate_plain(plain, arguments, ctx.options, gradients, wanted), *[None] * len(ctx.options)

        return choose

    return decorate


def differentiate_plain(plain, arguments, options, gradients, wanted) -> list[torch.Tensor | None]:
    """Gradients of a plain form with a graph of their own.

    Args:
        plain: the function.
        arguments: its tensors.
        options: what follows them.
        gradients: with respect to its results; None for a result that nothing depends on.
        wanted: for each argument whether its gradient is asked for.
    """
    with torch.enable_grad():
        aliases = [tensor.view_as(tensor) for tensor in arguments]  # their gradients stop here, whatever they share
        results = plain(*aliases, *options)
        results = (results,) if isinstance(results, torch.Tensor) else results
        pairs = [(r, g) for r, g in zip(results, gradients, strict=True) if g is not None and r.requires_grad]
        chosen = [alias for alias, asked in zip(aliases, wanted, strict=True) if asked]
        results, gradients = zip(*pairs, strict=True)
        found = iter(torch.autograd.grad(results, chosen, gradients, create_graph=True, allow_unused=True))
    return [next(found) if asked else None for asked in wanted]
