"""Whitens codes by the distribution of the mapping network."""

from dataclasses import dataclass

import torch

SAMPLES = 10_000
SEED = 0
LEAST_SHARE = 1e-3
"""Smallest variance of a direction of w, as a share of the largest variance."""


@dataclass(frozen=True)
class CodeSpace:
    """Mean and principal axes of w. They whiten codes.

    Attributes:
        mean: [D].
        axes: [D, D], orthonormal columns.
        deviations: [D], standard deviation of w along each axis, at least a thirtieth of the largest.
    """

    mean: torch.Tensor
    axes: torch.Tensor
    deviations: torch.Tensor

    def whiten(self, ws: torch.Tensor) -> torch.Tensor:
        """Returns codes [..., D] in standard deviations along each axis. The mean becomes 0."""
        return (ws - self.mean) @ self.axes / self.deviations

    def unwhiten(self, codes: torch.Tensor) -> torch.Tensor:
        """Returns the codes of whitened codes. It is the inverse of `whiten`."""
        return (codes * self.deviations) @ self.axes.T + self.mean


@torch.no_grad()
def code_space(G: torch.nn.Module, device: torch.device, samples: int = SAMPLES, seed: int = SEED) -> CodeSpace:
    """Returns the distribution of w from a network's mapping. Equal networks and seeds give equal results.

    Args:
        G: any generator. All classes of a conditional generator are drawn equally often.
        device: device of the network.
        samples: number of drawn w.
        seed: seed of the latents.
    """
    generator = torch.Generator().manual_seed(seed)
    found = []
    for start in range(0, samples, 1000):
        count = min(1000, samples - start)
        z = torch.randn(count, G.z_dim, generator=generator).to(device)
        labels = torch.zeros(count, G.c_dim, device=device)
        if G.c_dim:
            labels[torch.arange(count), torch.arange(start, start + count) % G.c_dim] = 1
        found.append(G.mapping(z, labels)[:, 0].float().cpu())
    w = torch.cat(found).double()
    mean = w.mean(dim=0)
    variances, axes = torch.linalg.eigh((w - mean).T @ (w - mean) / max(len(w) - 1, 1))
    variances = variances.clamp(min=float(variances[-1]) * LEAST_SHARE + 1e-12)
    return CodeSpace(mean.float().to(device), axes.float().to(device), variances.sqrt().float().to(device))
