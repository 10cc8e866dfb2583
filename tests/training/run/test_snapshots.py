"""What a run leaves behind: grids, networks, states; and which of it is the newest."""

import os
import zipfile

import numpy as np
import PIL.Image
import pytest
import torch

import legacy
from dnnlib import EasyDict, UserError
from training.augment import AugmentPipe
from training.networks import Discriminator, Generator
from training.run.snapshots import (
    Previews,
    grid_size,
    load_state,
    newest_state,
    remove_old_states,
    save_networks,
    save_state,
)
from training.warm_start import copy_networks

SIZE = {"img_resolution": 8, "img_channels": 3}


def generator(c_dim=0, seed=0, **kwargs):
    torch.manual_seed(seed)
    options = {"mapping_kwargs": {"num_layers": 1}, "synthesis_kwargs": {"channel_base": 32}, **SIZE, **kwargs}
    return Generator(z_dim=4, c_dim=c_dim, w_dim=4, **options)


def discriminator(seed=0):
    torch.manual_seed(seed)
    return Discriminator(c_dim=0, channel_base=32, **SIZE)


def tensors(network):
    return dict([*network.named_parameters(), *network.named_buffers()])


def same(first, second):
    return all(torch.equal(tensor, tensors(second)[name]) for name, tensor in tensors(first).items())


@pytest.mark.parametrize(
    ("resolution", "count", "grid"),
    [
        (32, None, (12, 8)),
        (256, None, (6, 4)),
        (1024, None, (4, 2)),
        (32, 20, (12, 1)),
        (32, 5, (5, 1)),
        (32, 1, (1, 1)),
        (256, 13, (6, 2)),
    ],
)
def test_grids_hold_no_more_than_there_is(resolution, count, grid):
    assert grid_size(resolution, count) == grid


class Data:
    resolution, label_dim = 8, 2

    def __len__(self):
        return 5

    def get_label(self, i):
        return np.eye(2, dtype=np.float32)[i % 2]

    def preview(self, indices):
        images = np.stack([np.full([3, 8, 8], 10 * i, np.uint8) for i in indices])
        return {"": images, "_mask": 255 - images}


