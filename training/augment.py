"""Adaptive discriminator augmentation: random transforms of images and their region masks.

Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data", appendix B.
"""

from collections.abc import Sequence
from functools import reduce
from math import ceil, inf, isinf

import numpy as np
import torch

from dnnlib import UserError
from torch_utils import persistence
from torch_utils.ops import conv2d_gradfix, grid_sample_gradfix, upfirdn2d
from training.augment_filters import mirror_pad, mirrored, octave_bands, symlet
from training.augment_transforms import COLOR, GEOMETRY, Sampler, Transform, constant

_BLIT = ("xflip", "rotate90", "xint")
_GEOM = ("scale", "rotate", "aniso", "xfrac")
_COLOR = tuple(transform.option for transform in COLOR)

# Values of `--augpipe`: name -> options of `AugmentPipe`.
augpipe_specs: dict[str, dict[str, float]] = {
    name: dict.fromkeys(options, 1)
    for name, options in {
        "blit": _BLIT,
        "geom": _GEOM,
        "color": _COLOR,
        "filter": ("imgfilter",),
        "noise": ("noise",),
        "cutout": ("cutout",),
        "bg": (*_BLIT, *_GEOM),
        "bgc": (*_BLIT, *_GEOM, *_COLOR),
        "bgcf": (*_BLIT, *_GEOM, *_COLOR, "imgfilter"),
        "bgcfn": (*_BLIT, *_GEOM, *_COLOR, "imgfilter", "noise"),
        "bgcfnc": (*_BLIT, *_GEOM, *_COLOR, "imgfilter", "noise", "cutout"),
    }.items()
}

_BAND_POWER = np.array([10, 1, 1, 1]) / 13  # expected share of each octave in a natural image's power (1/f)
_SNAP = 1024  # mask positions are rounded to 1/1024 pixel, so that shifts by whole pixels copy planes exactly


