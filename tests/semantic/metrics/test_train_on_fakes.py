import numpy as np
import pytest

from metrics.metric_utils import MetricOptions
from semantic.metrics import mask_fit, train_on_fakes
from semantic.metrics.segmenter import draw_from_parts
from tests.semantic.metrics.hand_made import Replay, faces, options, write_archive

SIDE, TRAINING = 32, 800


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """An archive of 60 faces, the folder of a cache for it, and 100 other pairs."""
    folder = tmp_path_factory.mktemp("faces")
    images, masks = faces(160, SIDE)
    return write_archive(folder / "faces.zip", images[:60], masks[:60]), folder / "cache", images[60:], masks[60:]


@pytest.fixture
def worth(data, monkeypatch):
    """Computes the metric of a generator that shows the other pairs, with masks changed by a function."""
    path, cache, images, masks = data
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(cache))

    def compute(change):
        opts: MetricOptions = options(Replay(images, change(masks)), path)
        return train_on_fakes.compute_train_on_fakes(opts, 100, TRAINING)

    return compute


def test_pairs_that_fit_teach_as_well_as_real_ones_and_others_do_not(worth):
    right, wrong = worth(lambda masks: masks), worth(lambda masks: masks.roll(8, dims=2))
    assert right["ratio"] == pytest.approx(right["mean"] / right["real_mean"])
    assert right["ratio"] > 0.8
    assert wrong["mean"] < 0.6 * right["mean"]
    assert wrong["mean"] < wrong["both_mean"]
    assert wrong["real_mean"] == right["real_mean"]
    names = {name for name in right if not name.startswith(("real_", "both_")) and name not in ("mean", "ratio")}
    assert {"face", "hair"} <= names
    for prefix in ("", "real_", "both_"):
        assert right[f"{prefix}mean"] == pytest.approx(np.mean([right[prefix + name] for name in names]))


def test_it_is_tested_on_the_pairs_that_mask_fit_holds_out(worth, monkeypatch):
    tested, taught = [], []
    monkeypatch.setattr(train_on_fakes, "real_segmenter", lambda *_: (None, np.ones([12, 3, 13])))
    monkeypatch.setattr(
        train_on_fakes, "train_segmenter", lambda images, masks, *_, parts, **__: taught.append((len(images), parts))
    )

    def counted(network, images, masks, num_regions):
        tested.append(images)
        return mask_fit.overlap_counts(masks, masks, num_regions)

    monkeypatch.setattr(train_on_fakes, "count_overlaps", counted)
    assert worth(lambda masks: masks)["mean"] == 1
    assert taught == [(100, [100]), (148, [100, 48])]
    assert [len(images) for images in tested] == [12, 12]


def test_parts_give_equally_many():
    drawn = np.stack([draw_from_parts(np.random.default_rng(i), [1000, 10], 16) for i in range(50)])
    assert ((drawn < 1000).sum(axis=1) == 8).all()
    assert drawn.max() == 1009
    one = draw_from_parts(np.random.default_rng(0), [30], 16)
    assert np.array_equal(one, np.random.default_rng(0).integers(30, size=16))
