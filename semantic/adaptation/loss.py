"""The loss that adapts a trained pair to a domain of images without masks (Shi et al. 2022, section 4.4)."""

from collections.abc import Mapping
from typing import Any, ClassVar

from semantic.adaptation.keeping import MaskKeeping
from semantic.loss import RegionLoss
from semantic.terms.term import Term


class AdaptationLoss(RegionLoss):
    """D judges images alone; the masks stay near those of the source, the generator that training started from.

    Args:
        args, kwargs: see `RegionLoss`.
        mask_weight: weight of `MaskKeeping`; 0 lets masks drift.
    """

    TERMS: ClassVar[Mapping[str, type[Term]]] = {"mask": MaskKeeping}

    def __init__(self, *args: Any, mask_weight: float = 10, **kwargs: Any):
        super().__init__(*args, mask_weight=mask_weight, **kwargs)
