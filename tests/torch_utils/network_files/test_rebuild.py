"""Networks are built without memory and without drawing weights that a file brings."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import legacy
from dnnlib import UserError
from semantic.generator import Generator as SemanticGenerator
from torch_utils.network_files import rebuild
from training.augment import AugmentPipe
from training.networks import Discriminator, Generator

ROOT = Path(__file__).resolve().parents[3]
REGIONS = {"names": ["background", "face", "hair"], "colors": None, "transparent": [2]}
SEMANTIC = dict(coarse_size=16, coarse_channels=8, local_channels=4, min_feat_size=8, channel_base=256, channel_max=8)
SMALL = dict(channel_base=64, channel_max=8)
NETWORKS = {
    "semantic": lambda: SemanticGenerator(8, 2, 8, 32, 3, REGIONS, {"num_layers": 2}, SEMANTIC),
    "plain": lambda: Generator(8, 2, 8, 16, 3, {"num_layers": 2}, SMALL),
    "channels last": lambda: Generator(
        8, 0, 8, 16, 3, {"num_layers": 2}, SMALL | dict(num_fp16_res=2, fp16_channels_last=True, architecture="resnet")
    ),
    "discriminator": lambda: Discriminator(2, 16, 3, **SMALL, block_kwargs={"freeze_layers": 3}),
    "augmentation": lambda: AugmentPipe(xflip=1, imgfilter=1),
}


def described(network):
    tensors = rebuild.named_tensors(network)
    return {name: (t.shape, t.dtype, t.stride(), type(t), t.requires_grad) for name, t in tensors.items()}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_blueprint_has_the_shapes_of_the_network_and_no_memory(name):
    with rebuild.Blueprint(100):
        blueprint = NETWORKS[name]()
    assert all(tensor.is_meta for tensor in rebuild.named_tensors(blueprint).values())
    assert described(blueprint) == described(NETWORKS[name]())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_built_network_is_the_original(name):
    """Computed buffers, such as filters, grids and frequencies, included; memory formats and attributes, too."""
    torch.manual_seed(1)
    network = NETWORKS[name]()
    tensors = rebuild.named_tensors(network)
    before = torch.get_rng_state()
    twin = rebuild.build_module(type(network), network.init_args, network.init_kwargs, tensors, "The file")
    assert torch.equal(torch.get_rng_state(), before), "weights were drawn"
    assert described(twin) == described(network)
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in rebuild.named_tensors(twin).items())
    assert all(tensor.data_ptr() != tensors[name].data_ptr() for name, tensor in rebuild.named_tensors(twin).items()), (
        "memory is shared with the file"
    )
    plain = {n: v for n, v in vars(network).items() if isinstance(v, (int, float, str, list))}
    assert plain == {n: vars(twin)[n] for n in plain}


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.ones(3, 1) / 2,
        lambda: torch.ones(3, 1) * torch.ones(1, 4, dtype=torch.float64),
        lambda: 2.0 ** torch.arange(5),
        lambda: torch.arange(2, 9, 3) / 2,
        lambda: torch.arange(5) + 1,
        lambda: torch.linspace(-1, 1, 5),
        lambda: torch.randn(2, 3).to(torch.float16) * 2,
        lambda: torch.as_tensor([1, 3, 3, 1], dtype=torch.float32).outer(torch.ones(2)),
        lambda: torch.zeros(4) > 0,
    ],
)
def test_arithmetic_on_a_blueprint_gives_shape_and_number_type(make):
    with rebuild.Blueprint(0):
        found = make()
    assert found.is_meta
    assert (found.shape, found.dtype) == (make().shape, make().dtype)


def test_a_blueprint_of_any_size_takes_no_memory():
    with rebuild.Blueprint(0):
        assert (torch.randn(1 << 20, 1 << 20) / 2).shape == (1 << 20, 1 << 20)
        assert torch.linspace(0, 1, 1 << 60).numel() == 1 << 60


def test_a_blueprint_of_too_many_parts_ends():
    with pytest.raises(UserError, match="far more parts"), rebuild.Blueprint(1):
        torch.nn.ModuleList(torch.nn.Linear(1, 1) for _ in range(100_000))
    assert torch.zeros(1).device.type == "cpu"


def test_opening_draws_no_random_numbers():
    before = torch.get_rng_state()
    legacy.load_network("faces64")
    assert torch.equal(torch.get_rng_state(), before)


def test_opening_does_not_import_the_compiler_of_torch():
    """It takes seconds; arithmetic on the meta device would import it."""
    program = (
        "import legacy, sys; legacy.load_network('faces64');"
        "print(sorted({'torch._dynamo', 'sympy'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
