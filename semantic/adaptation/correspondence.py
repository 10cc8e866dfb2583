"""A loss that keeps the similarities of samples, region by region (after Ojha et al. 2021, section 3.1)."""

import contextlib
from collections.abc import Iterator

import torch
import torch.nn.functional as F

from semantic.masks import is_present, mask_areas, one_hot
from semantic.terms.term import Term
from torch_utils import training_stats

SAMPLES = 8
"""Images that are compared with each other in a step."""


@contextlib.contextmanager
def kept_outputs(modules: list[torch.nn.Module]) -> Iterator[list[torch.Tensor]]:
    """Opens a context with a list that collects the outputs of these modules."""
    found: list[torch.Tensor] = []
    hooks = [module.register_forward_hook(lambda _module, _given, out: found.append(out)) for module in modules]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def region_features(features: torch.Tensor, planes: torch.Tensor) -> torch.Tensor:
    """Returns mean features of each region: [N, C, r, r] under masks [N, K, R, R] in 0..1 -> [N, K, C]."""
    weights = F.avg_pool2d(planes, planes.shape[-1] // features.shape[-1])
    total = torch.einsum("nkhw,nchw->nkc", weights, features.float())
    return total / weights.sum(dim=(2, 3)).clamp(min=1e-4).unsqueeze(2)


def similarities(features: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
    """Returns the log-probabilities of each sample's similarity to the other samples, region by region.

    Args:
        features: [N, K, C].
        there: bool [N, K], whether a sample has the region. A sample without the region resembles no other sample.

    Returns:
        [K, N, N], the log-softmax over the last axis of cosine similarities.
    """
    unit = F.normalize(features.transpose(0, 1), dim=2)
    cosines = unit @ unit.transpose(1, 2)
    pairs = there.T.unsqueeze(1) & there.T.unsqueeze(2) & ~torch.eye(len(features), dtype=torch.bool).to(there.device)
    return cosines.masked_fill(~pairs, -1e4).log_softmax(dim=2)


class Correspondence(Term):
    """Divergence between the similarities of samples in the source and in the adapted generator, within each region.

    All stages of the render network give features. The paper compares whole images. Here each region has its own
    similarity, so hair stays as varied as in the source.
    """

    def step(self, z: torch.Tensor, c: torch.Tensor) -> None:
        source, G = self.loss.source.G, self.loss.G
        ws = self.loss.mix_styles(z[:SAMPLES], c[:SAMPLES], update_w_avg=False)
        if len(ws) < 3:
            return
        with self.loss.autocast():
            with torch.no_grad():
                wanted, mask = self._features(source.synthesis, ws.detach())
            found, _ = self._features(G.synthesis, ws)
        planes = one_hot(mask.argmax(dim=1), mask.shape[1]).add(1) / 2
        there = is_present(mask_areas(mask))
        counted = (there & (there.sum(dim=0) >= 3)).T  # [K, N]
        divergences = []
        for ours, theirs in zip(found, wanted, strict=True):
            target = similarities(region_features(theirs, planes), there)
            ours = similarities(region_features(ours, planes), there)
            divergence = (target.exp() * (target - ours)).sum(dim=2)
            divergences.append((divergence * counted).sum() / counted.sum().clamp(min=1))
        term = torch.stack(divergences).mean()
        training_stats.report("Loss/correspondence", term)
        (self.weight * term).backward()

    @staticmethod
    def _features(synthesis: torch.nn.Module, ws: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Returns the outputs [N, C, r, r] of all render stages, and the mask [N, K, R, R]."""
        stages = [getattr(synthesis.render, f"b{resolution}").conv for resolution in synthesis.render.resolutions]
        with kept_outputs(stages) as found:
            mask = synthesis(ws, noise_mode="const", return_mask=True).mask
        return found, mask
