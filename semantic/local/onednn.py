"""The products of the local generators on a CPU with oneDNN, pixels first.

Maps are stored as [pixels, channels]. While a result is still in registers, oneDNN adds the bias and applies the leaky
ReLU. Its products of narrow matrices are up to twice as fast as PyTorch's batched products. The fused features are
channels-last maps, which suits the following convolutions.
"""

import itertools
from collections.abc import Callable, Iterator

import torch

from semantic.local import plain
from semantic.local.plain import LRELU_SLOPE

# With fewer pixels, one call per layer, region and sample costs more than it saves.
_MIN_PIXELS = 256
# Number of pixels whose maps are stacked at once for the fusion: 55 MB at 13 regions of 64 channels.
_STACKED_PIXELS = 2**14
# Number of pixels per product for the gradient of the fusion's weights. The operands then stay in the cache.
_SUMMED_PIXELS = 2**12


def _find_operator() -> Callable[..., torch.Tensor] | None:
    """Returns oneDNN's product with an activation, made for PyTorch's compiler. None if it is missing or slow.

    On processors other than x86, oneDNN may use slow reference code for such a product.
    """
    operator = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if operator is None or not torch.backends.mkldnn.is_available():
        return None
    fast = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    return operator if fast and len(operator.default._schema.arguments) == 6 else None


_linear_pointwise = _find_operator()


def fits(weights: torch.Tensor, maps: torch.Tensor) -> bool:
    """Whether to use oneDNN for products of these weights with maps [..., P], both on the CPU."""
    return (
        not torch.compiler.is_compiling()  # other compilers and formats lack the operator
        and _linear_pointwise is not None
        and weights.dtype == maps.dtype == torch.float32
        and maps.shape[-1] >= _MIN_PIXELS
    )


def _linear(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, lrelu: bool = False
) -> torch.Tensor:
    """Returns x W^T + b, optionally with leaky ReLU: x [P, I], weight [O, I] -> [P, O]. The bias must be dense."""
    kind, slope = ("leaky_relu", [LRELU_SLOPE]) if lrelu else ("none", [])
    return _linear_pointwise(x, weight, bias, kind, slope, "")


class Layers(torch.autograd.Function):
    """`ops.run_layers`: every region of every sample passes through all layers while its maps are in the cache."""

    @staticmethod
    def forward(ctx, inputs, weights, biases, depth_weight, depth_bias, depth_layers, detach_texture):
        L, N, K, C, _ = weights.shape
        P = inputs.shape[-1]
        keep = any(ctx.needs_input_grad)
        rows = inputs.transpose(-1, -2).contiguous()
        hidden = inputs.new_empty(N, K, P, C)
        depth = inputs.new_empty(N, K, P)
        matrices, columns = weights.flatten(0, 2).unbind(), biases.flatten(0, 1).contiguous().unbind()
        saved = []
        for n, k in itertools.product(range(N), range(K)):
            x = _first(rows, n, k)
            for layer in range(L):
                x = _linear(x, matrices[(layer * N + n) * K + k], columns[layer * K + k], lrelu=True)
                if layer == depth_layers - 1:
                    torch.mv(x, depth_weight[k], out=depth[n, k])
                if keep and layer < L - 1:
                    saved.append(x)
            hidden[n, k] = x
        depth += depth_bias.unsqueeze(1)
        if keep:
            ctx.save_for_backward(inputs, weights, biases, depth_weight, depth_bias, hidden, *saved)
            ctx.options = depth_layers, detach_texture
        return hidden.transpose(2, 3), depth

    @staticmethod
    @plain.second_derivatives_of(plain.plain_layers)
    def backward(ctx, grad_hidden, grad_depth):
        inputs, weights, biases, depth_weight, _, hidden, *saved = ctx.saved_tensors
        depth_layers, detach_texture = ctx.options
        L, N, K, _, _ = weights.shape
        rows = inputs.transpose(-1, -2).contiguous()
        grad_hidden, grad_depth = grad_hidden.transpose(2, 3).contiguous(), grad_depth.contiguous()
        grad_rows, grad_weights, grad_biases, grad_depth_weight = plain.layer_gradients(
            rows, weights, biases, depth_weight, ctx.needs_input_grad
        )
        matrices = weights.flatten(0, 2).transpose(1, 2).unbind()
        saved = iter(saved)
        for n, k in itertools.product(range(N), range(K)):
            maps = [_first(rows, n, k), *itertools.islice(saved, L - 1), hidden[n, k]]
            of_depth = grad_depth[n, k]
            grad = grad_hidden[n, k]
            for layer in reversed(range(L)):
                x, y = maps[layer], maps[layer + 1]
                if layer == depth_layers - 1:
                    grad_depth_weight[k].addmv_(y.t(), of_depth)
                    if detach_texture and layer < L - 1:
                        grad = torch.outer(of_depth, depth_weight[k])
                    else:
                        grad = torch.addr(grad, of_depth, depth_weight[k])
                # The result has the sign of its argument.
                grad = torch.ops.aten.leaky_relu_backward(grad, y, LRELU_SLOPE, True)
                grad_biases[layer, k] += grad.sum(dim=0)
                if grad_weights is not None:
                    torch.mm(grad.t(), x, out=grad_weights[layer, n, k])
                if layer > 0 or grad_rows is not None:
                    grad = _linear(grad, matrices[(layer * N + n) * K + k])
            if grad_rows is not None:
                _first(grad_rows, n, k).add_(grad)
        grad_inputs = None if grad_rows is None else grad_rows.transpose(-1, -2)
        grad_depth_bias = grad_depth.sum(dim=(0, 2))
        return grad_inputs, grad_weights, grad_biases, grad_depth_weight, grad_depth_bias, None, None


