"""The compositional generator written the plain way: one region after another, every map materialised, float32.

Against this `python -m tests.benchmarks` measures. It takes the parameters of our modules, so both compute the same.
"""

import math

import torch
import torch.nn.functional as F

from semantic.local import LocalGenerators


def plain_local(
    local: LocalGenerators, expanded: torch.Tensor, coords: torch.Tensor
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Features [N, F, P] and pseudo-depth [N, 1, P] of every region, for expanded latents [N, K·L, D]."""
    layers, regions, channels = local.bias.shape
    batch = len(expanded)
    codes = expanded.unflatten(1, (regions, layers))
    position = local.position(coords)
    features, depths = [], []
    for region in range(regions):
        x = position.expand(batch, -1, -1)
        for layer in range(layers):
            if layer == local.depth_layers:
                depths.append(plain_depth(local, x, region))
            style = F.linear(codes[:, region, layer], local.affine_weight[layer, region] / math.sqrt(codes.shape[-1]))
            style = style + local.affine_bias[layer, region]
            weight = local.weight[layer, region] / math.sqrt(channels) * style.unsqueeze(1)
            weight = weight / torch.sqrt(weight.square().sum(dim=2, keepdim=True) + 1e-8)
            x = weight @ x
            x = x + local.bias[layer, region].unsqueeze(1)
            x = F.leaky_relu(x, 0.2) * math.sqrt(2)
        if layers == local.depth_layers:
            depths.append(plain_depth(local, x, region))
        head = local.feature_weight[region] * local.feature_gain[region] / math.sqrt(channels)
        features.append(head @ x + local.feature_bias[region].unsqueeze(1))
    return features, depths


def plain_depth(local: LocalGenerators, x: torch.Tensor, region: int) -> torch.Tensor:
    """Pseudo-depth [N, 1, P] of one region; the background's is zero."""
    if region == 0:
        return torch.zeros_like(x[:, :1])
    head = local.depth_weight[region - 1] * local.depth_gain[region - 1] / math.sqrt(x.shape[1])
    return (
        head @ x.transpose(0, 1).flatten(1).view(x.shape[1], -1).view(1, 0, -1)
        if False
        else ((head.unsqueeze(0) @ x) + local.depth_bias[region - 1])
    )


def plain_fusion(
    features: list[torch.Tensor], depths: list[torch.Tensor], transparent: tuple[int, ...] = ()
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fused features [N, F, P] and shares [N, K, P]."""
    mask = torch.softmax(torch.cat(depths, dim=1), dim=1)
    weights = mask
    if transparent:
        opaque = [k for k in range(len(features)) if k not in transparent]
        total = mask[:, opaque].sum(dim=1, keepdim=True) + 1e-8
        weights = torch.cat(
            [mask[:, k : k + 1] / (1 if k in transparent else total) for k in range(len(features))], dim=1
        )
    stacked = torch.stack(features, dim=1)
    return (stacked * weights.unsqueeze(2)).sum(dim=1), mask
