"""Writes frames to mp4 files."""

import itertools
import math
import os
from collections.abc import Iterable, Iterator

import numpy as np

from dnnlib import UserError, atomic_path
from training.images import tile

QUALITY = 17  # x264's constant rate factor: lower is better; visually lossless from about 18 down


def pad_to_even(frame: np.ndarray) -> np.ndarray:
    """Repeat the last row or column of uint8 [H, W, 3] if a side is odd: yuv420p halves the colour planes."""
    height, width = frame.shape[:2]
    return np.pad(frame, [(0, height % 2), (0, width % 2), (0, 0)], mode="edge")


def grid_frames(images: Iterable[np.ndarray], count: int) -> Iterator[np.ndarray]:
    """Yields frames of `count` images each in a nearly square arrangement.

    Args:
        images: uint8 [3, H, W]: the `count` images of the first frame, then of the second frame, and so on.

    Returns:
        uint8 [rows * H, columns * W, 3] for each frame.
    """
    images = iter(images)
    while group := list(itertools.islice(images, count)):
        height, width = group[0].shape[1:]
        columns = math.ceil(math.sqrt(count * height / width))
        yield tile(np.stack(group), min(columns, count))


def write_video(path: str | os.PathLike, frames: Iterable[np.ndarray], fps: float = 30) -> None:
    """Write an mp4 (H.264, yuv420p, for browsers and slides), completely or not at all.

    Args:
        path: name of the file, ending in .mp4.
        frames: uint8 [H, W, 3], all of one size. Frames are read one at a time, so a generator saves memory.
        fps: frames per second.

    Raises:
        UserError: ffmpeg is missing or fails, there are no frames, or the file cannot be written.
    """
    try:
        import imageio_ffmpeg

        imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise UserError(
            f"Cannot write {path}: ffmpeg is missing. Install it with: pip install 'imageio[ffmpeg]'."
        ) from error
    frames = map(pad_to_even, frames)
    first = next(frames, None)
    if first is None:
        raise UserError(f"Cannot write {path}: there are no frames.")
    with atomic_path(path) as temporary:
        writer = imageio_ffmpeg.write_frames(
            str(temporary),
            size=(first.shape[1], first.shape[0]),
            fps=fps,
            codec="libx264",
            macro_block_size=2,
            ffmpeg_log_level="error",
            quality=None,
            output_params=["-crf", str(QUALITY), "-movflags", "+faststart"],
        )
        try:
            writer.send(None)
            _send(writer, path, first)
            for frame in frames:
                if frame.shape != first.shape:
                    raise ValueError(f"frame of shape {frame.shape} after one of shape {first.shape}")
                _send(writer, path, frame)
        finally:
            writer.close()
        if not temporary.stat().st_size:
            raise UserError(f"Cannot write {path}: ffmpeg wrote nothing. Check that it can encode H.264.")


def _send(writer, path: str | os.PathLike, frame: np.ndarray) -> None:
    try:
        writer.send(np.ascontiguousarray(frame))
    except (OSError, StopIteration) as error:
        reason = (str(error).strip().splitlines() or ["it stopped"])[0]
        raise UserError(f"Cannot write {path}: ffmpeg failed ({reason}). Check that it can encode H.264.") from error
