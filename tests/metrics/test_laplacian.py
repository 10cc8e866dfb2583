import torch

from metrics.laplacian import enlarge, laplacian_pyramid, pyramid_levels, pyramid_reach


def test_pyramid_levels_add_up_to_the_image():
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    pyramid = laplacian_pyramid(image, 3)
    assert [level.shape[-1] for level in pyramid] == [64, 32, 16] == pyramid_levels(64)
    again = pyramid[2]
    for level in pyramid[1::-1]:
        again = enlarge(again) + level
    torch.testing.assert_close(again, image)


def test_flat_images_have_nothing_but_their_last_level():
    *details, rest = laplacian_pyramid(torch.full([1, 3, 32, 32], 5.0), 2)
    assert details[0].abs().max() < 1e-5
    torch.testing.assert_close(rest, torch.full([1, 3, 16, 16], 5.0))


def test_the_reach_of_a_mask_is_where_any_image_inside_it_leaves_a_trace():
    mask = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    mask[0, 0, 13, 21:23] = mask[0, 0, 31, 0] = True
    touched = [torch.zeros(1, 1, side, side, dtype=torch.bool) for side in (32, 16)]
    for y, x in mask[0, 0].nonzero().tolist():
        impulse = torch.zeros(1, 1, 32, 32)
        impulse[0, 0, y, x] = 1
        for seen, level in zip(touched, laplacian_pyramid(impulse, 2), strict=True):
            seen |= level != 0
    reach = pyramid_reach(mask, 2)
    for seen, level in zip(touched, reach, strict=True):
        assert not (seen & ~level).any()
    assert torch.equal(touched[1], reach[1])
    assert reach[0][0, 0, 13].nonzero().flatten().tolist() == list(range(18, 27))  # 3 pixels before 21, 4 after 22
