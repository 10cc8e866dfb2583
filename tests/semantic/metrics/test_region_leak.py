import pytest
import torch

from dnnlib import UserError
from metrics.laplacian import laplacian_pyramid
from metrics.metric_main import calc_metric, load_plugins
from semantic.metrics.region_leak import outside_share
from tests.semantic.metrics.hand_made import Squares, Tiles

load_plugins(["semantic.metrics"])


@pytest.fixture(scope="module")
def squares():
    return calc_metric("region_leak20", Squares(), progress=False).results


def test_nothing_leaks_where_every_region_has_codes_of_its_own(squares):
    for part in ("shape", "texture"):
        for space in ("", "_pyramid"):
            for region in ("mean", "background", "a", "b", "c", "d"):
                assert squares[f"region_leak20_{part}{space}_{region}"] == 0


def test_the_baseline_is_the_share_of_all_other_regions(squares):
    assert all(squares[f"region_leak20_baseline_{region}"] > 0.6 for region in "abcd")
    assert squares["region_leak20_baseline_mean"] > squares["region_leak20_baseline_pyramid_mean"] > 0.3


def test_regions_that_are_never_seen_have_no_result(squares):
    assert not [name for name in squares if "never" in name]


def test_all_leaks_where_codes_change_the_whole_image_but_for_the_share_of_the_region():
    found = calc_metric("region_leak6", Tiles(), progress=False).results
    assert len(found) == 3 * 2 * 17
    for part in ("shape", "texture", "baseline"):
        assert found[f"region_leak6_{part}_mean"] == pytest.approx(15 / 16)
        assert found[f"region_leak6_{part}_tile5"] == pytest.approx(15 / 16)
        assert found[f"region_leak6_{part}_pyramid_mean"] > 0.6


def test_shares_agree_with_plain_sums():
    g = torch.Generator().manual_seed(0)
    before, after = torch.rand(2, 2, 3, 32, 32, generator=g)
    region = torch.zeros(2, 32, 32, dtype=torch.bool)
    region[:, 4:7, 20:30] = True
    found = outside_share(before, after, region)
    change = (after - before).abs()
    outside = sum(change[1, :, y, x].sum() for y in range(32) for x in range(32) if not region[1, y, x])
    assert found[1, :2].tolist() == pytest.approx([outside.item(), change[1].sum().item()], rel=1e-5)
    fine, rest = laplacian_pyramid(after - before, 2)
    total = fine[1].abs().sum() + 4 * rest[1].abs().sum()
    far = total - fine[1, :, :12, 16:].abs().sum() - 4 * rest[1, :, :6, 8:].abs().sum()
    assert found[1, 3].item() == pytest.approx(total.item(), rel=1e-5)
    assert found[1, 2] >= far * 0.999  # what lies further away than the filter reaches is outside


def test_a_network_without_regions_is_refused():
    with pytest.raises(UserError, match="regions"):
        calc_metric("region_leak5", torch.nn.Linear(1, 1))
