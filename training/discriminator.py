"""StyleGAN2's discriminator (Karras et al. 2020). `training.networks` exports it under its published name."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from dnnlib import UserError
from torch_utils.ops import upfirdn2d
from torch_utils.persistence import persistent_class
from training.blocks import in_half, known_architecture, resolutions_to, working_format
from training.growing import new_sizes, passing_state
from training.layers import LOW_PASS, Conv2dLayer, FullyConnectedLayer, MinibatchStdLayer
from training.mapping import MappingNetwork


@persistent_class
class DiscriminatorBlock(nn.Module):
    """All layers of one resolution, which halve it: [N, in, R, R] -> [N, out, R/2, R/2].

    Args:
        in_channels: number of input channels. 0 for the first block, which reads the image.
        tmp_channels: number of channels before the reduction.
        out_channels: number of channels after the reduction.
        resolution: side R of the input.
        img_channels: number of colours.
        first_layer_idx: number of layers in the blocks before this one.
        architecture: 'orig', 'skip' or 'resnet' (Karras et al. 2020, figure 7).
        activation: a name from `bias_act.activation_funcs`.
        resample_filter: low-pass taps.
        conv_clamp: bound on magnitudes, or None.
        use_fp16: compute in half precision on a GPU.
        fp16_channels_last: use the channels-last memory format with half precision.
        half_dtype: 'float16' or 'bfloat16'.
        freeze_layers: this many first layers of the discriminator are not trained (Freeze-D).

    Attributes:
        num_layers: number of layers in this block.
    """

    def __init__(
        self,
        in_channels: int,
        tmp_channels: int,
        out_channels: int,
        resolution: int,
        img_channels: int,
        first_layer_idx: int,
        architecture: str = "resnet",
        activation: str = "lrelu",
        resample_filter: Sequence[float] = LOW_PASS,
        conv_clamp: float | None = None,
        use_fp16: bool = False,
        fp16_channels_last: bool = False,
        half_dtype: str = "float16",
        freeze_layers: int = 0,
    ):
        super().__init__()
        self.in_channels = in_channels
        self.resolution = resolution
        self.img_channels = img_channels
        self.first_layer_idx = first_layer_idx
        self.architecture = known_architecture(architecture)
        self.use_fp16 = use_fp16
        self.channels_last = use_fp16 and fp16_channels_last
        self.half_dtype = half_dtype
        self.num_layers = 0
        self.register_buffer("resample_filter", upfirdn2d.setup_filter(list(resample_filter)))

        def layer(inputs: int, outputs: int, kernel_size: int, **kwargs: Any) -> Conv2dLayer:
            trainable = first_layer_idx + self.num_layers >= freeze_layers
            self.num_layers += 1
            shared = dict(resample_filter=resample_filter, channels_last=self.channels_last, trainable=trainable)
            return Conv2dLayer(inputs, outputs, kernel_size, **shared, **kwargs)

        full = dict(activation=activation, conv_clamp=conv_clamp)
        if in_channels == 0 or architecture == "skip":
            self.fromrgb = layer(img_channels, tmp_channels, 1, **full)
        self.conv0 = layer(tmp_channels, tmp_channels, 3, **full)
        self.conv1 = layer(tmp_channels, out_channels, 3, down=2, **full)
        if architecture == "resnet":
            self.skip = layer(tmp_channels, out_channels, 1, bias=False, down=2)

    def forward(
        self, x: torch.Tensor | None, img: torch.Tensor | None, force_fp32: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Reduce features and image to half the resolution.

        Args:
            x: features [N, in_channels, R, R], or None for the first block.
            img: image [N, img_channels, R, R]. Read by the first block and, with 'skip', by all blocks.
            force_fp32: compute in float32.

        Returns:
            Features [N, out_channels, R/2, R/2], and with 'skip' the image at half its size, else None.
        """
        if x is not None:
            x = working_format(self, x, force_fp32)
        if self.in_channels == 0 or self.architecture == "skip":
            colours = self.fromrgb(working_format(self, img, force_fp32))
            x = colours if x is None else x + colours
            img = upfirdn2d.downsample2d(img, self.resample_filter) if self.architecture == "skip" else None
        if self.architecture == "resnet":
            half = math.sqrt(0.5)
            return self.skip(x, gain=half) + self.conv1(self.conv0(x), gain=half), img
        return self.conv1(self.conv0(x)), img

    def extra_repr(self) -> str:
        return f"{self.resolution}x{self.resolution}, {self.architecture}"


