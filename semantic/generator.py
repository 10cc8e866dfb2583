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
    """All that one pass of the synthesis network gives; R is the resolution, H the coarse size."""

    image: torch.Tensor
    """[N, channels, R, R], trained against [-1, 1], unbounded."""
    mask: torch.Tensor
    """[N, K, R, R], trained against 2·onehot - 1, unbounded."""
    coarse_mask: torch.Tensor
    """[N, K, H, H], 2m - 1 in [-1, 1]."""
    depth: torch.Tensor
    """[N, K, H, H] pseudo-depths; the background's is 0."""


@persistence.persistent_class
class SynthesisNetwork(torch.nn.Module):
    """From W+ codes to image and mask.

    Args:
        w_dim: D, width of the codes.
        img_resolution: R, a power of two from 32 up.
        img_channels: channels of the image.
        regions: {"names", "colors", "transparent"}, see `Regions.from_dict`.
        coarse_size: H, side of the maps in which regions are fused.
        coarse_channels: F, width of the fused features.
        local_channels: C, width of the local generators.
        local_layers: L, depth of the local generators.
        base_layers: b, layers on the codes that all regions share.
        depth_layers: p, layers before the pseudo-depth.
        min_feat_size: side at which rendering starts.
        channel_base, channel_max: width of the render network, see `channel_table`.
        channels: overrides the table with explicit widths, {resolution: channels}.
        residual_refine: the render network refines the upsampled coarse mask instead of making one anew.
        detach_texture: gradients of the texture layers do not reach the shape layers.
        octaves: how many frequencies the local generators get, from the lowest on; all log2(R) by default.

    Raises:
        UserError: sizes that do not fit together.
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
                f"{len(self.regions)} regions with {base_layers} base and {local_layers} local layers make W+ and "
                f"expanded latents the same length ({self.regions.num_ws}): change one of the three."
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
        """W+ codes [N, b+2K, D] as one code a layer a region [N, K·L, D]; expanded latents keep their shape.

        Codes of another floating-point type get the type of the weights.

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
            f"Latents of shape {list(ws.shape)} do not fit this network: expected [N, {self.num_ws}, {self.w_dim}] "
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
        """Synthesize.

        Args:
            ws: codes [N, b+2K, D], or expanded [N, K·L, D], of any floating-point type.
            noise_mode: 'random', 'const' (stored noise) or 'none'.
            return_mask: return a `SynthesisOutput` instead of the image alone.
            keep_regions: [N, K] of 0 and 1, or [K] for all samples; regions with 0 are left out.
            coords: coordinates at which regions are evaluated, [2, H, H], [K, 2, H, H] or [N, K, 2, H, H];
                the pixel grid by default.
            force_fp32: no half precision, not even under autocast.
            block_kwargs: ignored. Scripts pass options of StyleGAN2's blocks, such as fused_modconv.

        Returns:
            Image [N, channels, R, R], or a `SynthesisOutput`.

        Raises:
            UserError: an unknown noise mode, or inputs of shapes that do not fit.
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
        """The local generators and their fusion, all that comes before rendering.

        Args:
            ws, keep_regions, coords: those of `forward`.
            fixed_shapes: gradients reach texture layers and features alone; depths and shape layers are constants.

        Returns:
            Fused features [N, F, H, H], coarse mask [N, K, H, H] in [-1, 1] and pseudo-depths [N, K, H, H].
        """
        coords = self.grid if coords is None else coords
        size, num_regions = self.grid.shape[-1], len(self.regions)
        expected = (ws.shape[0], num_regions, 2, size, size)
        if coords.shape not in (expected, expected[1:], expected[2:]):
            raise UserError(f"coords of shape {list(coords.shape)} do not fit: expected {list(expected[1:])}.")
        if keep_regions is not None and keep_regions.shape not in ((num_regions,), (ws.shape[0], num_regions)):
            raise UserError(
                f"keep_regions of shape {list(keep_regions.shape)} does not fit: expected {[ws.shape[0], num_regions]}."
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
    """Compositional generator with the interface of StyleGAN2's.

    Args:
        z_dim, c_dim, w_dim: widths of z, of the class label (0 for none) and of the codes w.
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
        """The regions: names, colours, transparent ones, W+ slots."""
        return self.synthesis.regions

    def extra_repr(self) -> str:
        """What the network is, for messages."""
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
        """z [N, z_dim] and labels c [N, c_dim] to images; further options go to `SynthesisNetwork.forward`."""
        ws = self.mapping(z, c, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff)
        return self.synthesis(ws, **synthesis_kwargs)

    def preview(self, z: torch.Tensor, c: torch.Tensor | None, **kwargs: Any) -> dict[str, torch.Tensor]:
        """Pictures for the training grids, by file name suffix: the image and the coloured mask, each in [-1, 1]."""
        out = self(z, c, return_mask=True, **kwargs)
        return {"": out.image, "_mask": self.regions.paint(out.mask)}

    @staticmethod
    def grown_arguments(arguments: dict[str, Any], source: "Generator", img_resolution: int) -> dict[str, Any]:
        """Arguments of a generator that grows from `source` to `img_resolution`; its coarse size stays.

        Local generators on a finer grid would make another picture of the same features: 30 dB, not the same one.
        """
        kwargs = dict(arguments.get("synthesis_kwargs") or {})
        if kwargs.get("channels"):
            kwargs["channels"] = extended_channels(kwargs["channels"], source.img_resolution, img_resolution)
        return {**arguments, "synthesis_kwargs": kwargs}

    def grown_state(self, source: "Generator") -> dict[str, torch.Tensor]:
        """State of a generator of smaller images as one of this: new stages add nothing to image and mask at first.

        Frequencies that the source did not have start with weight zero.
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
        """Names of the tensors that hold something for each region, and the axis along which regions are."""
        axes = {f"synthesis.local.{name}": axis for name, axis in self.synthesis.local.region_axes().items()}
        stages = (f"synthesis.render.b{resolution}.to_seg" for resolution in self.synthesis.render.resolutions)
        return axes | {f"{stage}.{name}": 0 for stage in stages for name in ("weight", "bias")}

    def transfer_from(self, source: "Generator") -> RegionTakeover | None:
        """How regions start from those of another network; None where they are the same ones."""
        theirs, ours = source.regions.names, self.regions.names
        return None if theirs == ours else RegionTakeover(theirs, ours)
