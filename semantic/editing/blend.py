"""Puts the edited crop back into its photo. Only the edited area and side effects of the edit change."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from semantic.placement import Placement
from torch_utils.images import to_bytes

BACKGROUND = 0
"""Region 0 of every network."""
MARGIN = 1 / 32
"""Margin of a region in the photo beyond its mask in the render, in sides of the crop."""
FEATHER = 1 / 32
"""Width of the feather around edited regions and margin, in sides of the crop."""
REACH = 1 / 4
"""Largest distance of side effects that are carried over from the edited regions, in sides of the crop."""
RIM = 3
"""Pixels of the render around an edited region that its border blurs into."""
LEAST_CHANGE = 0.1
"""Smallest side effect that is carried over: mean change of the channels, with an image in [-1, 1]."""
LARGEST_CANVAS = 1024
MOST_ENLARGED = 8


@dataclass(frozen=True)
class Render:
    """An image and its mask, in the form of a network's output."""

    image: torch.Tensor
    """[3, R, R] in [-1, 1]."""
    mask: torch.Tensor
    """[K, R, R]."""


def blend(photo: np.ndarray, placement: Placement, before: Render, after: Render, regions: Sequence[int]) -> np.ndarray:
    """Returns the photo with an edit in it.

    The edit reaches the feathered union of the regions' masks before and after, and of its side effects. There the
    photo gets the *change* of the render, so the photo's own detail stays. If the layout changes (new hair over the old
    background), the edited render replaces the photo. The nearby difference of photo and render in the same region is
    added. Uncovered background continues the photo's. All other pixels of the photo stay, bit for bit.

    Args:
        photo: uint8 [H, W, 3], of the placement's size.
        placement: place of the crop in the photo.
        before: the render of the photo's codes.
        after: the render of the edited state.
        regions: indices of the edited regions.

    Returns:
        uint8 [H, W, 3].

    Raises:
        UserError: the photo has another size than the placement says.
    """
    pixels = torch.from_numpy(np.array(photo)).permute(2, 0, 1)
    canvas = canvas_placement(placement)
    side = canvas.resolution
    first, second = (_labels(render.mask, side) for render in (before, after))
    old, new = (_enlarge(render.image.clamp(-1, 1), side) for render in (before, after))
    wanted = torch.tensor(list(regions), dtype=first.dtype)
    area = torch.isin(first, wanted) | torch.isin(second, wanted)
    if not bool(area.any()):
        return np.array(photo)
    dot = side // placement.resolution
    effects = side_effects(new - old, area, second, dot)
    alpha = feathered(area | effects, canvas)
    steady = (first == second) & ~effects
    sure = steady & (_distance(_borders(first) | effects) > 2 * dot)
    own = canvas.crop(pixels) / 127.5 - 1
    edited = new + fill_by_label(own - old, sure, steady, second)
    if BACKGROUND not in regions:
        edited = _with_own_ground(edited, own, second == BACKGROUND, sure, dot)
    loose = _within(~steady, MARGIN * side, FEATHER * side)
    drawn, cover = canvas.to_photo(torch.cat([alpha[None], loose[None], new - old, edited]))
    return _composed(pixels, drawn, cover).permute(1, 2, 0).contiguous().numpy()


def canvas_placement(placement: Placement) -> Placement:
    """Returns the same crop with the photo's own number of pixels, up to `LARGEST_CANVAS`. Masks get smooth borders."""
    times = 1
    while times < min(placement.scale, MOST_ENLARGED) and placement.resolution * times * 2 <= LARGEST_CANVAS:
        times *= 2
    (a, b, x), (c, d, y) = placement.matrix
    matrix = ((a / times, b / times, x), (c / times, d / times, y))
    return replace(placement, resolution=placement.resolution * times, matrix=matrix)


