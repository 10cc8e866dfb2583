"""Small network files: what is rounded, what stays, and that damage is reported."""

import io
import json
import zipfile

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import legacy
from dnnlib import UserError
from torch_utils.network_files import rebuild
from training import compact
from training.networks import Discriminator, Generator


def networks(augment=None):
    torch.manual_seed(0)
    small = dict(channel_base=512, channel_max=64)
    one, two = (Generator(64, 0, 64, 8, 3, mapping_kwargs={"num_layers": 2}, synthesis_kwargs=small) for _ in range(2))
    two.mapping.w_avg.normal_()
    D = Discriminator(0, 8, 3, **small)
    return {"G": one, "D": D, "G_ema": two, "augment_pipe": augment, "training_set_kwargs": {"path": "a.zip"}}


def test_networks_that_are_missing_stay_missing(tmp_path):
    compact.save_compact(networks() | {"G": None, "D": None}, tmp_path / "net.npz")
    found = legacy.load_network(tmp_path / "net.npz")
    assert found.G is found.D is None


def test_networks_that_are_too_large_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(compact, "MOST_BYTES", 1000)
    with pytest.raises(UserError, match=r"too large for \.npz"):
        compact.save_compact(networks(), tmp_path / "net.npz")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    data, path = networks(), tmp_path_factory.mktemp("small") / "net.npz"
    compact.save_compact(data, path)
    return data, path


def test_weights_are_rounded_by_rows_and_the_rest_stays(stored):
    data, path = stored
    found = legacy.load_network(path)
    assert found.training_set_kwargs == data["training_set_kwargs"]
    assert found.augment_pipe is None
    seen = set()
    for key, levels in (("G_ema", 127), ("D", 31)):
        weights = dict(data[key].named_parameters())
        for name, tensor in rebuild.named_tensors(found[key]).items():
            exact = rebuild.named_tensors(data[key])[name]
            large = name in weights and exact.ndim > 1 and exact.numel() >= 1024
            seen.add(large)
            if large:
                step = exact.flatten(1).abs().amax(dim=1).reshape(-1, *[1] * (exact.ndim - 1)) / levels
                assert ((tensor - exact).abs() <= 0.501 * step).all()
            else:
                assert torch.equal(tensor, exact)
    assert seen == {True, False}
    for name, tensor in rebuild.named_tensors(found.G).items():
        assert torch.equal(tensor, rebuild.named_tensors(found.G_ema)[name])


def test_files_are_small_and_always_the_same(stored, tmp_path):
    data, path = stored
    compact.save_compact(data, tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()
    legacy.save_network(data, tmp_path / "net.pkl")
    assert path.stat().st_size < (tmp_path / "net.pkl").stat().st_size / 5


def test_a_row_holds_enough_numbers():
    weight = torch.randn(2, 3, 32, 16) * torch.tensor([1e-3, 1, 1e3])[:, None, None]
    rounded, steps = compact.quantize(weight, 8, "w")
    assert steps.shape == (2, 3)  # 16 numbers were too few
    assert ((compact.dequantize(rounded, steps) - weight).abs() <= 0.501 * steps[..., None, None]).all()
    assert compact.row_dims(torch.zeros(64, 3, 3)) == 0
    assert torch.equal(compact.quantize(torch.zeros(4, 64), 8, "w")[0], torch.zeros(4, 64, dtype=torch.int8))
    with pytest.raises(UserError, match="w has numbers that are not finite"):
        compact.quantize(torch.full([2, 32], torch.inf), 8, "w")


def test_the_command_writes_it(tmp_path):
    legacy.save_network(networks(), tmp_path / "net.pkl")
    call = [f"--source={tmp_path / 'net.pkl'}", f"--dest={tmp_path / 'net.npz'}"]
    assert CliRunner().invoke(legacy.main, call).exit_code == 0
    assert type(legacy.load_network(tmp_path / "net.npz").G_ema) is Generator
    assert "--half is for" in CliRunner().invoke(legacy.main, [*call, "--half"]).output


def changed(path, name, value):
    """The file with another array of this name, or without it."""
    out = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            if info.filename != f"{name}.npy":
                new.writestr(info, old.read(info))
        if value is not None:
            with new.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, value)
    return out.getvalue()


def other_metadata(path, **values):
    with np.load(path) as arrays:
        metadata = json.loads(str(arrays["metadata"]))
    return changed(path, "metadata", np.array(json.dumps({**metadata, **values})))


WEIGHT = "G_ema.synthesis.b4.conv1.weight"
DAMAGE = {
    "cut": lambda p: p.read_bytes()[:-40],
    "objects": lambda p: changed(p, WEIGHT, np.array([{}], dtype=object)),
    "no weight": lambda p: changed(p, WEIGHT, None),
    "no steps": lambda p: changed(p, f"{WEIGHT}:steps", None),
    "other steps": lambda p: changed(p, f"{WEIGHT}:steps", np.ones(3, np.float32)),
    "steps of text": lambda p: changed(p, f"{WEIGHT}:steps", np.array(["a"] * 64)),
    "steps of nothing": lambda p: changed(p, "G_ema.none:steps", np.ones(3, np.float32)),
    "other format": lambda p: other_metadata(p, format="pt"),
    "no networks": lambda p: other_metadata(p, networks=None),
    "metadata of numbers": lambda p: changed(p, "metadata", np.ones(3)),
    "a list as metadata": lambda p: changed(p, "metadata", np.array("[]")),
    "a call as class": lambda p: other_metadata(
        p, networks=json.dumps({key: {"class": "os.mkdir", "args": ["x"], "kwargs": {}} for key in compact.NETWORKS})
    ),
    "only codes": lambda p: changed(p, "metadata", None),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_told_in_one_line(stored, tmp_path, name):
    path = tmp_path / "bad.npz"
    path.write_bytes(DAMAGE[name](stored[1]))
    with pytest.raises(UserError) as caught:
        legacy.load_network(path)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
