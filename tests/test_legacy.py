"""Network files of every kind, and conversion between them."""

import io
import os
import pickle

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import legacy
from dnnlib import EasyDict, UserError
from tests.helpers import assert_close, shared_file
from torch_utils.network_files import rebuild
from torch_utils.persistence import _reconstruct_persistent_obj
from training.augment import AugmentPipe
from training.networks import Discriminator, Generator

KEYS = ["G", "D", "G_ema", "augment_pipe", "training_set_kwargs"]
SMALL = dict(channel_base=32, channel_max=4)


def bits(network):
    return {name: tensor.detach().numpy().tobytes() for name, tensor in rebuild.named_tensors(network).items()}


def networks(c_dim=0):
    torch.manual_seed(0)
    G, G_ema = (Generator(4, c_dim, 4, 8, 3, {"num_layers": 1}, SMALL) for _ in range(2))
    return dict(
        G=G,
        D=Discriminator(c_dim, 8, 3, **SMALL),
        G_ema=G_ema,
        augment_pipe=AugmentPipe(xflip=1, scale=1),
        training_set_kwargs=dict(class_name="training.dataset.ImageFolderDataset", path="a.zip", resolution=8),
    )


def assert_same(found, expected):
    assert list(found) == KEYS
    assert found["training_set_kwargs"] == expected["training_set_kwargs"]
    for key in KEYS[:4]:
        if expected[key] is None:
            assert found[key] is None
            continue
        assert type(found[key]) is type(expected[key])
        assert bits(found[key]) == bits(expected[key])


def test_saved_networks_load_bit_by_bit(tmp_path):
    data = networks()
    legacy.save_network(data, tmp_path / "net.pkl")
    found = legacy.load_network(tmp_path / "net.pkl")
    assert_same(found, data)
    assert found.G_ema.init_kwargs == data["G_ema"].init_kwargs
    assert not found.G.training
    assert not any(p.requires_grad for p in found.D.parameters())


def test_saving_leaves_the_networks_as_they_are(tmp_path):
    data = networks()
    data["G"].train()
    legacy.save_network(data, tmp_path / "net.pkl")
    assert data["G"].training
    assert all(p.requires_grad for p in data["G"].parameters())