def side_effects(change: torch.Tensor, area: torch.Tensor, labels: torch.Tensor, dot: int) -> torch.Tensor:
    """Returns the pixels beside the edited regions that change with them: bool [S, S].

    An example: the network draws the ends of long hair in the region cloth, and they follow the hair. Such pixels touch
    the regions, lie within `REACH` of them, and change by `LEAST_CHANGE`. They also change by three times the median
    of their label, since an edit may turn a whole region lighter. A rim of `RIM` pixels alone is no side effect.

    Args:
        change: difference of the renders after and before, [3, S, S].
        area: the edited regions before and after, bool [S, S].
        labels: class indices after the edit, [S, S].
        dot: side of a pixel of the render, in pixels of the canvas.
    """
    beside = (~area).float()
    size = _blurred(change.abs().mean(dim=0) * beside, dot) / _blurred(beside, dot).clamp_min(1e-8)
    least = torch.full_like(size, LEAST_CHANGE)
    for label in labels[~area].unique():
        here = (labels == label) & ~area
        least[here] = least[here].clamp(min=3 * float(size[here].median()))
    distance = _distance(area)
    changed = (size > least) & (distance <= REACH * len(area))
    pieces, _ = ndimage.label((area | changed).numpy())
    found = torch.from_numpy(np.isin(pieces, np.unique(pieces[area.numpy()]))) & ~area
    return _without_rims(found, distance, RIM * dot)


def _without_rims(area: torch.Tensor, distance: torch.Tensor, width: float) -> torch.Tensor:
    """Returns the pieces of an area, bool [S, S], that reach further than a width."""
    pieces, _ = ndimage.label(area.numpy())
    far = np.unique(pieces[(area & (distance > width)).numpy()])
    return torch.from_numpy(np.isin(pieces, far)) & area


def feathered(area: torch.Tensor, canvas: Placement) -> torch.Tensor:
    """Returns the weight of the edit at each pixel of the canvas, in [0, 1]: float32 [S, S].

    It is 1 in the edited area, bool [S, S], and within `MARGIN` around it. It falls to 0 within `FEATHER` beyond. It
    also falls to 0 towards the edges of the crop, unless the photo ends there.
    """
    width = FEATHER * canvas.resolution
    around = _within(area, MARGIN * canvas.resolution, width)
    beyond = _photo_around(canvas)
    if not beyond.any():
        return around
    inwards = (ndimage.distance_transform_edt(~beyond)[1:-1, 1:-1] - 1) / width
    return torch.minimum(around, _smooth(inwards))


def _within(area: torch.Tensor, margin: float, width: float) -> torch.Tensor:
    """Returns 1 up to a margin around an area. Beyond, it falls smoothly to 0 within a width: float32 [S, S]."""
    return _smooth(1 - (_distance(area).numpy() - margin) / width)


def _distance(area: torch.Tensor) -> torch.Tensor:
    """Returns the distance of each pixel to an area, bool [S, S]. It is infinite if the area is empty."""
    if not bool(area.any()):
        return torch.full(area.shape, torch.inf)
    return torch.from_numpy(ndimage.distance_transform_edt(~area.numpy()).astype(np.float32))


def _blurred(plane: torch.Tensor, sigma: float) -> torch.Tensor:
    """Returns a plane [S, S], blurred by a Gaussian filter."""
    return torch.from_numpy(ndimage.gaussian_filter(plane.numpy(), sigma, mode="nearest"))


def _smooth(share: np.ndarray) -> torch.Tensor:
    """Returns 3s² - 2s³ of a share s, clipped to [0, 1], as float32."""
    share = np.clip(share, 0, 1)
    return torch.from_numpy((share * share * (3 - 2 * share)).astype(np.float32))


def _photo_around(canvas: Placement) -> np.ndarray:
    """Returns whether each pixel of a frame around the canvas lies in the photo: bool [S + 2, S + 2].

    The frame is one pixel wide.
    """
    side = canvas.resolution
    frame = np.pad(np.zeros([side, side], bool), 1, constant_values=True)
    y, x = np.nonzero(frame)
    places = np.array(canvas.matrix) @ np.stack([x - 0.5, y - 0.5, np.ones(len(x))])
    width, height = canvas.photo_size
    frame[y, x] = ((places >= 0) & (places <= np.array([[width], [height]]))).all(axis=0)
    return frame


