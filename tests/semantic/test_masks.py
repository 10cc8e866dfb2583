import numpy as np
import torch

from semantic.masks import is_present, mask_areas, one_hot


def test_a_region_is_there_from_a_thousandth_of_the_picture_on():
    indices = torch.zeros(2, 64, 64, dtype=torch.uint8)
    indices[0, 0, :5] = 1
    indices[1, 0, :4] = 1
    areas = mask_areas(one_hot(indices, 3))
    assert torch.equal(areas, torch.tensor([[4091, 5, 0], [4092, 4, 0]]) / 4096)
    assert is_present(areas).tolist() == [[True, True, False], [True, False, False]]
    assert is_present(np.array([0.001, 0.0009])).tolist() == [True, False]
    assert is_present(0.5) is True
