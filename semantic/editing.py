"""Edits of compositional latents and grids: mixing regions, loops through codes, moving a region.

Everything here is a pure function of tensors. Codes are W+ latents [N, b+2K, D]. The expanded latents [N, K·L, D]
have no slots of their own for a region's shape and texture; of them regions can be taken as a whole only.
"""

import io
import math
import os
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import BinaryIO

import numpy as np
import torch

from dnnlib import UserError, open_url
from semantic.regions import Regions

PARTS = ("shape", "texture", "both", "whole")
"""What of a region an edit takes: its shape code, its texture code, both, or all that its local generator sees."""
MAX_LATENT_BYTES = 1 << 28


def change_outside(change: torch.Tensor, region: torch.Tensor) -> torch.Tensor:
    """How much an edit changes outside a region, and in all.

    Args:
        change: differences of images [N, C, H, W].
        region: bool [N, 1, H, W].

    Returns:
        [N, 2]: sums of absolute values outside and everywhere.
    """
    size = change.abs()
    return torch.stack([(size * ~region).sum(dim=(1, 2, 3)), size.sum(dim=(1, 2, 3))], dim=1)


def seed_latents(seeds: Iterable[int], z_dim: int) -> torch.Tensor:
    """The z that StyleGAN tools give to seeds: float32 [N, z_dim], each row from its own generator."""
    rows = [np.random.RandomState(seed).randn(z_dim) for seed in seeds]
    return torch.from_numpy(np.array(rows, dtype=np.float32).reshape(-1, z_dim))


def read_latents(path: str | os.PathLike, G: torch.nn.Module) -> torch.Tensor:
    """Codes from a .npz that holds `w`, as projector.py and ``generate.py --save-latents`` write it.

    Args:
        path: file or address.
        G: the network that shall render them.

    Returns:
        float32 [N, num_ws, D]; for a network with regions also expanded latents [N, K·L, D].

    Raises:
        UserError: no such file, nothing of that kind in it, or codes of another network.
    """
    with open_url(path) as file:
        try:
            w = _array_of(file, "w")
        except (KeyError, ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"Cannot read latents from {path}: expected a .npz file that holds `w`.") from error
    expanded = G.synthesis.local.num_expanded if hasattr(G, "regions") else G.num_ws
    if w.ndim != 3 or w.shape[1] not in (G.num_ws, expanded) or w.shape[2] != G.w_dim:
        raise UserError(
            f"The latents in {path} have the shape {list(w.shape)}, but this network takes [N, {G.num_ws}, {G.w_dim}]."
        )
    return torch.from_numpy(w)


def _array_of(file: BinaryIO, name: str) -> np.ndarray:
    """One array of numbers of a .npz file as float32; what the file says about its size is checked first."""
    with zipfile.ZipFile(file) as archive:
        info = archive.getinfo(f"{name}.npy")
        if info.file_size > MAX_LATENT_BYTES or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError("too large, or compressed in an unusual way")
        with archive.open(info) as member:
            stream = io.BytesIO(member.read(info.file_size + 1))
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("another version of the format")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    data = stream.read()
    if dtype.kind not in "fiu" or min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError("not an array of numbers, or of another size than it says")
    with np.errstate(over="ignore", invalid="ignore"):
        return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C").astype(np.float32)


def region_slots(regions: Regions, which: Iterable[int | str], part: str = "both") -> list[int]:
    """W+ slots that hold the `part` ('shape', 'texture' or 'both') of the regions in `which`.

    Raises:
        UserError: an unknown part or region.
    """
    if part not in PARTS[:3]:
        raise UserError(f"There is no part {part!r} of a region: choose shape, texture or both.")
    kept = ("shape", "texture") if part == "both" else (part,)
    return [regions.slots(region)[name] for region in which for name in kept]