def test_a_failing_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "net.pkl"
    path.write_bytes(b"old")
    with pytest.raises(UserError):
        legacy.save_network(networks() | {"training_set_kwargs": {"function": print}}, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_saved_pickle_has_the_published_shape(tmp_path):
    legacy.save_network(networks(), tmp_path / "net.pkl")
    data = pickle.loads((tmp_path / "net.pkl").read_bytes())
    assert list(data) == KEYS
    assert type(data["G_ema"]) is Generator


def test_optional_parts_may_be_none(tmp_path):
    data = networks() | {"D": None, "augment_pipe": None, "training_set_kwargs": None}
    legacy.save_network(data, tmp_path / "net.pkl")
    assert_same(legacy.load_network(tmp_path / "net.pkl"), data)


def test_file_objects_and_names_that_say_something_else(tmp_path):
    data = networks()
    legacy.save_network(data, tmp_path / "net.pkl")
    content = (tmp_path / "net.pkl").read_bytes()
    assert_same(legacy.load_network_pkl(io.BytesIO(content)), data)
    (tmp_path / "net.pt").write_bytes(content)
    assert_same(legacy.load_network(tmp_path / "net.pt"), data)


@pytest.mark.parametrize("c_dim", [0, 3])
def test_pickle_to_safetensors_and_back_changes_no_bit(tmp_path, c_dim):
    pytest.importorskip("safetensors")
    data = networks(c_dim)
    data["G_ema"].mapping.w_avg.normal_()
    data["G_ema"].synthesis.b4.conv1.weight.data[0, 0, 0, 0] = float("nan")
    legacy.save_network(data, tmp_path / "a.pkl")
    for source, dest in (("a.pkl", "b.safetensors"), ("b.safetensors", "c.pkl")):
        result = CliRunner().invoke(legacy.main, [f"--source={tmp_path / source}", f"--dest={tmp_path / dest}"])
        assert result.exit_code == 0, result.output
    found = legacy.load_network(tmp_path / "c.pkl")
    assert_same(found, data)
    assert found.G_ema.init_args == data["G_ema"].init_args


@pytest.mark.parametrize("suffix", [".pkl", ".safetensors"])
def test_half_precision_is_for_the_file_alone(tmp_path, suffix):
    data, whole, small = networks(), tmp_path / f"whole{suffix}", tmp_path / f"small{suffix}"
    before = bits(data["G"])
    legacy.save_network(data, tmp_path / "net.pkl")
    for dest, options in ((whole, []), (small, ["--half"])):
        result = CliRunner().invoke(legacy.main, [f"--source={tmp_path / 'net.pkl'}", f"--dest={dest}", *options])
        assert result.exit_code == 0, result.output
    weights = sum(p.numel() for key in ("G", "D", "G_ema") for p in data[key].parameters())
    assert whole.stat().st_size - small.stat().st_size > 1.8 * weights  # of 2 bytes each
    found = legacy.load_network(small)
    assert bits(data["G"]) == before
    for key in ("G", "D", "G_ema"):
        for name, tensor in rebuild.named_tensors(found[key]).items():
            assert tensor.dtype == rebuild.named_tensors(data[key])[name].dtype
            assert_close(tensor, rebuild.named_tensors(data[key])[name], 1e-3)


def test_numbers_that_half_precision_cannot_hold_are_named():
    data = networks()
    with torch.no_grad():
        data["D"].b4.out.bias.fill_(1e6)
    with pytest.raises(UserError, match=r"D has numbers in b4\.out\.bias that are too large"):
        legacy.halved(data)


def test_networks_that_share_tensors_convert(tmp_path):
    pytest.importorskip("safetensors")
    data = networks()
    data["G"] = data["G_ema"]
    legacy.formats.save_safetensors(data, tmp_path / "net.safetensors")
    assert_same(legacy.load_network(tmp_path / "net.safetensors"), data)


def test_stylegan2_ada_pickle_converts_without_a_changed_bit(tmp_path):
    pytest.importorskip("safetensors")
    data = legacy.load_network(shared_file("fixtures", "stylegan2_ada_small.pkl"))
    assert type(data.augment_pipe) is AugmentPipe
    assert data.training_set_kwargs.resolution == 32
    legacy.formats.save_safetensors(data, tmp_path / "net.safetensors")
    legacy.save_network(legacy.load_network(tmp_path / "net.safetensors"), tmp_path / "net.pkl")
    assert_same(legacy.load_network(tmp_path / "net.pkl"), data)


def test_published_semantic_checkpoint_converts(tmp_path):
    pytest.importorskip("safetensors")
    from safetensors import safe_open

    data = legacy.load_network(shared_file("fixtures", "semantic_stylegan_small.pt"))
    numbers = np.load(shared_file("fixtures", "semantic_stylegan_small_io.npz"))
    legacy.formats.save_safetensors(data, tmp_path / "net.safetensors")
    legacy.save_network(legacy.load_network(tmp_path / "net.safetensors"), tmp_path / "net.pkl")
    found = legacy.load_network(tmp_path / "net.pkl")
    assert_same(found, data)
    assert found.G_ema.regions == data.G_ema.regions
    ws = torch.from_numpy(numbers["ws"])
    assert_close(found.G_ema.synthesis(ws, noise_mode="const"), numbers["image"])
    with safe_open(tmp_path / "net.safetensors", "pt") as file:
        assert data.G_ema.regions.names[1] in file.metadata()["regions"]
        assert torch.equal(file.get_tensor(file.metadata()["w_avg"]), data.G_ema.mapping.w_avg)


def test_onnx_computes_the_same(tmp_path):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    import onnxruntime

    G = networks()["G_ema"].eval()
    legacy.formats.save_onnx(G, tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    z = torch.randn(1, 4)
    image, _ = session.run(None, {"z": z.numpy(), "truncation_psi": np.array(0.5, np.float32)})
    assert_close(image, G(z, truncation_psi=0.5, noise_mode="const").detach())


def test_stylegan2_of_the_later_code_base_opens_and_computes_the_same():
    data = legacy.load_network(shared_file("fixtures", "stylegan2_flat_small.pkl"))
    numbers = {
        n: torch.from_numpy(v) for n, v in np.load(shared_file("fixtures", "stylegan2_flat_small_io.npz")).items()
    }
    ws = data.G_ema.mapping(numbers["z"], numbers["c"], truncation_psi=0.7)
    assert_close(ws, numbers["ws_psi07"])
    assert_close(data.G_ema.synthesis(ws, noise_mode="const", force_fp32=True, update_emas=False), numbers["image"])
    assert_close(data.D(numbers["image"], numbers["c"], force_fp32=True), numbers["logits"])
    assert data.G_ema.synthesis.b32.use_fp16
    assert data.G_ema.synthesis.b32.conv1.conv_clamp == data.D.b32.conv0.conv_clamp == 256


class Described:
    """Pickles as an object of NVIDIA's code, whose source text is left out."""

    def __init__(self, class_name, kwargs=None, tensors=None, parts=None):
        groups = {"_parameters": tensors or {}, "_buffers": {}, "_modules": parts or {}}
        state = {"_init_args": (), "_init_kwargs": kwargs or {}, **groups}
        self.meta = EasyDict(type="class", version=6, module_src="1 / 0", class_name=class_name, state=state)

    def __reduce__(self):
        return _reconstruct_persistent_obj, (self.meta,)


def test_flat_options_become_those_of_the_synthesis_network():
    """Written after the later code base: a generator whose options of synthesis stand beside the others."""
    torch.manual_seed(0)
    G = Generator(4, 0, 4, 8, 3, {"num_layers": 1}, SMALL | {"conv_clamp": 1.5})
    kwargs = dict(zip(("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels"), G.init_args, strict=False))
    kwargs |= dict(mapping_kwargs={"num_layers": 1}, **SMALL, conv_clamp=1.5, fused_modconv_default="inference_only")
    flat = Described("Generator", kwargs, G.state_dict())
    content = pickle.dumps({"G": None, "D": None, "G_ema": flat})
    z = torch.randn(2, 4)
    expected = G.eval()(z, noise_mode="const")
    for found in (legacy.load_network_pkl(io.BytesIO(content)), pickle.loads(content)):
        assert torch.equal(found["G_ema"](z, noise_mode="const"), expected)
        assert found["G_ema"].init_kwargs.synthesis_kwargs["conv_clamp"] == 1.5


@pytest.mark.parametrize("read", [pickle.loads, lambda content: legacy.load_network_pkl(io.BytesIO(content))])
def test_stylegan3_networks_are_refused_by_name(read):
    synthesis = Described("SynthesisNetwork", parts={"input": Described("SynthesisInput")})
    G = Described("Generator", dict(z_dim=4, magnitude_ema_beta=0.999), parts={"synthesis": synthesis})
    with pytest.raises(UserError, match=r"^[^\n]* is a StyleGAN3 network, which is not supported: [^\n]*$"):
        read(pickle.dumps({"G": G, "D": None, "G_ema": G}))


def test_half_precision_can_be_forced(tmp_path):
    legacy.save_network(networks(), tmp_path / "net.pkl")
    content = (tmp_path / "net.pkl").read_bytes()
    found = legacy.load_network_pkl(io.BytesIO(content), force_fp16=True, custom=1)
    assert found.G_ema.synthesis.b8.use_fp16
    assert found.D.b8.use_fp16
    assert not found.G.training
    assert bits(found.G_ema) == bits(legacy.load_network_pkl(io.BytesIO(content)).G_ema)
    options = [f"--source={tmp_path / 'net.pkl'}", f"--dest={tmp_path / 'half.pkl'}", "--force-fp16"]
    assert CliRunner().invoke(legacy.main, options).exit_code == 0
    found = legacy.load_network(tmp_path / "half.pkl")
    assert found.G.synthesis.init_kwargs.num_fp16_res == found.D.init_kwargs.num_fp16_res == 4
    assert found.G.synthesis.init_kwargs.conv_clamp == found.D.init_kwargs.conv_clamp == 256


def test_forcing_half_precision_leaves_semantic_networks_as_they_are(tmp_path):
    with open(legacy.resolve("faces64"), "rb") as file:
        assert legacy.load_network_pkl(file, force_fp16=True).G_ema.img_resolution == 64
    result = CliRunner().invoke(legacy.main, ["--source=faces64", f"--dest={tmp_path / 'a.pkl'}", "--force-fp16"])
    assert result.exit_code == 1
    assert "--force-fp16 works for plain StyleGAN2 networks only" in result.output


def test_a_generator_alone_stands_for_both():
    G = networks()["G"]
    found = legacy.load_network_pkl(io.BytesIO(pickle.dumps(G)))
    assert found.G is found.G_ema
    assert found.D is None
    assert bits(found.G) == bits(G)
    with pytest.raises(UserError, match="instead of a generator as its G"):
        legacy.load_network_pkl(io.BytesIO(pickle.dumps(networks()["D"])))


def test_missing_extras_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "safetensors.torch", None)
    with pytest.raises(UserError, match=r"semantic-stylegan\[safetensors\]"):
        legacy.formats.save_safetensors(networks(), tmp_path / "net.safetensors")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"semantic-stylegan\[onnx\]"):
        legacy.formats.save_onnx(networks()["G_ema"], tmp_path / "net.onnx")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("celebamask512", "1.0.0/CelebAMask-HQ-512x512.pt"),
        ("bitmoji512", "1.0.0/BitMoji-512x512.pt"),
        ("metfaces512", "1.0.0/MetFaces-512x512.pt"),
        ("toonify512", "1.0.0/Toonify-512x512.pt"),
        ("faces64", "semantic/bundled/faces64.npz"),
        ("faces128", "semantic/bundled/faces128.pkl"),
        ("ffhq256", "transfer-learning-source-nets/ffhq-res256-mirror-paper256-noaug.pkl"),
    ],
)
def test_named_networks(name, file):
    assert legacy.resolve(name).endswith(file)


