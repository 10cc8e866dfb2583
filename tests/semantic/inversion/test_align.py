"""The crop is found wherever the network's kind of picture lies."""

import pytest
import torch
from torch.nn import functional as F

from dnnlib import UserError
from semantic.inversion.align import _Search, align, combined, turned, windows
from semantic.placement import Placement
from tests.semantic.inversion.doll import COLORS, doll_layout, parser, shares
from tests.semantic.inversion.far import FarDevice, mark

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def layout():
    return doll_layout()


def photo(side=160, busy=False, **moves):
    """A doll that fills the photo where nothing is moved."""
    planes = shares(1, side=side, **moves)
    picture = torch.einsum("nkhw,kc->nchw", planes, COLORS)[0]
    if not busy:
        return picture
    noise = torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(0)) * 0.3
    noise = F.interpolate(noise, side, mode="bicubic")[0].clamp(-0.5, 0.5)
    return torch.where(planes[:, 0] > 0.5, noise, picture)


def expected(side, scale=1.0, degrees=0.0, shift=(0.0, 0.0)):
    """Corners of the unmoved picture after the move, written with complex numbers."""
    turn = scale * complex(*[f(torch.deg2rad(torch.tensor(degrees))).item() for f in (torch.cos, torch.sin)])
    corners = [(complex(x, y) - (0.5 + 0.5j)) * turn + complex(0.5 + shift[0], 0.5 + shift[1]) for x, y in
               ((0, 0), (1, 0), (1, 1), (0, 1))]  # fmt: skip
    return torch.tensor([[c.real * side, c.imag * side] for c in corners], dtype=torch.float64)


@pytest.mark.parametrize(
    "moves",
    [
        {},
        {"scale": 0.5, "shift": (0.1, -0.15)},
        {"degrees": 25.0, "scale": 0.7},
        {"degrees": -20.0, "scale": 0.6, "shift": (-0.1, 0.1), "busy": True},
        {"degrees": 90.0, "scale": 0.8},
    ],
)
def test_the_crop_is_found_where_the_doll_was_moved(layout, moves):
    found = align(photo(**moves), "photo", parser(), layout)
    where = {name: value for name, value in moves.items() if name != "busy"}
    off = (found.corners() - expected(160, **where)).norm(dim=1).max()
    assert off < 0.06 * 160 * moves.get("scale", 1)


def test_a_photo_of_any_shape_is_searched(layout):
    picture = photo(side=100)
    wide = torch.cat([COLORS[0].view(3, 1, 1).expand(3, 100, 150), picture], dim=2)
    found = align(wide, "photo", parser(), layout)
    corners = expected(100) + torch.tensor([150.0, 0.0])
    assert (found.corners() - corners).norm(dim=1).max() < 7


@pytest.mark.parametrize("kind", ["plain", "noise"])
def test_a_photo_of_something_else_is_refused_in_one_line(layout, kind):
    picture = torch.zeros(3, 90, 120) if kind == "plain" else torch.randn(3, 90, 120).clamp(-1, 1)
    with pytest.raises(UserError, match=r"flower: No part of this photo looks like .*head.*--align=none"):
        align(picture, "flower", parser(), layout)


def test_turned_windows_keep_their_centres_and_sides():
    squares = windows(120, 90)
    after = turned(squares, 30)
    assert torch.allclose(torch.hypot(after[:, 0], after[:, 1]), squares[:, 0])
    middles = [combined(x, torch.tensor([[1.0, 0, 0.5, 0.5]]))[:, 2:] for x in (squares, after)]
    assert torch.allclose(*middles)


def test_the_placement_of_a_found_crop_crops_it(layout):
    picture = photo(scale=0.5, shift=(0.1, 0.0))
    found = align(picture, "photo", parser(), layout)
    assert isinstance(found, Placement)
    seen = parser().masks(found.crop(picture)[None])[0]
    wanted = shares(1)[0].argmax(dim=0)
    assert (seen == wanted).float().mean() > 0.88  # the doll's parser loses soft edges, so crops are a little small


class FarParser:
    """The doll's parser on a device without float64."""

    def __init__(self):
        self.near = parser()
        self.regions, self.resolution, self.side = self.near.regions, self.near.resolution, self.near.side

    def masks(self, images):
        return mark(self.near.masks(mark(images, far=False)))


def test_photo_and_parser_may_be_on_a_device_without_float64(layout):
    picture = photo(side=100, scale=0.6, degrees=90.0)
    with FarDevice():
        found = align(mark(picture), "photo", FarParser(), layout)
    assert found == align(picture, "photo", parser(), layout)


def test_very_long_photos_are_refused_before_the_search(layout):
    with pytest.raises(UserError, match=r"strip: The photo has 200000 x 8 pixels\. .* 20 shorter sides"):
        align(torch.zeros(1, 1, 1).expand(3, 8, 200_000), "strip", parser(), layout)


def test_a_scan_keeps_the_labels_of_the_best_windows_alone(layout):
    search, squares = _Search(photo(side=160, scale=0.5), parser(), layout), windows(320, 160)
    kept, fits, labels = search.scan(squares, 7)
    all_fits, all_labels = search.look(squares)
    order = all_fits.argsort(descending=True, stable=True)[:7]
    assert len(squares) > 64
    assert torch.equal(fits, all_fits[order])
    assert torch.equal(kept, squares[order])
    assert torch.equal(labels, all_labels[order])
    assert len(search.scan(squares[:3], 7)[0]) == 3


class Stubborn:
    """A parser that sees its usual layout in any picture."""

    def __init__(self, usual):
        self.usual, self.regions, self.side = usual, parser().regions, usual.shape[-1]

    def masks(self, images):
        return self.usual.expand(len(images), -1, -1)


def test_labels_that_stay_in_the_window_instead_of_with_the_photo_do_not_count(layout):
    picture, window = photo(side=160), torch.tensor([[160.0, 0, 0, 0]], dtype=torch.float64)
    honest = _Search(picture, parser(), layout)
    _, labels = honest.look(window)
    constancy = honest.constancy(window, labels)
    assert constancy > 0.7
    stubborn = _Search(picture, Stubborn(parser().masks(picture[None])[0]), layout)
    _, usual = stubborn.look(window)
    assert stubborn.constancy(window, usual) < 0.6 * constancy
