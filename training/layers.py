"""The equalized layers of the StyleGAN2 networks.

Equalized (Karras et al. 2018, section 4.1): the stored weight starts as N(0, 1). At run time it is multiplied by
1 / sqrt(fan_in). Adam then changes all layers at the same relative rate.
"""

import math
from collections.abc import Sequence

import torch
from torch import nn

from dnnlib import UserError
from torch_utils.ops import conv2d_resample, upfirdn2d
from torch_utils.ops.bias_act import activation_funcs, bias_act
from torch_utils.ops.fma import fma
from torch_utils.persistence import persistent_class

LOW_PASS = (1, 3, 3, 1)
NOISE_MODES = ("random", "const", "none")


def normalize_2nd_moment(x: torch.Tensor, dim: int = 1, eps: float = 1e-8) -> torch.Tensor:
    """Scale `x` so that the mean of its squares over `dim` is 1."""
    return x * (x.square().mean(dim, keepdim=True) + eps).rsqrt()


def fan_in_gain(weight: torch.Tensor) -> float:
    """Returns 1 / sqrt(fan_in) of a weight [out, in, ...]."""
    return 1 / math.sqrt(weight[0].numel())


@persistent_class
class FullyConnectedLayer(nn.Module):
    """Equalized linear map with bias and activation: [..., in_features] -> [..., out_features].

    Args:
        in_features: number of inputs.
        out_features: number of outputs.
        bias: whether to add a bias.
        activation: a name from `bias_act.activation_funcs`.
        lr_multiplier: factor of the learning rate of this layer.
        bias_init: initial bias.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        activation: str = "linear",
        lr_multiplier: float = 1,
        bias_init: float = 0,
    ):
        super().__init__()
        self.activation = activation
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full([out_features], float(bias_init))) if bias else None
        self.weight_gain = fan_in_gain(self.weight) * lr_multiplier
        self.bias_gain = lr_multiplier

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shape = x.shape
        weight = (self.weight * self.weight_gain).to(x.dtype)
        bias = None if self.bias is None else (self.bias * self.bias_gain).to(x.dtype)
        x = x.reshape(-1, shape[-1])
        if self.activation == "linear" and bias is not None:
            x = torch.addmm(bias, x, weight.t())
        else:
            x = bias_act(x @ weight.t(), bias, act=self.activation)
        return x.reshape(*shape[:-1], -1)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]} -> {self.weight.shape[0]}, {self.activation}"


@persistent_class
class Conv2dLayer(nn.Module):
    """Equalized convolution with low-pass resampling, bias and activation: [N, in, H, W] -> [N, out, H', W'].

    Args:
        in_channels: number of input channels.
        out_channels: number of output channels.
        kernel_size: side of the kernel, odd.
        bias: whether to add a bias.
        activation: a name from `bias_act.activation_funcs`.
        up: integer factor of enlargement.
        down: integer factor of reduction.
        resample_filter: low-pass taps used with `up` and `down`.
        conv_clamp: bound on the output's magnitude, or None.
        channels_last: keep weights in the channels-last memory format.
        trainable: False stores weight and bias as buffers, which no optimizer changes.
    """

    later_inputs = 0  # see training.widening

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        bias: bool = True,
        activation: str = "linear",
        up: int = 1,
        down: int = 1,
        resample_filter: Sequence[float] = LOW_PASS,
        conv_clamp: float | None = None,
        channels_last: bool = False,
        trainable: bool = True,
    ):
        super().__init__()
        self.activation = activation
        self.up = up
        self.down = down
        self.conv_clamp = conv_clamp
        self.register_buffer("resample_filter", upfirdn2d.setup_filter(list(resample_filter)))
        self.padding = kernel_size // 2
        self.act_gain = activation_funcs[activation].def_gain
        weight = conv_weight(out_channels, in_channels, kernel_size, channels_last)
        self.weight_gain = fan_in_gain(weight)
        values = {"weight": weight, "bias": torch.zeros(out_channels) if bias else None}
        for name, value in values.items():
            if trainable or value is None:
                self.register_parameter(name, None if value is None else nn.Parameter(value))
            else:
                self.register_buffer(name, value)

    def forward(self, x: torch.Tensor, gain: float = 1) -> torch.Tensor:
        x = conv2d_resample.conv2d_resample(
            x,
            (self.weight * self.weight_gain).to(x.dtype),
            self.resample_filter,
            up=self.up,
            down=self.down,
            padding=self.padding,
            flip_weight=self.up == 1,
        )
        return activate(x, self, gain)

    def extra_repr(self) -> str:
        out_channels, in_channels, side, _ = self.weight.shape
        return f"{in_channels} -> {out_channels}, {side}x{side}, up={self.up}, down={self.down}, {self.activation}"


def conv_weight(out_channels: int, in_channels: int, kernel_size: int, channels_last: bool) -> torch.Tensor:
    """Returns an initial convolution weight N(0, 1) [out, in, k, k]."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.randn(out_channels, in_channels, kernel_size, kernel_size).to(memory_format=layout)


