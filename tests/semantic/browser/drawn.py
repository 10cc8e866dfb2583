"""Files that stand for photos."""

import io
import struct
import zlib

import numpy as np
import PIL.Image
import torch


def drawn_photo(desk, side=200):
    """A picture that stands for a photo: a face of the network whose edges go on outside of it, as PNG."""
    G = desk.shelf.get(desk.first).G
    with torch.no_grad():
        image = G.synthesis(desk.shelf.get(desk.first).codes(11, 0.7), noise_mode="const")[0]
    face = ((image.clamp(-1, 1) + 1) * 127.5).byte().permute(1, 2, 0).numpy()
    large = PIL.Image.fromarray(face).resize((side, side), PIL.Image.Resampling.BICUBIC)
    photo = PIL.Image.fromarray(np.pad(np.asarray(large), ((10, 10), (20, 20), (0, 0)), "edge"))
    buffer = io.BytesIO()
    photo.save(buffer, "PNG")
    return buffer.getvalue(), np.asarray(photo)


def huge_png():
    """A short file that says that it is a PNG of 30,000 x 30,000 pixels."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    body = struct.pack(">I", len(header)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + body + b"\0\0\0\0IDAT\x35\xaf\x06\x1e"