def test_other_names_are_paths():
    assert legacy.resolve("runs/a.pkl") == "runs/a.pkl"
    with pytest.raises(UserError, match=r"There is no file nowhere\.pkl"):
        legacy.load_network("nowhere.pkl")


@pytest.mark.parametrize(
    "options",
    [
        ["--source=nowhere.pkl", "--dest=a.pkl"],
        ["--source=a", "--dest=a.txt"],
        ["--source=faces64", "--dest=a.safetensors", "--format=upstream"],
        ["--source=faces64", "--dest=a.pkl", "--format=upstream"],
        [],
    ],
)
def test_command_line_errors_are_one_line(options):
    result = CliRunner().invoke(legacy.main, options)
    assert result.exit_code in (1, 2)
    assert "Traceback" not in result.output
    assert "Error: " in result.output


def test_newest_snapshot_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(legacy, "BUNDLED", tmp_path / "bundled")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"train\.py"):
        legacy.find_network()
    for run_name, kimg, age in [("00000-a", "000400", 50), ("00001-b", "000020", 10), ("00001-b", "000000", 20)]:
        path = tmp_path / "training-runs" / run_name / f"network-snapshot-{kimg}.pkl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (1e9 - age, 1e9 - age))
    assert legacy.find_network().parts[-2:] == ("00001-b", "network-snapshot-000020.pkl")
    (tmp_path / "bundled").mkdir()
    (tmp_path / "bundled" / "faces.pkl").touch()
    assert legacy.find_network().name == "faces.pkl"
    assert legacy.choose_network(None) == str(legacy.find_network())
    assert legacy.choose_network("training-runs") == str(legacy.newest_snapshot("training-runs"))
    assert legacy.choose_network("faces64") == legacy.NAMED["faces64"]
    assert legacy.choose_network("https://example.com/a.pkl") == "https://example.com/a.pkl"


def test_a_run_directory_stands_for_its_newest_snapshot(tmp_path):
    """As --network=DIR, so --resume=DIR."""
    legacy.save_network(networks(), tmp_path / "run" / "network-snapshot-000001.pkl")
    newest = networks(c_dim=2)
    legacy.save_network(newest, tmp_path / "run" / "network-snapshot-000002.pkl")
    assert_same(legacy.load_network(tmp_path / "run"), newest)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="There is no network-snapshot"):
        legacy.load_network(tmp_path / "empty")
