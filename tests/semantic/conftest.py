"""Small networks for the tests of losses."""

import pytest
import torch

from semantic.discriminator import DualBranchDiscriminator
from semantic.generator import Generator
from tests.semantic.helpers import COARSE, COUNT, RESOLUTION, randomize, region_names, repeatable_noise


@pytest.fixture
def fixed_noise(monkeypatch):
    """Losses render with random noise; here it comes out the same each time."""
    monkeypatch.setattr(torch, "randn", repeatable_noise)
    monkeypatch.setattr(torch, "randn_like", repeatable_noise)


@pytest.fixture
def G():
    network = Generator(
        4, 0, 5, RESOLUTION, 3,
        regions={"names": region_names(COUNT), "transparent": [2]},
        mapping_kwargs={"num_layers": 2},
        synthesis_kwargs={
            "coarse_size": COARSE, "coarse_channels": 4, "local_channels": 3, "local_layers": 3, "base_layers": 1,
            "depth_layers": 2, "min_feat_size": 8, "channels": {8: 3, 16: 3, 32: 2},
        },
    )  # fmt: skip
    randomize(network)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith("mapping.") and name.endswith("weight"):
                parameter.mul_(100)  # stored divided by the learning rate multiplier
    return network.requires_grad_(False)


@pytest.fixture
def D():
    network = DualBranchDiscriminator(0, RESOLUTION, 3, COUNT, channels={4: 3, 8: 3, 16: 2, 32: 2})
    return randomize(network, seed=5).requires_grad_(False)
