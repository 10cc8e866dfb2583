"""The two large products of the local generators in differentiable PyTorch. This form defines the results.

`semantic.local.ops` chooses a faster form with the same results. A faster form has its own first derivative. If a
graph of the derivative is needed, as for path length regularization, the plain form is differentiated.
"""

import functools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

LRELU_SLOPE = 0.2


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
        # In place is safe for the derivatives. On a tensor that is not a view it needs no copy.
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
    """Returns [W_0 .. W_K-1, b_0 .. b_K-1]: [F, K·C + K]."""
    return torch.cat([weight.transpose(0, 1).flatten(1), bias.t()], dim=1)


def split_fusion_matrix(matrix: torch.Tensor, num_regions: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns weight [K, F, C] and bias [K, F] of a `fusion_matrix`, as views."""
    maps = matrix.shape[1] - num_regions
    return matrix[:, :maps].unflatten(1, (num_regions, -1)).transpose(0, 1), matrix[:, maps:].t()


def layer_gradients(
    inputs: torch.Tensor,
    weights: torch.Tensor,
    biases: torch.Tensor,
    depth_weight: torch.Tensor,
    wanted: Sequence[bool],
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor, torch.Tensor]:
    """Returns empty gradients of the arguments of `plain_layers`, for a form that computes them part by part.

    All are zero, except for `weights`, which every part overwrites. Gradients of inputs and weights are None if they
    are not in `wanted`, the `needs_input_grad` of the form.
    """
    grad_inputs = torch.zeros_like(inputs) if wanted[0] else None
    grad_weights = torch.empty_like(weights, memory_format=torch.contiguous_format) if wanted[1] else None
    return grad_inputs, grad_weights, torch.zeros_like(biases), torch.zeros_like(depth_weight)


def second_derivatives_of(plain: Callable) -> Callable:
    """Decorates a faster form's `backward`: if a graph of it is needed, the plain form is differentiated.

    The form must save its tensor arguments first, in order. `ctx.options` holds the following arguments.
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
    """Returns gradients of a plain form with their own graph.

    Args:
        plain: the plain form.
        arguments: its tensors.
        options: the following arguments.
        gradients: gradients of its results. None for a result without dependents.
        wanted: for each argument, whether its gradient is needed.
    """
    with torch.enable_grad():
        aliases = [tensor.view_as(tensor) for tensor in arguments]  # gradients stop here, even if tensors are shared
        results = plain(*aliases, *options)
        results = (results,) if isinstance(results, torch.Tensor) else results
        pairs = [(r, g) for r, g in zip(results, gradients, strict=True) if g is not None and r.requires_grad]
        chosen = [alias for alias, asked in zip(aliases, wanted, strict=True) if asked]
        results, gradients = zip(*pairs, strict=True)
        found = iter(torch.autograd.grad(results, chosen, gradients, create_graph=True, allow_unused=True))
    return [next(found) if asked else None for asked in wanted]


def operand_dtype(x: torch.Tensor) -> torch.dtype:
    """Returns the data type of products with `x`: autocast's type inside autocast, else its own."""
    autocast = torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64
    return torch.get_autocast_dtype(x.device.type) if autocast else x.dtype