def activate(x: torch.Tensor, layer: nn.Module, gain: float) -> torch.Tensor:
    """Apply bias, activation, gain and clamp of `layer`. The clamp bounds the signal before the gain."""
    clamp = None if layer.conv_clamp is None else layer.conv_clamp * gain
    return bias_act(x, layer.bias, act=layer.activation, gain=layer.act_gain * gain, clamp=clamp)


def modulated_conv2d(
    x: torch.Tensor,
    weight: torch.Tensor,
    styles: torch.Tensor,
    noise: torch.Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: int = 0,
    resample_filter: torch.Tensor | None = None,
    demodulate: bool = True,
    flip_weight: bool = True,
    fused_modconv: bool = True,
) -> torch.Tensor:
    """Convolution whose input channels are scaled per sample (Karras et al. 2020, section 2.2).

    With `demodulate` each output channel is divided by the norm of its scaled kernel (equations 1 and 3).

    Args:
        x: [N, in, H, W].
        weight: [out, in, k, k].
        styles: [N, in].
        noise: added to the result; any shape that broadcasts with it.
        up: integer factor of enlargement.
        down: integer factor of reduction.
        padding: as for a plain convolution.
        resample_filter: from `upfirdn2d.setup_filter`.
        demodulate: whether to normalise.
        flip_weight: False for convolution in the mathematical sense (mirrored kernel).
        fused_modconv: True computes one grouped convolution with one kernel per sample, which is fast for inference.
            False scales input and output instead, which needs no weight per sample and trains faster.

    Returns:
        [N, out, H', W'].
    """
    if x.dtype == torch.float16 and demodulate:
        # Demodulation cancels any scale of kernel and style. Both may shrink, to stay inside float16's range
        # (Karras et al. 2020b, appendix on mixed precision).
        weight = weight * fan_in_gain(weight) / weight.abs().amax(dim=(1, 2, 3), keepdim=True)
        styles = styles / styles.abs().amax(dim=1, keepdim=True)
    scale = None
    if demodulate:
        energy = weight.square().sum(dim=(2, 3))
        scale = (styles.square() @ energy.t() + 1e-8).rsqrt()
    resampling = dict(up=up, down=down, padding=padding, flip_weight=flip_weight)
    if fused_modconv:
        return _per_sample_kernels(x, weight, styles, scale, noise, resample_filter, resampling)
    x = x * styles.to(x.dtype)[:, :, None, None]
    x = conv2d_resample.conv2d_resample(x, weight.to(x.dtype), resample_filter, **resampling)
    if scale is None:
        return x if noise is None else x + noise.to(x.dtype)
    scale = scale.to(x.dtype)[:, :, None, None]
    return x * scale if noise is None else fma(x, scale, noise.to(x.dtype))


def _per_sample_kernels(x, weight, styles, scale, noise, resample_filter, resampling):
    n, in_channels, height, width = x.shape
    kernels = weight[None] * styles[:, None, :, None, None]
    if scale is not None:
        kernels = kernels * scale[:, :, None, None, None]
    x = x.reshape(1, n * in_channels, height, width)
    x = conv2d_resample.conv2d_resample(x, kernels.flatten(0, 1).to(x.dtype), resample_filter, groups=n, **resampling)
    x = x.reshape(n, -1, *x.shape[2:])
    return x if noise is None else x + noise.to(x.dtype)


