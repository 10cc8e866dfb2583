"""Small random networks."""

import copy
from typing import Any

import torch

from semantic.discriminator import DualBranchDiscriminator
from semantic.generator import Generator
from training import networks

REGIONS = {
    "names": ["background", "skin", "hair", "glasses"],
    "colors": [[20, 20, 20], [240, 190, 150], [110, 60, 20], [130, 220, 230]],
    "transparent": [3],
}


def tiny_generator(seed: int = 0, names: list[str] | None = None, w_dim: int = 8, c_dim: int = 0) -> Generator:
    """A random generator of 32² with a coarse size of 16², 4 regions unless `names` says otherwise, and an average."""
    torch.manual_seed(seed)
    regions = REGIONS if names is None else {"names": names}
    G = Generator(
        z_dim=w_dim,
        c_dim=c_dim,
        w_dim=w_dim,
        img_resolution=32,
        img_channels=3,
        regions=regions,
        mapping_kwargs={"num_layers": 2},
        synthesis_kwargs={
            "coarse_size": 16,
            "coarse_channels": 16,
            "local_channels": 8,
            "local_layers": 6,
            "depth_layers": 4,
            "min_feat_size": 8,
            "channel_base": 256,
        },
    )
    G.mapping.w_avg.copy_(torch.randn(w_dim) / 10)
    with torch.no_grad():
        G.synthesis.local.depth_weight.mul_(4)  # so that masks have regions of some size
    return G.eval().requires_grad_(False)


SMALL_PLAIN = {"channel_base": 64, "channel_max": 8}
SMALL_SEMANTIC = {
    "coarse_size": 16,
    "coarse_channels": 8,
    "local_channels": 4,
    "min_feat_size": 8,
    "channel_base": 256,
    "channel_max": 8,
}


def small_networks(kind: str) -> dict[str, Any]:
    """G, D and G_ema of 32² as a network file holds them, whose noise shows.

    Args:
        kind: 'plain', or 'semantic' with the regions background, face and glasses.
    """
    torch.manual_seed(0)
    if kind == "semantic":
        regions = {"names": ["background", "face", "glasses"], "colors": None, "transparent": [2]}
        G = Generator(8, 0, 8, 32, 3, regions, {"num_layers": 2}, SMALL_SEMANTIC)
        D = DualBranchDiscriminator(0, 32, 3, 3, 256, 8, segmentation=True)
    else:
        G = networks.Generator(8, 0, 8, 32, 3, {"num_layers": 2}, SMALL_PLAIN)
        D = networks.Discriminator(0, 32, 3, **SMALL_PLAIN)
    for name, parameter in G.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.fill_(0.1)
    return {"G": G, "D": D, "G_ema": copy.deepcopy(G).eval().requires_grad_(False), "augment_pipe": None}
