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
    assert (layers["local_layers"], layers["depth_layers"]) == (10, 6)


def test_unknown_recipes_are_told():
    with pytest.raises(UserError, match="no recipe 'papr'"):
        semantic_options(64, Regions(["sky", "one"]), "fp32", "papr")


def test_the_papers_recipe_is_in_the_name_of_the_run(archive, tmp_path):
    options = json.loads(run(tmp_path, *SEMANTIC, f"--data={archive}", "--dry-run", "--recipe=paper").stdout)
    assert "-semantic-paper" in options["description"]
    assert options["D_kwargs"]["mask_width"] == 1
