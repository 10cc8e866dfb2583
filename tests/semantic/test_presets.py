"""What --cfg=semantic trains, by recipe and resolution."""

import copy
import json

import pytest
import torch

import legacy
from dnnlib import UserError
from semantic.generator import Generator
from semantic.loss import SemanticLoss
from semantic.presets import Semantic, semantic_options
from semantic.regions import Regions
from tests.helpers import assert_close
from tests.runs import SEMANTIC, run
from training.warm_start import copy_networks


@pytest.mark.parametrize("resolution", [32, 256, 512])
def test_recipes_differ_and_the_papers_is_the_default_from_256_on(resolution):
    regions = Regions(["sky", "one", "two"])
    default, tuned, paper = (semantic_options(resolution, regions, "fp32", r) for r in (None, "tuned", "paper"))
    assert default == (tuned if resolution < 256 else paper)
    assert tuned != paper
    assert tuned.loss_kwargs.locality_weight == 8
    assert tuned.G_kwargs.synthesis_kwargs["octaves"] == (4 if resolution == 32 else 6)
    loss = paper.loss_kwargs
    assert (loss.r1_gamma, loss.r1_gamma_mask, loss.mask_weight, loss.locality_weight) == (10, 1000, 100, 0)
    assert (paper.D_kwargs.mask_width, paper.G_reg_interval) == (1, 4)
    layers = paper.G_kwargs.synthesis_kwargs
    assert (layers["local_layers"], layers["depth_layers"], layers["octaves"]) == (10, 6, None)
    assert (paper.ada_kimg, tuned.ada_kimg) == (500, 100)


@pytest.mark.parametrize("resolution", [256, 1024])
def test_the_tuned_recipe_meets_the_papers_widths_and_penalties_from_256_on(resolution):
    tuned, paper = (semantic_options(resolution, Regions(["a", "b", "c"]), "fp32", r) for r in ("tuned", "paper"))
    widths = ({**o.G_kwargs.synthesis_kwargs, "octaves": 0} for o in (tuned, paper))
    assert next(widths) == next(widths)
    for name in ("r1_gamma", "r1_gamma_mask"):
        small = [semantic_options(r, Regions(["a", "b", "c"]), "fp32").loss_kwargs[name] for r in (32, 64, 128)]
        assert small == sorted(small)
        assert small[-1] < tuned.loss_kwargs[name] == paper.loss_kwargs[name]


def test_every_term_of_the_loss_has_a_weight_in_the_recipe_and_options_set_known_weights():
    loss = semantic_options(64, Regions(["sky", "one"]), "fp32", "tuned").loss_kwargs
    assert {f"{name}_weight" for name in SemanticLoss.TERMS} <= {name for name, weight in loss.items() if weight}
    assert set(Semantic.loss_weights.values()) <= set(loss)


def test_unknown_recipes_are_told():
    with pytest.raises(UserError, match="Unknown recipe 'papr'"):
        semantic_options(64, Regions(["sky", "one"]), "fp32", "papr")


def test_the_papers_recipe_is_in_the_name_of_the_run(archive, tmp_path):
    options = json.loads(run(tmp_path, *SEMANTIC, f"--data={archive}", "--dry-run", "--recipe=paper").stdout)
    assert "-semantic-paper" in options["description"]
    assert options["D_kwargs"]["mask_width"] == 1


def test_the_weight_of_locality_can_be_chosen(archive, tmp_path):
    start = (*SEMANTIC, f"--data={archive}", "--dry-run")
    asked = [json.loads(run(tmp_path, *start, *more).stdout) for more in ((), ("--locality=2.5",))]
    assert [options["loss_kwargs"]["locality_weight"] for options in asked] == [8, 2.5]
    assert "-locality2.5" in asked[1]["description"]


def test_a_network_goes_on_without_its_highest_octave(semantic_run, archive, tmp_path):
    source = f"--resume={semantic_run}/network-snapshot-000000.pkl"
    start = (*SEMANTIC, f"--data={archive}", "--dry-run")
    asked = [json.loads(run(tmp_path, *start, source, *more).stdout) for more in ((), ("--octaves=3",))]
    kwargs = [options["G_kwargs"]["synthesis_kwargs"] for options in asked]
    assert [given["octaves"] for given in kwargs] == [4, 3]
    assert {**kwargs[0], "octaves": 3} == kwargs[1]
    assert "-octaves3-" in asked[1]["description"]
    for more, message in (
        ((source, "--octaves=5"), "--octaves=5 is too large: there are 4 frequencies in the network of --resume"),
        (("--octaves=6",), "--octaves=6 is too large: there are 5 frequencies at 32²"),
    ):
        refused = run(tmp_path, *start, *more)
        assert refused.exit_code == 1
        assert message in refused.stderr


def test_a_copy_with_fewer_octaves_has_lost_the_highest_alone(semantic_run):
    source = legacy.load_network(semantic_run / "network-snapshot-000000.pkl")["G_ema"]
    kwargs = copy.deepcopy(source.init_kwargs)
    kwargs["synthesis_kwargs"]["octaves"] = 3
    fewer = Generator(*source.init_args, **kwargs)
    copy_networks({"G_ema": source}, {"G_ema": fewer})
    z = torch.randn(2, source.z_dim, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        made = fewer(z, None, noise_mode="const")
        assert not torch.equal(made, source(z, None, noise_mode="const"))
        source.synthesis.local.position.weight[:, 2 + 4 * 3 :] = 0
        assert_close(made, source(z, None, noise_mode="const"), 1e-4)


def test_networks_from_before_have_all_octaves(semantic_run):
    source = legacy.load_network(semantic_run / "network-snapshot-000000.pkl")["G_ema"]
    kwargs = copy.deepcopy(source.init_kwargs)
    del kwargs["synthesis_kwargs"]["octaves"]
    assert Generator(*source.init_args, **kwargs).synthesis.local.position.octaves == 5


@pytest.mark.parametrize(("resolution", "octaves"), [(32, 4), (64, 5), (128, 6), (256, None)])
def test_the_highest_octave_is_left_out_of_small_pictures(resolution, octaves):
    options = semantic_options(resolution, Regions(["sky", "one"]), "fp32")
    assert options.G_kwargs.synthesis_kwargs["octaves"] == octaves