@persistent_class
class DiscriminatorEpilogue(nn.Module):
    """Maps 4x4 features to logits: minibatch deviation, convolution, two fully connected layers.

    Args:
        in_channels: number of input channels.
        cmap_dim: size of the mapped label onto which the logits are projected. 0 without labels.
        resolution: side of the features, 4.
        img_channels: number of colours.
        architecture: 'orig', 'skip' or 'resnet'.
        mbstd_group_size: see `MinibatchStdLayer`.
        mbstd_num_channels: see `MinibatchStdLayer`. 0 omits the layer.
        activation: a name from `bias_act.activation_funcs`.
        conv_clamp: bound on magnitudes, or None.
    """

    def __init__(
        self,
        in_channels: int,
        cmap_dim: int,
        resolution: int,
        img_channels: int,
        architecture: str = "resnet",
        mbstd_group_size: int | None = 4,
        mbstd_num_channels: int = 1,
        activation: str = "lrelu",
        conv_clamp: float | None = None,
    ):
        super().__init__()
        self.in_channels = in_channels
        self.cmap_dim = cmap_dim
        self.resolution = resolution
        self.img_channels = img_channels
        self.architecture = known_architecture(architecture)
        if architecture == "skip":
            self.fromrgb = Conv2dLayer(img_channels, in_channels, kernel_size=1, activation=activation)
        if mbstd_num_channels > 0:
            self.mbstd = MinibatchStdLayer(group_size=mbstd_group_size, num_channels=mbstd_num_channels)
        else:
            self.mbstd = None
        self.conv = Conv2dLayer(
            in_channels + mbstd_num_channels, in_channels, kernel_size=3, activation=activation, conv_clamp=conv_clamp
        )
        self.conv.later_inputs = mbstd_num_channels
        self.fc = FullyConnectedLayer(in_channels * resolution**2, in_channels, activation=activation)
        self.out = FullyConnectedLayer(in_channels, cmap_dim or 1)
        self.fc.later_inputs = self.out.later_inputs = 0  # see training.widening

    def forward(
        self,
        x: torch.Tensor,
        img: torch.Tensor | None = None,
        cmap: torch.Tensor | None = None,
        force_fp32: bool = False,
    ) -> torch.Tensor:
        """Map features [N, in_channels, 4, 4] (with 'skip' also the 4x4 image) and the mapped label to logits [N, 1].

        Always computes in float32, regardless of `force_fp32`.
        """
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(torch.float32, memory_format=torch.contiguous_format)
            if self.architecture == "skip":
                x = x + self.fromrgb(img.float())
            if self.mbstd is not None:
                x = self.mbstd(x)
            x = self.out(self.fc(self.conv(x).flatten(1)))
            if self.cmap_dim:
                # Projection discriminator (Miyato and Koyama 2018), scaled to preserve the variance.
                x = (x * cmap.float()).sum(dim=1, keepdim=True) / math.sqrt(self.cmap_dim)
        return x

    def extra_repr(self) -> str:
        return f"{self.resolution}x{self.resolution}, {self.architecture}, cmap_dim={self.cmap_dim}"


