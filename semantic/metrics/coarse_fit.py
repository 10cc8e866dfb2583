"""Agreement of the final mask with the coarse mask, at which the regions are fused."""

import torch

from metrics.metric_utils import FeatureStats, MetricOptions
from metrics.registry import register_metric
from semantic.metrics.common import (
    count_of,
    count_pattern,
    iterate_latents,
    overlap_counts,
    prefixed,
    region_ious,
    region_network,
    render,
    with_mean,
)


def coarse_counts(mask: torch.Tensor, coarse_mask: torch.Tensor) -> torch.Tensor:
    """Returns the overlap of the regions of the coarse mask and of the final mask, averaged down to its size.

    Args:
        mask: [N, K, R, R].
        coarse_mask: [N, K, H, H]. The larger of R and H must be a multiple of the other.

    Returns:
        int64 [N, 3, K], see `overlap_counts`. The final mask is the truth.
    """
    size = min(mask.shape[-1], coarse_mask.shape[-1])
    final, coarse = (
        torch.nn.functional.avg_pool2d(planes.float(), planes.shape[-1] // size).argmax(dim=1)
        for planes in (mask, coarse_mask)
    )
    return overlap_counts(final, coarse, mask.shape[1])


@register_metric(pattern=count_pattern("coarse_fit"), names=["coarse_fit"])
def coarse_fit(opts: MetricOptions, number: int | None, thousands: str | None) -> dict[str, float]:
    """Agreement of the coarse mask with the final mask.

    The metric's own name is the share of places where both masks have the same region. The regions' names are their
    intersection over union, and 'mean' is the mean of these. 1 is best.
    """
    names = region_network(opts).regions.names
    stats = FeatureStats(capture_all=True)
    for batch in iterate_latents(opts, count_of(number, thousands, 1000), "generated"):
        output = render(opts, batch.ws)
        stats.append(coarse_counts(output.mask, output.coarse_mask), batch.start)
    stats.gather()
    if opts.rank != 0:
        return {}
    counts = stats.get_all().reshape(-1, 3, len(names))
    agreement = float(counts[:, 0].sum() / counts[:, 2].sum())
    return {opts.metric: agreement, **prefixed(opts.metric, with_mean(region_ious(counts, names)))}