@persistent_class
class MinibatchStdLayer(nn.Module):
    """Appends the deviation within groups of samples as constant maps (Karras et al. 2018, section 3).

    A batch is split into N / g groups of g samples. g is the largest divisor of N up to `group_size`.
    Every (N/g)-th sample belongs to the same group.

    Args:
        group_size: largest number of samples per group, or None for the whole batch.
        num_channels: number of maps. Each map summarizes its share of the channels.
    """

    def __init__(self, group_size: int | None, num_channels: int = 1):
        super().__init__()
        self.group_size = group_size
        self.num_channels = num_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [N, C, H, W] to [N, C + num_channels, H, W]."""
        n, c, h, w = x.shape
        largest = n if self.group_size is None else min(self.group_size, n)
        group = max(size for size in range(1, largest + 1) if n % size == 0)
        grouped = x.reshape(group, n // group, self.num_channels, c // self.num_channels, h, w)
        spread = (grouped.var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=(2, 3, 4))
        maps = spread.repeat(group, 1)[:, :, None, None].expand(n, self.num_channels, h, w)
        return torch.cat([x, maps], dim=1)

    def extra_repr(self) -> str:
        return f"group_size={self.group_size}, num_channels={self.num_channels}"


@persistent_class
class SynthesisLayer(nn.Module):
    """Modulated convolution with noise, bias and activation: [N, in, H, W] and w [N, w_dim] -> [N, out, R, R].

    Args:
        in_channels: number of input channels.
        out_channels: number of output channels.
        w_dim: size of w.
        resolution: side R of the output.
        kernel_size: side of the kernel, odd.
        up: integer factor of enlargement.
        use_noise: whether to add noise of learned strength.
        activation: a name from `bias_act.activation_funcs`.
        resample_filter: low-pass taps used with `up`.
        conv_clamp: bound on the output's magnitude, or None.
        channels_last: keep weights in the channels-last memory format.
    """

    later_inputs = 0  # see training.widening

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        kernel_size: int = 3,
        up: int = 1,
        use_noise: bool = True,
        activation: str = "lrelu",
        resample_filter: Sequence[float] = LOW_PASS,
        conv_clamp: float | None = None,
        channels_last: bool = False,
    ):
        super().__init__()
        self.resolution = resolution
        self.up = up
        self.use_noise = use_noise
        self.activation = activation
        self.conv_clamp = conv_clamp
        self.padding = kernel_size // 2
        self.act_gain = activation_funcs[activation].def_gain
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        self.affine.later_inputs = 0
        self.weight = nn.Parameter(conv_weight(out_channels, in_channels, kernel_size, channels_last))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("resample_filter", upfirdn2d.setup_filter(list(resample_filter)))
        if use_noise:
            self.register_buffer("noise_const", torch.randn(resolution, resolution))
            self.noise_strength = nn.Parameter(torch.zeros([]))

    def forward(
        self,
        x: torch.Tensor,
        w: torch.Tensor,
        noise_mode: str = "random",
        fused_modconv: bool = True,
        gain: float = 1,
    ) -> torch.Tensor:
        x = modulated_conv2d(
            x,
            self.weight,
            self.affine(w),
            noise=self._noise(len(x), noise_mode),
            up=self.up,
            padding=self.padding,
            resample_filter=self.resample_filter,
            flip_weight=self.up == 1,
            fused_modconv=fused_modconv,
        )
        return activate(x, self, gain)

    def _noise(self, batch: int, mode: str) -> torch.Tensor | None:
        if mode not in NOISE_MODES:
            raise UserError(f"Unknown noise mode {mode!r}. Choose one of {', '.join(NOISE_MODES)}.")
        if mode == "none" or not self.use_noise:
            return None
        if mode == "const":
            return self.noise_const * self.noise_strength
        shape = [batch, 1, self.resolution, self.resolution]
        return torch.randn(shape, device=self.noise_const.device) * self.noise_strength

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]} -> {self.weight.shape[0]}, {self.resolution}x{self.resolution}, up={self.up}"


@persistent_class
class ToRGBLayer(nn.Module):
    """Maps features to colours by a modulated convolution without demodulation: [N, in, H, W] -> [N, out, H, W]."""

    later_inputs = 0  # see training.widening

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        kernel_size: int = 1,
        conv_clamp: float | None = None,
        channels_last: bool = False,
    ):
        super().__init__()
        self.conv_clamp = conv_clamp
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        self.affine.later_inputs = 0
        self.weight = nn.Parameter(conv_weight(out_channels, in_channels, kernel_size, channels_last))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.weight_gain = fan_in_gain(self.weight)

    def forward(self, x: torch.Tensor, w: torch.Tensor, fused_modconv: bool = True) -> torch.Tensor:
        x = modulated_conv2d(
            x,
            self.weight,
            self.affine(w) * self.weight_gain,
            padding=self.weight.shape[-1] // 2,
            demodulate=False,
            fused_modconv=fused_modconv,
        )
        return bias_act(x, self.bias, clamp=self.conv_clamp)
