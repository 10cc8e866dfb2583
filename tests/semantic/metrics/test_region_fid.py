import pytest
import torch

from metrics.metric_main import calc_metric, load_plugins
from semantic.metrics.region_fid import crop_region
from semantic.regions import CELEBAMASK
from tests.semantic.metrics.hand_made import Replay, faces, options, write_archive

load_plugins(["semantic.metrics"])


class Colours(torch.nn.Module):
    """Mean colours of four quarters."""

    def forward(self, x: torch.Tensor, return_features: bool = False):
        return torch.nn.functional.avg_pool2d(x.float() / 255, 64).flatten(1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces")
    images, masks = faces(48, 32)
    torch.jit.script(Colours()).save(str(folder / "colours.pt"))
    return write_archive(folder / "faces.zip", images, masks), folder, images, masks


def test_a_changed_region_is_far_and_the_others_are_near(data, monkeypatch):
    path, folder, images, masks = data
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(folder / "cache"))
    changed = torch.where((masks == CELEBAMASK.index("cloth"))[:, None], 255, images)

    def measure(images):
        kwargs = options(None, path).dataset_kwargs
        detector = str(folder / "colours.pt")
        found = calc_metric("region_fid150", Replay(images, masks), kwargs, detector=detector, progress=False).results
        return {name.removeprefix("region_fid150_"): value for name, value in found.items()}

    same, other = measure(images), measure(changed)
    assert list(same) == list(other)
    assert {"mean", "face", "hair", "cloth", "neck"} <= set(same)
    assert "hat" not in same  # too few of them
    assert all(value < 0.05 for value in same.values())
    assert other["cloth"] > 5 * max(same["cloth"], other["eye"])


def test_crops_are_squares_about_the_region_with_a_margin_inside_the_image():
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    images = torch.stack([y, x, y * 0])[None].repeat(3, 1, 1, 1).to(torch.uint8)
    masks = torch.zeros(3, 64, 64, dtype=torch.uint8)
    masks[0, 20:28, 30:46] = 1  # 8 x 16 about (24, 38): a square of 24
    masks[1, 0:4, 60:64] = 1  # in a corner: a square of 6 moved inwards
    masks[2, 0, :3] = 1  # too small
    crops = crop_region(images, masks, 1)
    assert crops.shape == (2, 3, 128, 128)
    ends = crops[:, :2].float()
    assert ends[0].amin(dim=(1, 2)).tolist() == [12, 26]
    assert ends[0].amax(dim=(1, 2)).tolist() == [35, 49]
    assert ends[1].amin(dim=(1, 2)).tolist() == [0, 58]
    assert ends[1].amax(dim=(1, 2)).tolist() == [5, 63]
