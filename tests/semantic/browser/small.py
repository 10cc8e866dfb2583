"""Small networks of several kinds, and their files."""

import torch

import legacy
from semantic.generator import Generator
from training.networks import Generator as PlainGenerator

SIZES = dict(coarse_size=16, coarse_channels=16, local_channels=16, min_feat_size=8, channel_base=256)


def generator(names=("background", "face", "hair"), c_dim=0):
    torch.manual_seed(len(names))
    G = Generator(16, c_dim, 16, 32, 3, {"names": list(names)}, synthesis_kwargs=SIZES)
    return G.eval().requires_grad_(False)


def save(G, path):
    path.parent.mkdir(exist_ok=True)
    networks = {"G": G, "D": None, "G_ema": G, "augment_pipe": None, "training_set_kwargs": {}}
    legacy.save_network(networks, str(path))
    return str(path)


def plain_generator():
    """A StyleGAN2 generator, without regions."""
    return PlainGenerator(8, 0, 8, 16, 3, synthesis_kwargs={"channel_base": 64, "channel_max": 8}).eval()
