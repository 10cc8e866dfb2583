"""The loss that adapts a trained pair to images, with few masks or none (Shi et al. 2022, section 4.4)."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from semantic.adaptation.correspondence import Correspondence
from semantic.adaptation.data import NO_MASK
from semantic.adaptation.keeping import MaskKeeping
from semantic.adaptation.source import Source
from semantic.loss import RegionLoss
from semantic.masks import one_hot
from semantic.terms.locality import LocalityTerm
from semantic.terms.term import Term
from training.loss import Samples


class AdaptationLoss(RegionLoss):
    """The loss of an adaptation. D judges images, or pairs if the data have masks. Masks stay near the masks of the
    source.

    Args:
        args, kwargs: see `RegionLoss`.
        mask_weight: weight of `MaskKeeping`. With 0, masks may drift.
        correspondence_weight: weight of `Correspondence`.
        locality_weight: weight of `LocalityTerm`.
        masked_share: share of the images that have masks. D judges the same share of generated images with their masks.
        r1_gamma_mask: weight of R1 on masks.
        trains_mapping: whether the mapping is trained. A frozen mapping also keeps its mean code.

    Attributes:
        source: the trained pair that the run started from.
    """

    TERMS: ClassVar[Mapping[str, type[Term]]] = {
        "mask": MaskKeeping,
        "correspondence": Correspondence,
        "locality": LocalityTerm,
    }

    def __init__(
        self,
        *args: Any,
        mask_weight: float = 10,
        masked_share: float = 0,
        r1_gamma_mask: float = 1000,
        trains_mapping: bool = True,
        **kwargs: Any,
    ):
        super().__init__(*args, mask_weight=mask_weight, **kwargs)
        self.masked_share = masked_share
        self.r1_gamma_mask = r1_gamma_mask
        self.trains_mapping = trains_mapping
        self.source = Source(self.G, self.D)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "source": self.source.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.source.load_state_dict(state["source"])

    def mix_styles(self, z: torch.Tensor, c: torch.Tensor, update_w_avg: bool) -> torch.Tensor:
        return super().mix_styles(z, c, update_w_avg and self.trains_mapping)

    def generate(self, z: torch.Tensor, c: torch.Tensor) -> Samples:
        """Returns samples as `RegionLoss.generate` does, with one more tensor.

        The tensor `paired`, bool [N], marks the samples that D judges with their masks.
        """
        fake = super().generate(z, c)
        if self.masked_share > 0:
            fake.extras["paired"] = torch.rand(len(z), device=z.device) < self.masked_share
        return fake

    def real_samples(self, real: Mapping[str, torch.Tensor]) -> Samples:
        images, extras = super().real_samples(real)
        if self.masked_share > 0:
            extras = {
                "mask": one_hot(real["mask"], self.num_regions),
                "paired": real["mask"][:, 0, 0] != NO_MASK,
            }
        return Samples(images, extras)

    def discriminate(
        self, samples: Samples, c: torch.Tensor, for_terms: bool = False, full_precision: bool = False
    ) -> torch.Tensor:
        """Returns the logits of augmented samples, [N, 1].

        D judges `paired` samples with their masks, and all other samples by the image.
        """
        if self.masked_share == 0:
            return super().discriminate(samples, c, for_terms, full_precision)
        images, mask = samples.images, samples.extras["mask"]
        if self.augment_pipe is not None:
            images, mask = self.augment_pipe(images, mask=mask)
        paired = samples.extras["paired"]
        logits = images.new_zeros(len(images), 1)
        for chosen, with_mask in ((paired, True), (~paired, False)):
            which = chosen.nonzero().flatten()
            share = 1.0
            if with_mask and len(which) == 0:  # all processes must have gradients of the same parameters
                which, share = torch.zeros(1, dtype=torch.long, device=images.device), 0.0
            if len(which):
                planes = {"mask": mask[which]} if with_mask else {}
                found = self.run_D(images[which], c[which], full_precision, **planes)
                logits = logits.index_add(0, which, found * share)
        return logits

    def r1_terms(self) -> dict[str, tuple[str, float]]:
        terms = super().r1_terms()
        return terms if self.masked_share == 0 else {**terms, "mask": ("r1_penalty_mask", self.r1_gamma_mask)}
