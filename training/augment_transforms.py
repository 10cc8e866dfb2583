"""The random transforms of the augmentation pipe that are matrices: geometry on pixels, colour on RGB.

`GEOMETRY` and `COLOR` list them in the order of Karras et al. 2020, "Training GANs with Limited Data", appendix B.
A transform reads its strength from the pipe's options and draws its parameters from a `Sampler`. It returns one
homogeneous matrix per sample.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import Module


class Sampler:
    """Draws random numbers for a batch, or, for debugging, one percentile of every distribution.

    Args:
        batch: number of samples N. Each draw has shape [N, dims].
        device: device of the results.
        percentile: None draws at random. A number in (0, 1) replaces each draw by that percentile. For a normal draw,
            this is erfinv(2 percentile - 1). Every event with nonzero probability then happens.
    """

    def __init__(self, batch: int, device: torch.device, percentile: float | None = None):
        self.batch = batch
        self.device = device
        self.percentile = None if percentile is None else torch.as_tensor(float(percentile), device=device)

    @property
    def fixed(self) -> bool:
        return self.percentile is not None

    def uniform(self, dims: int = 1, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Returns uniform numbers in [low, high)."""
        unit = self.percentile.expand(self.batch, dims) if self.fixed else self._rand(dims)
        return low + (high - low) * unit

    def integer(self, count: int) -> Tensor:
        """Returns uniform integers in 0..count-1, as floats [N, 1]."""
        return (self.uniform(1) * count).floor().clamp(max=count - 1)

    def normal(self, dims: int = 1, std: float = 1.0) -> Tensor:
        """Returns normal numbers with mean 0."""
        if self.fixed:
            return torch.erfinv(2 * self.percentile - 1).expand(self.batch, dims) * std
        return torch.randn([self.batch, dims], device=self.device) * std

    def half_normal(self, std: float = 1.0) -> Tensor:
        """Returns magnitudes of normal numbers, [N, 1]."""
        return torch.erfinv(self.percentile).expand(self.batch, 1) * std if self.fixed else self.normal(1, std).abs()

    def log_normal(self, dims: int = 1, std: float = 1.0) -> Tensor:
        """Returns two to the power of normal numbers: positive, with median 1. `std` is in octaves."""
        return torch.exp2(self.normal(dims, std))

    def happens(self, probability: Tensor, dims: int = 1) -> Tensor:
        """Returns bool [N, dims], each true with `probability`, a tensor that broadcasts to that shape."""
        if self.fixed:
            return torch.ones([self.batch, dims], dtype=torch.bool, device=self.device)
        return self._rand(dims) < probability

    def _rand(self, dims: int) -> Tensor:
        return torch.rand([self.batch, dims], device=self.device)