def test_grids_of_real_and_generated_samples_are_paired(tmp_path):
    """Each thing that data and generator preview gets a picture of its own; latents, labels and order stay."""
    G = generator(c_dim=2).eval()
    previews = Previews(str(tmp_path), Data(), 4, torch.device("cpu"), batch=2)
    previews.save_reals()
    previews.save_fakes(G, "000001")
    assert sorted(os.listdir(tmp_path)) == ["fakes000001.png", "reals.png", "reals_mask.png"]
    pictures = {name: np.array(PIL.Image.open(tmp_path / name)) for name in os.listdir(tmp_path)}
    assert {picture.shape for picture in pictures.values()} == {(8, 40, 3)}
    shown = [int(pictures["reals.png"][0, 8 * i, 0]) // 10 for i in range(5)]
    assert sorted(shown) == list(range(5))
    assert (pictures["reals_mask.png"] == 255 - pictures["reals.png"]).all()
    with torch.no_grad():
        for i, item in enumerate(shown):
            alone = G(previews.z[i : i + 1], torch.from_numpy(Data().get_label(item))[None], noise_mode="const")
            expected = (alone[0].permute(1, 2, 0) * 127.5 + 127.5).round().clamp(0, 255).numpy()
            assert np.abs(pictures["fakes000001.png"][:, 8 * i : 8 * i + 8] - expected).max() <= 1
    first = (tmp_path / "fakes000001.png").read_bytes()
    Previews(str(tmp_path), Data(), 4, torch.device("cpu"), batch=5).save_fakes(G, "again")
    assert (tmp_path / "fakesagain.png").read_bytes() == first


def test_networks_are_saved_frozen_and_stay_as_they_are(tmp_path):
    G, D, pipe = generator().train(), discriminator().train(), AugmentPipe(xflip=1)
    save_networks(tmp_path / "n.pkl", {"path": "x.zip"}, G=G, D=D, G_ema=G, augment_pipe=pipe)
    assert G.training
    assert all(p.requires_grad for p in G.parameters())
    data = legacy.load_network(tmp_path / "n.pkl")
    assert same(data.G, G)
    assert same(data.G_ema, G)
    assert same(data.D, D)
    assert data.augment_pipe.xflip == 1
    assert data.training_set_kwargs == {"path": "x.zip"}
    assert not data.G.training
    assert not any(p.requires_grad for p in data.G.parameters())
    save_networks(tmp_path / "n.pkl", {}, G=G, D=D, G_ema=G, augment_pipe=None)
    assert legacy.load_network(tmp_path / "n.pkl").augment_pipe is None
    assert os.listdir(tmp_path) == ["n.pkl"]


def test_a_state_reads_back(tmp_path):
    state = {"G": {"w": torch.randn(3)}, "run": {"images_seen": 7, "elapsed": 1.5}, "list": [1, None, "x"]}
    save_state(tmp_path / "s.pt", EasyDict(state))
    found = load_state(tmp_path / "s.pt")
    assert torch.equal(found["G"]["w"], state["G"]["w"])
    assert (found["run"], found["list"]) == (state["run"], state["list"])


class Malice:
    def __reduce__(self):
        return os.mkdir, (os.environ["MALICE"],)


def test_no_state_is_told_in_one_line_and_nothing_in_it_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("MALICE", str(tmp_path / "made"))
    save_state(tmp_path / "good.pt", {"a": torch.zeros(100), "run": {}})
    whole = (tmp_path / "good.pt").read_bytes()
    torch.save({"a": Malice()}, tmp_path / "bad.pt")
    flipped = bytearray(whole)
    flipped[whole.index(bytes(100))] ^= 1  # a tensor's value, which PyTorch would take as it is
    for name, content in (("cut.pt", whole[:-200]), ("text.pt", b"hello"), ("empty.pt", b""), ("flip.pt", flipped)):
        (tmp_path / name).write_bytes(content)
    save_state(tmp_path / "no_run.pt", {"G": {}})
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", bytes(1 << 20))
    for name in ("cut.pt", "text.pt", "empty.pt", "flip.pt", "missing.pt", "bad.pt", "no_run.pt", "bomb.pt"):
        with pytest.raises(UserError, match="Cannot read the training state") as caught:
            load_state(tmp_path / name)
        assert str(tmp_path / name) in caught.value.message
        assert "\n" not in caught.value.message
    assert not (tmp_path / "made").exists()


def touch(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")


def test_the_newest_state_that_reads_back(tmp_path):
    said = []
    assert newest_state(tmp_path, said.append) is None
    for kimg in (3, 20, 100):
        save_state(tmp_path / f"training-state-{kimg:06d}.pt", {"run": {"images_seen": kimg}})
    touch(tmp_path, ".training-state-000200-abcdefgh.tmp.pt", "network-snapshot-000300.pkl")
    assert newest_state(tmp_path, said.append).name == "training-state-000100.pt"
    assert not said
    (tmp_path / "training-state-000100.pt").write_bytes(b"broken off")
    assert newest_state(tmp_path, said.append).name == "training-state-000020.pt"
    assert len(said) == 1
    assert said[0].startswith(f"Skipped: Cannot read the training state {tmp_path}/training-state-000100.pt")
    for kimg in (3, 20):
        (tmp_path / f"training-state-{kimg:06d}.pt").write_bytes(b"")
    with pytest.raises(UserError, match=r"training-state-000100\.pt"):
        newest_state(tmp_path, said.append)


def test_only_the_newest_states_stay(tmp_path):
    names = [f"training-state-{kimg:06d}.pt" for kimg in (1, 20, 100, 3)]
    touch(tmp_path, *names, "network-snapshot-000001.pkl")
    remove_old_states(tmp_path, keep=2)
    assert sorted(os.listdir(tmp_path)) == [
        "network-snapshot-000001.pkl",
        "training-state-000020.pt",
        "training-state-000100.pt",
    ]


def test_transfer_starts_from_the_weights():
    source = {"G": generator(seed=1), "D": discriminator(seed=1), "G_ema": generator(seed=2)}
    targets = {"G": generator(), "D": discriminator(), "G_ema": generator()}
    copy_networks(source, targets)
    for name, target in targets.items():
        assert same(source[name], target), name


def test_transfer_makes_do_with_what_there_is():
    G, D = generator(), discriminator()
    before = {name: tensor.clone() for name, tensor in tensors(D).items()}
    source = generator(seed=1)
    copy_networks({"G": None, "D": None, "G_ema": source}, {"G": G, "D": D})
    assert same(source, G)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors(D).items())


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (lambda: generator(img_resolution=4), "img_resolution=8, .*img_resolution=4, .*at 8²"),
        (lambda: generator(c_dim=3), "mapping.fc0.weight has shape"),
        (lambda: generator(synthesis_kwargs={"channel_base": 8}), r"has shape \[.* not narrower"),
        (discriminator, "is a training.networks.Generator, not a training.discriminator.Discriminator"),
    ],
)
def test_transfer_between_networks_that_do_not_fit_is_told_in_one_line(target, message):
    with pytest.raises(UserError, match=message) as caught:
        copy_networks({"G": generator()}, {"G": target()})
    assert "\n" not in caught.value.message
