"""Keeps edits in their regions: chooses edits to try, and measures how much change leaks. Not in the paper."""

import torch

from semantic.masks import change_outside, is_present, mask_areas
from semantic.terms.term import Term
from torch_utils import distributed, training_stats
from training.loss import StyleGAN2Loss

EDITS = 3
"""Largest number of edits per sample."""
HALF_LIFE = 200
"""Half-life of the running sums, in edits."""
LEAST_LEAK = 0.1
"""Leak that every code gets in the odds of its choice. Codes without a leak are then tried too."""
ABSENT = 0.05
"""Odds of a code of an absent region, relative to a present region."""
SMALL_CHANGE = 0.1
"""Fraction of a code's usual change below which an edit counts less."""


class EditSums:
    """Running sums of the changes by each code of each region, outside the region and everywhere.

    Codes are numbered as in W+: shape and texture of one region after the other.

    Args:
        num_regions: K.
        device: device of the sums.
    """

    def __init__(self, num_regions: int, device: torch.device):
        self.sums = torch.zeros(3, 2 * num_regions, device=device)

    def running(self) -> list[torch.Tensor]:
        """Returns all tensors that `observe` updates."""
        return [self.sums]

    def observe(self, codes: torch.Tensor, changes: torch.Tensor, is_there: torch.Tensor) -> None:
        """Add edits of all processes to the sums.

        Args:
            codes: numbers of the edited codes, [N].
            changes: result of `change_outside`, [N, 2].
            is_there: bool [N], whether the region is present before or after the edit. Other edits do not count.
        """
        rows = torch.cat([changes.detach(), torch.ones_like(changes[:, :1])], dim=1) * is_there.unsqueeze(1)
        of_code = torch.nn.functional.one_hot(codes, self.sums.shape[1]).float()
        new = distributed.all_reduce(rows.T.float() @ of_code)  # a matrix product repeats exactly
        kept = 0.5 ** (len(codes) * distributed.get_world_size() / HALF_LIFE)
        self.sums.mul_(kept).add_(new)

    def leaks(self) -> torch.Tensor:
        """Returns the fraction of change outside the region for each code, [2K]. 1 for codes without edits so far."""
        outside, everywhere, _ = self.sums
        return torch.where(everywhere > 0, outside / everywhere.clamp(min=1e-12), 1)

    def sizes(self) -> torch.Tensor:
        """Returns the mean total change of an edit for each code, [2K]."""
        _, everywhere, count = self.sums
        return everywhere / count.clamp(min=1e-12)

    def choose(self, mask: torch.Tensor, edits: int = EDITS) -> torch.Tensor:
        """Returns codes to edit. Codes with a larger leak are chosen more often.

        Args:
            mask: planes of the samples' masks, [N, K, R, R].
            edits: number of edits per sample.

        Returns:
            Numbers of codes, [N, edits]. The codes of one sample differ.
        """
        odds = torch.where(is_present(mask_areas(mask)), 1, ABSENT).repeat_interleave(2, dim=1)
        odds = odds * (self.leaks() + LEAST_LEAK)
        return (odds / torch.empty_like(odds).exponential_()).topk(edits).indices  # multinomial would wait for a GPU

    def leak(
        self, codes: torch.Tensor, change: torch.Tensor, before: torch.Tensor, after: torch.Tensor
    ) -> torch.Tensor:
        """Returns the mean fraction of change outside the edited regions, like the metric region_leak.

        An edit far smaller than usual for its code counts less. Otherwise the smallest edits would have the largest
        gradients. Edits of regions that are absent before and after do not count.

        Args:
            codes: numbers of the edited codes, [N].
            change: difference of the images, [N, C, R, R].
            before, after: planes of the masks, [N, K, R, R].

        Returns:
            A scalar in [0, 1].
        """
        regions = (codes // 2)[:, None, None]
        first, second = (mask.argmax(dim=1) == regions for mask in (before, after))
        area = torch.maximum(first.float().mean(dim=(1, 2)), second.float().mean(dim=(1, 2)))
        is_there = is_present(area)
        changes = change_outside(change, (first | second).unsqueeze(1))
        self.observe(codes, changes, is_there)
        outside, everywhere = changes.T * is_there
        least = SMALL_CHANGE * self.sizes()[codes] + 1e-8
        return (outside / (everywhere + least)).sum() / is_there.sum().clamp(min=1)


class LocalityTerm(Term):
    """Keeps edits in their regions: penalizes changes outside a region when one of its codes changes.

    A sixteenth of the batch is rendered. Each of these samples is rendered up to `EDITS` more times. Each time, one
    code of one region comes from another latent. A batch of less than 16 has fewer edits. The term trains texture
    layers, feature heads and render network, which make and spread colours. If it trained shape layers, regions would
    vanish. The statistic Loss/region_leak is the mean over the tried edits. Codes with the largest leak are tried most
    often.
    """

    def __init__(self, loss: StyleGAN2Loss, weight: float):
        super().__init__(loss, weight)
        self.edits = EditSums(len(loss.G.regions), loss.device)

    def running(self) -> list[torch.Tensor]:
        return self.edits.running()

    def step(self, z: torch.Tensor, c: torch.Tensor) -> None:
        G = self.loss.G
        images = max(z.shape[0] // 4, 2)
        count = max(images // (1 + EDITS), 1)
        edits = min(EDITS, images // count - 1)
        z, c = z[:count], c[:count]
        with torch.no_grad():
            ws = G.mapping(z, c, skip_w_avg_update=True)
        first = self.render(ws)
        codes = self.edits.choose(first[1], edits)
        z, c, ws = (tensor.repeat_interleave(edits, dim=0) for tensor in (z, c, ws))
        with torch.no_grad():
            other = G.mapping(torch.randn_like(z), c, skip_w_avg_update=True)
        slots = torch.arange(ws.shape[1], device=z.device) - G.regions.base_layers
        is_edited = (slots == codes.flatten().unsqueeze(1)).unsqueeze(2)
        edited_image, edited_mask = self.render(torch.where(is_edited, other, ws))
        before, mask = (tensor.repeat_interleave(edits, dim=0) for tensor in first)
        change = edited_image.float().clamp(-1, 1) - before.float().clamp(-1, 1)
        leak = self.edits.leak(codes.flatten(), change, mask, edited_mask)
        training_stats.report("Loss/region_leak", leak)
        (leak * self.weight).backward()

    def render(self, ws: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns image and mask with constant noise. Gradients do not reach mapping, shape layers and depths."""
        synthesis = self.loss.G.synthesis
        with self.loss.autocast():
            features, coarse_mask, _ = synthesis.compose(ws, fixed_shapes=True)
            return synthesis.render(features, coarse_mask, "const")
