"""Plain networks for NVIDIA's code: stubs that follow the facts of its file format stand for that code."""

import json
import pickle
import subprocess
import sys
import textwrap

import pytest
import torch
from click.testing import CliRunner

import legacy
from dnnlib import UserError
from torch_utils.network_files import machine
from training import upstream
from training.networks import Discriminator, Generator

PERSISTENCE = """
import sys, types

def _reconstruct_persistent_obj(meta):
    assert meta.type == "class" and meta.version == 6
    module = types.ModuleType("_imported_" + str(len(sys.modules)))
    exec(meta.module_src, module.__dict__)
    obj = module.__dict__[meta.class_name]
    obj = obj.__new__(obj)
    if hasattr(obj, "__setstate__"):
        obj.__setstate__(meta.state)
    else:
        obj.__dict__.update(meta.state)
    return obj
"""
EASY_DICT = """
class EasyDict(dict):
    def __getattr__(self, name):
        return self[name]
    def __setattr__(self, name, value):
        self[name] = value
"""
NETWORK = """
import torch

class _Network(torch.nn.Module):
    def load_state_dict(self, state):
        self.state = {name: [list(t.shape), float(t.double().sum())] for name, t in state.items()}

class Generator(_Network):
    def __init__(self, z_dim, c_dim, w_dim, img_resolution, img_channels, mapping_kwargs={}, GENERATOR):
        super().__init__()
        self.given = {k: v for k, v in locals().items() if k not in ("self", "__class__")}

class Discriminator(_Network):
    def __init__(self, c_dim, img_resolution, img_channels, architecture="resnet", channel_base=32768,
                 channel_max=512, num_fp16_res=0, conv_clamp=None, cmap_dim=None, block_kwargs={},
                 mapping_kwargs={}, epilogue_kwargs={}):
        super().__init__()
        self.given = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
"""
CODE_BASES = {
    "stylegan2-ada-pytorch": ("networks", NETWORK.replace("GENERATOR", "synthesis_kwargs={}")),
    "stylegan3": ("networks_stylegan2", NETWORK.replace("GENERATOR", "**synthesis_kwargs")),
}
OPENER = """
import json, pickle, sys
data = pickle.load(open(sys.argv[1], "rb"))
nets = {k: data[k] for k in ("G", "D", "G_ema") if data[k] is not None}
print(json.dumps({
    "classes": {k: [type(net).__module__, type(net).__name__, net.training] for k, net in nets.items()},
    "given": {k: net.given for k, net in nets.items()},
    "state": {k: net.state for k, net in nets.items()},
    "rest": {k: v for k, v in data.items() if k not in nets},
}))
"""
SMALL = dict(channel_base=64, channel_max=8)


def networks(**options):
    torch.manual_seed(0)
    G = Generator(8, 2, 8, 16, 3, {"num_layers": 2}, SMALL | options)
    G.mapping.w_avg.normal_()
    D = Discriminator(2, 16, 3, **SMALL, block_kwargs=dict(freeze_layers=2, **options))
    dataset = dict(class_name=upstream.DATASET, path="a.zip", use_labels=True, resolution=16, ours=1)
    return dict(G=G, D=D, G_ema=G, augment_pipe=None, training_set_kwargs=dataset)


