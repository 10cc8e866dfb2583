"""The compositional GAN written the plain way, in float32: what `python -m tests.benchmarks` measures against.

One region after another, every map materialised, one pass for each of bias, activation and gain, filters as the text
books have them. The classes take the parameters of our networks, so both compute the same.
"""

import math

import torch
import torch.nn.functional as F

from semantic.discriminator import DualBranchDiscriminator
from semantic.generator import Generator, SynthesisNetwork, SynthesisOutput
from semantic.local.generators import LocalGenerators
from semantic.render import RenderConv, RenderHead

LOW_PASS = (1, 3, 3, 1)


def plain_bias_lrelu(x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Bias along dimension 1, leaky ReLU, gain."""
    x = x + bias.view(1, -1, *[1] * (x.ndim - 2))
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


def plain_filter(x: torch.Tensor, up: int, down: int, padding: tuple[int, int], gain: float) -> torch.Tensor:
    """Insert zeros, pad, filter with [1, 3, 3, 1], keep every `down`-th sample; the channels go into the batch."""
    count, channels, height, width = x.shape
    if up > 1:
        spaced = x.new_zeros(count, channels, height, up, width, up)
        spaced[:, :, :, 0, :, 0] = x
        x = spaced.reshape(count, channels, height * up, width * up)
    taps = torch.tensor(LOW_PASS, dtype=x.dtype, device=x.device)
    taps = taps.outer(taps) * (gain / taps.sum() ** 2)
    x = F.pad(x, (*padding, *padding))
    x = F.conv2d(x.flatten(0, 1).unsqueeze(1), taps[None, None])
    return x.unflatten(0, (count, channels)).squeeze(2)[:, :, ::down, ::down]


def plain_local(
    local: LocalGenerators, expanded: torch.Tensor, coords: torch.Tensor
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Features [N, F, P] and pseudo-depth [N, 1, P] of every region, for expanded latents [N, K·L, D]."""
    layers, regions, channels = local.bias.shape
    codes = expanded.unflatten(1, (regions, layers))
    features, depths = [], []
    for region in range(regions):
        x = local.position(coords).expand(len(expanded), -1, -1)
        for layer in range(layers):
            affine = local.affine_weight[layer, region] / math.sqrt(codes.shape[-1])
            style = F.linear(codes[:, region, layer], affine, local.affine_bias[layer, region])
            weight = local.weight[layer, region] / math.sqrt(channels) * style.unsqueeze(1)
            weight = weight / torch.sqrt(weight.square().sum(dim=2, keepdim=True) + 1e-8)
            x = plain_bias_lrelu(weight @ x, local.bias[layer, region])
            if layer == local.depth_layers - 1:
                depths.append(_plain_depth(local, x, region))
        head = local.feature_weight[region] * local.feature_gain[region] / math.sqrt(channels)
        features.append(head @ x + local.feature_bias[region].unsqueeze(1))
    return features, depths


def _plain_depth(local: LocalGenerators, x: torch.Tensor, region: int) -> torch.Tensor:
    if region == 0:
        return torch.zeros_like(x[:, :1])
    head = local.depth_weight[region - 1] * local.depth_gain[region - 1] / math.sqrt(x.shape[1])
    return head.unsqueeze(0) @ x + local.depth_bias[region - 1]


def plain_fusion(
    features: list[torch.Tensor], depths: list[torch.Tensor], transparent: tuple[int, ...] = ()
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Fused features [N, F, P], shares [N, K, P] and depths [N, K, P]."""
    depth = torch.cat(depths, dim=1)
    mask = torch.softmax(depth, dim=1)
    opaque = [region for region in range(len(features)) if region not in transparent]
    total = mask[:, opaque].sum(dim=1) + 1e-8
    weights = [mask[:, k] / total if transparent and k in opaque else mask[:, k] for k in range(len(features))]
    stacked = torch.stack(features, dim=1) * torch.stack(weights, dim=1).unsqueeze(2)
    return stacked.sum(dim=1), mask, depth


class PlainSynthesis(torch.nn.Module):
    """The synthesis network, plainly; called as ours is."""

    def __init__(self, synthesis: SynthesisNetwork):
        super().__init__()
        self.network = synthesis
        self.expand = synthesis.expand

    def forward(
        self, ws: torch.Tensor, noise_mode: str = "random", return_mask: bool = False
    ) -> torch.Tensor | SynthesisOutput:
        network = self.network
        features, depths = plain_local(network.local, self.expand(ws), network.grid)
        fused, mask, depth = plain_fusion(features, depths, network.regions.transparent)
        size = network.grid.shape[-1:] * 2
        coarse = mask.unflatten(2, size) * 2 - 1
        image, full_mask = self._render(fused.unflatten(2, size), coarse, noise_mode)
        return SynthesisOutput(image, full_mask, coarse, depth.unflatten(2, size)) if return_mask else image

    def _render(self, features, coarse, noise_mode):
        render = self.network.render
        x = F.avg_pool2d(features, features.shape[-1] // render.min_feat_size)
        image = mask = None
        for resolution in render.resolutions:
            if x.shape[-1] == render.coarse_size:
                x = torch.cat([x, features], dim=1)
            stage = getattr(render, f"b{resolution}")
            x = self._conv(stage.conv, self._conv(stage.up, x, noise_mode), noise_mode)
            image = self._add(image, stage.to_rgb, x)
            mask = self._add(mask, stage.to_seg, x)
            if render.residual_refine and resolution == render.coarse_size:
                mask = mask + coarse
        return image, mask

    @staticmethod
    def _conv(layer: RenderConv, x: torch.Tensor, noise_mode: str) -> torch.Tensor:
        weight = layer.weight / math.sqrt(layer.weight[0].numel()) * layer.gain.view(1, -1, 1, 1)
        weight = weight / torch.sqrt(weight.square().sum(dim=[1, 2, 3], keepdim=True) + 1e-8)
        if layer.up == 2:
            x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
            x = plain_filter(x, up=1, down=1, padding=(1, 1), gain=4)
        else:
            x = F.conv2d(x, weight, padding=1)
        if noise_mode == "random":
            x = x + torch.randn_like(x[:, :1]) * layer.noise_strength
        elif noise_mode == "const":
            x = x + layer.noise_const * layer.noise_strength
        return plain_bias_lrelu(x, layer.bias)

    @staticmethod
    def _add(previous: torch.Tensor | None, head: RenderHead, x: torch.Tensor) -> torch.Tensor:
        weight = head.weight / math.sqrt(head.gain.numel()) * head.gain
        new = F.conv2d(x, weight[:, :, None, None], head.bias)
        return new if previous is None else plain_filter(previous, up=2, down=1, padding=(2, 1), gain=4) + new


class PlainGenerator(torch.nn.Module):
    """The generator, plainly."""

    def __init__(self, G: Generator):
        super().__init__()
        self.z_dim, self.regions = G.z_dim, G.regions
        self.mapping = G.mapping
        self.synthesis = PlainSynthesis(G.synthesis)


class PlainDiscriminator(torch.nn.Module):
    """The dual-branch discriminator, plainly; unconditional."""

    def __init__(self, D: DualBranchDiscriminator):
        super().__init__()
        self.network = D

    def forward(self, img: torch.Tensor, c: torch.Tensor | None, mask: torch.Tensor | None = None) -> torch.Tensor:
        x = self._branch(self.network.image, img)
        if mask is not None:
            x = x + self._branch(self.network.mask, mask)
        return self.network.b4(x, None, None)

    def _branch(self, branch, x):
        for resolution in branch.resolutions:
            block = getattr(branch, f"b{resolution}")
            if block.in_channels == 0:
                x = plain_bias_lrelu(F.conv2d(x, self._weight(block.fromrgb)), block.fromrgb.bias)
            main = plain_bias_lrelu(F.conv2d(x, self._weight(block.conv0), padding=1), block.conv0.bias)
            main = plain_filter(main, up=1, down=1, padding=(2, 2), gain=1)
            main = plain_bias_lrelu(F.conv2d(main, self._weight(block.conv1), stride=2), block.conv1.bias)
            skip = plain_filter(x, up=1, down=2, padding=(1, 1), gain=1)
            x = (F.conv2d(skip, self._weight(block.skip)) + main) / math.sqrt(2)
        return x

    @staticmethod
    def _weight(layer):
        return layer.weight / math.sqrt(layer.weight[0].numel())
