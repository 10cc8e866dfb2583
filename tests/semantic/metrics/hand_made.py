"""Generators made by hand, whose metrics are known, and drawn data."""

import io
import json
import zipfile

import numpy as np
import PIL.Image
import torch

from metrics.metric_utils import MetricOptions
from semantic.generator import SynthesisOutput
from semantic.masks import one_hot
from semantic.procedural import ProceduralFaces
from semantic.regions import CELEBAMASK, Regions

SIDE = 64


class HandMade(torch.nn.Module):
    """What the metrics call of a generator; z are the codes. Without `const` noise no two images are alike."""

    c_dim, img_channels, img_resolution = 0, 3, SIDE

    def __init__(self, regions: Regions):
        super().__init__()
        self.regions = regions
        self.num_ws, self.z_dim = regions.num_ws, regions.num_ws

    def mapping(self, z, c, truncation_psi=1):
        return z[:, :, None] * truncation_psi

    def forward(self, z, c, return_mask=False, **options):
        return self.synthesis(self.mapping(z, c), return_mask=return_mask, **options)

    def synthesis(self, ws, noise_mode="random", return_mask=False):
        image, masks = self.draw(ws[:, :, 0])
        if noise_mode != "const":
            image = image + torch.randn_like(image)
        if not return_mask:
            return image
        planes = one_hot(masks, len(self.regions))
        return SynthesisOutput(image, planes, torch.nn.functional.avg_pool2d(planes, 2), planes)


class Squares(HandMade):
    """Four squares before a background. Each region's codes decide on its own colour, and on its square's size."""

    def __init__(self):
        super().__init__(Regions(["background", "a", "b", "c", "d", "never"]))

    def draw(self, w):
        b = self.regions.base_layers
        shape, texture = w[:, b::2], w[:, b + 1 :: 2]
        masks = torch.zeros([len(w), SIDE, SIDE], dtype=torch.int64)
        for k in range(1, 5):
            y, x = 16 + 32 * ((k - 1) // 2), 16 + 32 * ((k - 1) % 2)
            for mask, size in zip(masks, (shape[:, k].sigmoid() * 10 + 3).long().tolist(), strict=True):
                mask[y - size : y + size, x - size : x + size] = k
        planes = torch.nn.functional.one_hot(masks, len(self.regions)).float()
        grey = torch.einsum("nhwk,nk->nhw", planes, torch.tanh(shape * 0.3 + texture))
        return grey[:, None].expand(-1, 3, -1, -1), masks


class Tiles(HandMade):
    """16 tiles in one colour that follows from all codes alike: the regions are not worth their name."""

    def __init__(self):
        super().__init__(Regions([f"tile{k}" for k in range(16)]))

    def draw(self, w):
        cell = torch.arange(SIDE) // (SIDE // 4)
        masks = (cell[:, None] * 4 + cell).expand(len(w), -1, -1)
        return torch.tanh(w.mean(dim=1))[:, None, None, None].expand(-1, 3, SIDE, SIDE), masks


class Replay(HandMade):
    """Shows the pairs that it is given.

    Args:
        images: uint8 [N, 3, R, R].
        masks: class indices uint8 [N, R, R].
        regions: of the masks.
    """

    def __init__(self, images, masks, regions=CELEBAMASK):
        super().__init__(regions)
        self.images, self.masks = images, masks
        self.img_resolution = images.shape[-1]

    def forward(self, z, c, return_mask=False):
        return self.synthesis(self.mapping(z, c), "const", return_mask)

    def draw(self, w):
        chosen = (torch.special.ndtr(w[:, 0]) * len(self.images)).long().clamp(max=len(self.images) - 1)
        return self.images[chosen].float() / 127.5 - 1, self.masks[chosen]


def faces(count: int, resolution: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Drawn faces: uint8 [count, 3, R, R] and their masks [count, R, R]."""
    drawn = ProceduralFaces(resolution, seed=seed)
    images, masks = zip(*(drawn.render(i) for i in range(count)), strict=True)
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(np.stack(masks))


def write_archive(path, images, masks, regions=CELEBAMASK):
    """An archive as dataset_tool.py makes it."""
    with zipfile.ZipFile(path, "w") as file:
        for i, (image, mask) in enumerate(zip(images.permute(0, 2, 3, 1).numpy(), masks.numpy(), strict=True)):
            for folder, pixels in (("", image), ("masks/", mask)):
                buffer = io.BytesIO()
                PIL.Image.fromarray(pixels.astype(np.uint8)).save(buffer, "png")
                file.writestr(f"{folder}00000/img{i:08d}.png", buffer.getvalue())
        file.writestr("dataset.json", json.dumps({"labels": None, "regions": regions.to_dict()}))
    return path


def options(G, path=None, metric="metric", **changes) -> MetricOptions:
    """Options for the data at `path`."""
    data = {} if path is None else dict(class_name="semantic.dataset.MaskedImageDataset", path=str(path))
    return MetricOptions(**{**dict(G=G, metric=metric, dataset_kwargs=data, progress=False), **changes})
