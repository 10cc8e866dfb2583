"""Small random networks with regions."""

import torch

from semantic.generator import Generator

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
