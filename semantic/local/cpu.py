"""The products of the local generators on a CPU, channels first: batched products, all other operations in place.

Works with every data type and every build of PyTorch. `semantic.local.onednn` is faster where it runs.
"""

import itertools
from collections.abc import Iterator

import torch
import torch.nn.functional as F

from semantic.local import plain
from semantic.local.plain import LRELU_SLOPE

# Regions, and then samples, are processed together as long as one map of each stays within this many numbers. A map
# that has just been written is then still in the cache at the next read.
_CACHED_NUMBERS = 2**19


class Layers(torch.autograd.Function):
    """`ops.run_layers`: a few maps at a time pass through all layers, so that they stay in the cache.

    Bias and activation work in place on the result of the product. Without a graph, two buffers serve all layers.
    """

    @staticmethod
    def forward(ctx, inputs, weights, biases, depth_weight, depth_bias, depth_layers, detach_texture):
        L, N, K, C, _ = weights.shape
        P = inputs.shape[-1]
        keep = any(ctx.needs_input_grad)
        hidden = inputs.new_empty(N, K, C, P)
        depth = inputs.new_empty(N, K, P)
        columns = biases.unsqueeze(3)
        saved, between = [], []
        for n, k in _groups(N, K, C * P):
            x = _part(inputs, n, k)
            if keep or not between:  # one block per map: blocks of moderate size reuse memory
                between = [torch.empty(x.shape, dtype=x.dtype) for _ in range(L - 1 if keep else min(L - 1, 2))]
                saved += between if keep else []
            for layer in range(L):
                y = hidden[n, k].flatten(0, 1) if layer == L - 1 else between[layer if keep else layer % 2][: len(x)]
                torch.bmm(weights[layer, n, k].flatten(0, 1), x, out=y)
                y.unflatten(0, (-1, k.stop - k.start)).add_(columns[layer, k])
                F.leaky_relu_(y, LRELU_SLOPE)
                if layer == depth_layers - 1:
                    torch.bmm(_rows(depth_weight, n, k), y, out=depth[n, k].flatten(0, 1).unsqueeze(1))
                x = y
        depth += depth_bias.unsqueeze(1)
        if keep:
            ctx.save_for_backward(inputs, weights, biases, depth_weight, depth_bias, hidden, *saved)
            ctx.options = depth_layers, detach_texture
        return hidden, depth

    @staticmethod
    @plain.second_derivatives_of(plain.plain_layers)
    def backward(ctx, grad_hidden, grad_depth):
        inputs, weights, biases, depth_weight, _, hidden, *saved = ctx.saved_tensors
        depth_layers, detach_texture = ctx.options
        L, N, K, C, _ = weights.shape
        P = inputs.shape[-1]
        grad_hidden, grad_depth = grad_hidden.contiguous(), grad_depth.contiguous()
        grad_inputs, grad_weights, grad_biases, grad_depth_weight = plain.layer_gradients(
            inputs, weights, biases, depth_weight, ctx.needs_input_grad
        )
        saved = iter(saved)
        for n, k in _groups(N, K, C * P):
            regions = (-1, k.stop - k.start)
            maps = [_part(inputs, n, k), *itertools.islice(saved, L - 1), hidden[n, k].flatten(0, 1)]
            grad_depth_rows = grad_depth[n, k].flatten(0, 1).unsqueeze(1)
            buffers = [maps[-1].new_empty(maps[-1].shape) for _ in range(2)]
            grad = grad_hidden[n, k].flatten(0, 1)
            for layer in reversed(range(L)):
                x, y = maps[layer], maps[layer + 1]
                if layer == depth_layers - 1:
                    of_head = torch.bmm(y, grad_depth_rows.transpose(1, 2)).squeeze(2)
                    grad_depth_weight[k] += of_head.unflatten(0, regions).sum(dim=0)
                    head = _rows(depth_weight, n, k).transpose(1, 2)
                    if detach_texture and layer < L - 1:
                        grad = torch.bmm(head, grad_depth_rows, out=buffers[0])
                    elif layer == L - 1:
                        grad = torch.baddbmm(grad, head, grad_depth_rows)
                    else:
                        grad.baddbmm_(head, grad_depth_rows)
                # The result has the sign of its argument.
                torch.ops.aten.leaky_relu_backward.grad_input(grad, y, LRELU_SLOPE, True, grad_input=buffers[1])
                grad = buffers[1]
                grad_biases[layer, k] += grad.sum(dim=2).unflatten(0, regions).sum(dim=0)
                if grad_weights is not None:
                    torch.bmm(grad, x.transpose(1, 2), out=grad_weights[layer, n, k].flatten(0, 1))
                if layer > 0 or grad_inputs is not None:
                    grad = torch.bmm(weights[layer, n, k].flatten(0, 1).transpose(1, 2), grad, out=buffers[0])
            if grad_inputs is not None:
                if inputs.ndim == 2:
                    grad_inputs += grad.sum(dim=0)
                elif inputs.ndim == 3:
                    grad_inputs[k] += grad.unflatten(0, regions).sum(dim=0)
                else:
                    grad_inputs[n, k] = grad.unflatten(0, regions)
        grad_depth_bias = grad_depth.sum(dim=(0, 2))
        return grad_inputs, grad_weights, grad_biases, grad_depth_weight, grad_depth_bias, None, None


