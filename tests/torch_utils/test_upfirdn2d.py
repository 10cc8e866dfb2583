import itertools

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from tests.helpers import assert_close
from torch_utils.ops.upfirdn2d import downsample2d, filter2d, setup_filter, upfirdn2d, upsample2d

ROW = torch.tensor([1.0, 2.0, 4.0, 3.0], dtype=torch.float64)
IMAGE = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 7.0]], dtype=torch.float64)


def images(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def plain_upfirdn2d(x, f, up, down, padding, flip_filter, gain):
    """From the definition, sample by sample; up, down as [x, y], padding as [x0, x1, y0, y1]."""
    taps = torch.ones(1, 1) if f is None else torch.outer(f, f) if f.ndim == 1 else f
    fh, fw = taps.shape
    n, c, h, w = x.shape
    wide, high = w * up[0], h * up[1]

    def sample(row, column):
        inside = 0 <= row < high and 0 <= column < wide and row % up[1] == 0 and column % up[0] == 0
        return x[:, :, row // up[1], column // up[0]] if inside else torch.zeros_like(x[:, :, 0, 0])

    rows = range(-padding[2], high + padding[3] - fh + 1, down[1])
    columns = range(-padding[0], wide + padding[1] - fw + 1, down[0])
    y = torch.zeros(n, c, len(rows), len(columns), dtype=x.dtype)
    for (j, top), (i, left) in itertools.product(enumerate(rows), enumerate(columns)):
        for a, b in itertools.product(range(fh), range(fw)):
            tap = taps[a, b] if flip_filter else taps[fh - 1 - a, fw - 1 - b]
            y[:, :, j, i] += gain * tap * sample(top + a, left + b)
    return y


@pytest.mark.parametrize("f", [ROW, IMAGE, None], ids=["row", "image", "identity"])
@pytest.mark.parametrize("flip_filter", [False, True])
@pytest.mark.parametrize(
    ("up", "down", "padding"),
    [
        ([1, 1], [1, 1], [2, 1, 2, 1]),
        ([1, 1], [1, 1], [-1, 2, 0, -1]),
        ([2, 2], [1, 1], [2, 1, 2, 1]),
        ([1, 1], [2, 2], [1, 1, 1, 1]),
        ([2, 1], [1, 3], [3, -1, 0, 2]),
        ([3, 3], [2, 2], [-1, 4, 2, -2]),
        ([1, 2], [2, 1], [0, 5, 7, 0]),
        ([4, 3], [1, 1], [-3, -4, -2, -5]),
    ],
    ids=str,
)
def test_equals_the_definition(f, flip_filter, up, down, padding):
    x = images(2, 3, 6, 7)
    y = upfirdn2d(x, f, up=up, down=down, padding=padding, flip_filter=flip_filter, gain=1.5)
    assert_close(y, plain_upfirdn2d(x, f, up, down, padding, flip_filter, 1.5), 1e-12)


def test_short_forms_of_factors_and_padding():
    x = images(1, 2, 6, 7)
    assert torch.equal(
        upfirdn2d(x, IMAGE, up=2, down=3, padding=4),
        upfirdn2d(x, IMAGE, up=[2, 2], down=(3, 3), padding=[4, 4, 4, 4]),
    )
    assert torch.equal(upfirdn2d(x, IMAGE, padding=[3, 1]), upfirdn2d(x, IMAGE, padding=[3, 3, 1, 1]))


@pytest.mark.parametrize("f", [ROW, IMAGE], ids=["row", "image"])
@pytest.mark.parametrize(
    "options",
    [
        {"padding": [2, 1, 3, -1]},
        {"up": 2, "padding": [2, 1, 2, 1], "gain": 4},
        {"down": 2, "padding": 1},
        {"up": [2, 3], "down": [3, 2], "padding": 2, "flip_filter": True},
    ],
    ids=str,
)
def test_first_and_second_derivatives(f, options):
    x = images(1, 2, 4, 5).requires_grad_()
    assert gradcheck(lambda x: upfirdn2d(x, f, **options), x)
    assert gradgradcheck(lambda x: upfirdn2d(x, f, **options) ** 2, x)


@pytest.mark.parametrize("taps", [[1, 3, 3, 1], [1, 2, 1], [[1, 2], [3, 4]], list(range(1, 10))], ids=str)
@pytest.mark.parametrize("factor", [1, 2, [2, 3]], ids=str)
def test_wrappers_give_whole_multiples_of_the_size(taps, factor):
    x = images(1, 2, 12, 18)
    f = setup_filter(taps)
    fx, fy = factor if isinstance(factor, list) else (factor, factor)
    assert filter2d(x, f).shape == x.shape
    assert upsample2d(x, f, up=factor).shape == (1, 2, 12 * fy, 18 * fx)
    assert downsample2d(x, f, down=factor).shape == (1, 2, 12 // fy, 18 // fx)
    assert filter2d(x, f, padding=[1, 2, 3, 4]).shape == (1, 2, 12 + 7, 18 + 3)


def test_wrappers_keep_brightness():
    grey = torch.full([1, 1, 16, 16], 0.7, dtype=torch.float64)
    f = setup_filter([1, 3, 3, 1])
    for y in (filter2d(grey, f), upsample2d(grey, f), downsample2d(grey, f)):
        inside = y[:, :, 3:-3, 3:-3]
        assert_close(inside, torch.full_like(inside, 0.7), 1e-6)


def test_wrappers_do_not_shift_the_image():
    """A ramp stays the same ramp, seen at the pixel centres of the new size."""
    ramp = (torch.arange(16, dtype=torch.float64) + 0.5).expand(1, 1, 16, 16)
    f = setup_filter([1, 3, 3, 1])
    for y, step in ((upsample2d(ramp, f), 0.5), (downsample2d(ramp, f), 2.0)):
        expected = (torch.arange(y.shape[3], dtype=torch.float64) + 0.5) * step
        assert_close(y[0, 0, 4, 3:-3], expected[3:-3], 1e-6)
        assert_close(y[0, 0, 3:-3, 4], torch.full_like(expected[3:-3], expected[4].item()), 1e-6)


def test_filter2d_is_centred():
    x = torch.zeros(1, 1, 7, 7)
    x[..., 3, 3] = 1
    y = filter2d(x, torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 2.0], [0.0, 0.0, 0.0]]))
    assert y[0, 0, 3].tolist() == [0, 0, 0, 1, 2, 0, 0]


