"""Regions of a network to resume are taken over by name."""

import copy

import pytest
import torch

from dnnlib import UserError
from semantic.discriminator import DualBranchDiscriminator
from semantic.generator import Generator
from tests.runs import SEMANTIC, make_archive, only_run, run
from training import warm_start


def numbered(network, start):
    """Every tensor filled with numbers of its own."""
    with torch.no_grad():
        for index, tensor in enumerate(network.state_dict().values()):
            tensor.copy_(start + index + torch.arange(tensor.numel()).view(tensor.shape) / 1e4)
    return network


def pair(names, start):
    G = Generator(
        4, 0, 5, 32, 3, {"names": names}, {"num_layers": 1},
        {
            "coarse_size": 16, "coarse_channels": 4, "local_channels": 3, "local_layers": 4, "depth_layers": 2,
            "min_feat_size": 8, "channels": {8: 3, 16: 3, 32: 2},
        },
    )  # fmt: skip
    D = DualBranchDiscriminator(0, 32, 3, len(names), channels={4: 3, 8: 3, 16: 2, 32: 2}, segmentation=True)
    return {"G": numbered(G, start), "D": numbered(D, start), "G_ema": numbered(copy.deepcopy(G), start)}


def per_region(key, tensor, count):
    """The parts of a tensor that belong to regions, background first; None where it has none, by the names in use."""
    if "local." in key and "position" not in key:
        axis = 1 if any(f"local.{name}" in key for name in ("affine", "weight", "bias")) else 0
        parts = list(tensor.unbind(axis))
        return [None, *parts] if "depth" in key else parts
    if "to_seg" in key and not key.endswith("gain"):
        return list(tensor.unbind(0))
    if "mask.b32.fromrgb.weight" in key:
        return list(tensor.unbind(1))
    heads = ("segmentation.scores.weight", "segmentation.scores.bias")
    return list(tensor.chunk(count)) if key in heads else None


@pytest.mark.parametrize("ours", [["bg", "nose", "hat", "eye"], ["bg", "eye", "hair", "nose"], ["bg", "eye"]])
def test_regions_come_from_those_of_the_same_name(ours):
    names = ["background", "eye", "hair", "nose"]
    source, target, before = pair(names, 0), pair(ours, 1000), pair(ours, 1000)
    said = warm_start.copy_networks(source, target)
    for network in target:
        theirs, fresh = source[network].state_dict(), before[network].state_dict()
        for key, tensor in target[network].state_dict().items():
            parts = per_region(key, tensor, len(ours))
            if parts is None:
                assert torch.equal(tensor, theirs[key]), key
                continue
            for index, name in enumerate(ours):
                known = name in names or index == 0
                where = fresh if not known else theirs
                place = index if not known else max(0, names.index(name) if index else 0)
                expected = per_region(key, where[key], len(names) if known else len(ours))[place]
                assert parts[index] is expected is None or torch.equal(parts[index], expected), (key, name)
    assert said.startswith("Regions of the network to resume: taken over: bg from background, ")
    assert ("new: hat" in said) == ("hat" in ours)
    assert ("left out: " in said) == (set(names[1:]) != set(ours[1:]) & set(names))


def test_the_same_regions_under_other_names_stay_in_their_places():
    source, target = pair(["background", "eye", "hair"], 0), pair(["bg", "eyes", "fur"], 1000)
    said = warm_start.copy_networks(source, target)
    for network in target:
        for key, tensor in target[network].state_dict().items():
            assert torch.equal(tensor, source[network].state_dict()[key])
    assert said == ("Regions of the network to resume: taken over: bg from background, eyes from eye, fur from hair.")


def test_networks_whose_parts_do_not_belong_together_are_refused_in_one_line():
    source, target = pair(["background", "eye", "hair", "nose"], 0), pair(["background", "hat", "nose"], 1000)
    source["D"] = pair(["background", "eye"], 0)["D"]
    with pytest.raises(UserError, match=r"its D is .*2 regions.*this run's is .*3 regions"):
        warm_start.copy_networks(source, target)


def test_no_region_starts_from_the_background_of_another_network():
    source, target = pair(["eye", "hair", "nose"], 0), pair(["background", "nose", "eye", "hat"], 1000)
    said = warm_start.copy_networks(source, target)
    assert said.endswith("taken over: background from eye, nose; new: eye, hat; left out: hair.")


def test_nothing_is_said_of_the_same_regions():
    assert warm_start.copy_networks(pair(["bg", "eye"], 0), pair(["bg", "eye"], 9)) is None


def test_a_run_starts_from_a_network_with_other_regions(semantic_run, tmp_path):
    data = make_archive(tmp_path / "four.zip", count=8, regions=4)
    source = f"--resume={semantic_run}/network-snapshot-000000.pkl"
    result = run(tmp_path / "runs", *SEMANTIC, f"--data={data}", source, steps=1)
    assert result.exit_code == 0, result.output
    line = "Regions of the network to resume: taken over: background, skin, hair; new: hat."
    assert line in (only_run(tmp_path / "runs") / "log.txt").read_text()
