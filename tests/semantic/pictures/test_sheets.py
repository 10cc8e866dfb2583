import numpy as np
import pytest
import torch

from semantic.pictures import sheets
from semantic.pictures.sheets import Label
from semantic.regions import CELEBAMASK, Regions

REGIONS = Regions(["background", "hair", "nose"], colors=[(0, 0, 0), (200, 0, 0), (0, 0, 200)])


def squares(*colors) -> list[np.ndarray]:
    return [np.full([64, 64, 3], color, np.uint8) for color in colors]


def covered(sheet: np.ndarray, color) -> tuple[int, int, int, int]:
    """Top, left, height and width of the box of one colour."""
    y, x = np.nonzero((sheet == np.array(color)).all(axis=2))
    return y.min(), x.min(), y.max() - y.min() + 1, x.max() - x.min() + 1


def test_pictures_stand_whole_in_rows_and_columns():
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]
    a, b, c, d = squares(*colors)
    sheet = sheets.draw_sheet([[a, b], [c, d]], [Label("one"), Label("two")], [Label("first"), Label("second")])
    boxes = [covered(sheet, color) for color in colors]
    assert {box[2:] for box in boxes} == {(64, 64)}
    assert boxes[0][0] == boxes[1][0] < boxes[2][0] == boxes[3][0]
    assert boxes[0][1] == boxes[2][1] < boxes[1][1] == boxes[3][1]


def test_labels_are_drawn_in_the_margins():
    (cell,) = squares((255, 0, 0))
    bare = sheets.draw_sheet([[cell]], [Label()], [Label()])
    assert {tuple(p) for p in bare.reshape(-1, 3)} == {(255, 0, 0), sheets.PAPER}
    above = sheets.draw_sheet([[cell]], [Label("hair", "seed 3", (9, 99, 199))], [Label()])
    assert above.shape[0] > bare.shape[0]
    assert above.shape[1] == bare.shape[1]
    top = covered(above, (255, 0, 0))[0]
    assert (above[:top] == sheets.INK).all(axis=2).any()
    assert covered(above, (9, 99, 199))[3] == 64
    beside = sheets.draw_sheet([[cell]], [Label()], [Label("seed 12")])
    left = covered(beside, (255, 0, 0))[1]
    assert (beside[:, :left] == sheets.INK).all(axis=2).any()


def test_long_names_stay_within_their_column():
    a, b = squares((255, 0, 0), (0, 255, 0))
    plain = sheets.draw_sheet([[a, b]], [Label("x"), Label("")], [Label()])
    long = sheets.draw_sheet([[a, b]], [Label("a very long name of a region"), Label("")], [Label()])
    assert long.shape == plain.shape
    end = covered(long, (255, 0, 0))[1] + 64
    assert (long[: covered(long, (255, 0, 0))[0], end + 2 :] == 255).all()


def test_mixing_sheet_has_a_blank_corner_and_sets_the_headers_apart():
    source, donor, mix = squares((255, 0, 0), (0, 255, 0), (0, 0, 255))
    sheet = sheets.mixing_sheet(source[None], donor[None], mix[None, None], [Label("hair")], [Label("seed 0")])
    red, green, blue = (covered(sheet, c) for c in [(255, 0, 0), (0, 255, 0), (0, 0, 255)])
    assert (red[0], green[1]) == (blue[0], blue[1])
    assert (sheet[green[0] : green[0] + 64, red[1] : red[1] + 64] == 255).all()
    assert blue[0] - (green[0] + 64) == blue[1] - (red[1] + 64) == 4 * 4


def test_masks_and_planes_take_the_colours_of_their_regions():
    mask = torch.full([1, 3, 8, 8], -1.0)
    mask[:, 0, :, :4] = 1
    mask[:, 2, :, 4:] = 1
    (painted,) = sheets.mask_cells(mask, REGIONS, 32)
    assert (painted[:, :16] == (0, 0, 0)).all()
    assert (painted[:, 16:] == (0, 0, 200)).all()
    planes = sheets.plane_cells(mask[0], REGIONS.colors, 8)
    assert (planes[2, :, 4:] == (0, 0, 200)).all()
    assert (planes[1] == sheets.BLANK).all()


def test_nearer_is_brighter_on_one_scale():
    depth = torch.stack([torch.zeros(16, 16), torch.full([16, 16], 4.0), torch.full([16, 16], -4.0)])
    brightness = sheets.depth_cells(depth, 32).astype(int).sum(axis=-1).mean(axis=(1, 2))
    assert brightness[2] < brightness[0] < brightness[1]
    assert sheets.depth_cells(torch.zeros(2, 4, 4), 8).shape == (2, 8, 8, 3)


@pytest.mark.parametrize(("resolution", "side"), [(32, 192), (256, 256), (1024, 256)])
def test_cells_are_readable_at_every_resolution(resolution, side):
    assert sheets.cell_size(resolution) == side
    assert sheets.image_cells(torch.zeros(2, 1, resolution, resolution), side).shape == (2, side, side, 3)


def test_components_sheet_shows_every_step():
    order = [0, 2]
    built = torch.stack([torch.full([3, 32, 32], -1.0), torch.full([3, 32, 32], 1.0)])
    one = sheets.components_sheet(built[:1], torch.ones(3, 32, 32), torch.zeros(3, 8, 8), REGIONS, order[:1], "seed 1")
    two = sheets.components_sheet(built, torch.ones(3, 32, 32), torch.zeros(3, 8, 8), REGIONS, order, "seed 1")
    assert one.shape[0] == two.shape[0] > 3 * 192
    assert two.shape[1] - one.shape[1] == 192 + 6


def test_columns_of_named_regions_meet_every_donor():
    assert sheets.mixing_columns(REGIONS, [1, 2], [7, 8]) == [(1, 7), (1, 8), (2, 7), (2, 8)]


def test_columns_take_turns_with_donors():
    assert sheets.mixing_columns(REGIONS, None, None) == [(0, 100), (1, 101), (2, 102)]
    assert sheets.mixing_columns(REGIONS, None, [7]) == [(0, 7), (1, 7), (2, 7)]
    assert sheets.mixing_columns(REGIONS, [2], None) == [(2, 100)]
    assert [seed for _, seed in sheets.mixing_columns(REGIONS, None, [5, 6, 7, 8])] == [5, 6, 7, 8]


def test_many_regions_leave_the_background_out():
    columns = sheets.mixing_columns(CELEBAMASK, None, None)
    assert [k for k, _ in columns] == list(range(1, 13))
