"""What --cfg=semantic trains, by recipe and resolution."""

import json

import pytest

from dnnlib import UserError
from semantic.presets import semantic_options
from semantic.regions import Regions
from tests.runs import SEMANTIC, run


@pytest.mark.parametrize("resolution", [32, 256])
def test_recipes_differ_below_256_only(resolution):
    regions = Regions(["sky", "one", "two"])
    tuned, paper = (semantic_options(resolution, regions, "fp32", recipe) for recipe in ("tuned", "paper"))
    assert (tuned == paper) == (resolution == 256)
    loss = paper.loss_kwargs
    assert (loss.r1_gamma, loss.r1_gamma_mask, loss.mask_weight, loss.locality_weight) == (10, 1000, 100, 0)
    assert (paper.D_kwargs.mask_width, paper.G_reg_interval) == (1, 4)
    layers = paper.G_kwargs.synthesis_kwargs
    assert (layers["local_layers"], layers["depth_layers"], layers["octaves"]) == (10, 6, None)
    assert (paper.ada_kimg, tuned.ada_kimg) == (500, 100 if resolution == 32 else 500)


def test_unknown_recipes_are_told():
    with pytest.raises(UserError, match="no recipe 'papr'"):
        semantic_options(64, Regions(["sky", "one"]), "fp32", "papr")


def test_the_papers_recipe_is_in_the_name_of_the_run(archive, tmp_path):
    options = json.loads(run(tmp_path, *SEMANTIC, f"--data={archive}", "--dry-run", "--recipe=paper").stdout)
    assert "-semantic-paper" in options["description"]
    assert options["D_kwargs"]["mask_width"] == 1


def test_a_network_goes_on_without_its_highest_octave(semantic_run, archive, tmp_path):
    source = f"--resume={semantic_run}/network-snapshot-000000.pkl"
    asked = [
        run(tmp_path, *SEMANTIC, f"--data={archive}", "--dry-run", source, *more) for more in ((), ("--octaves=3",))
    ]
    kwargs = [json.loads(result.stdout)["G_kwargs"]["synthesis_kwargs"] for result in asked]
    assert [given["octaves"] for given in kwargs] == [4, 3]
    assert {**kwargs[0], "octaves": 3} == kwargs[1]
