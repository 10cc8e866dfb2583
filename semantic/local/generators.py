"""The K local generators, run as one batched product over regions (Shi et al. 2022, section 3.1)."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from semantic.local import ops
from semantic.regions import Regions

DEMODULATION_EPS = 1e-8
LRELU_GAIN = np.sqrt(2)


def pixel_grid(size: int) -> torch.Tensor:
    """Returns the coordinates of a square grid: float32 [2, size, size], x first, from -1 to 1, ends included."""
    axis = torch.linspace(-1, 1, size)
    grid = torch.empty(2, size, size)
    grid[0], grid[1] = axis, axis.unsqueeze(1)
    return grid


class FourierFeatures(torch.nn.Module):
    """Sine and cosine features of coordinates, mapped linearly to the width of the local generators.

    Features of (x, y): x, y themselves, then sin(f·x), sin(f·y), cos(f·x), cos(f·y) for every f = 1, 2, 4, .. R/2.
    The map is an equalized 1×1 convolution without bias, shared by all regions.

    Args:
        channels: C, the width of the output.
        img_resolution: R. It determines the number of frequencies.
        octaves: number of frequencies, lowest first. All by default. The highest frequency, f = R/2, has a period of
            three pixels on a grid of side R/2. Small networks draw lattice patterns with it.
    """

    def __init__(self, channels: int, img_resolution: int, octaves: int | None = None):
        super().__init__()
        num_octaves = img_resolution.bit_length() - 1
        self.octaves = num_octaves if octaves is None else min(octaves, num_octaves)
        self.register_buffer("frequencies", 2.0 ** torch.arange(num_octaves), persistent=False)
        self.weight = torch.nn.Parameter(torch.randn(channels, 2 + 4 * num_octaves))

    def forward(self, coords: torch.Tensor) -> torch.Tensor:
        """Returns the features of coordinates: [..., 2, H, W] -> [..., C, H·W]."""
        xy = coords.flatten(-2)
        angles = self.frequencies[: self.octaves].view(-1, 1, 1) * xy.unsqueeze(-3)
        waves = torch.cat([angles.sin(), angles.cos()], dim=-2).flatten(-3, -2)
        weight = self.weight[:, : 2 + 4 * self.octaves] / np.sqrt(self.weight.shape[1])
        return weight @ torch.cat([xy, waves], dim=-2)

    def grown_weight(self, source: "FourierFeatures") -> torch.Tensor:
        """Returns the weight that keeps the features of `source`, which has fewer frequencies. New weights are zero.

        Equalization divides by the square root of the number of features, so old weights are scaled by the ratio.
        """
        used = 2 + 4 * source.octaves
        weight = self.weight.new_zeros(source.weight.shape[0], self.weight.shape[1])
        weight[:, :used] = source.weight[:, :used] * np.sqrt(weight.shape[1] / source.weight.shape[1])
        return weight.detach()


class LocalGenerators(torch.nn.Module):
    """One small generator for each region. The region is a tensor dimension throughout.

    Every generator is a stack of L style-modulated 1×1 convolutions with demodulation, bias and leaky ReLU. A head
    after layer p-1 computes the pseudo-depth, a head after the last layer the features. The feature head is linear, so
    `fuse` applies it to the *weighted* hidden maps. K maps of F channels never exist in memory.

    Args:
        regions: the K regions. `layer_slots` sets the code of each layer.
        w_dim: D, width of the codes.
        img_resolution: R, for the Fourier features.
        channels: C, width of the hidden layers.
        out_channels: F, width of the fused features.
        num_layers: L.
        depth_layers: p, number of layers before the pseudo-depth.
        detach_texture: gradients of the texture layers do not reach the shape layers.
        octaves: see `FourierFeatures`.
    """

    def __init__(
        self,
        regions: Regions,
        w_dim: int,
        img_resolution: int,
        channels: int,
        out_channels: int,
        num_layers: int,
        depth_layers: int,
        detach_texture: bool = False,
        octaves: int | None = None,
    ):
        super().__init__()
        K, L, C = len(regions), num_layers, channels
        self.depth_layers = depth_layers
        self.detach_texture = detach_texture
        self.position = FourierFeatures(C, img_resolution, octaves)
        self.register_buffer("layer_slots", regions.layer_slots(L, depth_layers), persistent=False)
        self.affine_weight = torch.nn.Parameter(torch.randn(L, K, C, w_dim))
        self.affine_bias = torch.nn.Parameter(torch.ones(L, K, C))
        self.weight = torch.nn.Parameter(torch.randn(L, K, C, C))
        self.bias = torch.nn.Parameter(torch.zeros(L, K, C))
        self.depth_weight = torch.nn.Parameter(torch.randn(K - 1, C))
        self.depth_gain = torch.nn.Parameter(torch.ones(K - 1, C))
        self.depth_bias = torch.nn.Parameter(torch.zeros(K - 1))
        self.feature_weight = torch.nn.Parameter(torch.randn(K, out_channels, C))
        self.feature_gain = torch.nn.Parameter(torch.ones(K, C))
        self.feature_bias = torch.nn.Parameter(torch.zeros(K, out_channels))

    @property
    def num_expanded(self) -> int:
        """Number of codes of an expanded latent, K·L."""
        return self.layer_slots.numel()

    def region_axes(self) -> dict[str, int]:
        """Returns the names of the parameters that have an axis for regions, and that axis."""
        layers = dict.fromkeys(("affine_weight", "affine_bias", "weight", "bias"), 1)
        heads = ("depth_weight", "depth_gain", "depth_bias", "feature_weight", "feature_gain", "feature_bias")
        return layers | dict.fromkeys(heads, 0)

    def expand(self, ws: torch.Tensor) -> torch.Tensor:
        """Returns one code per layer and region: W+ [N, b+2K, D] -> [N, K·L, D], region-major."""
        return ws[:, self.layer_slots.flatten()]

    def forward(
        self,
        ws: torch.Tensor,
        coords: torch.Tensor,
        fixed_shapes: bool = False,
        which: Sequence[int] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run all or some of the generators.

        Args:
            ws: expanded latents [N, K·L, D].
            coords: [2, H, W] for all, [K, 2, H, W] per region, or [N, K, 2, H, W] per sample and region.
            fixed_shapes: shape layers and depths are constants. Gradients reach only texture layers.
            which: indices of the regions to run. All K by default. `coords` is then [2, H, W] or holds all K regions.

        Returns:
            Last hidden maps [N, K, C, H·W] and pseudo-depths [N, K, H·W], zero for the background.
        """
        regions = slice(None) if which is None else list(which)
        weights = self._modulated_weights(self._styles(ws, regions), regions)
        biases = self.bias[:, regions] * LRELU_GAIN
        head = F.pad(self.depth_weight * self.depth_gain / np.sqrt(self.depth_weight.shape[1]), (0, 0, 1, 0))[regions]
        head_bias = F.pad(self.depth_bias, (1, 0))[regions]  # the background's depth is zero
        coords = coords if coords.ndim == 3 else coords[..., regions, :, :, :]
        inputs, p = self.position(coords), self.depth_layers
        if not fixed_shapes:
            return ops.run_layers(inputs, weights, biases, head, head_bias, p, self.detach_texture)
        with torch.no_grad():
            hidden, depth = ops.run_layers(inputs, weights[:p], biases[:p], head, head_bias, p)
        texture_layers = len(weights) - p
        if texture_layers > 0:
            unused = (head.detach(), head_bias.detach())
            hidden, _ = ops.run_layers(hidden, weights[p:], biases[p:], *unused, texture_layers)
        return hidden, depth

    def fuse(self, hidden: torch.Tensor, region_weights: torch.Tensor) -> torch.Tensor:
        """Returns the weighted sum of the regions' feature maps, f = sum_k a_k (W_k h_k + bias_k), as one product.

        Args:
            hidden: h, [N, K, C, P].
            region_weights: a, [N, K, P].

        Returns:
            [N, F, P].
        """
        gain = self.feature_gain / np.sqrt(self.feature_gain.shape[1])
        return ops.fuse(hidden, region_weights, self.feature_weight * gain.unsqueeze(1), self.feature_bias)

    def _styles(self, ws: torch.Tensor, regions: slice | list[int] = slice(None)) -> torch.Tensor:
        """Returns the affine maps of all layers and regions as one batched product: [N, K·L, D] -> [L, N, K, C]."""
        affine_bias = self.affine_bias[:, regions]
        L, K, C = affine_bias.shape
        codes = ws.unflatten(1, (-1, L))[:, regions].permute(2, 1, 0, 3).reshape(L * K, -1, ws.shape[2])
        weight = self.affine_weight[:, regions].flatten(0, 1).transpose(1, 2)
        bias = affine_bias.reshape(L * K, 1, C)
        styles = torch.baddbmm(bias, codes, weight, alpha=1 / np.sqrt(ws.shape[2]))
        return styles.unflatten(0, (L, K)).transpose(1, 2).contiguous()  # keeps the weights of a sample contiguous

    def _modulated_weights(self, styles: torch.Tensor, regions: slice | list[int] = slice(None)) -> torch.Tensor:
        """Modulate, demodulate and scale weights by the gain of the activation: styles [L, N, K, C] -> [L, N, K, C, C].

        The leaky ReLU is positively homogeneous, so its gain is applied to the weight instead of to every pixel.
        """
        weights = (self.weight[:, regions] / np.sqrt(styles.shape[-1])).unsqueeze(1) * styles.unsqueeze(-2)
        demodulation = (weights.square().sum(dim=-1, keepdim=True) + DEMODULATION_EPS).rsqrt()
        return weights * (demodulation * LRELU_GAIN)