@persistence.persistent_class
class AugmentPipe(torch.nn.Module):
    """Augments images together with their masks. Applies each transform with probability `p * <its option>`.

    Options named after a transform multiply its probability: 0 turns the transform off. `*_std` and `*_max` set its
    strength.

    Args:
        xflip, rotate90, xint: pixel blitting: mirroring, quarter turns, whole-pixel shifts of up to `xint_max` of the
            image size.
        scale, aniso: isotropic and anisotropic scaling, std in octaves.
        rotate: rotation by up to `rotate_max` half turns.
        xfrac: sub-pixel shifts, std in image sizes.
        brightness, contrast, lumaflip, hue, saturation: colour. The std of contrast and saturation is in octaves.
            `hue_max` is in half turns.
        imgfilter: random gain (std in octaves) of each of four frequency bands. `imgfilter_bands` multiplies the
            probability of each band, lowest band first.
        noise: white noise with a half-normal strength of `noise_std`.
        cutout: a rectangle of `cutout_size` times the image size becomes 0.

    Buffers: `p` is the overall probability, initially 1, set by adaptive augmentation. `Hz_geom` and `Hz_fbank` are the
    low-pass filter for resampling and the four band filters.
    """

    def __init__(
        self,
        xflip: float = 0,
        rotate90: float = 0,
        xint: float = 0,
        xint_max: float = 0.125,
        scale: float = 0,
        rotate: float = 0,
        aniso: float = 0,
        xfrac: float = 0,
        scale_std: float = 0.2,
        rotate_max: float = 1,
        aniso_std: float = 0.2,
        xfrac_std: float = 0.125,
        brightness: float = 0,
        contrast: float = 0,
        lumaflip: float = 0,
        hue: float = 0,
        saturation: float = 0,
        brightness_std: float = 0.2,
        contrast_std: float = 0.5,
        hue_max: float = 1,
        saturation_std: float = 1,
        imgfilter: float = 0,
        imgfilter_bands: Sequence[float] = (1, 1, 1, 1),
        imgfilter_std: float = 1,
        noise: float = 0,
        cutout: float = 0,
        noise_std: float = 0.1,
        cutout_size: float = 0.5,
    ):
        super().__init__()
        self.xflip, self.rotate90, self.xint, self.xint_max = xflip, rotate90, xint, xint_max
        self.scale, self.rotate, self.aniso, self.xfrac = scale, rotate, aniso, xfrac
        self.scale_std, self.rotate_max, self.aniso_std, self.xfrac_std = scale_std, rotate_max, aniso_std, xfrac_std
        self.brightness, self.contrast, self.lumaflip, self.hue = brightness, contrast, lumaflip, hue
        self.brightness_std, self.contrast_std, self.hue_max = brightness_std, contrast_std, hue_max
        self.saturation, self.saturation_std = saturation, saturation_std
        self.imgfilter, self.imgfilter_bands, self.imgfilter_std = imgfilter, list(imgfilter_bands), imgfilter_std
        self.noise, self.noise_std, self.cutout, self.cutout_size = noise, noise_std, cutout, cutout_size
        self.register_buffer("p", torch.ones([]))
        self.register_buffer("Hz_geom", torch.as_tensor(symlet(6), dtype=torch.float32))
        self.register_buffer("Hz_fbank", torch.as_tensor(octave_bands(symlet(2)), dtype=torch.float32))

    def forward(
        self,
        images: torch.Tensor,
        debug_percentile: float | None = None,
        mask: torch.Tensor | None = None,
        mirrored_planes: Sequence[int] | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Transform a batch. Twice differentiable with respect to images and mask.

        Geometric transforms and cutout act on images and mask alike. Colour, filter and noise act on images only. The
        mask uses no random numbers of its own, so a mask does not change the resulting images.

        Args:
            images: float [N, C, H, W] with dynamic range [-1, 1]. Colour transforms need C = 1 or 3.
            debug_percentile: a number in (0, 1). Every random draw becomes this percentile of its distribution, and
                every transform is applied regardless of p. The noise itself stays random. None draws at random.
            mask: float [N, K, H, W] in [-1, 1], one plane per region, or None.
            mirrored_planes: for each plane of the mask, the plane that replaces it in mirrored samples: left and right
                are exchanged. None keeps all planes.

        Returns:
            The images, or (images, mask) if a mask is given. Warped planes keep their range. If planes add up to
            2 - K, warped planes do so too. Inside a cutout, images and planes are 0.

        Raises:
            UserError: colour transforms are on, and the images have neither 1 nor 3 channels.
            ValueError: batch or size of mask and images differ.
        """
        if mask is not None and (mask.shape[:1], mask.shape[2:]) != (images.shape[:1], images.shape[2:]):
            raise ValueError(f"The mask {list(mask.shape)} does not fit the images {list(images.shape)}.")
        sampler = Sampler(images.shape[0], images.device, debug_percentile)
        inverse = self._sample_geometry(sampler, images)
        if inverse is not None:
            images = self._apply_geometry(images, inverse)
            mask = None if mask is None else self._warp_mask(mask, inverse, mirrored_planes)
        images = self._apply_color(images, sampler)
        images = self._apply_filter(images, sampler)
        images, mask = self._apply_corruption(images, mask, sampler)
        return images if mask is None else (images, mask)

    def _draw_matrices(self, table: Sequence[Transform], sampler: Sampler, images: torch.Tensor) -> list[torch.Tensor]:
        """Returns matrices [N, D+1, D+1] of the transforms. A transform that is not applied is the identity."""
        frame = constant((images.shape[3], images.shape[2]), images.device)
        options = [option for option, _ in table]
        matrices = []
        for option, draw in table:
            strength = getattr(self, option)
            if strength > 0:
                # If an option has several rows, the option's probability is that of at least one of them.
                probability = 1 - (1 - strength * self.p).clamp(min=0) ** (1 / options.count(option))
                matrix = draw(self, sampler, frame)
                still = torch.eye(matrix.shape[-1], device=matrix.device)
                matrices.append(torch.where(sampler.happens(probability)[..., None], matrix, still))
        return matrices

    def _sample_geometry(self, sampler: Sampler, images: torch.Tensor) -> torch.Tensor | None:
        """Returns inverse maps [N, 3, 3] from output to input pixels, origin at the image centre, or None."""
        matrices = self._draw_matrices(GEOMETRY, sampler, images)
        if not matrices:
            return None
        inverse = reduce(torch.matmul, matrices)
        still = torch.eye(3, device=inverse.device).expand_as(inverse)
        return None if _on_host(inverse) and torch.equal(inverse, still) else inverse

    def _apply_geometry(self, images: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
        """Resample at double resolution: upsample with a wavelet's low-pass, interpolate, and decimate."""
        taps = self.Hz_geom.numel()
        halo = taps // 2 - 1  # oversampled pixels that decimation needs beyond the frame
        support = taps // 4 + 1  # input pixels on either side that affect one oversampled position
        height, width = images.shape[2:]
        fine_x, fine_y = (
            torch.arange(-halo, 2 * size + halo, device=images.device) / 2 - (size - 1) / 2 for size in (width, height)
        )
        source_x, source_y = _source_positions(inverse, fine_x, fine_y)

        source_x, left, right = _frame_for(source_x, *_limits(source_x), width, support)
        source_y, top, bottom = _frame_for(source_y, *_limits(source_y), height, support)

        images = mirror_pad(images, left, right, top, bottom)
        images = upfirdn2d.upsample2d(images, self.Hz_geom, up=2)  # tap 5 is the centre: output 2i is at pixel i
        grid = torch.stack(
            [_normalised(2 * source_x, images.shape[3]), _normalised(2 * source_y, images.shape[2])], dim=-1
        )
        images = grid_sample_gradfix.grid_sample(images, grid.to(images.dtype))
        return upfirdn2d.downsample2d(images, self.Hz_geom, down=2, padding=-halo, flip_filter=True)

    def _warp_mask(
        self, mask: torch.Tensor, inverse: torch.Tensor, mirrored_planes: Sequence[int] | None
    ) -> torch.Tensor:
        """Move the planes by bilinear interpolation, mirrored outside. This keeps their range and their sum."""
        if mirrored_planes is not None:
            turned = inverse[:, 0, 0] * inverse[:, 1, 1] < inverse[:, 0, 1] * inverse[:, 1, 0]  # the determinant's sign
            order = constant(tuple(mirrored_planes), mask.device).long()
            mask = torch.where(turned[:, None, None, None], mask.index_select(1, order), mask)
        height, width = mask.shape[2:]
        centred_x, centred_y = (torch.arange(size, device=mask.device) - (size - 1) / 2 for size in (width, height))
        positions = []
        for source, size in zip(_source_positions(inverse, centred_x, centred_y), (width, height), strict=True):
            snapped = (source + (size - 1) / 2).mul(_SNAP).round() / _SNAP
            positions.append(_normalised(mirrored(snapped, size), size))
        return grid_sample_gradfix.grid_sample(mask, torch.stack(positions, dim=-1).to(mask.dtype))

    def _apply_color(self, images: torch.Tensor, sampler: Sampler) -> torch.Tensor:
        """Map RGB by one affine matrix per sample. Grey images use the average of the results for R, G and B."""
        matrices = self._draw_matrices(COLOR, sampler, images)
        if not matrices:
            return images
        combined = reduce(torch.matmul, reversed(matrices))
        linear, offset = combined[:, :3, :3].to(images.dtype), combined[:, :3, 3:].to(images.dtype)
        channels = images.shape[1]
        if channels == 1:
            linear, offset = linear.sum(dim=2, keepdim=True).mean(dim=1, keepdim=True), offset.mean(dim=1, keepdim=True)
        elif channels != 3:
            raise UserError(
                f"Colour augmentation needs images of 1 or 3 channels, but these have {channels}. "
                "Choose augmentations without colour, such as bg."
            )
        return (linear @ images.flatten(2) + offset).reshape(images.shape)

    def _apply_filter(self, images: torch.Tensor, sampler: Sampler) -> torch.Tensor:
        """Scale octaves at random. The power of an image with natural statistics stays the same."""
        if self.imgfilter <= 0:
            return images
        batch, channels, height, width = images.shape
        bands, taps = self.Hz_fbank.shape
        probability = self.imgfilter * self.p * constant(tuple(self.imgfilter_bands), self.p.device)
        factor = torch.where(
            sampler.happens(probability, bands), sampler.log_normal(bands, self.imgfilter_std), self.p.new_ones([])
        )
        # Scaling band i by s alone multiplies the power by 1 + share_i (s^2 - 1).
        share = constant(tuple(_BAND_POWER.tolist()), self.p.device)
        gains = factor / (1 + share * (factor.square() - 1)).sqrt().prod(dim=1, keepdim=True)
        kernels = (gains @ self.Hz_fbank).repeat_interleave(channels, dim=0).to(images.dtype)

        images = mirror_pad(images, *[taps // 2] * 4).reshape(1, batch * channels, height + taps - 1, width + taps - 1)
        images = conv2d_gradfix.conv2d(images, kernels[:, None, None, :], groups=batch * channels)
        images = conv2d_gradfix.conv2d(images, kernels[:, None, :, None], groups=batch * channels)
        return images.reshape(batch, channels, height, width)

    def _apply_corruption(
        self, images: torch.Tensor, mask: torch.Tensor | None, sampler: Sampler
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Add noise to the images. Cut the same rectangle out of images and mask."""
        if self.noise > 0:
            strength = sampler.half_normal(self.noise_std) * sampler.happens(self.noise * self.p)
            images = images + torch.randn_like(images) * strength[..., None, None].to(images.dtype)
        if self.cutout > 0:
            size = self.cutout_size * sampler.happens(self.cutout * self.p)
            centre = sampler.uniform(2)
            inside = [
                ((torch.arange(length, device=images.device) + 0.5) / length - centre[:, axis, None]).abs() < size / 2
                for axis, length in enumerate((images.shape[3], images.shape[2]))
            ]
            kept = ~(inside[0][:, None, None, :] & inside[1][:, None, :, None])
            images = images * kept
            mask = None if mask is None else mask * kept
        return images, mask


def _source_positions(inverse: torch.Tensor, xs: torch.Tensor, ys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the input positions of the grid of xs [W] and ys [H]: two tensors [N, H, W], with the given origin."""
    to_x, to_y = inverse[:, 0, :, None, None], inverse[:, 1, :, None, None]
    x, y = (row[:, 0] * xs + (row[:, 1] * ys[:, None] + row[:, 2]) for row in (to_x, to_y))
    return x, y


def _on_host(x: torch.Tensor) -> bool:
    """Whether Python can read the values without waiting for a device."""
    return x.device.type == "cpu"


def _limits(source: torch.Tensor) -> tuple[float, float]:
    """Returns the lowest and highest of positions [N, H, W] of an affine map. They occur at the corners.

    On a device, reading them would wait for the device. There they count as unlimited, and the margins are largest.
    """
    if not _on_host(source):
        return -inf, inf
    low, high = source[:, :: source.shape[1] - 1, :: source.shape[2] - 1].aminmax()
    return low.item(), high.item()


def _frame_for(
    position: torch.Tensor, low: float, high: float, size: int, support: int
) -> tuple[torch.Tensor, int, int]:
    """Returns margins that contain all positions from low to high with support, and the positions in the padded axis.

    A mirrored image repeats every 2 (size - 1) pixels. Positions further out than half an image are moved by whole
    periods, so the margins stay bounded for every transform.
    """
    centre, period = (size - 1) / 2, max(2 * (size - 1), 1)
    limit = size // 2 + support
    before, after = (limit + 1 if isinf(x) else ceil(x - centre) + support for x in (-low, high))
    if max(before, after) > limit:
        position = position - (position / period).round() * period
        before = after = limit
    before, after = max(before, 0), max(after, 0)
    return position + centre + before, before, after


def _normalised(position: torch.Tensor, size: int) -> torch.Tensor:
    """Returns pixel positions in the units of `grid_sample`: -1 and 1 are the outer edges of first and last pixel."""
    return (2 * position + 1) / size - 1
