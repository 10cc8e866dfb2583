"""Changes of low rank of local weights."""

import copy

import torch
from torch.nn.utils import parametrize

import legacy
from semantic.adaptation.low_rank import add_low_rank
from tests.networks import tiny_generator
from tests.semantic.helpers import random_tensor
from training.run.snapshots import save_networks
from training.weight_average import update_ema

Z = random_tensor(2, 8)


def pair():
    G = tiny_generator()
    return G, copy.deepcopy(G)


def image(G):
    return G(Z, None, noise_mode="const")


def test_at_first_nothing_changes():
    G, G_ema = pair()
    before = image(G)
    add_low_rank(G, G_ema, 2)
    assert torch.equal(image(G), before)
    assert torch.equal(image(G_ema), before)


def test_matrices_change_by_the_rank_and_files_hold_ordinary_networks(tmp_path):
    G, G_ema = pair()
    before = G.synthesis.local.weight.detach().clone()
    add_low_rank(G, G_ema, 2)
    with torch.no_grad():
        up = G.synthesis.local.parametrizations.weight[0].up
        up.copy_(random_tensor(*up.shape))
        update_ema(G_ema, G, 0.25)
    save_networks(tmp_path / "net.pkl", None, G=G, D=None, G_ema=G_ema, augment_pipe=None)
    read = legacy.load_network(tmp_path / "net.pkl")
    for name, network in (("G", G), ("G_ema", G_ema)):
        assert read[name].state_dict().keys() == tiny_generator().state_dict().keys()
        assert not any(parametrize.is_parametrized(module) for module in read[name].modules())
        assert torch.equal(image(read[name]), image(network))
        change = read[name].synthesis.local.weight - before
        assert torch.linalg.matrix_rank(change, atol=1e-4, rtol=1e-4).unique().tolist() == [2]
