"""The operators give the published implementation's numbers."""

import ast

import numpy as np
import pytest
import torch

from tests.helpers import assert_close, shared_file
from torch_utils.ops.bias_act import activation_funcs, bias_act
from torch_utils.ops.conv2d_resample import conv2d_resample
from torch_utils.ops.upfirdn2d import setup_filter, upfirdn2d

BIAS_ACT_OPTIONS = [{}, {"gain": 0.7, "clamp": 0.5}, {"alpha": 0.1}]


@pytest.fixture(scope="module")
def numbers():
    with np.load(shared_file("fixtures", "ops_small.npz"), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


@pytest.mark.parametrize("impl", ["ref", "cuda"])
@pytest.mark.parametrize("case", range(5))
def test_upfirdn2d(numbers, case, impl):
    options = ast.literal_eval(str(numbers[f"upfirdn{case}_args"]))
    y = upfirdn2d(torch.from_numpy(numbers["x"]), setup_filter(numbers[f"upfirdn{case}_f"]), **options, impl=impl)
    assert_close(y, numbers[f"upfirdn{case}_y"])


@pytest.mark.parametrize("impl", ["ref", "cuda"])
@pytest.mark.parametrize("options", range(3))
@pytest.mark.parametrize("act", activation_funcs)
def test_bias_act(numbers, act, options, impl):
    x, b = torch.from_numpy(numbers["x"]), torch.from_numpy(numbers["b"])
    y = bias_act(x, b, act=act, **BIAS_ACT_OPTIONS[options], impl=impl)
    assert_close(y, numbers[f"bias_act_{act}_{options}"])


@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2)])
def test_conv2d_resample(numbers, up, down):
    x, w = torch.from_numpy(numbers["x"]), torch.from_numpy(numbers["w"])
    y = conv2d_resample(x, w, setup_filter([1, 3, 3, 1]), up=up, down=down, padding=1)
    assert_close(y, numbers[f"conv_resample_up{up}_down{down}"])
