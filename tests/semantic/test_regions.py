"""Layout of the codes, names and pictures of regions."""

import numpy as np
import pytest
import torch

from dnnlib import UserError
from semantic.masks import mask_to_indices, one_hot
from semantic.regions import Regions, distinct_colors
from tests.semantic.helpers import region_names


def plain_slot(k, layer, base_layers, depth_layers):
    """W+ slot of one layer of one local generator."""
    if k > 0 and layer < base_layers:
        return layer
    if layer < depth_layers:
        return base_layers + 2 * k
    return base_layers + 2 * k + 1


@pytest.mark.parametrize("count", [2, 3, 13])
@pytest.mark.parametrize("base_layers", [0, 1, 2])
def test_w_plus_slots_are_base_codes_then_shape_and_texture_of_each_region(count, base_layers):
    regions = Regions(region_names(count), base_layers=base_layers)
    assert regions.num_ws == base_layers + 2 * count
    assert regions.base_slots == range(base_layers)
    owners = list(regions.base_slots)
    for k, name in enumerate(region_names(count)):
        expected = {"shape": base_layers + 2 * k, "texture": base_layers + 2 * k + 1}
        assert regions.slots(name) == regions.slots(k) == expected
        owners += expected.values()
    assert owners == list(range(regions.num_ws))


@pytest.mark.parametrize("count", [2, 3, 13])
@pytest.mark.parametrize(
    ("layers", "base_layers", "depth_layers"), [(10, 2, 6), (4, 0, 2), (5, 1, 5), (3, 2, 2), (4, 2, 4), (2, 1, 1)]
)
def test_layers_run_on_base_shape_and_texture_codes(count, layers, base_layers, depth_layers):
    regions = Regions(region_names(count), base_layers=base_layers)
    slots = regions.layer_slots(layers, depth_layers)
    assert slots.shape == (count, layers)
    assert slots.dtype == torch.int64
    for k in range(count):
        for layer in range(layers):
            assert slots[k, layer] == plain_slot(k, layer, base_layers, depth_layers), (k, layer)


def test_layer_assignment_of_the_paper():
    hair = 7
    slots = Regions(region_names(13)).layer_slots(10, 6)
    assert slots[hair].tolist() == [0, 1, 16, 16, 16, 16, 17, 17, 17, 17]
    assert slots[0].tolist() == [2, 2, 2, 2, 2, 2, 3, 3, 3, 3]


def test_regions_are_found_by_name_and_number():
    regions = Regions(["background", "hair", "eye"])
    assert len(regions) == 3
    assert [regions.index(k) for k in (0, 1, 2, "background", "hair", "eye")] == [0, 1, 2, 0, 1, 2]
    assert regions.select("eye,hair") == [2, 1]
    assert regions.select(None) == [0, 1, 2]
    with pytest.raises(UserError, match="background, hair, eye"):
        regions.index("nose")
    for unknown in (3, -1):
        with pytest.raises(UserError, match="to 2"):
            regions.index(unknown)


def test_transparent_regions_by_name_or_number_survive_the_dictionary():
    by_name = Regions(["background", "face", "glasses"], transparent=["glasses"])
    by_number = Regions(["background", "face", "glasses"], transparent=[2])
    assert list(by_name.transparent) == list(by_number.transparent) == [2]
    again = Regions.from_dict(by_name.to_dict())
    assert again == by_name
    assert again.to_dict() == by_name.to_dict()


@pytest.mark.parametrize(
    "wrong",
    [
        {"names": ["background"]},
        {"names": ["background", "face", "face"]},
        {"names": ["background", "face"], "transparent": ["glasses"]},
        {"names": ["background", "face"], "transparent": [2]},
        {"names": ["background", "face"], "colors": [[0, 0, 0]]},
        {"names": ["background", "face"], "colors": [[0, 0, 0], [0, 0, 256]]},
    ],
)
def test_impossible_regions_are_refused_in_one_line(wrong):
    with pytest.raises(UserError) as error:
        Regions(**wrong)
    assert "\n" not in str(error.value)


