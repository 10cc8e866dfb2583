"""Networks to start from bring their own arguments."""

import legacy
import training.networks
from dnnlib import EasyDict
from semantic.discriminator import DualBranchDiscriminator
from semantic.presets import Semantic
from tests.helpers import shared_file
from training import warm_start
from training.configurations import inherit_architecture


def test_networks_to_resume_bring_their_own_widths():
    source = legacy.load_network(shared_file("fixtures", "stylegan2_ada_small.pkl"))
    G = source["G_ema"]
    options = EasyDict(
        G_kwargs=EasyDict(class_name="training.networks.Generator", z_dim=512, w_dim=512),
        D_kwargs=EasyDict(class_name="training.networks.Discriminator", channel_base=16384),
    )
    inherit_architecture(options, source, G.img_resolution)
    assert options.G_kwargs.z_dim == G.z_dim
    assert not {"c_dim", "img_resolution", "img_channels"} & set(options.G_kwargs)


def test_what_a_network_to_resume_was_not_given_has_its_default():
    D = DualBranchDiscriminator(0, 32, 3, 3, channel_max=4, block_kwargs={"freeze_layers": 1})
    own = {
        "class_name": "semantic.discriminator.DualBranchDiscriminator", "num_regions": 5, "mask_width": 0.5,
        "mapping_kwargs": {"num_layers": 2}, "block_kwargs": {"conv_clamp": 256}, "channel_max": 8,
    }  # fmt: skip
    found = warm_start.inherit_arguments(own, D, Semantic.from_data)
    assert found == {
        "class_name": own["class_name"], "num_regions": 5, "mapping_kwargs": {}, "channel_max": 4,
        "block_kwargs": {"conv_clamp": 256, "freeze_layers": 1},
    }  # fmt: skip


def test_networks_to_resume_keep_arguments_by_position_and_the_precision_of_the_run():
    G = training.networks.Generator(4, 0, 5, 8, 3, synthesis_kwargs={"channel_max": 4})
    own = {"class_name": "training.networks.Generator", "z_dim": 512, "w_dim": 512, "num_fp16_res": 4}
    found = warm_start.inherit_arguments(own, G, Semantic.from_data)
    assert (found.z_dim, found.w_dim, found.num_fp16_res) == (4, 5, 4)
    assert found.synthesis_kwargs == {"channel_max": 4}
