"""The shared network that renders fused features into image and mask (Shi et al. 2022, section 3.2)."""

import copy
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F

from dnnlib import UserError
from torch_utils.ops import bias_act, conv2d_gradfix, upfirdn2d
from training.blocks import plane_layout

DEMODULATION_EPS = 1e-8
LOW_PASS = (1, 3, 3, 1)


def channel_table(img_resolution: int, channel_base: int = 32768, channel_max: int = 512) -> dict[int, int]:
    """Returns the number of channels at each resolution from 4 up: channel_base / resolution, at most channel_max.

    The defaults are the paper's table (channel multiplier 2): 512 up to 64², 256 at 128², 128 at 256².
    """
    octaves = range(2, img_resolution.bit_length())
    return {2**i: max(1, min(channel_max, channel_base >> i)) for i in octaves}


class RenderConv(torch.nn.Module):
    """3×3 convolution with learned input gains and demodulation, then noise, bias and leaky ReLU.

    There is no style. The gain of each input channel is a parameter, and demodulation treats it like a style of
    StyleGAN2. The weight is therefore the same for all samples.

    Args:
        in_channels, out_channels: widths.
        resolution: side of the output.
        up: 1, or 2 to double the resolution by a transposed convolution followed by a low-pass.
        later_inputs: number of last input channels that do not come from the previous layer, see `training.widening`.
    """

    fixed: torch.Tensor | None = None
    """The kernel, once `fix` has computed it."""

    def __init__(self, in_channels: int, out_channels: int, resolution: int, up: int = 1, later_inputs: int = 0):
        super().__init__()
        self.up = up
        self.later_inputs = later_inputs
        self.weight = torch.nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.gain = torch.nn.Parameter(torch.ones(in_channels))
        self.bias = torch.nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = torch.nn.Parameter(torch.zeros([]))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.register_buffer("resample_filter", upfirdn2d.setup_filter(LOW_PASS), persistent=False)

    def kernel(self) -> torch.Tensor:
        """Returns the weight with gains and demodulation, [out, in, 3, 3]."""
        weight = self.weight * (self.gain / np.sqrt(self.weight[0].numel())).view(1, -1, 1, 1)
        return weight * (weight.square().sum(dim=[1, 2, 3], keepdim=True) + DEMODULATION_EPS).rsqrt()

    def fix(self, dtype: torch.dtype) -> None:
        """Compute the kernel once and drop the weight. The layer then computes in `dtype`, without training."""
        kernel = self.kernel().detach().to(dtype)
        if self.up == 2:  # a transposed convolution reads its kernel transposed
            self.fixed = kernel.transpose(0, 1).contiguous(memory_format=torch.channels_last).transpose(0, 1)
        else:
            self.fixed = kernel.contiguous(memory_format=torch.channels_last)
        self.register_parameter("weight", None)

    def forward(self, x: torch.Tensor, noise_mode: str) -> torch.Tensor:
        """Map [N, in, H, W] to [N, out, up·H, up·W]. `noise_mode` is 'random', 'const' or 'none'."""
        weight = self.kernel() if self.fixed is None else self.fixed
        if self.up == 2:
            x = conv2d_gradfix.conv_transpose2d(x, weight.transpose(0, 1).to(x.dtype), stride=2)
            x = upfirdn2d.upfirdn2d(x, self.resample_filter, padding=1, gain=4)
        else:
            x = conv2d_gradfix.conv2d(x, weight.to(x.dtype), padding=1)
        if noise_mode == "random":
            x = x.add_((torch.randn_like(x[:, :1]) * self.noise_strength).to(x.dtype))
        elif noise_mode == "const":
            x = x.add_((self.noise_const * self.noise_strength).to(x.dtype))
        return bias_act.bias_act(x, self.bias.to(x.dtype), act="lrelu")


