"""generate.py --parse writes the masks of photos."""

import PIL.Image
import torch
from click.testing import CliRunner

import generate
import legacy
from semantic.inversion.label import find_crop, labelled
from tests.semantic.helpers import COUNT, RESOLUTION, build_discriminator
from tests.semantic.inversion.doll import COLORS, doll_layout, parser, shares
from training.images import image_grid, save_image


def test_masks_of_a_folder_are_written_in_the_photos_sizes(G, tmp_path):
    D = build_discriminator(count=COUNT, resolution=RESOLUTION, segmentation=True)
    legacy.save_network({"G": G, "D": D, "G_ema": G}, tmp_path / "network.pkl")
    (tmp_path / "photos").mkdir()
    save_image(tmp_path / "photos" / "a.png", image_grid(torch.rand(1, 3, 30, 50), (1, 1)))
    (tmp_path / "photos" / "b.png").write_bytes(b"broken")
    result = CliRunner().invoke(
        generate.main,
        [f"--network={tmp_path / 'network.pkl'}", f"--parse={tmp_path / 'photos'}", f"--outdir={tmp_path / 'out'}"],
    )
    assert result.exit_code == 0, result.output
    assert "Skipped: Cannot read" in result.output
    for name in ("a_mask.png", "a_mask_index.png"):
        assert PIL.Image.open(tmp_path / "out" / name).size == (50, 30)


def test_a_wide_photo_is_not_squeezed():
    planes = shares(1, side=100)[0]
    picture = torch.einsum("khw,kc->chw", planes, COLORS)
    wide = torch.cat([picture, COLORS[0].view(3, 1, 1).expand(3, 100, 120)], dim=2)
    said = []
    placement = find_crop(parser(), doll_layout, wide, "wide.png", said.append)
    found = labelled(parser(), wide, placement)
    assert found.shape == (100, 220)
    assert (found[:, :100] == planes.argmax(dim=0)).float().mean() > 0.95
    assert (found[:, 110:] == 0).all()
    assert not said


def test_where_nothing_fits_the_middle_is_labelled():
    said = []
    placement = find_crop(parser(), doll_layout, COLORS[0].view(3, 1, 1).expand(3, 40, 80), "x.png", said.append)
    assert placement.corners()[0].tolist() == [20, 0]
    assert "central square" in said[0]
