"""A compact network that segments images. It trains on a masked data set within minutes on one core."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

LARGEST = 128
"""Side to which images and masks are reduced."""
WIDTHS = (24, 48, 96)
"""Channels at half the image's size, at a quarter, and so on."""
BATCH = 16
LEARNING_RATE = 4e-3


def _conv(inputs: int, outputs: int) -> torch.nn.Sequential:
    return torch.nn.Sequential(
        torch.nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        torch.nn.BatchNorm2d(outputs),
        torch.nn.ReLU(inplace=True),
    )


class Segmenter(torch.nn.Module):
    """A U-Net (Ronneberger et al. 2015) from half the image's size down. Four pixels form one position.

    Args:
        num_regions: K.
        widths: channels by size, starting at half the image's size.
    """

    def __init__(self, num_regions: int, widths: tuple[int, ...] = WIDTHS):
        super().__init__()
        ways = list(itertools.pairwise(widths))
        self.first = _conv(3 * 4, widths[0])
        self.down = torch.nn.ModuleList(_conv(fine, coarse) for fine, coarse in ways)
        self.middle = _conv(widths[-1], widths[-1])
        self.up = torch.nn.ModuleList(_conv(fine + coarse, fine) for fine, coarse in ways)
        self.last = torch.nn.Conv2d(widths[0], num_regions * 4, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns scores [N, K, S, S] for images [N, 3, S, S] in about [-1, 1]. S must be a multiple of 8."""
        x = self.first(F.pixel_unshuffle(images, 2))
        skipped = []
        for layer in self.down:
            skipped.append(x)
            x = layer(F.max_pool2d(x, 2))
        x = x + self.middle(x)
        for layer, skip in zip(reversed(self.up), reversed(skipped), strict=True):
            x = layer(torch.cat([skip, F.interpolate(x, scale_factor=2, mode="nearest")], dim=1))
        return F.pixel_shuffle(self.last(x), 2)

    @torch.no_grad()
    def predict(self, images: torch.Tensor) -> torch.Tensor:
        """Returns class indices uint8 [N, S, S] for images uint8 [N, 3, S, S]."""
        return self.eval()(to_input(images)).argmax(dim=1).to(torch.uint8)


def shrink(images: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns images uint8 [N, 3, R, R] and class indices [N, R, R], shrunk to a side of at most 128."""
    factor = images.shape[-1] // LARGEST
    if factor <= 1:
        return images, masks
    images = F.avg_pool2d(images.float(), factor).round().to(torch.uint8)
    return images, masks[:, factor // 2 :: factor, factor // 2 :: factor]


def to_input(images: torch.Tensor) -> torch.Tensor:
    """Returns bytes as float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def train_segmenter(
    images: torch.Tensor,
    masks: torch.Tensor,
    num_regions: int,
    num_images: int,
    device: torch.device,
    seed: int = 0,
    mirror: Sequence[int] | None = None,
    hide_progress: bool | None = True,
    text: str = "",
    parts: Sequence[int] = (),
    disturb: Callable[[torch.Tensor, torch.Tensor, np.random.Generator], torch.Tensor] | None = None,
) -> Segmenter:
    """Train a segmenter. On a CPU, uses one thread, so that the result does not depend on the number of threads.

    On a GPU, the order of sums varies, so results repeat except for rounding.

    Args:
        images: uint8 [N, 3, S, S], on the CPU.
        masks: class indices uint8 [N, S, S].
        num_regions: K.
        num_images: how many images to train with in all.
        seed: of the weights, the order and the augmentation.
        mirror: mirror at random; for each region, which region it becomes then. None never mirrors.
        hide_progress: False shows a bar, named `text`; None does on terminals.
        parts: sizes of parts of the images, one after the other; of each equally many are drawn. All are one part by
            default.
        disturb: changes augmented images [N, 3, S, S], given with masks [N, S, S]. Must not change their layout.

    Returns:
        The network in evaluation mode on `device`.
    """
    steps = max(num_images // BATCH, 1)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.enable_grad(), _one_thread(device):
        torch.manual_seed(seed)
        network = Segmenter(num_regions).to(device, memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps + 1, pct_start=0.1)
        weights = _class_weights(masks, num_regions).to(device)
        rng = np.random.default_rng(seed)
        for _ in tqdm(range(steps), desc=text, unit="step", disable=hide_progress, leave=False):
            chosen = torch.from_numpy(draw_from_parts(rng, parts or [len(images)], BATCH))
            x, truth = augment(to_input(images[chosen].to(device)), masks[chosen].to(device).long(), mirror, rng)
            x = x if disturb is None else disturb(x, truth, rng)
            scores = network(x.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(scores, truth, weights) + dice_loss(scores, truth)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval().requires_grad_(False)


def draw_from_parts(rng: np.random.Generator, parts: Sequence[int], count: int) -> np.ndarray:
    """Returns indices [count] into consecutive parts of these sizes, equally many of each part."""
    starts = np.cumsum([0, *parts[:-1]])
    shares = [len(share) for share in np.array_split(np.arange(count), len(parts))]
    drawn = zip(starts, parts, shares, strict=True)
    return np.concatenate([start + rng.integers(size, size=share) for start, size, share in drawn])


def dice_loss(scores: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Returns one minus the soft overlap (Milletari et al. 2016), a mean over the regions in the batch.

    Args:
        scores: [N, K, S, S].
        truth: class indices int64 [N, S, S].
    """
    shares = scores.softmax(dim=1)
    planes = F.one_hot(truth, scores.shape[1]).permute(0, 3, 1, 2).to(shares.dtype)
    both, either = (p.sum(dim=(0, 2, 3)) for p in (shares * planes, shares + planes))
    there = planes.sum(dim=(0, 2, 3)) > 0
    return 1 - ((2 * both + 1) / (either + 1) * there).sum() / there.sum()


def augment(
    images: torch.Tensor, masks: torch.Tensor, mirror: Sequence[int] | None, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Shift, rotate, scale and mirror pairs, and change the colours of the images.

    Shifts of up to an eighth of the side, rotations of 11 degrees, scales of 15 percent, with borders continued.
    Brightness changes by up to 0.2, contrast of each channel by up to 25 percent.

    Args:
        images: [N, 3, S, S] in [-1, 1].
        masks: class indices int64 [N, S, S].
        mirror: see `train_segmenter`.
    """
    count = len(images)

    def draw(*size: int) -> torch.Tensor:
        return torch.from_numpy(rng.uniform(-1, 1, [count, *size]).astype(np.float32)).to(images.device)

    angle, scale, shift = draw() * 0.2, torch.exp(draw() * 0.15), draw(2) * 0.25
    turned = (draw() < 0) & (mirror is not None)
    sign = torch.where(turned, -1.0, 1.0)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    rows = [torch.stack([cos * sign, -sin, shift[:, 0]], dim=1), torch.stack([sin * sign, cos, shift[:, 1]], dim=1)]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    moved = F.grid_sample(masks[:, None].float(), grid, mode="nearest", padding_mode="border", align_corners=False)
    images = images * (1 + draw(3)[..., None, None] * 0.25) + draw(3)[..., None, None] * 0.2
    moved = moved[:, 0].long()
    if mirror is not None:
        moved = torch.where(turned[:, None, None], torch.tensor(mirror, device=moved.device)[moved], moved)
    return images, moved


def _class_weights(masks: torch.Tensor, num_regions: int) -> torch.Tensor:
    """Returns class weights: the inverse root of a region's share, with a mean of 1 over pixels."""
    shares = masks.flatten().long().bincount(minlength=num_regions).double() / masks.numel()
    weights = shares.clamp(min=1e-4).rsqrt()
    return (weights / (weights * shares).sum()).float()


@contextlib.contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