def mix_regions(
    ws: torch.Tensor, donor_ws: torch.Tensor, regions: Regions, which: Iterable[int | str], part: str = "both"
) -> torch.Tensor:
    """Take the codes of some regions from a donor; all other regions stay, and but for 'whole' the base codes.

    With 'whole' the local generators of these regions see what they see in the donor, base codes included, and all
    others what they see in the source: whether there is a hat, say, may depend on base codes. That takes expanded
    latents, in which each region has base codes of its own.

    Args:
        ws: [N, b+2K, D]; for 'whole' expanded, [N, K·L, D], see `SynthesisNetwork.expand`.
        donor_ws: of the same shape, or one that broadcasts to it or against it, such as [1, b+2K, D].
        regions: the regions of the network.
        which: indices or names of the regions to take.
        part: 'shape', 'texture', 'both' or 'whole'.

    Returns:
        A new tensor of the shape that both broadcast to.

    Raises:
        UserError: an unknown region or part, or codes that are not such latents of these regions.
    """
    if part not in PARTS:
        raise UserError(f"There is no part {part!r} of a region: choose {', '.join(PARTS[:-1])} or {PARTS[-1]}.")
    check = check_expanded if part == "whole" else check_ws
    check(ws, regions)
    check(donor_ws, regions)
    slots = expanded_slots(ws, regions, which) if part == "whole" else region_slots(regions, which, part)
    ws, donor_ws = torch.broadcast_tensors(ws, donor_ws)
    mixed = ws.clone()
    mixed[:, slots] = donor_ws[:, slots].to(mixed)
    return mixed


def expanded_slots(ws: torch.Tensor, regions: Regions, which: Iterable[int | str]) -> list[int]:
    """Slots of the regions in `which` in expanded latents [N, K·L, D]."""
    layers = ws.shape[1] // len(regions)
    return [regions.index(region) * layers + layer for region in which for layer in range(layers)]


def loop_codes(keys: torch.Tensor, frames: int) -> torch.Tensor:
    """A smooth closed path through codes: the periodic cubic spline, the same time from each key to the next.

    Args:
        keys: [M, ...], one key or more.
        frames: F, number of points along the path.

    Returns:
        [F, ...] on the device and in the type of `keys`. Frame 0 is key 0, frame i·F/M is key i, and the frame after
        the last would be the first again.
    """
    from scipy.interpolate import CubicSpline  # takes a second to import, and only loops need it

    count = keys.shape[0]
    if count == 1:
        return keys.expand(frames, *keys.shape[1:]).clone()
    values = keys.detach().cpu().double().numpy()
    spline = CubicSpline(np.arange(count + 1), np.concatenate([values, values[:1]]), bc_type="periodic")
    return torch.from_numpy(spline(np.arange(frames) * (count / frames))).to(keys)


def loop_regions(
    ws: torch.Tensor,
    donor_ws: torch.Tensor,
    regions: Regions,
    which: Iterable[int | str],
    frames: int,
    part: str = "both",
) -> torch.Tensor:
    """Let the codes of some regions run in a loop from their own through those of donors; the rest stays.

    Args:
        ws: codes that start and end the loop, [N, b+2K, D]; for 'whole' expanded.
        donor_ws: [M, b+2K, D], visited in order; of the same kind.
        frames: F.

    Returns:
        [F, N, b+2K, D]; frame 0 equals `ws`.

    Raises:
        UserError: as `mix_regions`.
    """
    stops = [ws] + [mix_regions(ws, donor.unsqueeze(0), regions, which, part) for donor in donor_ws]
    return loop_codes(torch.stack(stops), frames)


def build_up(order: Sequence[int], num_regions: int) -> torch.Tensor:
    """Region masks for `keep_regions` that add one region after the other: float32 [len(order), K] of 0 and 1."""
    keep = torch.zeros(len(order), num_regions)
    for step, region in enumerate(order):
        keep[step:, region] = 1
    return keep


@dataclass(frozen=True)
class RegionTransform:
    """Where a region goes, as seen in the picture; lengths in grid units, of which the picture is 2 wide."""

    dx: float = 0.0
    """To the right."""
    dy: float = 0.0
    """Downwards."""
    scale: float = 1.0
    """Above 1 is larger."""
    rotate: float = 0.0
    """Degrees, counter-clockwise."""

    def __str__(self) -> str:
        changed = [f for f in fields(self) if getattr(self, f.name) != f.default]
        return ", ".join(f"{f.name} {getattr(self, f.name):g}" for f in changed) or "unchanged"


