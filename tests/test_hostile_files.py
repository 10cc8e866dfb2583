"""Files made to do harm: none is run, each ends in one plain line."""

import argparse
import builtins
import contextlib
import importlib
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

import legacy
from dnnlib import EasyDict, UserError
from torch_utils.network_files import machine
from torch_utils.persistence import _reconstruct_persistent_obj
from training import formats
from training.networks import Discriminator, Generator

ALARMS = {"os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "pickle.find_class", "ctypes.dlopen"}
_heard: list[str] | None = None


def _listen(event, args):
    if _heard is not None and event in ALARMS:
        _heard.append(event)


sys.addaudithook(_listen)


class Call:
    """Pickles as a call of `function` with `args`."""

    def __init__(self, function, *args, state=None):
        self.function, self.args, self.state = function, args, state

    def __reduce__(self):
        return (self.function, self.args) if self.state is None else (self.function, self.args, self.state)


def dumps(obj, protocol=4):
    return pickle.dumps(obj, protocol=protocol)


def text(value):
    data = value.encode()
    return b"\x8c" + bytes([len(data)]) + data if len(data) < 256 else b"X" + struct.pack("<I", len(data)) + data


def named(module, name):
    """STACK_GLOBAL: the object `module.name`."""
    return text(module) + text(name) + b"\x93"


def call(module, name, *args):
    """A program that calls `module.name` with text arguments."""
    return named(module, name) + b"(" + b"".join(map(text, args)) + b"tR"


def program(body, protocol=4):
    return b"\x80" + bytes([protocol]) + body + b"."


def persistent(state, class_name="Generator", module="training.networks", source="", version=6):
    return Call(
        _reconstruct_persistent_obj,
        EasyDict(type="class", version=version, module_src=source, class_name=class_name, module=module, state=state),
    )


def raw(record, source=""):
    """A `Record` as it was in its file, to be written again."""
    state = dict(record.state)
    state["_modules"] = {name: raw(part, source) for name, part in state["_modules"].items()}
    return persistent(state, record.class_name, record.module, source)


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """Bytes of an honest .pkl and an honest .safetensors of a tiny network."""
    folder = tmp_path_factory.mktemp("honest")
    small = dict(channel_base=32, channel_max=4)
    G = Generator(4, 0, 4, 8, 3, mapping_kwargs={"num_layers": 1}, synthesis_kwargs=small)
    data = dict(G=G, D=Discriminator(0, 8, 3, **small), G_ema=G)
    legacy.save_network(data, folder / "net.pkl")
    formats.save_safetensors(data, folder / "net.safetensors")
    return (folder / "net.pkl").read_bytes(), (folder / "net.safetensors").read_bytes()


def altered(honest, change, source=""):
    """The honest pickle after `change(records)`, where records maps G, D and G_ema to their `Record`s."""
    records = machine.load_records(io.BytesIO(honest[0]))
    change(records)
    record_type = machine.Record
    return dumps({k: raw(v, source) if isinstance(v, record_type) else v for k, v in records.items()})


def tensors_of(records, part=None):
    record = records["G_ema"].state["_modules"]["mapping"]
    return (record.state["_modules"][part] if part else record).state


def kwargs_of(records):
    return records["G_ema"].state["_init_kwargs"]


def storage_bytes(tensor):
    buffer = io.BytesIO()
    torch.save(
        torch.storage.TypedStorage(wrap_storage=tensor.untyped_storage(), dtype=tensor.dtype, _internal=True),
        buffer,
        _use_new_zipfile_serialization=False,
    )
    return buffer.getvalue()


def rebuilt_tensor(offset, size, stride, numbers=4):
    storage = Call(torch.storage._load_from_bytes, storage_bytes(torch.zeros(numbers)))
    return Call(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, OrderedDict())


def torch_zip(pickle_bytes, **options):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as archive:
        archive.writestr("archive/data.pkl", pickle_bytes)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


def checkpoint(**args):
    buffer = io.BytesIO()
    torch.save({"g_ema": {"style.1.weight": torch.zeros(4, 4)}, "args": argparse.Namespace(**args)}, buffer)
    return buffer.getvalue()


def with_header(honest, change):
    """The honest .safetensors after `change(metadata)`."""
    content = honest[1]
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    networks = json.loads(header["__metadata__"]["networks"])
    change(header["__metadata__"], networks)
    if "networks" in header["__metadata__"]:
        header["__metadata__"]["networks"] = json.dumps(networks)
    new = json.dumps(header).encode()
    return struct.pack("<Q", len(new)) + new + content[8 + length :]


def nested(depth):
    return b"".join([b"]" * depth, b"a" * (depth - 1)])


ADVERSARIES = {
    # Calls, by every way in which a pickle can name a function.
    "os.system": lambda h, touch: dumps(Call(os.system, f"touch {touch}")),
    "os.system in protocol 2": lambda h, touch: dumps(Call(os.system, f"touch {touch}"), 2),
    "os.system by its public module": lambda h, touch: program(call("os", "system", f"touch {touch}")),
    "os.system by GLOBAL": lambda h, touch: program(b"cos\nsystem\n(" + text(f"touch {touch}") + b"tR", 2),
    "os.system by INST": lambda h, touch: program(b"(" + text(f"touch {touch}") + b"ios\nsystem\n", 2),
    "os.system by OBJ": lambda h, touch: program(b"(" + b"cos\nsystem\n" + text(f"touch {touch}") + b"o", 2),
    "os.system by NEWOBJ": lambda h, touch: program(named("os", "system") + text(f"touch {touch}") + b"\x85\x81"),
    "os.system by NEWOBJ_EX": lambda h, touch: program(named("os", "system") + text(f"touch {touch}") + b"\x85}\x92"),
    "os.system by the extension registry": lambda h, touch: program(b"\x82\x01" + text(f"touch {touch}") + b"\x85R"),
    "subprocess.Popen": lambda h, touch: dumps(Call(subprocess.Popen, ["touch", touch])),
    "eval": lambda h, touch: dumps(Call(eval, f"open({touch!r}, 'w')")),
    "exec": lambda h, touch: dumps(Call(exec, f"open({touch!r}, 'w')")),
    "eval in Python 2's name": lambda h, touch: program(call("__builtin__", "eval", f"open({touch!r}, 'w')"), 2),
    "compile": lambda h, touch: dumps(Call(compile, "0", "x", "eval")),
    "open": lambda h, touch: dumps(Call(open, touch, "w")),
    "__import__": lambda h, touch: dumps(Call(__import__, "antigravity")),
    "importlib": lambda h, touch: dumps(Call(importlib.import_module, "antigravity")),
    "getattr chain": lambda h, touch: program(
        named("builtins", "getattr") + b"(" + call("builtins", "__import__", "os") + text("system") + b"tR"
        + b"(" + text(f"touch {touch}") + b"tR"
    ),
    "dotted name in an allowed module": lambda h, touch: program(call("dnnlib.util", "os.system", f"touch {touch}")),
    "dotted name in torch": lambda h, touch: program(call("torch", "os.system", f"touch {touch}")),
    "module of an allowed module": lambda h, touch: program(call("torch._utils", "os")),
    "name with a space": lambda h, touch: program(b"ctorch._utils _rebuild_parameter\nx\n)R", 2),
    "name that is no text": lambda h, touch: program(b"K\x01K\x02\x93"),
    "pickle in a pickle": lambda h, touch: dumps(Call(pickle.loads, dumps(Call(os.system, f"touch {touch}")))),
    "torch.load": lambda h, touch: dumps(Call(torch.load, touch)),
    "numpy.load": lambda h, touch: dumps(Call(np.load, touch)),
    "functools.partial": lambda h, touch: dumps(Call(__import__("functools").partial, os.system)),
    "operator.attrgetter": lambda h, touch: program(call("operator", "attrgetter", "system")),
    "types.CodeType": lambda h, touch: program(call("types", "CodeType")),
    "copyreg": lambda h, touch: program(call("copyreg", "_reconstructor")),
    "torch's own dangerous names": lambda h, touch: program(call("torch.serialization", "os.system", "true")),
    "globals": lambda h, touch: dumps(Call(builtins.globals)),
    "call of a result": lambda h, touch: program(text("os") + b")R"),
    "inside an honest file": lambda h, touch: altered(h, lambda r: r.update(extra=Call(os.system, f"touch {touch}"))),
    # State set on things that have none.
    "state of a class": lambda h, touch: program(named("dnnlib.util", "EasyDict") + b"N}" + text("get") + b"Ns\x86b"),
    "state of a function": lambda h, touch: program(named("torch._utils", "_rebuild_parameter") + b"}b"),
    "state of OrderedDict": lambda h, touch: program(named("collections", "OrderedDict") + b")R(K\x01tb"),
    "state of text": lambda h, touch: program(text("a") + b"}b"),
    "slots of Namespace": lambda h, touch: program(named("argparse", "Namespace") + b")\x81N}\x86b"),
    # Persistent objects.
    "source of a persistent object": lambda h, touch: altered(
        h, lambda r: kwargs_of(r).update(extra=1), source=f"open({touch!r}, 'w')"
    ),
    "unknown class": lambda h, touch: dumps({"G_ema": persistent({}, "Evil", None, f"open({touch!r}, 'w')")}),
    "class in os": lambda h, touch: dumps({"G_ema": persistent({"_init_args": (touch,)}, "mkdir", "os")}),
    "function behind a package": lambda h, touch: dumps(
        {"G_ema": persistent({"_init_args": (touch,), "_init_kwargs": {}}, "os.mkdir", "training.formats")}
    ),
    "newer version": lambda h, touch: dumps({"G_ema": persistent({}, version=7)}),
    "no constructor arguments": lambda h, touch: altered(h, lambda r: r["G_ema"].state.pop("_init_args")),
    "unknown constructor argument": lambda h, touch: altered(h, lambda r: kwargs_of(r).update(extra=1)),
    "huge resolution": lambda h, touch: altered(h, lambda r: r["G_ema"].state.update(_init_args=(4, 0, 4, 1 << 19, 3))),
    "huge number": lambda h, touch: altered(h, lambda r: r["G_ema"].state.update(_init_args=(4, 0, 4, 1 << 60, 3))),
    "endless layers": lambda h, touch: altered(h, lambda r: kwargs_of(r)["mapping_kwargs"].update(num_layers=1 << 20)),
    "object among arguments": lambda h, touch: altered(h, lambda r: kwargs_of(r).update(mapping_kwargs=torch.zeros(1))),
    "missing tensor": lambda h, touch: altered(h, lambda r: tensors_of(r, "fc0")["_parameters"].pop("weight")),
    "extra tensor": lambda h, touch: altered(h, lambda r: tensors_of(r)["_buffers"].update(x=torch.zeros(1))),
    "wrong shape": lambda h, touch: altered(h, lambda r: tensors_of(r)["_buffers"].update(w_avg=torch.zeros(5))),
    "wrong number type": lambda h, touch: altered(
        h, lambda r: tensors_of(r)["_buffers"].update(w_avg=torch.zeros(4, dtype=torch.int64))
    ),
    "text as tensor": lambda h, touch: altered(h, lambda r: tensors_of(r)["_buffers"].update(w_avg="0000")),
    "no modules": lambda h, touch: altered(h, lambda r: r["D"].state.update(_modules={})),
    "no G": lambda h, touch: altered(h, lambda r: r.pop("G")),
    "no D": lambda h, touch: altered(h, lambda r: r.pop("D")),
    "no G_ema": lambda h, touch: altered(h, lambda r: r.pop("G_ema")),
    "text as D": lambda h, touch: altered(h, lambda r: r.update(D="D")),
    "discriminator as G_ema": lambda h, touch: altered(h, lambda r: r.update(G_ema=r["D"])),
    "list instead of a dictionary": lambda h, touch: dumps([1, 2]),
    # Tensors and numbers.
    "tensor beyond its storage": lambda h, touch: dumps(rebuilt_tensor(2, (4,), (1,))),
    "tensor with negative strides": lambda h, touch: dumps(rebuilt_tensor(3, (4,), (-1,))),
    "tensor that repeats one number": lambda h, touch: dumps(rebuilt_tensor(0, (1 << 40,), (0,))),
    "tensor of 2**62 numbers": lambda h, touch: dumps(rebuilt_tensor(0, (1 << 31, 1 << 31), (1, 1))),
    "storage that claims more": lambda h, touch: dumps(
        Call(torch.storage._load_from_bytes, storage_bytes(torch.zeros(4)).replace(b"K\x04N", b"J\x00\x00\x00\x7fN"))
    ),
    "text decoded without end": lambda h, touch: program(
        named("_codecs", "encode") + b"\x94" + text("x" * (1 << 14)) + b"\x94" + text("latin1") + b"\x94"
        + b"h\x00h\x01h\x02\x86R" * 1000
    ),
    "decoded by another codec": lambda h, touch: program(call("_codecs", "encode", "x", "zip")),
    "class of a package, called": lambda h, touch: program(call("training.formats", "os.mkdir", touch)),
    "class of a package, alone": lambda h, touch: program(named("training.formats", "os.mkdir") + b")\x81"),
    "class of torch, alone": lambda h, touch: program(named("torch.nn.modules.linear", "Linear") + b")\x81"),
    "storage with a call": lambda h, touch: dumps(
        Call(torch.storage._load_from_bytes, dumps(Call(os.system, f"touch {touch}")))
    ),
    "storage from a zip": lambda h, touch: dumps(
        Call(torch.storage._load_from_bytes, torch_zip(dumps(Call(os.system, f"touch {touch}"))))
    ),
    "storage copied without end": lambda h, touch: program(
        named("torch.storage", "_load_from_bytes")
        + b"\x94"
        + b"B" + struct.pack("<I", len(storage_bytes(torch.zeros(1 << 14)))) + storage_bytes(torch.zeros(1 << 14))
        + b"\x85\x94R" + b"h\x00h\x01R" * 1000
    ),
    "parameter of integers": lambda h, touch: dumps(
        Call(torch._utils._rebuild_parameter, torch.zeros(2, dtype=torch.int64), True, OrderedDict())
    ),
    "numpy object": lambda h, touch: dumps(
        Call(np.dtype(float).type(0).__reduce__()[0], np.dtype(object), dumps(Call(os.system, f"touch {touch}")))
    ),
    "numpy array of objects": lambda h, touch: dumps(np.array([Call(os.system, f"touch {touch}")], dtype=object)),
    "numpy array beyond its bytes": lambda h, touch: dumps(
        Call(
            np.zeros(1).__reduce__()[0], np.ndarray, (0,), b"b", state=(1, (1 << 40,), np.dtype("f8"), False, b"1" * 8)
        )
    ),
    # Programs that never end well.
    "persistent id": lambda h, touch: program(b"Pabc\n", 2),
    "binary persistent id": lambda h, touch: program(text("abc") + b"Q"),
    "nested keys": lambda h, touch: program(b"}K\x01" + b"\x94h\x00\x86" + b"K\x01s"),
    "list as key": lambda h, touch: program(b"}]K\x01s"),
    "deep nesting": lambda h, touch: program(b"}" + text("G_ema") + nested(100_000) + b"s"),
    "nothing on the stack": lambda h, touch: program(b"R"),
    "unknown memo": lambda h, touch: program(b"h\x7f"),
    "unknown instruction": lambda h, touch: program(b"\xff"),
    "claims 2**60 bytes": lambda h, touch: program(b"\x8e" + struct.pack("<Q", 1 << 60) + b"abc"),
    "claims 2**31 letters": lambda h, touch: program(b"X" + struct.pack("<I", (1 << 31) - 1) + b"abc"),
    "broken text": lambda h, touch: program(b"\x8c\x02\xff\xff"),
    "huge torch.Size": lambda h, touch: dumps(Call(torch.Size, (1 << 80,))),
    "no end": lambda h, touch: b"\x80\x04]",
    "cut in the middle": lambda h, touch: h[0][: len(h[0]) // 2],
    "cut at the end": lambda h, touch: h[0][:-1],
    "cut at the start": lambda h, touch: h[0][:11],
    "empty": lambda h, touch: b"",
    "web page": lambda h, touch: b"<!DOCTYPE html><html><body>404</body></html>",
    "TensorFlow network": lambda h, touch: program(call("dnnlib.tflib.network", "Network")),
    "old torch file": lambda h, touch: storage_bytes(torch.zeros(4)),
    # Torch files.
    "zip without a network": lambda h, touch: torch_zip(b"").replace(b"data.pkl", b"data.txt"),
    "zip bomb": lambda h, touch: torch_zip(b"\0" * (8 << 20), compression=zipfile.ZIP_DEFLATED),
    "torch file with a call": lambda h, touch: torch_zip(dumps(Call(os.system, f"touch {touch}"), 2)),
    "torch file with eval": lambda h, touch: torch_zip(dumps({"g_ema": Call(eval, f"open({touch!r}, 'w')")}, 2)),
    "torch file cut": lambda h, touch: checkpoint(size=32)[:-100],
    "torch file of something else": lambda h, touch: torch_zip(dumps({"a": 1}, 2)),
    "checkpoint without arguments": lambda h, touch: checkpoint(),
    "checkpoint of absurd size": lambda h, touch: checkpoint(
        size=1 << 20, latent=1 << 16, n_mlp=1, seg_dim=200, channel_multiplier=1 << 10, coarse_size=1 << 16,
        coarse_channel=1 << 16, local_channel=1 << 14, local_layers=10, base_layers=2, depth_layers=6, min_feat_size=16,
    ),
    "checkpoint of text": lambda h, touch: checkpoint(size="large", latent=[], seg_dim=None),
    # Safetensors.
    "safetensors cut": lambda h, touch: h[1][:-5],
    "safetensors with an endless header": lambda h, touch: struct.pack("<Q", 1 << 60) + h[1][8:],
    "safetensors with broken JSON": lambda h, touch: h[1][:8] + b"{" * (len(h[1]) - 8),
    "safetensors of another project": lambda h, touch: with_header(h, lambda m, n: m.update(format="pt")),
    "safetensors without networks": lambda h, touch: with_header(h, lambda m, n: m.pop("networks")),
    "safetensors with os.mkdir": lambda h, touch: with_header(
        h, lambda m, n: n["G_ema"].update({"class": "os.mkdir", "args": [touch], "kwargs": {}})
    ),
    "safetensors with a wrong shape": lambda h, touch: with_header(
        h, lambda m, n: n["G_ema"]["args"].__setitem__(2, 8)
    ),
    "safetensors with endless layers": lambda h, touch: with_header(
        h, lambda m, n: n["G_ema"]["kwargs"]["mapping_kwargs"].update(num_layers=1 << 20)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ADVERSARIES)
def test_file_is_refused_in_one_line_and_nothing_runs(name, honest, tmp_path):
    global _heard
    touched = tmp_path / "touched"
    path = tmp_path / "network.pkl"
    path.write_bytes(ADVERSARIES[name](honest, str(touched)))
    _heard = []
    try:
        with pytest.raises(UserError) as caught:
            legacy.load_network(path)
    finally:
        heard, _heard = _heard, None
    assert not touched.exists()
    assert not heard
    assert "antigravity" not in sys.modules
    message = caught.value.message
    assert "\n" not in message
    assert len(message) < 600
    assert str(path) in message


def test_the_honest_files_load(honest, tmp_path):
    for content in honest:
        path = tmp_path / "network"
        path.write_bytes(content)
        assert type(legacy.load_network(path).G_ema) is Generator


@pytest.mark.parametrize("name", ["os.system", "eval", "getattr chain", "numpy array of objects"])
def test_plain_pickle_would_have_run_it(name, honest, tmp_path):
    touched = tmp_path / "touched"
    pickle.loads(ADVERSARIES[name](honest, str(touched)))
    assert touched.exists()


def test_every_cut_of_a_file_is_refused(honest):
    whole = honest[0]
    for length in range(0, len(whole) - 1, max(1, len(whole) // 25)):
        with pytest.raises(UserError):
            legacy.load_network_pkl(io.BytesIO(whole[:length]))


def test_flipped_bytes_never_escape_as_other_errors(honest):
    """Damage is either harmless or reported as damage."""
    random = np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(honest[0])
        for position in random.integers(0, len(damaged), 3):
            damaged[position] = random.integers(256)
        with contextlib.suppress(UserError):
            legacy.load_network_pkl(io.BytesIO(bytes(damaged)))


def test_source_text_in_an_honest_file_is_never_run(honest, tmp_path):
    touched = tmp_path / "touched"
    content = altered(honest, lambda records: None, source=f"open({str(touched)!r}, 'w')")
    assert type(legacy.load_network_pkl(io.BytesIO(content)).G_ema) is Generator
    assert not touched.exists()
    assert str(touched).encode() in content
