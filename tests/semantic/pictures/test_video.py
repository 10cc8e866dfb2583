import sys

import imageio_ffmpeg
import numpy as np
import pytest

from dnnlib import UserError
from semantic.pictures.video import grid_frames, write_video


def read_video(path) -> np.ndarray:
    reader = imageio_ffmpeg.read_frames(str(path))
    width, height = next(reader)["size"]
    return np.stack([np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader])


def test_frames_come_back_at_even_size(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, (np.full([33, 47, 3], 40 * i, np.uint8) for i in range(5)), fps=10)
    frames = read_video(path)
    assert frames.shape == (5, 34, 48, 3)
    assert np.allclose(frames.mean(axis=(1, 2, 3)), [0, 40, 80, 120, 160], atol=4)


def test_missing_ffmpeg_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(UserError, match="ffmpeg is missing"):
        write_video(tmp_path / "a.mp4", [np.zeros([4, 4, 3], np.uint8)])


def test_failure_midway_leaves_nothing(tmp_path):
    def frames():
        yield np.zeros([16, 16, 3], np.uint8)
        raise RuntimeError("out of ideas")

    with pytest.raises(RuntimeError, match="ideas"):
        write_video(tmp_path / "a.mp4", frames())
    assert not list(tmp_path.iterdir())


def test_no_frames_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no frames"):
        write_video(tmp_path / "a.mp4", [])


@pytest.mark.parametrize(("count", "shape"), [(1, (4, 8)), (2, (8, 8)), (3, (8, 16)), (4, (8, 16)), (8, (16, 16))])
def test_grid_frames_are_nearly_square(count, shape):
    images = np.arange(2 * count, dtype=np.uint8).reshape(-1, 1, 1, 1) * np.ones([1, 3, 4, 8], np.uint8)
    frames = list(grid_frames(images, count))
    assert [frame.shape[:2] for frame in frames] == [shape, shape]
    assert frames[1][0, 0, 0] == count
