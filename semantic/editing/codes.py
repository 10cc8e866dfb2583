"""Edits of W+ codes: mixes regions, makes loops of codes, and builds an image region by region.

Everything here is a pure function of tensors. Codes are W+ latents [N, b+2K, D]. The expanded latents [N, K·L, D]
have no slots of their own for a region's shape and texture. Of them regions can be taken as a whole only.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from dnnlib import UserError
from semantic.regions import Regions

PARTS = ("shape", "texture", "both", "whole")
"""What of a region an edit takes: its shape code, its texture code, both, or all that its local generator sees."""


def region_slots(regions: Regions, which: Iterable[int | str], part: str = "both") -> list[int]:
    """Returns the W+ slots of a `part` ('shape', 'texture' or 'both') of the regions in `which`.

    Raises:
        UserError: an unknown part or region.
    """
    kept = check_parts(part)
    return [regions.slots(region)[name] for region in which for name in kept]


def check_parts(part: str) -> tuple[str, ...]:
    """Returns the codes of a part: ('shape',), ('texture',), or both for 'both'.

    Raises:
        UserError: an unknown part.
    """
    if part not in PARTS[:3]:
        raise UserError(f"A region has no part {part!r}. Choose shape, texture or both.")
    return ("shape", "texture") if part == "both" else (part,)


def mix_regions(
    ws: torch.Tensor, donor_ws: torch.Tensor, regions: Regions, which: Iterable[int | str], part: str = "both"
) -> torch.Tensor:
    """Returns codes with some regions from a donor. Other regions stay.

    With 'whole', the chosen regions also take the donor's base codes. Base codes may decide, for example, whether there
    is a hat. The part 'whole' needs expanded latents, in which each region has its own base codes.

    Args:
        ws: [N, b+2K, D]. For 'whole', expanded latents [N, K·L, D], see `SynthesisNetwork.expand`.
        donor_ws: the same shape, or a shape that broadcasts to it or against it, such as [1, b+2K, D].
        regions: the regions of the network.
        which: indices or names of the regions to take.
        part: 'shape', 'texture', 'both' or 'whole'.

    Returns:
        A new tensor of the shape that both broadcast to.

    Raises:
        UserError: an unknown region or part, or codes that are not such latents of these regions.
    """
    if part not in PARTS:
        raise UserError(f"A region has no part {part!r}. Choose {', '.join(PARTS[:-1])} or {PARTS[-1]}.")
    check = check_expanded if part == "whole" else check_ws
    check(ws, regions)
    check(donor_ws, regions)
    slots = expanded_slots(ws, regions, which) if part == "whole" else region_slots(regions, which, part)
    ws, donor_ws = torch.broadcast_tensors(ws, donor_ws)
    mixed = ws.clone()
    mixed[:, slots] = donor_ws[:, slots].to(mixed)
    return mixed


def expanded_slots(ws: torch.Tensor, regions: Regions, which: Iterable[int | str]) -> list[int]:
    """Returns the slots of the regions in `which` in expanded latents [N, K·L, D]."""
    layers = ws.shape[1] // len(regions)
    return [regions.index(region) * layers + layer for region in which for layer in range(layers)]


def part_slots(codes: torch.Tensor, regions: Regions, region: int | str, layer_slots: torch.Tensor) -> dict[str, list]:
    """Returns the slots of one region in W+ latents [N, b+2K, D] or in expanded latents [N, K·L, D].

    Args:
        layer_slots: the W+ slot of each layer of each region, [K, L], see `Regions.layer_slots`.

    Returns:
        Slots of the 'shape', 'texture' and 'base' codes of the region. W+ latents share base codes, so 'base' is empty.
    """
    k = regions.index(region)
    own = regions.slots(k)
    if codes.shape[1] == regions.num_ws:
        return {"base": [], "shape": [own["shape"]], "texture": [own["texture"]]}
    fed = layer_slots[k].tolist()
    found = {part: [k * len(fed) + i for i, slot in enumerate(fed) if slot == own[part]] for part in own}
    return {"base": [k * len(fed) + i for i, slot in enumerate(fed) if slot in regions.base_slots], **found}


def expand(ws: torch.Tensor, layer_slots: torch.Tensor) -> torch.Tensor:
    """Returns expanded latents [N, K·L, D], one code per layer of each region, of codes [N, b+2K, D].

    The result stays on the device of the codes. Expanded latents are returned unchanged.
    """
    return ws if ws.shape[1] == layer_slots.numel() else ws[:, layer_slots.flatten().to(ws.device)]


def loop_codes(keys: torch.Tensor, frames: int) -> torch.Tensor:
    """Returns a smooth closed path through codes, by a periodic cubic spline with equal time between keys.

    Args:
        keys: [M, ...], one key or more.
        frames: F, number of points along the path.

    Returns:
        [F, ...] on the device and in the type of `keys`. Frame 0 is key 0. Frame i·F/M is key i. A further
        frame after the last frame would be frame 0.
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
    """Returns a loop in which the codes of some regions run through the codes of donors. Other codes stay.

    Args:
        ws: codes that start and end the loop, [N, b+2K, D]. For 'whole', expanded latents.
        donor_ws: [M, b+2K, D], visited in order, in the form of `ws`.
        frames: F.

    Returns:
        [F, N, b+2K, D]. Frame 0 equals `ws`.

    Raises:
        UserError: see `mix_regions`.
    """
    stops = [ws] + [mix_regions(ws, donor.unsqueeze(0), regions, which, part) for donor in donor_ws]
    return loop_codes(torch.stack(stops), frames)


def build_up(order: Sequence[int], num_regions: int) -> torch.Tensor:
    """Returns region masks for `keep_regions` that add one region after another: float32 [len(order), K] of 0 and 1."""
    keep = torch.zeros(len(order), num_regions)
    for step, region in enumerate(order):
        keep[step:, region] = 1
    return keep


def check_ws(ws: torch.Tensor, regions: Regions) -> None:
    """Refuse codes that are not W+ latents of these regions.

    Raises:
        UserError: the number of codes is wrong, for example the number of expanded latents.
    """
    if ws.ndim != 3 or ws.shape[1] != regions.num_ws:
        raise UserError(
            f"Edits of regions need W+ latents [N, {regions.num_ws}, D] for {len(regions)} regions, but these latents "
            f"have the shape {list(ws.shape)}."
        )


def check_expanded(ws: torch.Tensor, regions: Regions) -> None:
    """Refuse codes that are not expanded latents of these regions.

    Raises:
        UserError: the number of codes is wrong, for example the number of W+ codes.
    """
    if ws.ndim != 3 or ws.shape[1] % len(regions) or ws.shape[1] == regions.num_ws:
        raise UserError(
            f"Whole regions need expanded latents [N, K·L, D] of {len(regions)} regions, but these latents have the "
            f"shape {list(ws.shape)}. Expand them with G.synthesis.expand."
        )