class RenderHead(torch.nn.Module):
    """Unmodulated 1×1 convolution to image channels or mask planes, with learned input gains and a bias."""

    later_inputs = 0  # see training.widening

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(out_channels, in_channels))
        self.gain = torch.nn.Parameter(torch.ones(in_channels))
        self.bias = torch.nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [N, in, H, W] to [N, out, H, W]."""
        weight = self.weight * (self.gain / np.sqrt(self.gain.numel()))
        return conv2d_gradfix.conv2d(x, weight[:, :, None, None].to(x.dtype), self.bias.to(x.dtype))


class RenderNetwork(torch.nn.Module):
    """Doubles the resolution stage by stage from `min_feat_size` to R. Every stage adds to the image and to the mask.

    Args:
        num_regions: K.
        img_resolution: R, a power of two.
        img_channels: channels of the image.
        in_channels: F, width of the fused features.
        coarse_size: H, side of the fused features.
        min_feat_size: side to which the features are average-pooled for the first stage.
        channels: width at each resolution, see `channel_table`.
        residual_refine: the mask starts from the coarse mask, and the stages add corrections.

    Raises:
        UserError: the sizes do not fit together.
    """

    dtype = torch.float32
    """Type of the features that `forward` takes, outside of autocast."""

    def __init__(
        self,
        num_regions: int,
        img_resolution: int,
        img_channels: int,
        in_channels: int,
        coarse_size: int,
        min_feat_size: int,
        channels: Mapping[int, int],
        residual_refine: bool = True,
    ):
        super().__init__()
        sizes = (img_resolution, coarse_size, min_feat_size)
        if any(size < 1 or size & (size - 1) for size in sizes) or not (
            min_feat_size <= coarse_size <= img_resolution and min_feat_size < img_resolution
        ):
            raise UserError(
                f"Sizes must be powers of two with min_feat_size <= coarse_size <= resolution, but they are "
                f"{min_feat_size}, {coarse_size}, {img_resolution}. min_feat_size must be less than the resolution."
            )
        self.coarse_size = coarse_size
        self.min_feat_size = min_feat_size
        self.residual_refine = residual_refine
        self.register_buffer("resample_filter", upfirdn2d.setup_filter(LOW_PASS), persistent=False)
        self.resolutions = []
        width, size = in_channels, min_feat_size
        while size < img_resolution:
            fused = in_channels if size == coarse_size else 0
            size *= 2
            self.resolutions.append(size)
            stage = torch.nn.Module()
            stage.up = RenderConv(width + fused, channels[size], size, up=2, later_inputs=fused)
            stage.conv = RenderConv(channels[size], channels[size], size)
            stage.to_rgb = RenderHead(channels[size], img_channels)
            stage.to_seg = RenderHead(channels[size], num_regions)
            setattr(self, f"b{size}", stage)
            width = channels[size]

    def prepared(self, dtype: torch.dtype) -> "RenderNetwork":
        """Returns a copy for many images: kernels are computed once, and all layers but the sums compute in `dtype`."""
        found = copy.deepcopy(self)
        found.dtype = dtype
        for layer in found.modules():
            if isinstance(layer, RenderConv):
                layer.fix(dtype)
        return found

    def forward(
        self, features: torch.Tensor, coarse_mask: torch.Tensor, noise_mode: str = "random", last: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Render features to image and mask.

        Args:
            features: f, [N, F, H, H].
            coarse_mask: 2m - 1, [N, K, H, H] in [-1, 1].
            noise_mode: 'random', 'const' or 'none'.
            last: resolution of the last stage to run, for a preview. R by default.

        Returns:
            Image [N, channels, R, R] and mask [N, K, R, R], both unbounded. With `last`, of this size.
        """
        features = features.to(memory_format=plane_layout(features))
        x = F.avg_pool2d(features, features.shape[-1] // self.min_feat_size)
        image = mask = None
        for resolution in self.resolutions:
            if x.shape[-1] == self.coarse_size:
                x = torch.cat([x, features], dim=1)
            stage = getattr(self, f"b{resolution}")
            x = stage.conv(stage.up(x, noise_mode), noise_mode)
            image = self._add(image, stage.to_rgb(x))
            mask = self._add(mask, stage.to_seg(x))
            if self.residual_refine and resolution == self.coarse_size:
                mask = mask + coarse_mask
            if resolution == last:
                break
        return image.contiguous(), mask.contiguous()

    def _add(self, previous: torch.Tensor | None, new: torch.Tensor) -> torch.Tensor:
        new = new.to(torch.promote_types(new.dtype, torch.float32))
        return new if previous is None else upfirdn2d.upsample2d(previous, self.resample_filter) + new
