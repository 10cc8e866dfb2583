"""The encoder: its descriptions, its fit, its file, and what a trained one reaches."""

import numpy as np
import PIL.Image
import pytest
import torch

import legacy
from dnnlib import UserError
from semantic.encoder import Pass, load_encoder, new_encoder, save_encoder, start_of
from semantic.inversion import encoder_training
from semantic.inversion.distance import Distance, Targets
from semantic.inversion.encoder_loss import EncoderLoss
from semantic.inversion.encoder_training import Trainer, Training
from semantic.inversion.photos import find_photos
from semantic.inversion.regression import fit_pass
from semantic.inversion.space import code_space
from tests.networks import tiny_generator
from tests.semantic.helpers import CPU, build_discriminator, random_tensor

SMALL = {"num_passes": 2, "rank": 4, "context": 4}


@pytest.fixture(scope="module")
def networks():
    return {"G_ema": tiny_generator(), "D": build_discriminator(count=4, segmentation=True).requires_grad_(False)}


@pytest.fixture(scope="module")
def encoder(networks):
    made = new_encoder(networks, **SMALL).eval().requires_grad_(False)
    for i, parameter in enumerate(made.passes.parameters()):
        parameter.copy_(random_tensor(*parameter.shape, seed=i) / 50)
    return made


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(encoder_training, "JUDGED", 8)
    monkeypatch.setattr(encoder_training, "HEAD_KIMG", 0.03)


def test_branch_and_head_come_from_the_discriminator(networks, encoder):
    images = random_tensor(2, 3, 32, 32)
    expected = networks["D"](images, None, return_segmentation=True)[1]
    assert torch.equal(encoder.scores(images), expected)


def test_a_region_is_described_by_its_own_pixels(encoder):
    images, masks = random_tensor(1, 3, 32, 32).clamp(-1, 1), torch.zeros(1, 32, 32, dtype=torch.int64)
    masks[:, :10, 5:20] = 2
    changed = torch.where((masks == 2).unsqueeze(1), images, images.flip(3))
    one, two = (encoder.describe(x, masks) for x in (images, changed))
    colors = slice(one.shape[2] - 2 - 4 * 64 - 6, one.shape[2] - 2 - 4 * 64)
    pixels = images[0, :, :10, 5:20].flatten(1).numpy()
    found = one[0, 2, colors].numpy()
    assert np.allclose(found, np.concatenate([pixels.mean(1), pixels.std(1)]), atol=1e-4)
    assert torch.allclose(one[0, 2, colors], two[0, 2, colors])
    assert not torch.allclose(one[0, 0, colors], two[0, 0, colors])
    assert (one[0, 1] == 0).all()  # this region is nowhere


def test_a_pass_finds_a_map_that_its_rank_can_hold():
    features, width = 12, 6
    descriptions = random_tensor(400, 4, features)
    maps = [random_tensor(features, 3, seed=k) @ random_tensor(3, 2 * width, seed=k + 9) for k in range(4)]
    groups = [descriptions[:, 3] @ maps[3]] + [descriptions[:, k] @ maps[k] for k in range(3)]
    codes = torch.cat([group.view(400, 2, width) for group in groups], dim=1) + 1
    step = Pass(3, features, context=2, rank=3, w_dim=width, base_layers=2).requires_grad_(False)
    assert fit_pass(step, descriptions[:300], codes[:300]) > 0.99
    missed = (step(descriptions[300:]) - codes[300:]).square().mean() / codes[300:].var()
    assert missed < 0.01


def test_a_region_that_never_shows_gets_the_average():
    descriptions, codes = random_tensor(64, 3, 5), random_tensor(64, 4, 6)
    descriptions[:, 1] = 0
    step = Pass(2, 5, context=1, rank=2, w_dim=6, base_layers=0).requires_grad_(False)
    fit_pass(step, descriptions, codes)
    assert step(descriptions).isfinite().all()