def _first(rows: torch.Tensor, n: int, k: int) -> torch.Tensor:
    """Returns the input map of region k of sample n, from [P, C] for all, [K, P, C] or [N, K, P, C]."""
    if rows.ndim == 2:
        return rows
    return rows[k] if rows.ndim == 3 else rows[n, k]


class Fusion(torch.autograd.Function):
    """`ops.fuse`: weighted maps and shares of a pixel are stored side by side, so one product adds the bias too."""

    @staticmethod
    def forward(ctx, hidden, shares, weight, bias):
        matrix = plain.fusion_matrix(weight, bias)
        parts = []
        for h, a in _parts(hidden, shares):
            parts.append(_linear(_stack(h, a).flatten(0, 1), matrix).unflatten(0, (len(h), hidden.shape[3])))
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(hidden, shares, weight, bias)
            ctx.options = ()
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).transpose(1, 2)

    @staticmethod
    @plain.second_derivatives_of(plain.plain_fuse)
    def backward(ctx, grad):
        hidden, shares, weight, bias = ctx.saved_tensors
        N, K, C, P = hidden.shape
        matrix = plain.fusion_matrix(weight, bias)
        grad_matrix = torch.zeros_like(matrix)
        grad_hidden = hidden.new_empty(N, K, P, C)
        grad_shares = torch.empty_like(shares)
        parts = _parts(hidden, shares, grad, grad_hidden.transpose(2, 3), grad_shares)
        for h, a, part, into_hidden, into_shares in parts:
            rows = part.transpose(1, 2).contiguous().flatten(0, 1)
            stacked = _stack(h, a).flatten(0, 1)
            for g, x in zip(rows.split(_SUMMED_PIXELS), stacked.split(_SUMMED_PIXELS), strict=True):
                grad_matrix += _linear(g.t(), x.t())
            del stacked
            found = _linear(rows, matrix.t()).unflatten(0, (len(h), P))
            of_maps = found[..., : K * C].unflatten(2, (K, C)).permute(0, 2, 3, 1)
            torch.mul(of_maps, a.unsqueeze(2), out=into_hidden)
            torch.sum(of_maps.mul_(h), dim=2, out=into_shares)
            into_shares += found[..., K * C :].transpose(1, 2)
        return grad_hidden.transpose(2, 3), grad_shares, *plain.split_fusion_matrix(grad_matrix, K)


def _parts(hidden: torch.Tensor, *others: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yields a few samples of all tensors at a time."""
    return zip(*(t.split(max(1, _STACKED_PIXELS // hidden.shape[3])) for t in (hidden, *others)), strict=True)


def _stack(hidden: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Returns [a_0 h_0, .. a_K-1 h_K-1, a_0, .. a_K-1] of every pixel: [N, K, C, P], [N, K, P] -> [N, P, K·C + K]."""
    N, K, C, P = hidden.shape
    stacked = hidden.new_empty(N, P, K * C + K)
    torch.mul(hidden, shares.unsqueeze(2), out=stacked[..., : K * C].unflatten(2, (K, C)).permute(0, 2, 3, 1))
    stacked[..., K * C :] = shares.transpose(1, 2)
    return stacked
