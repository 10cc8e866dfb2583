"""Metrics of compositional models, registered by importing this package.

Names end in a count of generated samples, plain or in thousands: ``mask_fit500``, ``mask_fit5k``. Results are named
after the metric, what is measured and the region: ``region_leak_texture_hair``; ``mean`` stands for all regions.
"""

from semantic.metrics import coarse_fit, mask_fit, mask_stats, region_fid, region_leak, train_on_fakes

__all__ = ["coarse_fit", "mask_fit", "mask_stats", "region_fid", "region_leak", "train_on_fakes"]
