"""Changes of low rank of the weights of local generators (Hu et al. 2022, "LoRA", section 4.1)."""

import torch
from torch.nn.utils import parametrize

RANK = 4
WEIGHTS = "synthesis.local"
"""The module whose `weight` [L, K, C, C] changes."""


class LowRankChange(torch.nn.Module):
    """Adds up @ down to each matrix of a stack. The first sum is zero.

    Args:
        weight: the stack [..., rows, columns].
        rank: r.
    """

    def __init__(self, weight: torch.Tensor, rank: int):
        super().__init__()
        *stack, rows, columns = weight.shape
        self.up = torch.nn.Parameter(weight.new_zeros(*stack, rows, rank))
        self.down = torch.nn.Parameter(torch.randn([*stack, rank, columns], device=weight.device))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Returns the changed weights, [..., rows, columns], in the same shape."""
        return weight + self.up.to(weight.dtype) @ self.down.to(weight.dtype)


def add_low_rank(G: torch.nn.Module, G_ema: torch.nn.Module, rank: int = RANK) -> None:
    """Add trainable matrices of low rank to the local weights of a generator. Its average gets the same matrices."""
    changes = [LowRankChange(network.get_submodule(WEIGHTS).weight.detach(), rank) for network in (G, G_ema)]
    changes[1].load_state_dict(changes[0].state_dict())
    for network, change in zip((G, G_ema), changes, strict=True):
        parametrize.register_parametrization(network.get_submodule(WEIGHTS), "weight", change)
    G_ema.eval().requires_grad_(False)