def parse_transform(text: str, regions: Regions) -> tuple[int, RegionTransform]:
    """Read ``'hair:dx=0.1,dy=0,scale=1.2,rotate=10'``; what is left out stays as it is.

    Raises:
        UserError: an unknown region or setting, or a number that makes no sense.
    """
    region, _, settings = text.partition(":")
    index = regions.index(region.strip())
    names = [f.name for f in fields(RegionTransform)]
    values: dict[str, float] = {}
    for setting in filter(None, (s.strip() for s in settings.split(","))):
        name, _, number = (s.strip() for s in setting.partition("="))
        if name not in names:
            raise UserError(f"There is no setting {name!r} in the transform {text!r}: it takes {', '.join(names)}.")
        try:
            values[name] = float(number)
        except ValueError:
            raise UserError(f"In the transform {text!r}, {name} must be a number, not {number!r}.") from None
    if not values:
        raise UserError(f"The transform {text!r} changes nothing: write for example {region}:dx=0.1,scale=1.2.")
    if not all(map(math.isfinite, values.values())) or values.get("scale", 1) <= 0:
        raise UserError(f"In the transform {text!r}, numbers must be finite and scale above 0.")
    return index, RegionTransform(**values)


def parse_transforms(texts: Iterable[str], regions: Regions) -> dict[int, RegionTransform]:
    """Read several transforms of different regions, by index of the region.

    Raises:
        UserError: as `parse_transform`, or a region is named twice.
    """
    changes: dict[int, RegionTransform] = {}
    for region, change in (parse_transform(text, regions) for text in texts):
        if region in changes:
            raise UserError(f"Two transforms name {regions.names[region]}: put their settings into one.")
        changes[region] = change
    return changes


def region_grid(
    regions: Regions,
    grid: torch.Tensor,
    transforms: Mapping[int | str, RegionTransform],
    centers: torch.Tensor | None = None,
) -> torch.Tensor:
    """Input grids that make regions appear moved, enlarged and turned.

    A local generator draws at every pixel what belongs to the coordinates that it is given, so a region that shall
    move by T is evaluated at T⁻¹ of the pixel's place: q = c + R⁻¹(p - c - d) / scale.

    Args:
        regions: the K regions.
        grid: coordinates of the pixels, [2, H, W], x (to the right) first, then y (downwards).
        transforms: by region; the others keep the pixel grid.
        centers: c, the points about which regions are turned and scaled, [K, 2] or [N, K, 2], x first; the middle of
            the picture by default.

    Returns:
        `coords` for the synthesis network: [K, 2, H, W], or [N, K, 2, H, W] where the centres differ by sample.
    """
    lead = [len(regions)] if centers is None else list(centers.shape[:-1])
    coords = grid.expand(*lead, *grid.shape).clone()
    for region, change in transforms.items():
        k = regions.index(region)
        if centers is None:
            center = grid.new_zeros(2, 1, 1)
        else:
            center = centers[..., k, :, None, None].to(grid)
        shift = grid.new_tensor([change.dx, change.dy]).view(2, 1, 1)
        x, y = ((grid - center - shift) / change.scale).unbind(-3)
        cos, sin = math.cos(math.radians(change.rotate)), math.sin(math.radians(change.rotate))
        coords[..., k, :, :, :] = torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-3) + center
    return coords


def region_centers(coarse_mask: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Centres of gravity of the regions.

    Args:
        coarse_mask: 2m - 1 in [-1, 1], [N, K, H, W].
        grid: [2, H, W], x first.

    Returns:
        [N, K, 2], x first, in the units of `grid`; regions that cover nothing get the middle of the grid.
    """
    share = (coarse_mask.float() + 1) / 2
    total = share.sum(dim=(2, 3)).unsqueeze(-1)
    moments = torch.einsum("nkhw,chw->nkc", share, grid.float())
    return torch.where(total > 1e-4, moments / total.clamp_min(1e-4), grid.float().mean(dim=(1, 2)))


def check_ws(ws: torch.Tensor, regions: Regions) -> None:
    """Refuse codes that are not W+ latents of these regions.

    Raises:
        UserError: another number of codes, for instance that of expanded latents.
    """
    if ws.ndim != 3 or ws.shape[1] != regions.num_ws:
        raise UserError(
            f"Edits of regions need W+ latents [N, {regions.num_ws}, D] for these {len(regions)} regions, "
            f"but the latents have the shape {list(ws.shape)}."
        )


def check_expanded(ws: torch.Tensor, regions: Regions) -> None:
    """Refuse codes that are not expanded latents of these regions.

    Raises:
        UserError: another number of codes, for instance that of W+.
    """
    if ws.ndim != 3 or ws.shape[1] % len(regions) or ws.shape[1] == regions.num_ws:
        raise UserError(
            f"Whole regions are taken of expanded latents [N, K·L, D] of these {len(regions)} regions, "
            f"but the latents have the shape {list(ws.shape)}: see G.synthesis.expand."
        )