def fill_by_label(values: torch.Tensor, sure: torch.Tensor, known: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Returns values at all pixels: values of sure pixels, continued smoothly to other pixels of the same label.

    Args:
        values: [C, S, S].
        sure: bool [S, S]. A label without sure pixels uses its `known` pixels.
        known: bool [S, S]. A label without known pixels gets the value 0.
        labels: [S, S].

    Returns:
        float32 [C, S, S]. Sure pixels keep their values.
    """
    filled = values * sure
    for label in labels[~sure].unique():
        here = labels == label
        source = sure & here
        weight = (source if bool(source.any()) else known & here).float()
        filled = torch.where(here & ~sure, _pull_push(values, weight), filled)
    return filled


def _with_own_ground(
    edited: torch.Tensor, own: torch.Tensor, ground: torch.Tensor, sure: torch.Tensor, dot: int
) -> torch.Tensor:
    """Returns the edited image with the photo's background continued, [3, S, S].

    Near the place of a region that is gone, the network draws a haze in its colours. The photo's own background has
    none.

    Args:
        edited, own: images of the edit and of the photo, [3, S, S].
        ground: the background after the edit, bool [S, S].
        sure: pixels that show what their label says, bool [S, S].
        dot: side of a pixel of the render, in pixels of the canvas.
    """
    if not bool((sure & ground).any()):
        return edited
    continued = fill_by_label(own, sure, sure, torch.where(ground, 1, 0))
    return torch.lerp(edited, continued, _blurred(ground.float(), dot / 2) * ground)


def _borders(labels: torch.Tensor) -> torch.Tensor:
    """Returns the pixels whose neighbour above or to the left has another label: bool [S, S].

    Near a border, render and photo may disagree about its place.
    """
    border = torch.zeros(labels.shape, dtype=torch.bool)
    border[1:] |= labels[1:] != labels[:-1]
    border[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    return border


def _pull_push(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Returns weighted means [C, S, S] from the finest level of a pyramid with weight. They are 0 without weight."""
    mean = values * weight
    if weight.shape[-1] == 1:
        return mean / weight.clamp_min(1e-8)
    coarse_weight = F.avg_pool2d(weight[None], 2)[0]
    coarse = F.avg_pool2d(mean[None], 2)[0] / coarse_weight.clamp_min(1e-8)
    coarse = _pull_push(coarse, (4 * coarse_weight).clamp(max=1))
    above = F.interpolate(coarse[None], scale_factor=2, mode="bilinear", align_corners=False)[0]
    return mean + (1 - weight) * above


def _composed(photo: torch.Tensor, drawn: torch.Tensor, cover: torch.Tensor) -> torch.Tensor:
    """Returns the photo, uint8 [3, H, W], with the planes of `blend` in it.

    P is the photo. B and E are the renders before and after the edit, and T is the edit for the photo. h is 1 -
    `loose`. The result is P + alpha [h (E - B) + (1 - h) (T - P)].
    """
    found = photo.clone()
    rows, columns = ((drawn[0] * cover[0]) > 0).nonzero(as_tuple=True)
    if not len(rows):
        return found
    box = (slice(None), slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
    alpha, loose, change, target = drawn[box].split([1, 1, 3, 3])
    alpha = alpha.clamp(0, 1) * cover[box]
    own = photo[box] / 127.5 - 1
    edited = to_bytes(own + alpha * torch.lerp(change, target - own, loose.clamp(0, 1)))
    found[box] = torch.where(alpha > 0, edited, photo[box])
    return found


def _enlarge(planes: torch.Tensor, side: int) -> torch.Tensor:
    """Returns planes [C, R, R] enlarged to float32 [C, side, side]. The side is a multiple of R."""
    planes = planes.detach().float().cpu()
    if planes.shape[-1] == side:
        return planes
    return F.interpolate(planes[None], size=(side, side), mode="bicubic", align_corners=False)[0]


def _labels(mask: torch.Tensor, side: int) -> torch.Tensor:
    """Returns the class indices [side, side] of mask planes [K, R, R].

    Planes are enlarged before the largest is taken.
    """
    return _enlarge(mask, side).argmax(dim=0)
