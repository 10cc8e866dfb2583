"""Fits the passes of an encoder to many pairs at once, as ridge regressions of low rank."""

import torch

from semantic.encoder import Pass, Regression

RIDGES = (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Candidates for the ridge, as shares of the variance of an input."""
KEPT_ASIDE = 8
"""One pair in this many judges the ridge."""


@torch.no_grad()
def fit_pass(step: Pass, descriptions: torch.Tensor, codes: torch.Tensor) -> float:
    """Fit a pass to pairs. Returns the share of the codes' variance that it explains in held-out pairs.

    Args:
        step: the pass to change in place.
        descriptions: [M, K + 1, F].
        codes: target codes of the pass, [M, b + 2K, D].
    """
    whole = descriptions[:, -1].float()
    step.mean.copy_(whole.mean(dim=0))
    step.scale.copy_(_inverse_deviations(whole))
    values = ((whole - step.mean) * step.scale).clamp(-8, 8)
    _, axes = torch.linalg.eigh(values.double().T @ values.double())
    kept = axes[:, -step.narrow.shape[1] :].flip(1).float()
    kept = kept / (values @ kept).std(dim=0).clamp(min=1e-6)
    step.narrow[:, : kept.shape[1]] = kept
    context = step.context(descriptions.float())
    base = codes.shape[1] - 2 * (descriptions.shape[1] - 1)
    shares = []
    for k in range(descriptions.shape[1] - 1):
        wanted = codes[:, base + 2 * k : base + 2 * k + 2].flatten(1)
        shares.append(_fit_group(step.regions, k, descriptions[:, k].float(), context, wanted.float()))
    if step.base is not None:
        shares.append(_fit_group(step.base, 0, whole, context, codes[:, :base].flatten(1).float()))
    return sum(shares) / len(shares)


def _fit_group(
    regression: Regression, group: int, own: torch.Tensor, context: torch.Tensor, wanted: torch.Tensor
) -> float:
    """Fit one group of a regression. Returns the explained share of variance in held-out pairs."""
    regression.mean[group] = own.mean(dim=0)
    regression.scale[group] = _inverse_deviations(own)
    values = ((own - regression.mean[group]) * regression.scale[group]).clamp(-8, 8)
    values = torch.cat([values, context], dim=1)
    bias = wanted.mean(dim=0)
    wanted = wanted - bias
    aside = torch.arange(len(own), device=own.device) % KEPT_ASIDE == 0
    gram = values[~aside].T @ values[~aside]
    cross = values[~aside].T @ wanted[~aside]
    scale = float(gram.diagonal().mean())
    eigenvalues, axes = torch.linalg.eigh(gram.double())
    turned = axes.T @ cross.double()
    best, maps = float("inf"), None
    for ridge in RIDGES:
        found = (axes @ (turned / (eigenvalues.clamp(min=0) + ridge * scale + 1e-9).unsqueeze(1))).float()
        missed = float((values[aside] @ found - wanted[aside]).square().sum())
        if missed < best:
            best, maps = missed, found
    # The rank goes to the directions in which the fitted codes vary most (reduced-rank regression, Izenman 1975).
    fitted = values @ maps
    _, axes = torch.linalg.eigh((fitted.T @ fitted).double())
    kept = axes[:, -regression.last.shape[1] :].flip(1).float()
    regression.first[group, :, : kept.shape[1]] = maps @ kept
    regression.last[group, : kept.shape[1]] = kept.T
    regression.bias[group] = bias
    return 1 - best / max(float(wanted[aside].square().sum()), 1e-12)


def _inverse_deviations(values: torch.Tensor) -> torch.Tensor:
    """Returns one over the standard deviation of each column. Almost constant columns get 0."""
    deviations = values.std(dim=0)
    return torch.where(deviations > 1e-4, 1 / deviations.clamp(min=1e-4), 0)
