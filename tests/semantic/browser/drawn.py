"""A picture that stands for a photo."""

import io

import numpy as np
import PIL.Image
import torch


def drawn_photo(desk, side=200):
    """A picture that stands for a photo: a face of the network in a larger surrounding, as PNG."""
    G = desk.shelf.get(desk.first).G
    with torch.no_grad():
        image = G.synthesis(desk.shelf.get(desk.first).codes(11, 0.7), noise_mode="const")[0]
    face = ((image.clamp(-1, 1) + 1) * 127.5).byte().permute(1, 2, 0).numpy()
    photo = PIL.Image.new("RGB", (side + 40, side + 20), tuple(int(v) for v in face[2, 2]))
    photo.paste(PIL.Image.fromarray(face).resize((side, side), PIL.Image.Resampling.BICUBIC), (20, 10))
    buffer = io.BytesIO()
    photo.save(buffer, "PNG")
    return buffer.getvalue(), np.asarray(photo)
