"""Metrics of compositional models. Importing this package registers them.

Names end in a count of generated samples, plain or in thousands: ``mask_fit500``, ``mask_fit5k``. Names of results
consist of metric, quantity and region: ``region_leak_texture_hair``. ``mean`` is the mean of all regions.
"""

from semantic.metrics import coarse_fit, mask_fit, mask_stats, region_fid, region_leak, train_on_fakes

__all__ = ["coarse_fit", "mask_fit", "mask_stats", "region_fid", "region_leak", "train_on_fakes"]
