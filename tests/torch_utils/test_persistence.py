"""Objects that remember how they were built."""

import copy
import io
import pickle

import pytest
import torch

from dnnlib import EasyDict, UserError
from torch_utils import persistence
from torch_utils.network_files import machine
from torch_utils.persistence import is_persistent, persistent_class


@persistent_class
class Inner(torch.nn.Module):
    def __init__(self, size):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(size))
        self.register_buffer("mean", torch.zeros(2))


@persistent_class
class Outer(torch.nn.Module):
    def __init__(self, size, *, options=None, scale=1.0):
        super().__init__()
        self.scale = scale
        self.inner = Inner(size)
        if options is not None:
            options["touched"] = True


@persistent_class
class Derived(Outer):
    def __init__(self, factor):
        super().__init__(size=3 * factor)


class Undecorated(Outer):
    pass


def test_records_the_arguments_as_given():
    options = {"a": [1]}
    obj = Outer(3, options=options, scale=2.0)
    assert obj.init_args == [3]
    assert obj.init_kwargs == {"options": {"a": [1]}, "scale": 2.0}
    assert isinstance(obj.init_kwargs, EasyDict)


def test_recorded_arguments_cannot_be_changed_from_outside():
    obj = Outer(3, options={"a": [1]})
    obj.init_kwargs.options["a"].append(2)
    obj.init_args.append(4)
    assert obj.init_args == [3]
    assert obj.init_kwargs.options == {"a": [1]}


def test_the_outermost_constructor_speaks():
    obj = Derived(2)
    assert obj.init_args == [2]
    assert obj.init_kwargs == {}
    assert obj.inner.init_args == [6]


def test_is_persistent_knows_classes_and_instances():
    assert is_persistent(Outer)
    assert is_persistent(Outer(1))
    assert not is_persistent(Undecorated(1))
    assert not is_persistent(torch.nn.Linear(1, 1))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda obj: pickle.loads(pickle.dumps(obj))])
def test_copies_equal_the_original_and_share_nothing(copied):
    obj = Outer(3, scale=2.0)
    obj.scale = 5.0
    twin = copied(obj)
    assert type(twin) is Outer
    assert twin.scale == 5.0
    assert torch.equal(twin.inner.weight, obj.inner.weight)
    assert twin.init_kwargs == obj.init_kwargs
    twin.inner.weight.data.add_(1)
    assert not torch.equal(twin.inner.weight, obj.inner.weight)


def test_subclasses_without_the_decorator_still_pickle():
    twin = pickle.loads(pickle.dumps(Undecorated(2)))
    assert type(twin) is Undecorated
    assert twin.inner.weight.shape == (2,)


def test_pickle_has_the_published_layout():
    function, (meta,) = Outer(3).__reduce__()
    assert function.__module__ == "torch_utils.persistence"
    assert function.__qualname__ == "_reconstruct_persistent_obj"
    assert (meta.type, meta.version, meta.class_name) == ("class", 6, "Outer")
    assert "class Outer" in meta.module_src
    assert {"_parameters", "_buffers", "_modules", "_init_args", "_init_kwargs"} <= meta.state.keys()


def test_source_text_is_written_once():
    buffer = io.BytesIO()
    machine.dump([Outer(1), Outer(2)], buffer)
    assert buffer.getvalue().count(b"class Undecor" + b"ated(Outer)") == 1


def test_reading_never_runs_the_source_text(tmp_path):
    function, (meta,) = Outer(3).__reduce__()
    meta["module_src"] = f"open({str(tmp_path / 'run')!r}, 'w')"
    assert type(function(meta)) is Outer
    assert not (tmp_path / "run").exists()


def test_half_precision_is_for_the_file_alone():
    obj = Outer(3)
    for tensor in (*obj.parameters(), *obj.buffers()):
        tensor.data = tensor.data.half()
    twin = pickle.loads(pickle.dumps(obj))
    assert twin.inner.weight.dtype == twin.inner.mean.dtype == torch.float32
    assert torch.equal(twin.inner.weight, obj.inner.weight.float())


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_copies_keep_their_precision(copied):
    assert copied(Outer(3).half()).inner.weight.dtype == torch.float16


def test_a_deep_copy_keeps_what_is_shared_and_circles():
    obj = Outer(3)
    obj.again = obj.inner
    obj.__dict__["me"] = obj
    twin = copy.deepcopy(obj)
    assert twin.again is twin.inner
    assert twin.me is twin


def test_parts_whose_class_has_moved_are_built_anew():
    obj = Outer(3, scale=2.0)
    content = pickle.dumps(obj)
    assert content.count(b"\x05Inner") == 1
    twin = pickle.loads(content.replace(b"\x05Inner", b"\x05Moved"))
    assert type(twin) is Outer
    assert type(twin.inner) is Inner
    assert torch.equal(twin.inner.weight, obj.inner.weight)


def test_named_arguments_have_the_names_of_the_constructor():
    assert persistence.named_arguments(Outer(3, scale=2.0)) == {"size": 3, "scale": 2.0}


def test_import_hooks_change_what_is_unpickled(monkeypatch):
    monkeypatch.setattr(persistence, "_import_hooks", [])

    @persistence.import_hook
    def rename(meta):
        meta.class_name = meta.class_name.replace("Renamed", "Outer")
        return meta

    function, (meta,) = Outer(3).__reduce__()
    assert type(function(EasyDict(meta, class_name="Renamed"))) is Outer


def test_find_class_refuses_what_is_not_persistent():
    assert persistence.find_class(f"{__name__}.Outer") is Outer
    with pytest.raises(UserError, match="not a class that network files can hold"):
        persistence.find_class("torch.nn.Linear")
