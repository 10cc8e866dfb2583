"""The loss of an encoder: on images and masks always, on codes if they are known."""

from dataclasses import dataclass

import torch

from semantic.inversion.distance import Distance, Targets
from semantic.inversion.space import CodeSpace


@dataclass(frozen=True, kw_only=True)
class EncoderLoss:
    """The loss of an encoder.

    It adds the distance of images and masks, see `Distance`, to the mean square difference of whitened codes.

    Attributes:
        space: the space that whitens codes.
        codes: weight of the codes.
        distance: the distance of images and masks.
    """

    space: CodeSpace
    codes: float = 0.1
    distance: Distance

    def __call__(
        self, G: torch.nn.Module, ws: torch.Tensor, targets: Targets, known: torch.Tensor, codes: torch.Tensor
    ) -> torch.Tensor:
        """Returns the loss of each image, [N]. It is differentiable in `ws`.

        Args:
            G: the generator.
            ws: codes from the encoder, [N, num_ws, D].
            targets: images and masks to reach.
            known: bool [N], whether the codes of an image are known.
            codes: the known codes [N, num_ws, D]. Unknown codes are ignored and may hold any values.
        """
        out = G.synthesis(ws, noise_mode="const", return_mask=True)
        away = (self.space.whiten(ws) - self.space.whiten(codes)).square().mean(dim=(1, 2))
        apart = self.distance(out.image.float(), out.mask.float(), self.distance.prepare(targets))
        return apart + self.codes * torch.where(known, away, 0)
