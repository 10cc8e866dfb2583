"""The dual-branch discriminator (Shi et al. 2022, section 3.3)."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from dnnlib import UserError
from semantic.render import channel_table
from torch_utils import persistence
from training.growing import extended_channels, needed_channels, new_sizes, passing_state, silenced
from training.layers import Conv2dLayer
from training.networks import DiscriminatorBlock, DiscriminatorEpilogue, MappingNetwork


@persistence.persistent_class
class Branch(torch.nn.Module):
    """Residual blocks from full resolution down to 4×4, for images or for masks.

    Args:
        img_resolution: side of the input.
        in_channels: number of planes of the input.
        channels: width at each resolution.
        block_kwargs: options of `training.networks.DiscriminatorBlock`.
    """

    def __init__(
        self,
        img_resolution: int,
        in_channels: int,
        channels: Mapping[int, int],
        block_kwargs: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        self.resolutions = [2**i for i in range(img_resolution.bit_length() - 1, 2, -1)]
        layer = 0
        for resolution in self.resolutions:
            block = DiscriminatorBlock(
                0 if resolution == img_resolution else channels[resolution],
                channels[resolution],
                channels[resolution // 2],
                resolution=resolution,
                img_channels=in_channels,
                first_layer_idx=layer,
                architecture="resnet",
                **(block_kwargs or {}),
            )
            setattr(self, f"b{resolution}", block)
            layer += block.num_layers

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Map [N, in, R, R] to [N, channels[4], 4, 4]."""
        return self.features(pixels)[-1]

    def passing_state(self, source: "Branch") -> dict[str, torch.Tensor]:
        """Returns the state of the blocks that `source`, a branch for smaller inputs, lacks. See `training.growing`."""
        largest = source.resolutions[0]
        blocks = {f"b{r}": getattr(self, f"b{r}") for r in self.resolutions if r > largest}
        return passing_state(blocks, getattr(source, f"b{largest}").fromrgb)

    def features(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Returns the outputs of all blocks for [N, in, R, R]: [N, channels[r], r, r] from r = R/2 down to 4."""
        x, found = None, []
        for resolution in self.resolutions:
            x, pixels = getattr(self, f"b{resolution}")(x, pixels)
            found.append(x)
        return found


@persistence.persistent_class
class SegmentationHead(torch.nn.Module):
    """Segments an image from the features of a `Branch`, from coarse to fine as in a U-Net.

    The last step runs at half the resolution. Each position outputs four pixels (sub-pixel convolution, W. Shi et al.
    2016).

    Args:
        channels: width of the features at each resolution, from R/2 down to 4.
        num_regions: K.
    """

    def __init__(self, channels: Mapping[int, int], num_regions: int):
        super().__init__()
        widths = [channels[resolution] for resolution in sorted(channels, reverse=True)]
        pairs = list(itertools.pairwise(widths))
        self.coarse = torch.nn.ModuleList(Conv2dLayer(below, width, 1, bias=False) for width, below in pairs)
        self.fine = torch.nn.ModuleList(Conv2dLayer(width, width, 3, activation="lrelu") for width, _ in pairs)
        self.scores = Conv2dLayer(widths[0], num_regions * 4, 1)

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Map features [N, channels[r], r, r], r = R/2 down to 4, to scores [N, K, R, R]."""
        x = features[-1]
        for coarse, fine, feature in reversed(list(zip(self.coarse, self.fine, features[:-1], strict=True))):
            x = fine(feature + F.interpolate(coarse(x), scale_factor=2, mode="nearest"))
        return F.pixel_shuffle(self.scores(x), 2)

    def grown_state(self, source: "SegmentationHead") -> dict[str, torch.Tensor]:
        """Returns the state of a head for smaller images for this head. Scores of new steps start at zero."""
        state, new = {}, len(self.coarse) - len(source.coarse)
        for key, tensor in source.state_dict().items():
            part, _, rest = key.partition(".")
            number, _, name = rest.partition(".")
            if part != "scores":
                state[f"{part}.{int(number) + new}.{name}"] = tensor
        return state | silenced(self.scores, "scores")


@persistence.persistent_class
class DualBranchDiscriminator(torch.nn.Module):
    """Judges an image together with its mask.

    Image and mask pass through separate branches, and the 4×4 features of both branches are summed. In a single branch
    the far larger gradients of the mask would dominate. Without a mask, only the image branch runs.

    Args:
        c_dim: width of the class label. 0 without labels.
        img_resolution: side of image and mask.
        img_channels: channels of the image.
        num_regions: K, planes of the mask.
        channel_base, channel_max: widths, see `channel_table`.
        channels: explicit widths {resolution: channels} that replace the table.
        mask_width: width of the mask's branch as a fraction of the image's branch. Both output equally many features.
        mask_least: minimum widths of the mask's branch, {resolution: channels}, in networks that have grown.
        cmap_dim: width of the mapped label. None uses the width at 4×4.
        block_kwargs, mapping_kwargs, epilogue_kwargs: options of the parts of `training.networks.Discriminator`.
        segmentation: also segment the image, see `SegmentationHead`.
    """

    def __init__(
        self,
        c_dim: int,
        img_resolution: int,
        img_channels: int,
        num_regions: int,
        channel_base: int = 32768,
        channel_max: int = 512,
        channels: Mapping[int, int] | None = None,
        mask_width: float = 1,
        mask_least: Mapping[int, int] | None = None,
        cmap_dim: int | None = None,
        block_kwargs: Mapping[str, Any] | None = None,
        mapping_kwargs: Mapping[str, Any] | None = None,
        epilogue_kwargs: Mapping[str, Any] | None = None,
        segmentation: bool = False,
    ):
        super().__init__()
        self.c_dim = c_dim
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.num_regions = num_regions
        if channels:
            channels = {int(r): int(n) for r, n in channels.items()}
        else:
            channels = channel_table(img_resolution, channel_base, channel_max)
        self.image = Branch(img_resolution, img_channels, channels, block_kwargs)
        least = {int(r): int(n) for r, n in (mask_least or {}).items()}
        narrow = {r: n if r == 4 else max(least.get(r, 1), round(n * mask_width)) for r, n in channels.items()}
        self.mask = Branch(img_resolution, num_regions, narrow, block_kwargs)
        cmap_dim = (channels[4] if cmap_dim is None else cmap_dim) if c_dim > 0 else 0
        if c_dim > 0:
            self.mapping = MappingNetwork(
                z_dim=0, c_dim=c_dim, w_dim=cmap_dim, num_ws=None, w_avg_beta=None, **(mapping_kwargs or {})
            )
        self.b4 = DiscriminatorEpilogue(
            channels[4],
            cmap_dim=cmap_dim,
            resolution=4,
            img_channels=img_channels,
            architecture="resnet",
            **(epilogue_kwargs or {}),
        )
        self.segmentation = None
        if segmentation:
            halves = {r: n for r, n in channels.items() if r < img_resolution}
            self.segmentation = SegmentationHead(halves, num_regions)

    def extra_repr(self) -> str:
        """Returns a description of the network for messages."""
        return (
            f"{self.img_resolution}×{self.img_resolution}×{self.img_channels}, c_dim {self.c_dim}, "
            f"{self.num_regions} regions"
        )

    @staticmethod
    def grown_arguments(
        arguments: dict[str, Any], source: "DualBranchDiscriminator", img_resolution: int
    ) -> dict[str, Any]:
        """Returns the arguments of a discriminator that grows from `source`. New blocks are wide enough for masks."""
        sizes = new_sizes(source.img_resolution, img_resolution)
        least = {int(r): n for r, n in (arguments.get("mask_least") or {}).items()}
        grown = {**arguments, "mask_least": least | dict.fromkeys(sizes, needed_channels(source.num_regions))}
        if grown.get("channels"):
            grown["channels"] = extended_channels(grown["channels"], source.img_resolution, img_resolution)
        return grown

    def grown_state(self, source: "DualBranchDiscriminator") -> dict[str, torch.Tensor]:
        """Returns the state of a discriminator of smaller pairs for this one. At first it halves its inputs."""
        state = {key: t for key, t in source.state_dict().items() if not key.startswith("segmentation.")}
        for name in ("image", "mask"):
            branch = getattr(self, name).passing_state(getattr(source, name))
            state |= {f"{name}.{key}": tensor for key, tensor in branch.items()}
        if self.segmentation is not None and source.segmentation is not None:
            head = self.segmentation.grown_state(source.segmentation)
            state |= {f"segmentation.{key}": tensor for key, tensor in head.items()}
        return state

    def region_axes(self) -> dict[str, int]:
        """Returns the names of the tensors that have an axis for regions, and that axis."""
        scores = ("segmentation.scores.weight", "segmentation.scores.bias") if self.segmentation is not None else ()
        return {f"mask.b{self.img_resolution}.fromrgb.weight": 1} | dict.fromkeys(scores, 0)

    def forward(
        self,
        img: torch.Tensor,
        c: torch.Tensor | None,
        mask: torch.Tensor | None = None,
        return_segmentation: bool = False,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Compute the logits of images, or of pairs of image and mask.

        Args:
            img: [N, channels, R, R].
            c: labels [N, c_dim], or None for an unconditional network.
            mask: planes [N, K, R, R] in [-1, 1]. None runs only the image branch.
            return_segmentation: also return the segmentation scores of a network built with `segmentation`.

        Returns:
            [N, 1], or a pair of [N, 1] and scores [N, K, R, R].

        Raises:
            UserError: the mask has another number of planes or another size, or the network has no segmentation head.
        """
        if return_segmentation and self.segmentation is None:
            raise UserError("This discriminator has no segmentation head: it was built without `segmentation`.")
        features = self.image.features(img)
        x = features[-1]
        if mask is not None:
            expected = (img.shape[0], self.num_regions, self.img_resolution, self.img_resolution)
            if mask.shape != expected:
                raise UserError(f"The mask has shape {list(mask.shape)}, expected {list(expected)}.")
            x = x + self.mask(mask)
        cmap = self.mapping(None, c) if self.c_dim > 0 else None
        logits = self.b4(x, None, cmap)
        return (logits, self.segmentation(features)) if return_segmentation else logits