@persistent_class
class Discriminator(nn.Module):
    """StyleGAN2's discriminator: images [N, img_channels, R, R] and c [N, c_dim] -> logits [N, 1].

    Args:
        c_dim: size of the label. 0 without labels.
        img_resolution: side R, a power of two from 8 up.
        img_channels: number of colours.
        architecture: 'orig', 'skip' or 'resnet' (Karras et al. 2020, figure 7).
        channel_base: a block at resolution r has channel_base / r channels, at most channel_max.
        channel_max: largest number of channels.
        num_fp16_res: number of the largest resolutions that compute in half precision.
        conv_clamp: bound on magnitudes, or None.
        cmap_dim: size of the mapped label. None for the number of channels at 4x4.
        block_kwargs: further arguments of `DiscriminatorBlock`.
        mapping_kwargs: further arguments of `MappingNetwork`.
        epilogue_kwargs: further arguments of `DiscriminatorEpilogue`.
    """

    def __init__(
        self,
        c_dim: int,
        img_resolution: int,
        img_channels: int,
        architecture: str = "resnet",
        channel_base: int = 32768,
        channel_max: int = 512,
        num_fp16_res: int = 0,
        conv_clamp: float | None = None,
        cmap_dim: int | None = None,
        block_kwargs: Mapping[str, Any] | None = None,
        mapping_kwargs: Mapping[str, Any] | None = None,
        epilogue_kwargs: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        self.c_dim = c_dim
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.block_resolutions = resolutions_to(img_resolution, smallest=8)[:0:-1]
        channels = {r: min(channel_base // r, channel_max) for r in [*self.block_resolutions, 4]}
        if c_dim == 0:
            cmap_dim = 0
        elif cmap_dim is None:
            cmap_dim = channels[4]
        common = dict(img_channels=img_channels, architecture=architecture, conv_clamp=conv_clamp)
        num_layers = 0
        for resolution in self.block_resolutions:
            block = DiscriminatorBlock(
                channels[resolution] if num_layers else 0,
                channels[resolution],
                channels[resolution // 2],
                resolution=resolution,
                first_layer_idx=num_layers,
                use_fp16=in_half(resolution, img_resolution, num_fp16_res),
                **common,
                **(block_kwargs or {}),
            )
            setattr(self, f"b{resolution}", block)
            num_layers += block.num_layers
        if c_dim > 0:
            self.mapping = MappingNetwork(0, c_dim, cmap_dim, num_ws=None, w_avg_beta=None, **(mapping_kwargs or {}))
        self.b4 = DiscriminatorEpilogue(
            channels[4], cmap_dim=cmap_dim, resolution=4, **common, **(epilogue_kwargs or {})
        )

    def forward(self, img: torch.Tensor, c: torch.Tensor | None = None, **block_kwargs: Any) -> torch.Tensor:
        """Compute the logits of images.

        Args:
            img: [N, img_channels, R, R] in [-1, 1].
            c: labels [N, c_dim], or None if c_dim is 0.
            block_kwargs: force_fp32.

        Returns:
            float32 [N, 1], large for images that look real.

        Raises:
            UserError: the images or labels have another shape.
        """
        expected = (self.img_channels, self.img_resolution, self.img_resolution)
        if img.ndim != 4 or tuple(img.shape[1:]) != expected:
            raise UserError(
                f"This network expects images of shape [N, {', '.join(map(str, expected))}], but got {list(img.shape)}."
            )
        x = None
        for resolution in self.block_resolutions:
            x, img = getattr(self, f"b{resolution}")(x, img, **block_kwargs)
        cmap = self.mapping(None, c) if self.c_dim > 0 else None
        return self.b4(x, img, cmap)

    def grown_state(self, source: "Discriminator") -> dict[str, torch.Tensor]:
        """Returns the state of a discriminator of smaller images for this one. At first it halves its images."""
        sizes = reversed(new_sizes(source.img_resolution, self.img_resolution))
        blocks = {f"b{resolution}": getattr(self, f"b{resolution}") for resolution in sizes}
        reader = getattr(source, f"b{source.img_resolution}").fromrgb
        return source.state_dict() | passing_state(blocks, reader)

    def extra_repr(self) -> str:
        return f"c_dim={self.c_dim}, img_resolution={self.img_resolution}, img_channels={self.img_channels}"
