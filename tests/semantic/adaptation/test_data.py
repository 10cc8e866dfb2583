"""The images to learn from and those set aside."""

import numpy as np
import pytest

from semantic.adaptation.data import NO_MASK, TargetDataset
from tests.runs import REGIONS, make_archive

THREE = {key: values[:3] for key, values in REGIONS.items()}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return make_archive(tmp_path_factory.mktemp("data") / "some.zip", count=20, without=range(5, 20))


def shown(dataset):
    return {item.image.tobytes() for item in dataset}


def test_a_tenth_is_set_aside_and_never_trained_on(archive):
    train, held_out = TargetDataset(archive), TargetDataset(archive, held_out=True)
    assert (len(train), len(held_out)) == (18, 2)
    assert not shown(train) & shown(held_out)
    assert len(shown(train) | shown(held_out)) == 20
    assert shown(TargetDataset(archive, held_out=True)) == shown(held_out)
    assert shown(TargetDataset(archive, held_out=True, random_seed=1)) != shown(held_out)


def test_mirror_images_of_those_set_aside_are_not_trained_on(archive):
    train, held_out = TargetDataset(archive, xflip=True), TargetDataset(archive, held_out=True)
    assert len(train) == 36
    mirrored = {np.ascontiguousarray(item.image[..., ::-1]).tobytes() for item in held_out}
    assert not shown(train) & mirrored


def test_a_subset_counts_both_parts(archive):
    train, held_out = (TargetDataset(archive, max_size=10, held_out=aside) for aside in (False, True))
    assert (len(train), len(held_out), train.images_in_all) == (9, 1, 10)


def test_masks_are_given_only_where_regions_are_named(archive):
    assert "mask" not in TargetDataset(archive)[0]._asdict()
    items = [item for aside in (False, True) for item in TargetDataset(archive, held_out=aside, regions=THREE)]
    with_mask = [item for item in items if (item.mask != NO_MASK).any()]
    assert len(with_mask) == 5
    assert all(item.mask.max() < 3 for item in with_mask)
    dataset = TargetDataset(archive, regions=THREE)
    assert dataset.masked == sum((item.mask != NO_MASK).all() for item in dataset)
    assert dataset.preview(range(4))["_mask"].shape == (4, 3, 32, 32)
