import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from tests.helpers import assert_close
from torch_utils.ops import conv2d_gradfix
from torch_utils.ops.conv2d_gradfix import no_weight_gradients

# name -> (ours, PyTorch's, weight shape for 4 channels in 2 groups, options)
OPS = {
    "conv2d": (conv2d_gradfix.conv2d, F.conv2d, (6, 2, 3, 2), {"stride": 2, "padding": (1, 0), "groups": 2}),
    "conv_transpose2d": (
        conv2d_gradfix.conv_transpose2d,
        F.conv_transpose2d,
        (4, 3, 3, 2),
        {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2},
    ),
}
pytestmark = pytest.mark.parametrize("name", OPS)


def tensors(shape):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(*size, dtype=torch.float64, generator=generator).requires_grad_()
        for size in ((2, 4, 4, 5), shape, (6,))
    ]


def penalty_gradients(op, tensors, options, context=None):
    """Like R1: differentiate with respect to the input, then the squared result with respect to everything."""
    x, w, b = tensors
    loss = op(x, w, b, **options).square().sum()
    with context() if context else torch.enable_grad():
        (slope,) = torch.autograd.grad(loss, x, create_graph=True)
    return torch.autograd.grad(slope.square().sum(), tensors)


def test_equals_pytorch(name):
    ours, theirs, shape, options = OPS[name]
    arguments = tensors(shape)
    assert_close(ours(*arguments, **options).detach(), theirs(*arguments, **options).detach(), 1e-12)


def test_first_and_second_derivatives(name):
    ours, _, shape, options = OPS[name]
    x, w, b = tensors(shape)
    small = [t.detach().requires_grad_() for t in (x[:1, :2, :3, :2], w[: w.shape[0] // 2], b[: b.shape[0] // 2])]
    options = {**options, "groups": 1}
    assert gradcheck(lambda *a: ours(*a, **options), small)
    assert gradgradcheck(lambda *a: ours(*a, **options), small)


def test_backward_inside_gives_weights_nothing_and_inputs_everything(name):
    ours, theirs, shape, options = OPS[name]
    x, w, b = tensors(shape)
    loss = ours(x, w, b, **options).square().sum()
    with no_weight_gradients():
        loss.backward()
    assert w.grad is None
    expected_x, expected_b = torch.autograd.grad(theirs(x, w, b, **options).square().sum(), [x, b])
    assert_close(x.grad, expected_x, 1e-12)
    assert_close(b.grad, expected_b, 1e-12)


def test_second_backward_outside_is_complete(name):
    ours, theirs, shape, options = OPS[name]
    arguments = tensors(shape)
    actual = penalty_gradients(ours, arguments, options, context=no_weight_gradients)
    expected = penalty_gradients(theirs, arguments, options)
    for a, e in zip(actual, expected, strict=True):
        assert_close(a, e, 1e-12)


def test_forward_inside_does_not_matter(name):
    ours, _, shape, options = OPS[name]
    x, w, b = tensors(shape)
    with no_weight_gradients():
        loss = ours(x, w, b, **options).sum()
    loss.backward()
    assert w.grad is not None


def test_ends_with_its_block_even_nested_or_on_an_error(name):
    ours, _, shape, options = OPS[name]
    x, w, b = tensors(shape)
    loss = ours(x, w, b, **options).sum()
    with no_weight_gradients():
        with pytest.raises(KeyError), no_weight_gradients():
            raise KeyError
        loss.backward(retain_graph=True)
        assert w.grad is None
    loss.backward()
    assert w.grad is not None