def opened_by(code_base, path, folder):
    """What the stub of a code base makes of the file, in a process that has nothing of this project."""
    module, source = CODE_BASES[code_base]
    files = {
        "torch_utils/__init__.py": "",
        "torch_utils/persistence.py": PERSISTENCE,
        "dnnlib/__init__.py": "from .util import EasyDict",
        "dnnlib/util.py": EASY_DICT,
        "training/__init__.py": "",
        f"training/{module}.py": source,
        "opener.py": OPENER,
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(textwrap.dedent(text))
    done = subprocess.run(
        [sys.executable, "opener.py", str(path)], cwd=folder, capture_output=True, text=True, env={"PYTHONPATH": ""}
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("code_base", CODE_BASES)
def test_the_code_of_both_repositories_builds_the_networks(code_base, tmp_path):
    data = networks(half_dtype="bfloat16")
    legacy.save_network(data, tmp_path / "ours.pkl")
    options = [f"--source={tmp_path / 'ours.pkl'}", f"--dest={tmp_path / 'net.pkl'}", "--format=upstream"]
    result = CliRunner().invoke(legacy.main, options)
    assert result.exit_code == 0, result.output
    found = opened_by(code_base, tmp_path / "net.pkl", tmp_path / "code")

    module = f"training.{CODE_BASES[code_base][0]}"
    kinds = {"G": "Generator", "D": "Discriminator", "G_ema": "Generator"}
    assert found["classes"] == {key: [module, name, False] for key, name in kinds.items()}
    given = found["given"]["G_ema"]
    assert {name: given[name] for name in ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")} == dict(
        z_dim=8, c_dim=2, w_dim=8, img_resolution=16, img_channels=3
    )
    assert given["mapping_kwargs"] == {"num_layers": 2}
    assert given["synthesis_kwargs"] == SMALL | {"num_fp16_res": 0, "conv_clamp": None}
    assert found["given"]["D"]["block_kwargs"] == {"freeze_layers": 2}
    assert found["given"]["D"]["channel_base"] == 64
    for key in kinds:
        expected = {n: [list(t.shape), t.double().sum().item()] for n, t in data[key].state_dict().items()}
        assert found["state"][key] == expected
    expected = {name: value for name, value in data["training_set_kwargs"].items() if name != "ours"}
    assert found["rest"] == {"augment_pipe": None, "training_set_kwargs": expected}


def test_the_file_opens_here_as_well(tmp_path):
    data = networks()
    upstream.save_upstream(data, tmp_path / "net.pkl")
    z, c = torch.randn(2, 8), torch.eye(2)
    with torch.no_grad():
        image = data["G_ema"].eval()(z, c, noise_mode="const")
        logits = data["D"].eval()(image, c)
        for found in (legacy.load_network(tmp_path / "net.pkl"), pickle.loads((tmp_path / "net.pkl").read_bytes())):
            assert torch.equal(found["G_ema"](z, c, noise_mode="const"), image)
            assert torch.equal(found["D"](image, c), logits)


def test_options_in_half_precision_reach_the_file(tmp_path):
    data = networks() | {"D": None}
    data["G"] = upstream.with_half_layers(data["G"], "G")
    upstream.save_upstream(data, tmp_path / "net.pkl")
    with open(tmp_path / "net.pkl", "rb") as file:
        records = machine.load_records(file)
    given = {key: records[key].state["_init_kwargs"]["synthesis_kwargs"] for key in ("G", "G_ema")}
    assert given["G"] == SMALL | {"num_fp16_res": 4, "conv_clamp": 256}
    assert given["G_ema"] == SMALL | {"num_fp16_res": 0, "conv_clamp": None}


def test_a_semantic_network_is_refused_in_one_line(tmp_path):
    data = legacy.load_network("faces64")
    with pytest.raises(UserError, match=r"Only plain StyleGAN2 networks can be written"):
        upstream.save_upstream(data, tmp_path / "net.pkl")
    assert not list(tmp_path.iterdir())


def test_forced_half_precision_changes_the_options_and_no_weight():
    data = networks()
    for key, options in (("G", "synthesis"), ("D", "b16")):
        twin = upstream.with_half_layers(data[key], key)
        assert twin.state_dict().keys() == data[key].state_dict().keys()
        assert all(torch.equal(t, data[key].state_dict()[n]) for n, t in twin.state_dict().items())
        assert hasattr(twin, options)
    assert upstream.with_half_layers(data["G"], "G").synthesis.b16.use_fp16
    assert upstream.with_half_layers(data["D"], "D").b16.use_fp16
    assert not data["G"].synthesis.b16.use_fp16