def _groups(samples: int, regions: int, numbers: int) -> Iterator[tuple[slice, slice]]:
    """Yields slices of samples and regions to process together: some regions of one sample, or several whole samples.

    `numbers` is the size of one map of a region of a sample.
    """
    count = max(1, _CACHED_NUMBERS // numbers)
    together = max(1, count // regions)
    for n in range(0, samples, together):
        for k in range(0, regions, count):
            yield slice(n, min(n + together, samples)), slice(k, min(k + count, regions))


def _part(inputs: torch.Tensor, n: slice, k: slice) -> torch.Tensor:
    """Returns the first maps of a group: [samples · regions, C, P]."""
    samples, regions = n.stop - n.start, k.stop - k.start
    if inputs.ndim == 2:
        return inputs.expand(samples * regions, -1, -1)
    part = inputs[k].expand(samples, -1, -1, -1) if inputs.ndim == 3 else inputs[n, k]
    return part.flatten(0, 1)


def _rows(weight: torch.Tensor, n: slice, k: slice) -> torch.Tensor:
    """Returns the head [K, C] of a group's regions, repeated per sample: [samples · regions, 1, C]."""
    return weight[k].expand(n.stop - n.start, -1, -1).flatten(0, 1).unsqueeze(1)


class Fusion(torch.autograd.Function):
    """`ops.fuse`, sample by sample. The shares are stacked below the weighted maps, so one product adds the bias."""

    @staticmethod
    def forward(ctx, hidden, shares, weight, bias):
        N, K, C, P = hidden.shape
        matrix = plain.fusion_matrix(weight, bias)
        stacked = hidden.new_empty(K * C + K, P)
        fused = hidden.new_empty(N, weight.shape[1], P)
        for n in range(N):
            torch.mm(matrix, _stack(hidden[n], shares[n], stacked), out=fused[n])
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(hidden, shares, weight, bias)
            ctx.options = ()
        return fused

    @staticmethod
    @plain.second_derivatives_of(plain.plain_fuse)
    def backward(ctx, grad):
        hidden, shares, weight, bias = ctx.saved_tensors
        N, K, C, P = hidden.shape
        matrix = plain.fusion_matrix(weight, bias)
        stacked = hidden.new_empty(K * C + K, P)
        grad_matrix = torch.zeros_like(matrix)
        grad_hidden = torch.empty_like(hidden)
        grad_shares = torch.empty_like(shares)
        for n in range(N):
            grad_matrix.addmm_(grad[n], _stack(hidden[n], shares[n], stacked).t())
            torch.mm(matrix.t(), grad[n], out=stacked)
            grad_weighted = stacked[: K * C].view(K, C, P)
            torch.mul(grad_weighted, shares[n].unsqueeze(1), out=grad_hidden[n])
            torch.sum(grad_weighted.mul_(hidden[n]), dim=1, out=grad_shares[n])
            grad_shares[n] += stacked[K * C :]
        return grad_hidden, grad_shares, *plain.split_fusion_matrix(grad_matrix, K)


def _stack(hidden: torch.Tensor, shares: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """Write [a_0 h_0; .. a_K-1 h_K-1; a_0; .. a_K-1] of one sample to `out` [K·C + K, P]."""
    K, C, P = hidden.shape
    torch.mul(hidden, shares.unsqueeze(1), out=out[: K * C].view(K, C, P))
    out[K * C :] = shares
    return out
