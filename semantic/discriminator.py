"""The dual-branch discriminator (Shi et al. 2022, section 3.3)."""

from collections.abc import Mapping
from typing import Any

import torch

from dnnlib import UserError
from semantic.render import channel_table
from torch_utils import persistence
from training.networks import DiscriminatorBlock, DiscriminatorEpilogue, MappingNetwork


@persistence.persistent_class
class Branch(torch.nn.Module):
    """Residual blocks from full resolution down to 4×4, for one kind of input.

    Args:
        img_resolution: side of the input.
        in_channels: planes of the input.
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
        """[N, in, R, R] -> [N, channels[4], 4, 4]."""
        x = None
        for resolution in self.resolutions:
            x, pixels = getattr(self, f"b{resolution}")(x, pixels)
        return x


@persistence.persistent_class
class DualBranchDiscriminator(torch.nn.Module):
    """Judges an image together with its mask.

    Image and mask run through separate branches whose 4×4 features are summed. In a single branch the gradients of the
    mask, which are far larger, would drown those of the image. Without a mask the image branch runs alone.

    Args:
        c_dim: width of the class label, 0 for none.
        img_resolution: side of image and mask.
        img_channels: channels of the image.
        num_regions: K, planes of the mask.
        channel_base, channel_max: widths, see `channel_table`.
        channels: overrides the table with explicit widths, {resolution: channels}.
        mask_width: width of the mask's branch as a share of the image's; both end in the same number of features.
        cmap_dim: width of the mapped label; None chooses the width at 4×4.
        block_kwargs, mapping_kwargs, epilogue_kwargs: options of the parts of `training.networks.Discriminator`.
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
        cmap_dim: int | None = None,
        block_kwargs: Mapping[str, Any] | None = None,
        mapping_kwargs: Mapping[str, Any] | None = None,
        epilogue_kwargs: Mapping[str, Any] | None = None,
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
        narrow = {r: n if r == 4 else max(1, round(n * mask_width)) for r, n in channels.items()}
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

    def extra_repr(self) -> str:
        """What the network is, for messages."""
        return (
            f"{self.img_resolution}×{self.img_resolution}×{self.img_channels}, c_dim {self.c_dim}, "
            f"{self.num_regions} regions"
        )

    def forward(self, img: torch.Tensor, c: torch.Tensor | None, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Logits.

        Args:
            img: [N, channels, R, R].
            c: labels [N, c_dim], or None for an unconditional network.
            mask: planes [N, K, R, R] in [-1, 1]; None runs the image branch alone.

        Returns:
            [N, 1].

        Raises:
            UserError: the mask has another number of planes or another size.
        """
        x = self.image(img)
        if mask is not None:
            expected = (img.shape[0], self.num_regions, self.img_resolution, self.img_resolution)
            if mask.shape != expected:
                raise UserError(f"A mask of shape {list(mask.shape)} does not fit: expected {list(expected)}.")
            x = x + self.mask(mask)
        cmap = self.mapping(None, c) if self.c_dim > 0 else None
        return self.b4(x, None, cmap)