def test_a_file_gives_the_encoder_back_and_holds_half_precision(encoder, networks, tmp_path):
    path = tmp_path / "some-encoder.pkl"
    save_encoder(path, encoder)
    again = load_encoder(path, networks["G_ema"])
    count = sum(tensor.numel() for tensor in encoder.state_dict().values())
    assert path.stat().st_size < 2.3 * count + 300_000
    images = random_tensor(2, 3, 32, 32)
    first, second = (x(images, networks["G_ema"]) for x in (encoder, again))
    assert second.dtype == torch.float32
    assert torch.allclose(first, second, atol=0.05 * float(first.std()))


def test_an_encoder_of_another_network_is_told_in_one_line(encoder, networks, tmp_path):
    path = tmp_path / "some-encoder.pkl"
    save_encoder(path, encoder)
    for other, why in [
        (tiny_generator(seed=3), "average codes of both differ"),
        (tiny_generator(names=["background", "a", "b", "c"]), "its regions are background, skin"),
        (tiny_generator(w_dim=4), "codes of another shape"),
    ]:
        with pytest.raises(UserError, match=f"to another network: .*{why}"):
            load_encoder(path, other)
    network = tmp_path / "network.pkl"
    legacy.save_network({"G": None, "D": None, "G_ema": networks["G_ema"]}, network)
    with pytest.raises(UserError, match="Expected an encoder"):
        load_encoder(network)


def test_a_search_starts_with_the_encoder_beside_the_network_if_it_fits(encoder, networks, tmp_path):
    network, images = tmp_path / "net.pkl", random_tensor(2, 3, 32, 32)
    assert start_of(networks, network) is None
    save_encoder(tmp_path / "net-encoder.pkl", encoder)
    found = start_of(networks, network)(images, None)
    assert torch.allclose(found, encoder(images, networks["G_ema"]), atol=0.05 * float(found.std()))
    other = {"G_ema": tiny_generator(seed=3), "D": None}
    assert start_of(other, network) is None
    with pytest.raises(UserError, match="to another network"):
        start_of(other, network, tmp_path / "net-encoder.pkl")


def test_codes_count_where_they_are_known(networks):
    G = networks["G_ema"]
    space = code_space(G, CPU, samples=1000)
    ws = random_tensor(2, G.num_ws, G.w_dim) / 5
    out = G.synthesis(ws, noise_mode="const", return_mask=True)
    targets = Targets(out.image, out.mask.argmax(dim=1))
    known, codes = torch.tensor([True, False]), ws + 0.1
    found = [
        EncoderLoss(space=space, distance=Distance(), codes=weight)(G, ws, targets, known, codes) for weight in (0, 2)
    ]
    offset = (0.1 * torch.ones(G.w_dim) @ space.axes / space.deviations).square().mean()
    assert torch.allclose(found[1] - found[0], torch.stack([2 * offset, offset * 0]), rtol=1e-3)


@pytest.mark.parametrize("lent", [True, False], ids=["head lent", "head of its own"])
def test_a_trained_encoder_is_nearer_than_the_mean(networks, lent, quick, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, [40, 50, 3], np.uint8)
    PIL.Image.fromarray(pixels).save(tmp_path / "photo.png")
    (tmp_path / "broken.png").write_bytes(b"")
    training = Training(pairs=192, kimg=0.064, batch=8, num_passes=1 + lent, rank=6, context=4, bf16=lent)
    lines = []
    used = networks if lent else networks | {"D": None}
    trainer = Trainer(used, CPU, training, find_photos(str(tmp_path)), lines.append, hide_progress=True)
    encoder = trainer.run()
    assert [line.partition(":")[0] for line in lines] == ["Skipped", "Pass 1", "Pass 2"][: 2 + lent]
    G = networks["G_ema"]
    ws = G.mapping(random_tensor(16, G.z_dim, seed=77), None)
    out = G.synthesis(ws, noise_mode="const", return_mask=True)
    found = encoder(out.image.clamp(-1, 1), G, out.mask.argmax(dim=1))
    error = [
        (G.synthesis(x, noise_mode="const") - out.image).square().mean()
        for x in (found, G.mapping.w_avg.expand(ws.shape))
    ]
    assert error[0] < 0.8 * error[1]
