"""The procedural portraits: repeatable, the same at every resolution, and masked to the pixel."""

import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from dnnlib import UserError
from semantic.procedural import FaceParameters, ProceduralFaces, draw_portrait
from semantic.regions import CELEBAMASK

EYE, HAIR, GLASSES = (CELEBAMASK.index(name) for name in ("eye", "hair", "glasses"))


@pytest.fixture(scope="module")
def small():
    """The first 200 faces at 64 x 64: images, masks."""
    faces = ProceduralFaces(64)
    images, masks = zip(*(faces.render(i) for i in range(200)), strict=True)
    return np.stack(images), np.stack(masks)


def find(wanted, seed=0):
    """Index of the first face whose parameters satisfy `wanted`."""
    faces = ProceduralFaces(64, seed)
    return next(i for i in range(1000) if wanted(faces.parameters(i)))


def boundary(mask):
    """Whether a pixel has another region to its right or below."""
    edge = np.zeros(mask.shape, dtype=bool)
    edge[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    edge[:-1] |= mask[:-1] != mask[1:]
    return edge


def contrast(image):
    """Largest step of any channel to the right or below."""
    image = image.astype(np.float32)
    step = np.zeros(image.shape[:2], dtype=np.float32)
    step[:, :-1] = np.abs(np.diff(image, axis=1)).max(axis=2)
    step[:-1] = np.maximum(step[:-1], np.abs(np.diff(image, axis=0)).max(axis=2))
    return step


def test_a_face_depends_on_seed_and_index_alone():
    one, other = ProceduralFaces(32, seed=7), ProceduralFaces(32, seed=7)
    forward = [one.render(i) for i in (3, 4, 5)]
    backward = [other.render(i) for i in (5, 4, 3)][::-1]
    for (image, mask), (image2, mask2) in zip(forward, backward, strict=True):
        np.testing.assert_array_equal(image, image2)
        np.testing.assert_array_equal(mask, mask2)
    assert not np.array_equal(forward[0][0], forward[1][0])
    assert not np.array_equal(forward[0][0], ProceduralFaces(32, seed=8).render(3)[0])


def test_numpy_indices_and_the_last_index_are_taken():
    faces = ProceduralFaces(16)
    assert faces.max == len(faces) > 10**6
    np.testing.assert_array_equal(faces.render(np.int64(2))[0], faces.render(2)[0])
    assert faces.render(len(faces) - 1)[1].shape == (16, 16)


def test_what_cannot_be_drawn_is_refused():
    for arguments in ((8,), (2048,), (64, -1)):
        with pytest.raises(UserError):
            ProceduralFaces(*arguments)
    with pytest.raises(IndexError):
        ProceduralFaces(16).render(-1)


@pytest.mark.parametrize("resolution", [16, 24, 64, 512])
def test_shapes_types_and_classes(resolution):
    image, mask = ProceduralFaces(resolution).render(1)
    assert image.shape == (resolution, resolution, 3)
    assert mask.shape == (resolution, resolution)
    assert image.dtype == mask.dtype == np.uint8
    assert mask.max() < len(ProceduralFaces.regions)


def test_the_same_face_at_every_resolution():
    faces = {r: ProceduralFaces(r) for r in (64, 128, 256)}
    for index in range(8):
        (image, mask), (image2, mask2), (_, mask4) = (faces[r].render(index) for r in (64, 128, 256))
        # A pixel of the small mask is one of the four it covers, but for slivers.
        blocks = mask2.reshape(64, 2, 64, 2)
        assert (blocks == mask[:, None, :, None]).any(axis=(1, 3)).mean() > 0.985
        assert (mask4[::4, ::4] == mask).mean() > 0.95
        halved = image2.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
        assert np.abs(halved - image).mean() < 5


def test_every_region_appears_in_its_share_of_faces(small):
    _, masks = small
    share = {name: (masks == k).any(axis=(1, 2)).mean() for k, name in enumerate(CELEBAMASK.names)}
    for name in ("background", "face", "nose", "mouth", "neck", "cloth"):
        assert share[name] == 1, (name, share)
    for name, low, high in (
        ("eye", 0.75, 1), ("eyebrow", 0.8, 1), ("hair", 0.9, 1), ("ear", 0.5, 1),
        ("glasses", 0.15, 0.4), ("hat", 0.1, 0.3), ("earring", 0.15, 0.4),
    ):  # fmt: skip
        assert low <= share[name] <= high, (name, share)


def test_regions_lie_where_they_do_in_a_face(small):
    _, masks = small
    rows = np.arange(64)[None, :, None]

    def height(name):
        inside = masks == CELEBAMASK.index(name)
        count = inside.sum(axis=(1, 2))
        return np.where(count > 0, (inside * rows).sum(axis=(1, 2)) / np.maximum(count, 1), np.nan)

    order = [height(name) for name in ("eyebrow", "eye", "nose", "mouth", "neck", "cloth")]
    for above, below in pairwise(order):
        assert not (above >= below).any()


def test_faces_differ_from_each_other(small):
    images, masks = small
    assert len({image.tobytes() for image in images}) == len(images)
    # A pixel shows another region in a good part of the other faces.
    assert (masks[:100] != masks[100:]).mean() > 0.15
    assert images.astype(np.float32).std(axis=0).mean() > 35


def test_edges_of_the_mask_are_edges_of_the_image():
    faces = ProceduralFaces(128)
    ratios = []
    for index in range(12):
        image, mask = faces.render(index)
        edge, step = boundary(mask), contrast(image)
        ratios.append(np.median(step[edge]) / max(np.median(step[~edge]), 1))
        # Moved by three pixels, the mask fits the image worse.
        for move in ((3, 0), (-3, 0), (0, 3), (0, -3)):
            assert step[boundary(np.roll(mask, move, axis=(0, 1)))].mean() < 0.8 * step[edge].mean()
    assert min(ratios) > 4


def test_edges_are_smooth():
    """Where hair of an even colour meets a plain backdrop, some pixels are between the two."""
    index = find(lambda f: f.hair == "bald" and f.hat == "none" and f.backdrop == "gradient" and f.glasses == "none")
    image, mask = ProceduralFaces(64).render(index)
    column = 32
    top = int(np.argmax(mask[:, column] != 0))
    far, edge, near = image[top - 3, column], image[top - 1 : top + 1, column], image[top + 3, column]
    between = [np.linalg.norm(p.astype(float) - far) + np.linalg.norm(p.astype(float) - near) for p in edge]
    assert min(between) < 1.6 * np.linalg.norm(far.astype(float) - near)
    steps = np.abs(np.diff(image[top - 3 : top + 4, column].astype(float), axis=0)).sum(axis=1)
    assert steps.max() < 0.9 * steps.sum()


def test_glasses_cover_the_eyes_in_the_mask_but_show_them():
    index = find(lambda f: f.glasses == "round" and f.lens_tint < 0.2 and abs(f.yaw) < 0.1 and f.hat == "none")
    parameters = ProceduralFaces(128).parameters(index)
    image, mask = draw_portrait(parameters, 128)
    bare_image, bare_mask = draw_portrait(replace(parameters, glasses="none"), 128)
    eyes = bare_mask == EYE
    assert eyes.sum() > 50
    assert (mask[eyes] == GLASSES).mean() > 0.95
    assert np.corrcoef(image[eyes].ravel(), bare_image[eyes].ravel())[0, 1] > 0.8
    untouched = (mask == bare_mask) & (mask == HAIR)
    assert np.abs(image[untouched].astype(int) - bare_image[untouched]).max() <= 1


def test_the_far_ear_is_hidden_when_the_head_turns():
    index = find(lambda f: f.hair == "short" and f.hat == "none" and f.earrings == "none" and f.glasses == "none")
    parameters = ProceduralFaces(128).parameters(index)
    columns = {}
    for yaw in (-0.6, 0.0, 0.6):
        _, mask = draw_portrait(replace(parameters, yaw=yaw, roll=0.0), 128)
        ear, nose = (mask == CELEBAMASK.index(name) for name in ("ear", "nose"))
        middle = np.nonzero(nose)[1].mean()
        across = np.nonzero(ear)[1]
        columns[yaw] = ((across < middle).sum(), (across > middle).sum(), middle)
    left, right, middle = columns[0.6]
    assert left > 20
    assert right == 0
    assert columns[-0.6][0] == 0
    assert columns[-0.6][1] > 20
    assert min(columns[0.0][:2]) > 10
    assert columns[-0.6][2] < columns[0.0][2] < middle


def test_a_fixed_number_of_draws():
    """Every face leaves its generator at the same place, whatever was chosen."""
    ends = set()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        counter = Counting(rng)
        FaceParameters.sample(counter)
        ends.add(counter.count)
    assert len(ends) == 1


def test_it_is_fast_enough_to_make_a_data_set():
    faces = ProceduralFaces(128)
    faces.render(0)
    start = time.process_time()
    for index in range(5):
        faces.render(index)
    assert (time.process_time() - start) / 5 < 0.25


class Counting:
    """A generator that counts the numbers drawn."""

    def __init__(self, rng):
        self.rng, self.count = rng, 0

    def random(self, size=None):
        self.count += size or 1
        return self.rng.random(size)

    def standard_normal(self):
        self.count += 1
        return self.rng.standard_normal()
