"""What an encoder is trained by: codes where they are known, images and masks everywhere."""

from dataclasses import dataclass

import torch

from semantic.inversion.distance import Distance, Targets
from semantic.inversion.space import CodeSpace


@dataclass(frozen=True, kw_only=True)
class EncoderLoss:
    """The loss of an encoder.

    Whitened codes count by their mean square. Images count by the L1 distance of Laplacian pyramids and by MS-SSIM,
    masks by cross-entropy, see `Distance`.

    Attributes:
        space: whitens codes.
        codes: weight of the codes.
        distance: of images and masks.
    """

    space: CodeSpace
    codes: float = 0.1
    distance: Distance

    def __call__(
        self, G: torch.nn.Module, ws: torch.Tensor, targets: Targets, known: torch.Tensor, codes: torch.Tensor
    ) -> torch.Tensor:
        """The loss of each image, [N]; differentiable in `ws`.

        Args:
            G: the generator.
            ws: codes that the encoder gives, [N, num_ws, D].
            targets: images and masks.
            known: bool [N], whether the codes of an image are known.
            codes: the known codes [N, num_ws, D]; anything where they are not known.
        """
        out = G.synthesis(ws, noise_mode="const", return_mask=True)
        away = (self.space.whiten(ws) - self.space.whiten(codes)).square().mean(dim=(1, 2))
        apart = self.distance(out.image.float(), out.mask.float(), self.distance.prepare(targets))
        return apart + self.codes * torch.where(known, away, 0)