def test_setup_filter_forms():
    assert setup_filter([1, 3, 3, 1]).shape == (4, 4)
    assert setup_filter([1] * 8).shape == (8,)
    assert setup_filter([1, 3, 3, 1], separable=True).tolist() == [0.125, 0.375, 0.375, 0.125]
    assert setup_filter([1] * 8, separable=False).shape == (8, 8)
    assert setup_filter(None).tolist() == [[1]]
    assert setup_filter(5, normalize=False).tolist() == [[25]]
    assert setup_filter([[1, 2], [3, 4]], normalize=False, flip_filter=True).tolist() == [[4, 3], [2, 1]]
    assert setup_filter([1.0, 3.0]).dtype == torch.float32


@pytest.mark.parametrize("separable", [False, True])
def test_setup_filter_gain_is_the_gain_of_the_operator(separable):
    x = images(1, 1, 6, 6)
    f = setup_filter([1, 3, 3, 1], separable=separable)
    louder = setup_filter([1, 3, 3, 1], separable=separable, gain=4)
    assert_close(upfirdn2d(x, louder), upfirdn2d(x, f, gain=4), 1e-6)


def test_keeps_the_data_type_of_x():
    assert upfirdn2d(images(1, 2, 8, 8).to(torch.bfloat16), setup_filter([1, 3, 3, 1])).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"x": torch.zeros(3, 8, 8)}, "x must be"),
        ({"x": torch.zeros(1, 3, 8, 8, dtype=torch.uint8)}, "uint8"),
        ({"f": [1, 3, 3, 1]}, "setup_filter"),
        ({"f": torch.ones(2, 2, 2)}, r"\[2, 2, 2\]"),
        ({"f": torch.ones(2, dtype=torch.int64)}, "int64"),
        ({"up": 0}, "up must be"),
        ({"up": 1.5}, "up must be"),
        ({"down": [1, 2, 3]}, "down must be"),
        ({"padding": [1, 2, 3]}, "padding must be"),
        ({"padding": "same"}, "padding must be"),
        ({"padding": -4}, "does not fit"),
        ({"impl": "fast"}, "fast"),
    ],
    ids=str,
)
def test_bad_arguments_are_told_in_one_line(arguments, told):
    with pytest.raises(ValueError, match=told) as error:
        upfirdn2d(**{"x": torch.zeros(1, 3, 8, 8), "f": torch.ones(2, 2)} | arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "arguments", [{"f": []}, {"f": torch.ones(1, 2, 2)}, {"f": torch.ones(2, 2), "separable": True}], ids=str
)
def test_bad_filters_are_refused(arguments):
    with pytest.raises(ValueError, match="taps"):
        setup_filter(**arguments)
