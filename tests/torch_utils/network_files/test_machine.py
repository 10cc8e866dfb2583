"""Reading honest files; tests/test_hostile_files.py has the others."""

import argparse
import io
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch

from dnnlib import EasyDict, UserError
from torch_utils.network_files import machine, rebuild
from torch_utils.persistence import persistent_class


class Plain:
    def __init__(self, value):
        self.value = value


@persistent_class
class Net(torch.nn.Module):
    def __init__(self, size, table=None):
        super().__init__()
        self.linear = torch.nn.Linear(size, 2)
        self.register_buffer("count", torch.zeros([], dtype=torch.int64))
        self.register_buffer("hidden", torch.zeros(3), persistent=False)
        self.note = Plain(size)


def through(obj, **kwargs):
    buffer = io.BytesIO()
    machine.dump(obj, buffer)
    return machine.load(io.BytesIO(buffer.getvalue()), **kwargs)


DATA = {
    "numbers": [1, -1, 300, 70_000, 1 << 40, 1.5, float("inf"), True, None],
    "text": ["", "a" * 300, "ü"],
    "bytes": b"\x00\xff",
    "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
    "sets": {1, 2},
    "easy": EasyDict(a=EasyDict(b=1)),
    "ordered": OrderedDict(b=1, a=2),
    "namespace": argparse.Namespace(size=512),
    "size": torch.Size([2, 3]),
    "dtype": torch.float16,
    "device": torch.device("cpu"),
    5: {"deep": [{"er": ()}]},
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_data_come_back(protocol):
    data = {key: value for key, value in DATA.items() if key != "bytes" or protocol > 2}
    loaded = machine.load(io.BytesIO(pickle.dumps(data, protocol=protocol)))
    assert loaded == data
    assert type(loaded["easy"].a) is EasyDict
    assert type(loaded["ordered"]) is OrderedDict


def test_numpy_values_come_back():
    data = {"scalar": np.float32(0.1), "array": np.arange(6).reshape(2, 3).T, "big": np.arange(3, dtype=">i4")}
    loaded = through(data)
    assert loaded["scalar"] == np.float32(0.1)
    np.testing.assert_array_equal(loaded["array"], data["array"])
    np.testing.assert_array_equal(loaded["big"], data["big"])


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "int64", "int32", "uint8", "bool"])
def test_tensors_come_back_bit_by_bit(dtype):
    tensor = (torch.randn(3, 4, generator=torch.Generator().manual_seed(0)) * 50).to(getattr(torch, dtype))
    loaded = through({"a": tensor, "turned": tensor.t(), "part": tensor[1:, 2], "empty": tensor[:0]})
    assert torch.equal(loaded["a"], tensor)
    assert torch.equal(loaded["turned"], tensor.t())
    assert torch.equal(loaded["part"], tensor[1:, 2])
    assert loaded["empty"].shape == (0, 4)
    assert loaded["a"].dtype == tensor.dtype


def test_parameters_keep_whether_they_learn():
    loaded = through([torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2), requires_grad=False)])
    assert [type(p) for p in loaded] == [torch.nn.Parameter] * 2
    assert [p.requires_grad for p in loaded] == [True, False]


def test_one_object_stays_one_object():
    shared = [1]
    loaded = through([shared, shared])
    assert loaded[0] is loaded[1]


def test_networks_are_rebuilt_with_every_tensor():
    net = Net(3).eval()
    net.count += 7
    net.hidden += 1
    net.linear.bias.requires_grad_(False)
    twin = through(net)
    assert type(twin) is Net
    assert not twin.training
    assert twin.note.value == 3
    assert not twin.linear.bias.requires_grad
    assert twin.linear.weight.requires_grad
    for name, tensor in rebuild.named_tensors(net).items():
        assert torch.equal(rebuild.named_tensors(twin)[name], tensor)


def test_a_network_under_two_keys_stays_one():
    net = Net(3)
    loaded = through({"a": net, "b": net, "c": Net(3)})
    assert loaded["a"] is loaded["b"]
    assert loaded["a"] is not loaded["c"]


def test_dump_refuses_what_load_would_refuse():
    with pytest.raises(UserError, match=r"cannot hold .*print"):
        machine.dump({"f": print}, io.BytesIO())


def test_what_dump_writes_plain_pickle_reads():
    buffer = io.BytesIO()
    net = Net(3)
    machine.dump(net, buffer)
    twin = pickle.loads(buffer.getvalue())
    assert type(twin) is Net
    assert twin.note.value == 3
    assert torch.equal(twin.linear.weight, net.linear.weight)


def test_reading_starts_where_the_file_stands():
    buffer = io.BytesIO(b"head" + pickle.dumps([1]) + pickle.dumps([2]))
    buffer.seek(4)
    assert machine.load(buffer) == [1]
    assert machine.load(buffer) == [2]


def test_errors_name_the_file(tmp_path):
    path = tmp_path / "broken.pkl"
    path.write_bytes(b"\x80\x04")
    with open(path, "rb") as file, pytest.raises(UserError, match=r"broken\.pkl"):
        machine.load(file)


def test_torch_files_read_as_torch_reads_them(tmp_path):
    tensor = torch.randn(4, 5)
    data = {"args": argparse.Namespace(size=3), "state": OrderedDict(a=tensor, b=tensor[1:3, ::2]), "step": 5}
    torch.save(data, tmp_path / "data.pt")
    with open(tmp_path / "data.pt", "rb") as file:
        loaded = machine.load_torch(file)
    assert loaded["args"] == data["args"]
    assert loaded["step"] == 5
    assert torch.equal(loaded["state"]["a"], tensor)
    assert torch.equal(loaded["state"]["b"], tensor[1:3, ::2])
    assert loaded["state"]["a"].data_ptr() == loaded["state"]["b"].data_ptr() - 5 * 4
