from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from dnnlib import UserError
from metrics.metric_utils import MetricOptions, cached_arrays, iterate_dataset, iterate_generator


class Masked(NamedTuple):
    image: Any
    label: Any
    mask: Any


class Toy(torch.utils.data.Dataset):
    """Grey images whose brightness is their number, with masks and two classes."""

    name, resolution = "toy", 4

    def __init__(self, path="toy", size=10, use_labels=False):
        self.size, self.label_dim = size, 2 * use_labels

    def __len__(self):
        return self.size

    def get_label(self, index):
        return np.eye(2, dtype=np.float32)[index % 2] if self.label_dim else np.zeros(0, np.float32)

    def __getitem__(self, index):
        mask = np.full([4, 4], index % 3, np.uint8)
        return Masked(np.full([1, 4, 4], index, np.uint8), self.get_label(index), mask)


class Network(torch.nn.Module):
    """Noise of the brightness z; conditional where c_dim says so."""

    z_dim, img_resolution, img_channels = 2, 4, 3

    def __init__(self, c_dim: int = 0):
        super().__init__()
        self.c_dim = c_dim

    def forward(self, z, c, return_mask=False):
        assert c.shape == (len(z), self.c_dim)
        image = z[:, :1, None, None] * 0.1 + torch.randn(len(z), 3, 4, 4) * 0.1
        return SimpleNamespace(image=image, mask=torch.stack([z, -z], dim=2)[..., None]) if return_mask else image


def options(rank: int = 0, num_gpus: int = 1, c_dim: int = 0, **dataset: object) -> MetricOptions:
    kwargs = {"class_name": "tests.metrics.test_samples.Toy", **dataset}
    return MetricOptions(
        Network(c_dim), {}, kwargs, metric="test", rank=rank, num_gpus=num_gpus, batch_size=4, progress=False
    )


def in_order(batches: list) -> torch.Tensor:
    return torch.cat([batch.image for batch in sorted(batches, key=lambda batch: batch.start)])


@pytest.mark.parametrize("iterate", [iterate_dataset, iterate_generator])
def test_several_processes_see_together_what_one_sees(iterate):
    one = in_order(list(iterate(options(), 10)))
    three = in_order([batch for rank in range(3) for batch in iterate(options(rank, 3), 10)])
    assert one.shape == (10, 3, 4, 4)
    assert one.dtype == torch.uint8
    assert torch.equal(one, three)


def test_generated_streams_differ_and_noise_does_too():
    images = in_order(list(iterate_generator(options(), 40)))
    assert len({image.numpy().tobytes() for image in images}) == 40
    assert not torch.equal(images, in_order(list(iterate_generator(options(), 40, stream=1))))


def test_a_part_of_the_data_is_chosen_at_random_and_always_the_same():
    found = in_order(list(iterate_dataset(options(size=100), 20)))[:, 0, 0, 0].tolist()
    assert found == sorted(set(found))
    assert found != list(range(20))
    assert found == in_order(list(iterate_dataset(options(size=100), 20)))[:, 0, 0, 0].tolist()
    shuffled = in_order(list(iterate_dataset(options(size=100), shuffle=True)))[:, 0, 0, 0].tolist()
    assert sorted(shuffled) == list(range(100)) != shuffled


def test_masks_come_with_real_and_with_generated_images():
    for batch in iterate_dataset(options()):
        assert torch.equal(batch.mask[:, 0, 0], batch.image[:, 0, 0, 0] % 3)
    for batch in iterate_generator(options(), 10, masks=True):
        assert batch.mask.dtype == torch.uint8
        assert batch.mask.shape == (len(batch.z), 2, 1)


def test_conditional_networks_get_labels_of_the_data():
    labels = torch.cat([batch.c for batch in iterate_generator(options(c_dim=2), 40)])
    assert (labels.sum(dim=1) == 1).all()
    assert 5 < labels[:, 0].sum() < 35
    with pytest.raises(UserError, match="have 3 numbers"):
        next(iterate_generator(options(c_dim=3), 4))


def test_the_cache_keeps_arrays_and_survives_damage(tmp_path, monkeypatch):
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path))
    calls = []

    def compute():
        calls.append(1)
        return {"x": np.arange(3.0)}

    for _ in range(2):
        np.testing.assert_array_equal(cached_arrays(options(), "kind", {"n": 1}, compute)["x"], np.arange(3.0))
    assert len(calls) == 1
    cached_arrays(options(), "kind", {"n": 2}, compute)
    cached_arrays(options(size=7), "kind", {"n": 1}, compute)
    assert len(calls) == 3
    for path in tmp_path.glob("metrics/*.npz"):
        path.write_bytes(b"PK\x03\x04 cut off")
    cached_arrays(options(), "kind", {"n": 1}, compute)
    assert len(calls) == 4