@functools.cache
def constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Returns numbers as a float tensor, created on the device. A copy from the host would wait for the device."""
    with torch.inference_mode(False):
        return torch.stack([torch.full([], float(value), device=device) for value in values])


def identity(batch: int, dims: int, device: torch.device) -> Tensor:
    """Returns the homogeneous identity [N, dims + 1, dims + 1]."""
    return torch.eye(dims + 1, device=device).repeat(batch, 1, 1)


def translate(offset: Tensor) -> Tensor:
    """Returns the homogeneous translation [N, D+1, D+1] by offset [N, D]."""
    matrix = identity(*offset.shape, offset.device)
    matrix[:, :-1, -1] = offset
    return matrix


def stretch(factors: Tensor) -> Tensor:
    """Returns the homogeneous scaling [N, D+1, D+1] of each axis by factors [N, D]."""
    return torch.nn.functional.pad(factors, [0, 1], value=1.0).diag_embed()


def rotate2d(angle: Tensor) -> Tensor:
    """Returns the homogeneous rotation [N, 3, 3] from the first axis towards the second, by angle [N, 1] in radians."""
    matrix = identity(len(angle), 2, angle.device)
    cos, sin = angle.squeeze(1).cos(), angle.squeeze(1).sin()
    matrix[:, 0, 0], matrix[:, 0, 1] = cos, -sin
    matrix[:, 1, 0], matrix[:, 1, 1] = sin, cos
    return matrix


def along_and_across(axis: Sequence[float], along: Tensor, across: Tensor) -> Tensor:
    """Returns [N, 4, 4] that scales 3D vectors by `along` [N, 1] in direction `axis` and by `across` perpendicular."""
    onto = _projection(axis, along.device)
    return _linear(across[..., None] * (torch.eye(3, device=along.device) - onto) + along[..., None] * onto)


def rotate_about(axis: Sequence[float], angle: Tensor) -> Tensor:
    """Returns the right-handed rotation [N, 4, 4] about an axis through the origin by angle [N, 1] (Rodrigues)."""
    x, y, z = (value / math.hypot(*axis) for value in axis)
    cross = constant((0, -z, y, z, 0, -x, -y, x, 0), angle.device).view(3, 3)
    onto = _projection(axis, angle.device)
    cos, sin = angle.cos()[..., None], angle.sin()[..., None]
    return _linear(onto + cos * (torch.eye(3, device=angle.device) - onto) + sin * cross)


def _projection(axis: Sequence[float], device: torch.device) -> Tensor:
    unit = constant(tuple(value / math.hypot(*axis) for value in axis), device)
    return unit.outer(unit)


def _linear(block: Tensor) -> Tensor:
    matrix = identity(len(block), 3, block.device)
    matrix[:, :3, :3] = block
    return matrix


class Transform(NamedTuple):
    """One row of a table: the option that sets its probability, and the function that draws its matrices.

    `draw(pipe, sampler, frame)` returns [N, D+1, D+1]; frame is the image's (width, height) as a float tensor [2].
    """

    option: str
    draw: Callable[[Module, Sampler, Tensor], Tensor]


def _x_flip(pipe: Module, sampler: Sampler, frame: Tensor) -> Tensor:
    flip = sampler.integer(2)
    return stretch(torch.cat([1 - 2 * flip, torch.ones_like(flip)], dim=1))


def _quarter_turn(pipe: Module, sampler: Sampler, frame: Tensor) -> Tensor:
    return rotate2d(sampler.integer(4) * (torch.pi / 2))


def _integer_shift(pipe: Module, sampler: Sampler, frame: Tensor) -> Tensor:
    return translate(-(sampler.uniform(2, -pipe.xint_max, pipe.xint_max) * frame).round())


def _isotropic_scale(pipe: Module, sampler: Sampler, frame: Tensor) -> Tensor:
    return stretch(1 / sampler.log_normal(1, pipe.scale_std).expand(-1, 2))


def _rotation(pipe: Module, sampler: Sampler, frame: Tensor) -> Tensor:
    return rotate2d(sampler.uniform(1, -torch.pi, torch.pi) * pipe.rotate_max)


def _second_rotation(pipe: Module, sampler: Sampler, frame: Tensor) -> Tensor:
    # For a percentile, the second rotation would repeat the angle of the first, so it is omitted.
    return identity(sampler.batch, 2, sampler.device) if sampler.fixed else _rotation(pipe, sampler, frame)


def _anisotropic_scale(pipe: Module, sampler: Sampler, frame: Tensor) -> Tensor:
    factor = sampler.log_normal(1, pipe.aniso_std)
    return stretch(torch.cat([1 / factor, factor], dim=1))


def _fractional_shift(pipe: Module, sampler: Sampler, frame: Tensor) -> Tensor:
    return translate(-sampler.normal(2, pipe.xfrac_std) * frame)


# Each row draws the inverse of its transform (output pixel -> input pixel, origin at the centre). One rotation before
# and one after the anisotropic stretch randomize its direction.
GEOMETRY = (
    Transform("xflip", _x_flip),
    Transform("rotate90", _quarter_turn),
    Transform("xint", _integer_shift),
    Transform("scale", _isotropic_scale),
    Transform("rotate", _rotation),
    Transform("aniso", _anisotropic_scale),
    Transform("rotate", _second_rotation),
    Transform("xfrac", _fractional_shift),
)

LUMA = (1.0, 1.0, 1.0)  # the grey axis of RGB


def _brightness(pipe: Module, sampler: Sampler, frame: Tensor) -> Tensor:
    return translate(sampler.normal(1, pipe.brightness_std).expand(-1, 3))


def _contrast(pipe: Module, sampler: Sampler, frame: Tensor) -> Tensor:
    return stretch(sampler.log_normal(1, pipe.contrast_std).expand(-1, 3))


def _luma_flip(pipe: Module, sampler: Sampler, frame: Tensor) -> Tensor:
    flip = sampler.integer(2)
    return along_and_across(LUMA, along=1 - 2 * flip, across=torch.ones_like(flip))


def _hue(pipe: Module, sampler: Sampler, frame: Tensor) -> Tensor:
    return rotate_about(LUMA, sampler.uniform(1, -torch.pi, torch.pi) * pipe.hue_max)


def _saturation(pipe: Module, sampler: Sampler, frame: Tensor) -> Tensor:
    factor = sampler.log_normal(1, pipe.saturation_std)
    return along_and_across(LUMA, along=torch.ones_like(factor), across=factor)


COLOR = (
    Transform("brightness", _brightness),
    Transform("contrast", _contrast),
    Transform("lumaflip", _luma_flip),
    Transform("hue", _hue),
    Transform("saturation", _saturation),
)
