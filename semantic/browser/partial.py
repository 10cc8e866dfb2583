"""Synthesis that recomputes only the parts that an edit changed."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from semantic.fusion import coarse_mask, feature_weights
from semantic.generator import SynthesisOutput
from semantic.render import RenderNetwork
from torch_utils.devices import multiplies_bfloat16


@dataclass(frozen=True, eq=False)
class Renders:
    """Copies of a render network with kernels that are computed once. All sessions share them."""

    whole: RenderNetwork
    """In single precision, for whole pictures."""
    preview: RenderNetwork
    """For previews: in bfloat16 where the processor multiplies its matrices, else the same as `whole`."""

    @classmethod
    def of(cls, synthesis: torch.nn.Module) -> "Renders":
        """Returns both copies for a synthesis network."""
        whole = synthesis.render.prepared(torch.float32)
        quick = multiplies_bfloat16(synthesis.grid.device.type)
        return cls(whole, synthesis.render.prepared(torch.bfloat16) if quick else whole)


class PartialSynthesis:
    """Renders one image again and again, and keeps unchanged parts of the last pass.

    Local generators are independent of each other before fusion. So a region with unchanged codes and coordinates keeps
    its hidden maps and depths. Fusion and rendering run again.

    Args:
        synthesis: the synthesis network of a compositional generator.
        renders: its render network for whole pictures and for previews. By default they are made here.
    """

    def __init__(self, synthesis: torch.nn.Module, renders: "Renders | None" = None):
        self.synthesis = synthesis
        self.renders = renders or Renders.of(synthesis)
        self.codes: torch.Tensor | None = None
        self.coords: torch.Tensor | None = None
        self.hidden: torch.Tensor | None = None
        self.depth: torch.Tensor | None = None
        self.recomputed: Sequence[int] = ()
        """Regions whose local generators ran in the last call."""

    @torch.no_grad()
    def __call__(
        self,
        ws: torch.Tensor,
        keep_regions: torch.Tensor | None = None,
        coords: torch.Tensor | None = None,
        size: int | None = None,
    ) -> SynthesisOutput:
        """Returns one image with its mask, as `SynthesisNetwork.forward` computes it with stored noise.

        Args:
            ws: codes [1, b+2K, D], or expanded [1, K·L, D].
            keep_regions: [1, K] of 0 and 1.
            coords: [2, H, H], [K, 2, H, H] or [1, K, 2, H, H].
            size: resolution at which rendering stops, for a preview. The default is the full resolution.

        Returns:
            Image and mask at `size`, coarse mask and depths.
        """
        features, coarse, depth = self.compose(ws, keep_regions, coords)
        render = self.renders.whole if size is None else self.renders.preview
        image, full_mask = render(features.to(render.dtype), coarse, "const", size)
        return SynthesisOutput(image, full_mask, coarse, depth)

    @torch.no_grad()
    def compose(
        self, ws: torch.Tensor, keep_regions: torch.Tensor | None = None, coords: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Returns what `SynthesisNetwork.compose` returns for one image: fused features, coarse mask and depths."""
        network, grid = self.synthesis, self.synthesis.grid
        expanded = network.expand(ws)
        coords = (grid if coords is None else coords).expand(1, len(network.regions), *grid.shape)
        self._update(expanded, coords)
        mask = coarse_mask(self.depth, keep_regions)
        features = network.local.fuse(self.hidden, feature_weights(mask, network.regions.transparent))
        maps = (features, mask * 2 - 1, self.depth.to(mask.dtype))
        return tuple(tensor.unflatten(2, grid.shape[1:]) for tensor in maps)

    def _update(self, expanded: torch.Tensor, coords: torch.Tensor) -> None:
        """Run the local generators of the regions with new codes or coordinates since the last call."""
        regions = len(self.synthesis.regions)
        codes = expanded.unflatten(1, (regions, -1))
        if self.codes is None:
            changed = list(range(regions))
        else:
            same = (codes == self.codes).all(dim=(0, 2, 3)) & (coords == self.coords).all(dim=(0, 2, 3, 4))
            changed = (~same).nonzero().flatten().tolist()
        self.recomputed = changed
        if not changed:
            return
        whole = len(changed) == regions
        hidden, depth = self.synthesis.local(expanded, coords, which=None if whole else changed)
        if whole:
            self.hidden, self.depth = hidden.contiguous(), depth.contiguous()
        else:
            self.hidden[:, changed], self.depth[:, changed] = hidden, depth
        self.codes, self.coords = codes.clone(), coords.clone()