def test_one_hot_planes_and_back():
    indices = torch.tensor(np.random.default_rng(0).integers(0, 5, (2, 3, 4)), dtype=torch.uint8)
    planes = one_hot(indices, 5)
    assert planes.dtype == torch.float32
    assert planes.shape == (2, 5, 3, 4)
    for n in range(2):
        for y in range(3):
            for x in range(4):
                for k in range(5):
                    assert planes[n, k, y, x] == (1 if indices[n, y, x] == k else -1)
    assert mask_to_indices(planes).dtype == np.uint8
    assert (mask_to_indices(planes) == indices.numpy()).all()


def test_masks_are_painted_in_the_colours_of_the_regions():
    regions = Regions(region_names(3), colors=[[0, 0, 0], [255, 0, 51], [0, 255, 102]])
    indices = torch.tensor([[[0, 1], [2, 1]]])
    picture = regions.paint(indices)
    assert picture.shape == (1, 3, 2, 2)
    for y in range(2):
        for x in range(2):
            expected = torch.tensor(regions.colors[indices[0, y, x]]) / 127.5 - 1
            assert torch.allclose(picture[0, :, y, x], expected, atol=1e-6)
    assert torch.equal(regions.paint(one_hot(indices.to(torch.uint8), 3)), picture)


@pytest.mark.parametrize("count", [2, 13, 40])
def test_chosen_colours_are_distinct(count):
    colors = [tuple(c) for c in distinct_colors(count)]
    assert len(set(colors)) == count
    assert all(0 <= value <= 255 for color in colors for value in color)


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (["background", "left_eye", "right_eye", "nose"], [(1, 2)]),
        (["bg", "r_brow", "hair", "l_brow", "Ear Left", "ear right"], [(1, 3), (4, 5)]),
        (["bg", "leftEye", "rightEye", "EyeLeft", "EyeRight", "arm-l", "arm-r"], [(1, 2), (3, 4), (5, 6)]),
        (["left", "right", "eye2_left", "eye2_right"], [(0, 1), (2, 3)]),
        (["background", "neck", "neck_l", "l_lip", "u_lip", "ear_r", "left_eye"], []),
        (["background", "bright", "blight", "cleft", "lr", "rl"], []),
    ],
)
def test_names_that_say_left_and_right_are_pairs(names, pairs):
    regions = Regions(names)
    assert regions.mirror == pairs
    table = regions.mirror_table()
    for i, j in pairs:
        assert (table[i], table[j]) == (j, i)
        assert names[i] in regions.mirror_note()
    assert bool(regions.mirror_note()) == bool(pairs)
    assert Regions.from_dict(regions.to_dict()).mirror == pairs


def test_pairs_can_be_named_or_left_out():
    names = ["background", "left_eye", "right_eye", "port", "starboard"]
    assert Regions(names, mirror=[]).mirror == []
    assert Regions.from_dict(Regions(names, mirror=[]).to_dict()).mirror == []
    assert Regions.from_dict({"names": names, "mirror": [["starboard", 3]]}).mirror == [(3, 4)]
    for wrong in ([[1, 1]], [[1, 2], [2, 3]], [[1]], [[1, 9]], [["none", 1]], [1], "x", [[1, 2, 3]]):
        with pytest.raises(UserError) as error:
            Regions.from_dict({"names": names, "mirror": wrong})
        assert "\n" not in str(error.value)


def test_names_with_commas_and_colons_can_be_named():
    regions = Regions(["background", "wall", "wall, other", "door:left", "door:left:top"])
    assert regions.select("wall, other,wall , door:left") == [2, 1, 3]
    assert regions.select("3,wall") == [3, 1]
    assert regions.split("door:left:dx=0.1,dy=2") == (3, "dx=0.1,dy=2")
    assert regions.split("door:left:top:swap:7") == (4, "swap:7")
    assert regions.split("wall") == (1, "")
    with pytest.raises(UserError, match="Unknown region 'roof'"):
        regions.split("roof:1")


@pytest.mark.parametrize("name", ["", "  ", "two\nlines", "bell\x07", "\x1b[31mred"])
def test_names_that_cannot_be_shown_are_refused(name):
    with pytest.raises(UserError) as error:
        Regions(["background", name])
    assert "\n" not in str(error.value)
    assert "\x1b" not in str(error.value)
