import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from tests.helpers import assert_close
from torch_utils.ops.conv2d_resample import conv2d_resample
from torch_utils.ops.upfirdn2d import setup_filter, upfirdn2d

FILTERS = {
    "image": setup_filter([[1, 2, 3], [4, 5, 7]]),
    "row": setup_filter([1, 2, 4, 3], separable=True),
    "none": None,
}


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def plain_resample(x, w, f, up, down, sides, groups, flip_weight, flip_filter):
    """Enlarge with all the padding, convolve at that size, shrink: nothing merged, nothing reordered."""
    fh, fw = (1, 1) if f is None else (f.shape[0], f.shape[-1])
    x0, x1, y0, y1 = sides
    if up > 1:
        x0, x1, y0, y1 = x0 + (fw + up - 1) // 2, x1 + (fw - up) // 2, y0 + (fh + up - 1) // 2, y1 + (fh - up) // 2
    if down > 1:
        x0, x1 = x0 + (fw - down + 1) // 2, x1 + (fw - down) // 2
        y0, y1 = y0 + (fh - down + 1) // 2, y1 + (fh - down) // 2
    sides = [x0, x1, y0, y1]
    x = upfirdn2d(x, f if up > 1 else None, up=up, padding=sides, gain=up**2, flip_filter=flip_filter)
    x = F.conv2d(x, w if flip_weight else w.flip([2, 3]), groups=groups)
    return upfirdn2d(x, f if down > 1 else None, down=down, flip_filter=flip_filter)


@pytest.mark.parametrize("f", FILTERS)
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (2, 3), (1, 2)], ids=str)
@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (3, 1), (4, 1), (1, 2), (1, 3), (2, 3)])
@pytest.mark.parametrize("flip_weight", [True, False])
def test_equals_the_separate_steps(f, kernel, up, down, flip_weight):
    x, w = random(2, 4, 7, 8), random(6, 2, *kernel, seed=1)
    for sides in ([1, 1, 1, 1], [0, 2, 3, -1]):
        arguments = (x, w, FILTERS[f], up, down, sides, 2, flip_weight, True)
        assert_close(conv2d_resample(*arguments), plain_resample(*arguments), 1e-12)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_half_a_kernel_of_padding_gives_the_resized_shape(kernel, up, down):
    x, w = random(1, 2, 8, 12), random(3, 2, kernel, kernel)
    y = conv2d_resample(x, w, setup_filter([1, 3, 3, 1]), up=up, down=down, padding=kernel // 2)
    assert y.shape == (1, 3, 8 * up // down, 12 * up // down)


@pytest.mark.parametrize("kernel", [1, 2])
@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_first_and_second_derivatives(kernel, up, down):
    x, w = random(1, 2, 2, 3).requires_grad_(), random(2, 1, kernel, kernel, seed=1).requires_grad_()
    f = setup_filter([[1, 2], [4, 3]])

    def op(x, w):
        return conv2d_resample(x, w, f, up=up, down=down, padding=[1, 0, 1, 0], groups=2)

    assert gradcheck(op, (x, w))
    assert gradgradcheck(op, (x, w))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"x": torch.zeros(4, 8, 8)}, "x must be"),
        ({"w": torch.zeros(4, 3, 3, 3)}, "does not fit"),
        ({"w": torch.zeros(4, 4)}, "does not fit"),
        ({"groups": 3}, "does not fit"),
        ({"groups": 0}, "does not fit"),
        ({"up": 0}, "up must be"),
        ({"down": [2, 2]}, "down must be"),
        ({"padding": [1, 2, 3]}, "padding must be"),
        ({"f": "lanczos", "up": 2}, "f must be"),
    ],
    ids=str,
)
def test_bad_arguments_are_told_in_one_line(arguments, told):
    with pytest.raises(ValueError, match=told) as error:
        conv2d_resample(**{"x": torch.zeros(1, 4, 8, 8), "w": torch.zeros(4, 4, 3, 3)} | arguments)
    assert "\n" not in str(error.value)
