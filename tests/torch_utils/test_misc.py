"""Helpers under the names that scripts for StyleGAN2-ADA use."""

import warnings
from itertools import islice

import numpy as np
import pytest
import torch

from dnnlib import UserError
from torch_utils import custom_ops, misc


def test_a_constant_is_made_once():
    value = misc.constant([1, 2, 3])
    assert value.dtype == torch.float32
    assert value.tolist() == [1, 2, 3]
    assert misc.constant(np.array([1, 2, 3])) is value
    wide = misc.constant([[1.5], [2.5]], shape=[2, 3], dtype=torch.float64)
    assert wide.tolist() == [[1.5] * 3, [2.5] * 3]
    assert misc.constant([[1.5], [2.5]], shape=(2, 3), dtype=torch.float64, device="cpu") is wide
    planes = misc.constant(1, shape=[2, 3, 4, 4], memory_format=torch.channels_last)
    assert planes.is_contiguous(memory_format=torch.channels_last)
    assert misc.constant(True).tolist() == 1.0


def test_numbers_that_are_not_finite_are_replaced():
    given = torch.tensor([float("nan"), float("inf"), -float("inf"), 1])
    assert misc.nan_to_num(given, nan=0.0, posinf=1e5, neginf=-1e5).tolist() == [0, 1e5, -1e5, 1]


def test_shapes_are_checked():
    misc.assert_shape(torch.zeros(2, 3), [None, 3])
    for wrong in ([2], [2, 4], [2, 3, 1]):
        with pytest.raises(AssertionError, match=r"shape \[2, 3\]"):
            misc.assert_shape(torch.zeros(2, 3), wrong)
    misc.symbolic_assert(torch.tensor(True), "holds")
    with pytest.raises(AssertionError, match="does not hold"):
        misc.symbolic_assert(1 > 2, "does not hold")


def test_tracing_is_silent_where_it_should_be():
    def halves(x):
        with misc.suppress_tracer_warnings():
            count = int(x.shape[0] // 2)
        misc.assert_shape(x, [x.shape[0], 3])
        return x[:count]

    with warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)
        traced = torch.jit.trace(halves, torch.zeros(4, 3))
    assert traced(torch.ones(4, 3)).shape == (2, 3)


def test_a_function_appears_in_the_profile_under_its_name():
    @misc.profiled_function
    def weigh_anchor(x, times=1):
        "Pull it up."
        return x * times

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        assert weigh_anchor(torch.ones(1), times=3).item() == 3
    assert "weigh_anchor" in {event.key for event in profile.key_averages()}
    assert (weigh_anchor.__name__, weigh_anchor.__doc__) == ("weigh_anchor", "Pull it up.")


def test_processes_share_endless_passes():
    data = ["a", "b", "c", "d", "e", "f"]
    shares = [list(islice(misc.InfiniteSampler(data, rank=r, num_replicas=2, seed=3), 6)) for r in range(2)]
    first, second = ([i for pair in zip(*shares, strict=True) for i in pair][part] for part in (slice(6), slice(6, 12)))
    assert sorted(first) == sorted(second) == list(range(6))
    assert first != second
    plain = misc.InfiniteSampler(dataset=data, shuffle=False, window_size=0)
    loader = torch.utils.data.DataLoader(dataset=data, sampler=plain, batch_size=4)
    assert list(islice(loader, 2)) == [["a", "b", "c", "d"], ["e", "f", "a", "b"]]
    for mistake in (dict(dataset=[]), dict(dataset=data, rank=2, num_replicas=2)):
        with pytest.raises(UserError):
            misc.InfiniteSampler(**mistake)


def normed(width: int) -> torch.nn.Module:
    torch.manual_seed(width)
    return torch.nn.Sequential(torch.nn.Linear(3, width), torch.nn.BatchNorm1d(width), torch.nn.ReLU())


def test_tensors_are_copied_by_name():
    source, target = normed(4), torch.nn.Sequential(torch.nn.Linear(3, 4), *normed(4)[1:], torch.nn.Linear(4, 1))
    source[1].running_mean.fill_(7)
    target[0].weight.requires_grad_(False)
    own = target[3].weight.clone()
    with pytest.raises(UserError, match=r"no tensor 3\.weight"):
        misc.copy_params_and_buffers(source, target, require_all=True)
    assert not torch.equal(target[0].weight, source[0].weight)
    misc.copy_params_and_buffers(src_module=source, dst_module=target)
    copied = dict(misc.named_params_and_buffers(target))
    for name, tensor in misc.named_params_and_buffers(source):
        assert torch.equal(copied[name], tensor), name
    assert torch.equal(target[3].weight, own)
    assert [p.requires_grad for p in target[0].parameters()] == [False, True]
    assert len(misc.params_and_buffers(source)) == 4 + 3
    with pytest.raises(UserError, match=r"0.weight: its shape is \[5, 3\]"):
        misc.copy_params_and_buffers(normed(5), target)


def test_one_process_needs_no_others():
    module = normed(2)
    with misc.ddp_sync(module, sync=False):
        module(torch.ones(2, 3)).sum().backward()
    misc.check_ddp_consistency(module, r".*\.num_batches_tracked")


def test_a_table_of_layers(capsys):
    module = torch.nn.Sequential(normed(4), torch.nn.Identity(), torch.nn.Linear(4, 2, bias=False).half().float())
    inputs = [torch.ones(5, 3)]
    outputs = misc.print_module_summary(module, inputs)
    assert outputs.shape == (5, 2)
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line]
    assert lines[0] == ["Sequential", "Parameters", "Buffers", "Output", "shape", "Datatype"]
    rows = {line[0]: line[1:] for line in lines[2:]}
    assert rows["0.0"] == ["16", "-", "[5,", "4]", "float32"]
    assert rows["0.1"] == ["8", "9", "[5,", "4]", "float32"]
    assert rows["2"] == ["8", "-", "[5,", "2]", "float32"]
    assert rows["Total"] == ["32", "9", "-", "-"]
    assert "1" not in rows
    misc.print_module_summary(module, inputs, max_nesting=1, skip_redundant=False)
    rows = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line]
    assert rows[2:-2] == ["0", "1", "2", "<top-level>"]
    assert not any(part._forward_hooks for part in module.modules())


def test_nothing_is_compiled():
    custom_ops.verbosity = "none"
    with pytest.raises(UserError, match=r"This project compiles no plugins such as bias_act_plugin"):
        custom_ops.get_plugin("bias_act_plugin", sources=["bias_act.cpp"], extra_cuda_cflags=["--use_fast_math"])
