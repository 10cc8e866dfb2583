"""StyleGAN2's generator (Karras et al. 2020), and all networks of StyleGAN2 under their published names."""

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from dnnlib import UserError
from torch_utils.ops import upfirdn2d
from torch_utils.persistence import persistent_class
from training.blocks import in_half, known_architecture, resolutions_to, working_format
from training.discriminator import Discriminator, DiscriminatorBlock, DiscriminatorEpilogue
from training.growing import new_sizes, silenced
from training.layers import (
    LOW_PASS,
    Conv2dLayer,
    FullyConnectedLayer,
    MinibatchStdLayer,
    SynthesisLayer,
    ToRGBLayer,
    modulated_conv2d,
    normalize_2nd_moment,
)
from training.mapping import MappingNetwork

__all__ = [
    "Conv2dLayer",
    "Discriminator",
    "DiscriminatorBlock",
    "DiscriminatorEpilogue",
    "FullyConnectedLayer",
    "Generator",
    "MappingNetwork",
    "MinibatchStdLayer",
    "SynthesisBlock",
    "SynthesisLayer",
    "SynthesisNetwork",
    "ToRGBLayer",
    "modulated_conv2d",
    "normalize_2nd_moment",
]


@persistent_class
class SynthesisBlock(nn.Module):
    """All layers of one resolution: up-sampling convolution, convolution, and colours if the architecture has them.

    Args:
        in_channels: number of input channels. 0 for the first block, which starts from a learned constant.
        out_channels: number of output channels.
        w_dim: size of w.
        resolution: side of the output.
        img_channels: number of colours.
        is_last: whether this block outputs the final image.
        architecture: 'orig', 'skip' or 'resnet' (Karras et al. 2020, figure 7).
        resample_filter: low-pass taps.
        conv_clamp: bound on magnitudes, or None.
        use_fp16: compute in half precision on a GPU.
        fp16_channels_last: use the channels-last memory format with half precision.
        half_dtype: 'float16' or 'bfloat16'.
        fused_modconv_default: default of `fused_modconv` in `forward`: True, False, or 'inference_only' for True
            outside training.
        layer_kwargs: further arguments of `SynthesisLayer`.

    Attributes:
        num_conv, num_torgb: number of w for the convolutions and for the colours.
    """

    later_inputs = 0  # see training.widening
    fused_modconv_default: bool | str = "inference_only"  # older network files lack this option

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        img_channels: int,
        is_last: bool,
        architecture: str = "skip",
        resample_filter: Sequence[float] = LOW_PASS,
        conv_clamp: float | None = None,
        use_fp16: bool = False,
        fp16_channels_last: bool = False,
        half_dtype: str = "float16",
        fused_modconv_default: bool | str = "inference_only",
        **layer_kwargs: Any,
    ):
        super().__init__()
        self.in_channels = in_channels
        self.w_dim = w_dim
        self.resolution = resolution
        self.img_channels = img_channels
        self.is_last = is_last
        self.architecture = known_architecture(architecture)
        self.use_fp16 = use_fp16
        self.channels_last = use_fp16 and fp16_channels_last
        self.half_dtype = half_dtype
        self.fused_modconv_default = fused_modconv_default
        self.num_conv = 2 if in_channels else 1
        self.num_torgb = int(is_last or architecture == "skip")
        self.register_buffer("resample_filter", upfirdn2d.setup_filter(list(resample_filter)))
        common = dict(conv_clamp=conv_clamp, channels_last=self.channels_last)
        conv = dict(w_dim=w_dim, resolution=resolution, **common, **layer_kwargs)
        if in_channels:
            self.conv0 = SynthesisLayer(in_channels, out_channels, up=2, resample_filter=resample_filter, **conv)
            if architecture == "resnet":
                self.skip = Conv2dLayer(
                    in_channels,
                    out_channels,
                    kernel_size=1,
                    bias=False,
                    up=2,
                    resample_filter=resample_filter,
                    channels_last=self.channels_last,
                )
        else:
            self.const = nn.Parameter(torch.randn(out_channels, resolution, resolution))
        self.conv1 = SynthesisLayer(out_channels, out_channels, **conv)
        if self.num_torgb:
            self.torgb = ToRGBLayer(out_channels, img_channels, w_dim=w_dim, **common)

    def forward(
        self,
        x: torch.Tensor | None,
        img: torch.Tensor | None,
        ws: torch.Tensor,
        force_fp32: bool = False,
        fused_modconv: bool | None = None,
        update_emas: bool = False,
        **layer_kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Double the resolution of features and image.

        Args:
            x: features [N, in_channels, R/2, R/2], or None for the first block.
            img: image so far [N, img_channels, R/2, R/2], or None.
            ws: [N, num_conv + num_torgb, w_dim].
            force_fp32: compute in float32.
            fused_modconv: see `modulated_conv2d`. None uses `fused_modconv_default` of the constructor.
            update_emas: ignored; StyleGAN3's scripts pass it.
            layer_kwargs: noise_mode of `SynthesisLayer`.

        Returns:
            Features [N, out_channels, R, R] and image [N, img_channels, R, R], or None if there is no image yet.
        """
        fused = self.fused_modconv_default if fused_modconv is None else fused_modconv
        fused = not self.training if fused == "inference_only" else fused
        layer = dict(fused_modconv=fused, **layer_kwargs)
        w = iter(ws.unbind(dim=1))
        if self.in_channels:
            x = working_format(self, x, force_fp32)
            y = self.skip(x, gain=math.sqrt(0.5)) if self.architecture == "resnet" else None
            x = self.conv0(x, next(w), **layer)
        else:
            x = working_format(self, self.const.expand(len(ws), -1, -1, -1), force_fp32)
            y = None
        if y is None:
            x = self.conv1(x, next(w), **layer)
        else:
            x = y + self.conv1(x, next(w), gain=math.sqrt(0.5), **layer)
        if img is not None:
            img = upfirdn2d.upsample2d(img, self.resample_filter)
        if self.num_torgb:
            # Colours add up over the resolutions, in full precision.
            colours = self.torgb(x, next(w), fused_modconv=fused)
            colours = colours.to(torch.float32, memory_format=torch.contiguous_format)
            img = colours if img is None else img + colours
        return x, img

    def extra_repr(self) -> str:
        return f"{self.resolution}x{self.resolution}, {self.architecture}"


@persistent_class
class SynthesisNetwork(nn.Module):
    """Maps intermediate latents to images: ws [N, num_ws, w_dim] -> [N, img_channels, R, R].

    Args:
        w_dim: size of w.
        img_resolution: side R, a power of two from 4 up.
        img_channels: number of colours.
        channel_base: a block at resolution r has channel_base / r channels, at most channel_max.
        channel_max: largest number of channels.
        num_fp16_res: number of the largest resolutions that compute in half precision.
        block_kwargs: further arguments of `SynthesisBlock`.
    """

    def __init__(
        self,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        channel_base: int = 32768,
        channel_max: int = 512,
        num_fp16_res: int = 0,
        **block_kwargs: Any,
    ):
        super().__init__()
        self.w_dim = w_dim
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.block_resolutions = resolutions_to(img_resolution, smallest=4)
        self.num_ws = 0
        channels = 0
        for resolution in self.block_resolutions:
            before, channels = channels, min(channel_base // resolution, channel_max)
            block = SynthesisBlock(
                before,
                channels,
                w_dim=w_dim,
                resolution=resolution,
                img_channels=img_channels,
                is_last=resolution == img_resolution,
                use_fp16=in_half(resolution, img_resolution, num_fp16_res),
                **block_kwargs,
            )
            setattr(self, f"b{resolution}", block)
            self.num_ws += block.num_conv
        self.num_ws += 1

    def forward(self, ws: torch.Tensor, **block_kwargs: Any) -> torch.Tensor:
        """Generate images.

        Args:
            ws: [N, num_ws, w_dim], of any floating-point type.
            block_kwargs: noise_mode ('random', 'const', 'none'), force_fp32, fused_modconv, update_emas.

        Returns:
            float32 [N, img_channels, R, R]. Pictures use the range [-1, 1], values may exceed it.

        Raises:
            UserError: ws has another shape.
        """
        if ws.ndim != 3 or tuple(ws.shape[1:]) != (self.num_ws, self.w_dim):
            raise UserError(
                f"This network expects ws of shape [N, {self.num_ws}, {self.w_dim}], but got {list(ws.shape)}."
            )
        ws = ws.float()
        x = img = None
        first = 0
        for resolution in self.block_resolutions:
            block = getattr(self, f"b{resolution}")
            # The colours of a block use the same w as the first convolution of the next block.
            x, img = block(x, img, ws.narrow(1, first, block.num_conv + block.num_torgb), **block_kwargs)
            first += block.num_conv
        return img

    def extra_repr(self) -> str:
        return f"w_dim={self.w_dim}, num_ws={self.num_ws}, img_resolution={self.img_resolution}"


@persistent_class
class Generator(nn.Module):
    """StyleGAN2's generator: z [N, z_dim] and c [N, c_dim] -> images [N, img_channels, R, R].

    Args:
        z_dim: size of z.
        c_dim: size of the label. 0 without labels.
        w_dim: size of w.
        img_resolution: side R, a power of two from 4 up.
        img_channels: number of colours.
        mapping_kwargs: further arguments of `MappingNetwork`.
        synthesis_kwargs: further arguments of `SynthesisNetwork`.
    """

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        mapping_kwargs: Mapping[str, Any] | None = None,
        synthesis_kwargs: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        self.z_dim = z_dim
        self.c_dim = c_dim
        self.w_dim = w_dim
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.synthesis = SynthesisNetwork(w_dim, img_resolution, img_channels, **(synthesis_kwargs or {}))
        self.num_ws = self.synthesis.num_ws
        self.mapping = MappingNetwork(z_dim, c_dim, w_dim, self.num_ws, **(mapping_kwargs or {}))

    @classmethod
    def recorded_kwargs(cls, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Returns constructor arguments of this class from the arguments that a file records.

        NVIDIA's later code base (stylegan3) stores the options of the synthesis network beside the other options.
        """
        own = inspect.signature(cls).parameters
        flat = {name: value for name, value in kwargs.items() if name not in own}
        found = {name: value for name, value in kwargs.items() if name in own}
        return {**found, "synthesis_kwargs": {**(found.get("synthesis_kwargs") or {}), **flat}} if flat else found

    def forward(
        self,
        z: torch.Tensor,
        c: torch.Tensor | None = None,
        truncation_psi: float = 1,
        truncation_cutoff: int | None = None,
        **synthesis_kwargs: Any,
    ) -> torch.Tensor:
        """Run `mapping`, then `synthesis`. See these for the arguments."""
        ws = self.mapping(z, c, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff)
        return self.synthesis(ws, **synthesis_kwargs)

    def extra_repr(self) -> str:
        return (
            f"z_dim={self.z_dim}, c_dim={self.c_dim}, w_dim={self.w_dim}, img_resolution={self.img_resolution}, "
            f"img_channels={self.img_channels}"
        )

    def grown_state(self, source: "Generator") -> dict[str, torch.Tensor]:
        """Returns the state of a generator of smaller images for this one. New stages add no colours at first.

        Raises:
            UserError: the architecture is not 'skip', so only the last stage outputs colours.
        """
        state = source.state_dict()
        for resolution in new_sizes(source.img_resolution, self.img_resolution):
            block = getattr(self.synthesis, f"b{resolution}")
            if block.architecture != "skip":
                raise UserError(f"Only generators of architecture skip can grow, not {block.architecture}.")
            state |= silenced(block.torgb, f"synthesis.b{resolution}.torgb")
        return state

    def preview(self, z: torch.Tensor, c: torch.Tensor | None = None, **kwargs: Any) -> dict[str, torch.Tensor]:
        """Returns pictures to show during training, [N, 3, H, W] in [-1, 1], by file name suffix. '' is the image."""
        return {"": self(z, c, **kwargs)}
