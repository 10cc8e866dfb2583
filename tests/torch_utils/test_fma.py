import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from tests.helpers import assert_close
from torch_utils.ops.fma import fma

SHAPES = [
    ((2, 3, 2, 2), (2, 3, 1, 1), (2, 1, 2, 2)),
    ((2, 3), (3,), ()),
    ((3,), (2, 1), (4, 1, 1)),
]


def tensors(shapes):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(s, dtype=torch.float64, generator=generator).requires_grad_() for s in shapes]


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_multiplies_and_adds(shapes):
    a, b, c = (t.detach() for t in tensors(shapes))
    assert_close(fma(a, b, c), a * b + c, 1e-12)


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_first_and_second_derivatives(shapes):
    assert gradcheck(fma, tensors(shapes))
    assert gradgradcheck(fma, tensors(shapes))


def test_shapes_that_do_not_broadcast_are_told_in_one_line():
    with pytest.raises(ValueError, match=r"\[3\]") as error:
        fma(torch.zeros(2), torch.zeros(3), torch.zeros(1))
    assert "\n" not in str(error.value)
