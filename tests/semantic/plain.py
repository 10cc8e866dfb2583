"""Definitions of what networks compute, one sample at a time: oracles for several tests."""

import math

import torch
import torch.nn.functional as F


def plain_lrelu(x):
    return torch.where(x > 0, x, 0.2 * x) * math.sqrt(2)


def plain_low_pass(x, before, after, gain=1):
    """[C, H, W] filtered by the outer product of [1, 3, 3, 1] / 8, zeros around."""
    line = torch.tensor([1, 3, 3, 1], dtype=x.dtype) / 8
    kernel = torch.outer(line, line) * gain
    padded = F.pad(x, (before, after, before, after))
    return torch.stack([F.conv2d(plane[None, None], kernel[None, None])[0, 0] for plane in padded])


def plain_conv(x, weight, bias=None, stride=1):
    """Equalized convolution of [C, H, W]; the strided one filters first. Leaky ReLU where there is a bias."""
    weight = weight / math.sqrt(weight[0].numel())
    size = weight.shape[-1]
    if stride == 2:
        margin = {3: 2, 1: 1}[size]
        x = plain_low_pass(x, margin, margin)
        x = F.conv2d(x[None], weight, stride=2)[0]
    else:
        x = F.conv2d(x[None], weight, padding=size // 2)[0]
    return x if bias is None else plain_lrelu(x + bias[:, None, None])


def plain_branch(state, name, x):
    return plain_features(state, name, x)[-1]


def plain_features(state, name, x):
    """Of one sample, after every block of a branch."""
    found = []
    resolution = x.shape[-1]
    prefix = f"{name}.b{resolution}"
    x = plain_conv(x, state[f"{prefix}.fromrgb.weight"], state[f"{prefix}.fromrgb.bias"])
    while resolution > 4:
        prefix = f"{name}.b{resolution}"
        main = plain_conv(x, state[f"{prefix}.conv0.weight"], state[f"{prefix}.conv0.bias"])
        main = plain_conv(main, state[f"{prefix}.conv1.weight"], state[f"{prefix}.conv1.bias"], stride=2)
        skip = plain_conv(x, state[f"{prefix}.skip.weight"], stride=2)
        x = (main + skip) / math.sqrt(2)
        found.append(x)
        resolution //= 2
    return found


def plain_linear(x, weight, bias, activate):
    x = F.linear(x[None], weight / math.sqrt(weight.shape[1]), bias)[0]
    return plain_lrelu(x) if activate else x


def plain_deviation(features, group_size=4):
    """Of every sample, the mean over units of the standard deviation over its group."""
    count = len(features)
    size = min(group_size, count)
    num_groups = count // size
    values = []
    for n in range(count):
        group = torch.stack([features[m] for m in range(count) if m % num_groups == n % num_groups])
        deviation = torch.sqrt(((group - group.mean(dim=0)) ** 2).mean(dim=0) + 1e-8)
        values.append(deviation.mean())
    return values


def plain_logits(state, images, masks=None):
    features = []
    for n in range(len(images)):
        x = plain_branch(state, "image", images[n])
        features.append(x if masks is None else x + plain_branch(state, "mask", masks[n]))
    logits = []
    for x, deviation in zip(features, plain_deviation(features), strict=True):
        x = torch.cat([x, deviation.expand(1, 4, 4)])
        x = plain_conv(x, state["b4.conv.weight"], state["b4.conv.bias"])
        x = plain_linear(x.flatten(), state["b4.fc.weight"], state["b4.fc.bias"], activate=True)
        logits.append(plain_linear(x, state["b4.out.weight"], state["b4.out.bias"], activate=False))
    return torch.stack(logits)
