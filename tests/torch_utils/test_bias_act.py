import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from tests.helpers import assert_close
from torch_utils.ops.bias_act import activation_funcs, bias_act

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805

# act -> (formula on one number, default gain), from the definitions.
FORMULAS = {
    "linear": (lambda v, alpha: v, 1),
    "relu": (lambda v, alpha: max(v, 0.0), math.sqrt(2)),
    "lrelu": (lambda v, alpha: v if v > 0 else alpha * v, math.sqrt(2)),
    "tanh": (lambda v, alpha: math.tanh(v), 1),
    "sigmoid": (lambda v, alpha: 1 / (1 + math.exp(-v)), 1),
    "elu": (lambda v, alpha: v if v > 0 else math.exp(v) - 1, 1),
    "selu": (lambda v, alpha: SELU_SCALE * (v if v > 0 else SELU_ALPHA * (math.exp(v) - 1)), 1),
    "softplus": (lambda v, alpha: math.log(1 + math.exp(v)), 1),
    "swish": (lambda v, alpha: v / (1 + math.exp(-v)), math.sqrt(2)),
}
OPTIONS = [{}, {"gain": 3}, {"gain": -0.5}, {"gain": 0.7, "clamp": 0.4}, {"alpha": 0.5}, {"alpha": -0.5, "gain": 2}]


def signal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def plain_bias_act(x, b, dim, act, alpha=None, gain=None, clamp=None):
    formula, default_gain = FORMULAS[act]
    alpha, gain = 0.2 if alpha is None else alpha, default_gain if gain is None else gain
    y = torch.empty_like(x)
    for index in torch.cartesian_prod(*(torch.arange(n) for n in x.shape)).tolist():
        bias = 0.0 if b is None else b[index[dim]].item()
        value = gain * formula(x[tuple(index)].item() + bias, alpha)
        y[tuple(index)] = value if clamp is None else min(max(value, -clamp), clamp)
    return y


@pytest.mark.parametrize("act", FORMULAS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_equals_the_formula(act, options):
    x, b = signal(2, 3, 4), signal(3, seed=1)
    assert_close(bias_act(x, b, act=act, **options), plain_bias_act(x, b, 1, act, **options), 1e-12)
    assert_close(bias_act(x, None, act=act, **options), plain_bias_act(x, None, 1, act, **options), 1e-12)


@pytest.mark.parametrize("dim", [0, 1, 2, -1, -3])
def test_bias_runs_along_dim(dim):
    x = signal(2, 3, 4)
    b = signal(x.shape[dim], seed=1)
    assert_close(bias_act(x, b, dim=dim, act="lrelu"), plain_bias_act(x, b, dim, "lrelu"), 1e-12)


@pytest.mark.parametrize("act", FORMULAS)
@pytest.mark.parametrize(
    "options", [{}, {"gain": 0.7, "clamp": 0.4}, {"gain": -2}, {"alpha": -0.5, "gain": 2}], ids=str
)
def test_first_and_second_derivatives(act, options):
    x, b = signal(2, 3, 2).requires_grad_(), signal(3, seed=1).requires_grad_()

    def op(x, b):
        return bias_act(x, b, act=act, **options)

    def op_without_bias(x):
        return bias_act(x, act=act, **options)

    for function, inputs in ((op, (x, b)), (op_without_bias, (x,))):
        assert gradcheck(function, inputs)
        assert gradgradcheck(function, inputs)


@pytest.mark.parametrize("act", FORMULAS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("gain", [None, 1, 2])
def test_leaves_its_input_alone(act, bias, gain):
    x, b = signal(2, 3, 4), signal(3, seed=1)
    kept_x, kept_b = x.clone(), b.clone()
    bias_act(x, b if bias else None, act=act, gain=gain, clamp=0.5)
    assert torch.equal(x, kept_x)
    assert torch.equal(b, kept_b)


@pytest.mark.parametrize("act", ["linear", "lrelu", "swish"])
def test_keeps_the_data_type_of_x(act):
    y = bias_act(signal(2, 3).to(torch.bfloat16), signal(3).float(), act=act, clamp=1)
    assert y.dtype == torch.bfloat16


def test_table_names_every_activation_with_its_defaults():
    assert list(activation_funcs) == list(FORMULAS)
    for act, (formula, gain) in FORMULAS.items():
        spec = activation_funcs[act]
        assert spec.def_gain == pytest.approx(gain)
        assert spec.def_alpha == (0.2 if act == "lrelu" else 0)
        value = spec.func(torch.tensor(-0.3, dtype=torch.float64), spec.def_alpha).item()
        assert value == pytest.approx(formula(-0.3, spec.def_alpha))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"act": "gelu"}, "gelu"),
        ({"impl": "fast"}, "fast"),
        ({"clamp": -1}, "clamp"),
        ({"b": torch.zeros(4)}, r"\[3\]"),
        ({"b": torch.zeros(1, 3)}, r"\[3\]"),
        ({"b": torch.zeros(3), "dim": 2}, "dim"),
    ],
    ids=str,
)
def test_bad_arguments_are_told_in_one_line(arguments, told):
    with pytest.raises(ValueError, match=told) as error:
        bias_act(torch.zeros(2, 3), **arguments)
    assert "\n" not in str(error.value)
