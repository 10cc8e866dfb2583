"""The compositional generator: mapping, local generators, fusion and rendering (Shi et al., CVPR 2022)."""

import contextlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from dnnlib import UserError
from semantic.fusion import coarse_mask, feature_weights
from semantic.local.generators import LocalGenerators, pixel_grid
from semantic.region_transfer import RegionTakeover
from semantic.regions import BASE_LAYERS, Regions
from semantic.render import RenderNetwork, channel_table
from torch_utils import persistence
from training.growing import extended_channels, new_sizes, silenced
from training.networks import MappingNetwork


class SynthesisOutput(NamedTuple):
    """All outputs of the synthesis network. R is the resolution, H the coarse size."""

    image: torch.Tensor
    """[N, channels, R, R], unbounded. Real images are in [-1, 1]."""
    mask: torch.Tensor
    """[N, K, R, R], unbounded. Real masks are 2·onehot - 1."""
    coarse_mask: torch.Tensor
    """[N, K, H, H], 2m - 1 in [-1, 1]."""
    depth: torch.Tensor
    """[N, K, H, H], pseudo-depths. The depth of the background is 0."""


@persistence.persistent_class
class SynthesisNetwork(torch.nn.Module):
    """Maps W+ codes to image and mask.

    Args:
        w_dim: D, width of the codes.
        img_resolution: R, a power of two from 32 up.
        img_channels: channels of the image.
        regions: {"names", "colors", "transparent"}, see `Regions.from_dict`.
        coarse_size: H, side of the maps at which regions are fused.
        coarse_channels: F, width of the fused features.
        local_channels: C, width of the local generators.
        local_layers: L, depth of the local generators.
        base_layers: b, number of layers with codes that all regions share.
        depth_layers: p, number of layers before the pseudo-depth.
        min_feat_size: side at which rendering starts.
        channel_base, channel_max: width of the render network, see `channel_table`.
        channels: explicit widths {resolution: channels} that replace the table.
        residual_refine: True refines the upsampled coarse mask, False renders a new mask.
        detach_texture: gradients of the texture layers do not reach the shape layers.
        octaves: number of frequencies of the local generators' input, lowest first. All log2(R) by default.

    Raises:
        UserError: the sizes do not fit together.
    """

    def __init__(
        self,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        regions: Mapping[str, Any],
        coarse_size: int = 64,
        coarse_channels: int = 512,
        local_channels: int = 64,
        local_layers: int = 10,
        base_layers: int = BASE_LAYERS,
        depth_layers: int = 6,
        min_feat_size: int = 16,
        channel_base: int = 32768,
        channel_max: int = 512,
        channels: Mapping[int, int] | None = None,
        residual_refine: bool = True,
        detach_texture: bool = False,
        octaves: int | None = None,
    ):
        super().__init__()
        self.regions = Regions.from_dict(regions, base_layers)
        if not base_layers <= depth_layers <= local_layers or depth_layers < 1:
            raise UserError(
                f"base_layers <= depth_layers <= local_layers must hold, "
                f"but they are {base_layers}, {depth_layers}, {local_layers}."
            )
        if self.regions.num_ws == len(self.regions) * local_layers:
            raise UserError(
                f"With {len(self.regions)} regions, {base_layers} base and {local_layers} local layers, W+ and "
                f"expanded latents have the same length ({self.regions.num_ws}). Change one of the three numbers."
            )
        self.w_dim = w_dim
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.num_ws = self.regions.num_ws
        self.register_buffer("grid", pixel_grid(coarse_size), persistent=False)
        self.local = LocalGenerators(
            self.regions,
            w_dim,
            img_resolution,
            channels=local_channels,
            out_channels=coarse_channels,
            num_layers=local_layers,
            depth_layers=depth_layers,
            detach_texture=detach_texture,
            octaves=octaves,
        )
        table = {int(r): int(n) for r, n in channels.items()} if channels else None
        self.render = RenderNetwork(
            len(self.regions),
            img_resolution,
            img_channels,
            in_channels=coarse_channels,
            coarse_size=coarse_size,
            min_feat_size=min_feat_size,
            channels=table or channel_table(img_resolution, channel_base, channel_max),
            residual_refine=residual_refine,
        )

    def expand(self, ws: torch.Tensor) -> torch.Tensor:
        """Returns one code per layer and region [N, K·L, D] for W+ codes [N, b+2K, D]. Keeps expanded latents.

        Codes of another floating-point type are converted to the type of the weights.

        Raises:
            UserError: the codes have another shape.
        """
        ws = ws.to(self.local.affine_weight.dtype)
        if ws.ndim == 3 and ws.shape[2] == self.w_dim:
            if ws.shape[1] == self.num_ws:
                return self.local.expand(ws)
            if ws.shape[1] == self.local.num_expanded:
                return ws
        raise UserError(
            f"Latents of shape {list(ws.shape)} do not fit this network. Expected [N, {self.num_ws}, {self.w_dim}] "
            f"or expanded [N, {self.local.num_expanded}, {self.w_dim}]."
        )

    def forward(
        self,
        ws: torch.Tensor,
        noise_mode: str = "random",
        return_mask: bool = False,
        keep_regions: torch.Tensor | None = None,
        coords: torch.Tensor | None = None,
        force_fp32: bool = False,
        **block_kwargs: Any,
    ) -> torch.Tensor | SynthesisOutput:
        """Synthesize image and mask.

        Args:
            ws: codes [N, b+2K, D], or expanded [N, K·L, D], of any floating-point type.
            noise_mode: 'random', 'const' (stored noise) or 'none'.
            return_mask: return a `SynthesisOutput` instead of the image alone.
            keep_regions: [N, K] of 0 and 1, or [K] for all samples. Regions with 0 are dropped.
            coords: coordinates at which regions are evaluated, [2, H, H], [K, 2, H, H] or [N, K, 2, H, H].
                The pixel grid by default.
            force_fp32: compute in float32, even under autocast.
            block_kwargs: ignored. Scripts pass options of StyleGAN2's blocks, such as fused_modconv.

        Returns:
            Image [N, channels, R, R], or a `SynthesisOutput`.

        Raises:
            UserError: the noise mode is unknown, or the shapes of the inputs do not fit.
        """
        if noise_mode not in ("random", "const", "none"):
            raise UserError(f"noise_mode must be 'random', 'const' or 'none', not {noise_mode!r}.")
        with torch.autocast(ws.device.type, enabled=False) if force_fp32 else contextlib.nullcontext():
            features, coarse, depth = self.compose(ws, keep_regions, coords)
            image, full_mask = self.render(features, coarse, noise_mode)
        return SynthesisOutput(image, full_mask, coarse, depth) if return_mask else image

    def compose(
        self,
        ws: torch.Tensor,
        keep_regions: torch.Tensor | None = None,
        coords: torch.Tensor | None = None,
        fixed_shapes: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Run the local generators and fuse their features: all steps before rendering.

        Args:
            ws, keep_regions, coords: see `forward`.
            fixed_shapes: depths and shape layers are constants. Gradients reach only texture layers and feature heads.

        Returns:
            Fused features [N, F, H, H], the coarse mask [N, K, H, H] in [-1, 1], and the depths [N, K, H, H].
        """
        coords = self.grid if coords is None else coords
        size, num_regions = self.grid.shape[-1], len(self.regions)
        expected = (ws.shape[0], num_regions, 2, size, size)
        if coords.shape not in (expected, expected[1:], expected[2:]):
            raise UserError(f"coords has shape {list(coords.shape)}, expected {list(expected[1:])}.")
        if keep_regions is not None and keep_regions.shape not in ((num_regions,), (ws.shape[0], num_regions)):
            raise UserError(
                f"keep_regions has shape {list(keep_regions.shape)}, expected {[ws.shape[0], num_regions]}."
            )
        if keep_regions is not None:
            keep_regions = keep_regions.expand(ws.shape[0], num_regions)

        hidden, depth = self.local(self.expand(ws), coords, fixed_shapes)
        mask = coarse_mask(depth, keep_regions)
        features = self.local.fuse(hidden, feature_weights(mask, self.regions.transparent))
        maps = (features, mask * 2 - 1, depth.to(mask.dtype))
        return tuple(tensor.unflatten(2, (size, size)) for tensor in maps)


@persistence.persistent_class
class Generator(torch.nn.Module):
    """Compositional generator with the interface of StyleGAN2's generator (Shi et al. 2022).

    Args:
        z_dim, c_dim, w_dim: widths of z, of the class label (0 without labels) and of the codes w.
        img_resolution, img_channels: size of the image.
        regions: {"names", "colors", "transparent"} as in dataset.json.
        mapping_kwargs: options of `training.networks.MappingNetwork`.
        synthesis_kwargs: options of `SynthesisNetwork`.
    """

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        regions: Mapping[str, Any],
        mapping_kwargs: Mapping[str, Any] | None = None,
        synthesis_kwargs: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        self.z_dim = z_dim
        self.c_dim = c_dim
        self.w_dim = w_dim
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.synthesis = SynthesisNetwork(w_dim, img_resolution, img_channels, regions, **(synthesis_kwargs or {}))
        self.num_ws = self.synthesis.num_ws
        self.mapping = MappingNetwork(z_dim, c_dim, w_dim, num_ws=self.num_ws, **(mapping_kwargs or {}))

    @property
    def regions(self) -> Regions:
        """The regions: names, colours, transparent regions and W+ slots."""
        return self.synthesis.regions

    def extra_repr(self) -> str:
        """Returns a description of the network for messages."""
        return (
            f"{self.img_resolution}×{self.img_resolution}×{self.img_channels}, c_dim {self.c_dim}, "
            f"{len(self.regions)} regions: {' '.join(self.regions.names)}"
        )

    def forward(
        self,
        z: torch.Tensor,
        c: torch.Tensor | None,
        truncation_psi: float = 1,
        truncation_cutoff: int | None = None,
        **synthesis_kwargs: Any,
    ) -> torch.Tensor | SynthesisOutput:
        """Map z [N, z_dim] and labels c [N, c_dim] to images. Passes other options to `SynthesisNetwork.forward`."""
        ws = self.mapping(z, c, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff)
        return self.synthesis(ws, **synthesis_kwargs)

    def preview(self, z: torch.Tensor, c: torch.Tensor | None, **kwargs: Any) -> dict[str, torch.Tensor]:
        """Returns pictures for the training grids by file name suffix: image and coloured mask, each in [-1, 1]."""
        out = self(z, c, return_mask=True, **kwargs)
        return {"": out.image, "_mask": self.regions.paint(out.mask)}

    @staticmethod
    def grown_arguments(arguments: dict[str, Any], source: "Generator", img_resolution: int) -> dict[str, Any]:
        """Returns arguments of a generator that grows from `source` to `img_resolution`. Its coarse size stays.

        On a finer grid, local generators would compute different pictures from the same features (30 dB PSNR).
        """
        kwargs = dict(arguments.get("synthesis_kwargs") or {})
        if kwargs.get("channels"):
            kwargs["channels"] = extended_channels(kwargs["channels"], source.img_resolution, img_resolution)
        return {**arguments, "synthesis_kwargs": kwargs}

    def grown_state(self, source: "Generator") -> dict[str, torch.Tensor]:
        """Returns the state of a generator of smaller images for this one. New stages start without any effect.

        Weights of frequencies that the source does not have start at zero.
        """
        position = "synthesis.local.position"
        state = source.state_dict()
        ours, theirs = (network.get_submodule(position) for network in (self, source))
        state[f"{position}.weight"] = ours.grown_weight(theirs)
        for resolution in new_sizes(source.img_resolution, self.img_resolution):
            stage = getattr(self.synthesis.render, f"b{resolution}")
            for name in ("to_rgb", "to_seg"):
                state |= silenced(getattr(stage, name), f"synthesis.render.b{resolution}.{name}")
        return state

    def region_axes(self) -> dict[str, int]:
        """Returns the names of the tensors that have an axis for regions, and that axis."""
        axes = {f"synthesis.local.{name}": axis for name, axis in self.synthesis.local.region_axes().items()}
        stages = (f"synthesis.render.b{resolution}.to_seg" for resolution in self.synthesis.render.resolutions)
        return axes | {f"{stage}.{name}": 0 for stage in stages for name in ("weight", "bias")}

    def transfer_from(self, source: "Generator") -> RegionTakeover | None:
        """Returns how regions start from another network, or None if both networks have the same regions."""
        theirs, ours = source.regions.names, self.regions.names
        return None if theirs == ours else RegionTakeover(theirs, ours)
