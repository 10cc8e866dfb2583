"""A network that draws dolls, with its parser: what alignment and inversion should find is known exactly."""

import functools
import math
from types import SimpleNamespace

import torch

from semantic.inversion.layout import network_layout
from semantic.inversion.parse import Parser
from semantic.regions import Regions

SIDE = 32
REGIONS = Regions(
    ["background", "head", "eyes", "mouth"], colors=[(128, 128, 128), (230, 60, 60), (60, 60, 230), (60, 230, 60)]
)
COLORS = torch.tensor(REGIONS.colors).float() / 127.5 - 1
EYES, MOUTH, HEAD = ((0.36, 0.4), (0.64, 0.4)), (0.5, 0.7), (0.5, 0.52)


def shares(size, scale=1.0, degrees=0.0, shift=(0.0, 0.0), radius=None, side=SIDE):
    """Soft planes [N, 4, side, side] of dolls; `radius` [N] is that of the head, 0.36 without."""
    radius = torch.full([size], 0.36) if radius is None else radius
    places = (torch.arange(side) + 0.5) / side
    y, x = torch.meshgrid(places, places, indexing="ij")
    cos, sin = math.cos(math.radians(degrees)) / scale, math.sin(math.radians(degrees)) / scale
    x, y = x - 0.5 - shift[0], y - 0.5 - shift[1]
    x, y = cos * x + sin * y + 0.5, -sin * x + cos * y + 0.5
    sharp = side * scale

    def disc(place, width):
        away = torch.hypot(x - place[0], y - place[1])
        return torch.sigmoid((torch.as_tensor(width).view(-1, 1, 1) - away) * sharp * 2)

    head = disc(HEAD, radius)
    eyes = torch.maximum(disc(EYES[0], 0.08), disc(EYES[1], 0.08)).expand_as(head)
    mouth = torch.sigmoid((0.05 - (y - MOUTH[1]).abs()) * sharp * 2) * torch.sigmoid(
        (0.14 - (x - MOUTH[0]).abs()) * sharp * 2
    )
    mouth = mouth.expand_as(head)
    face = head * (1 - eyes) * (1 - mouth)
    return torch.stack([1 - torch.maximum(face, torch.maximum(eyes, mouth)), face, eyes, mouth], dim=1)


class Synthesis(torch.nn.Module):
    """Texture codes shade the regions, the head's shape code is its radius."""

    def __init__(self):
        super().__init__()
        self.bright = torch.nn.Parameter(torch.full([], 0.1))
        self.local = SimpleNamespace(num_expanded=99)

    def forward(self, ws, noise_mode="random", return_mask=False):
        slots = [REGIONS.slots(k) for k in range(len(REGIONS))]
        radius = 0.36 + 0.02 * ws[:, slots[1]["shape"], 0]
        planes = shares(len(ws), radius=radius)
        colors = COLORS + self.bright * torch.stack([ws[:, slot["texture"], :3] for slot in slots], dim=1)
        image = torch.einsum("nkhw,nkc->nchw", planes, colors)
        return SimpleNamespace(image=image, mask=planes * 2 - 1) if return_mask else image


class Mapping(torch.nn.Module):
    def __init__(self, num_ws):
        super().__init__()
        self.num_ws = num_ws
        self.register_buffer("w_avg", torch.zeros(4))

    def forward(self, z, c, truncation_psi=1):
        return (z * truncation_psi).unsqueeze(1).repeat(1, self.num_ws, 1)


class Doll(torch.nn.Module):
    z_dim = w_dim = 4
    c_dim, img_channels, img_resolution = 0, 3, SIDE
    regions = REGIONS
    num_ws = REGIONS.num_ws

    def __init__(self):
        super().__init__()
        self.mapping, self.synthesis = Mapping(self.num_ws), Synthesis()


@functools.cache
def doll_layout():
    """The layout of dolls."""
    return network_layout(Doll(), torch.device("cpu"), cache=False, hide_progress=True)


def parser():
    """Labels by the nearest colour; nothing near is background."""

    def score(images):
        away = (images.unsqueeze(1) - COLORS[None, :, :, None, None]).square().sum(dim=2)
        away[:, 0] = 0.4
        return -away

    return Parser(REGIONS, SIDE, score, SIDE)


def codes(count, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, REGIONS.num_ws, 4, generator=generator) * 0.7
