"""Searches the codes of photos by gradient descent in whitened codes, many photos at once."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from tqdm import tqdm

from semantic.inversion.distance import Distance, Targets
from semantic.inversion.space import CodeSpace
from semantic.masks import is_present
from semantic.regions import Regions
from torch_utils.devices import bfloat16_if_fast

SQUARES_DECAY, EPSILON = 0.99, 1e-8
NEAR_STEPS = 60
"""Usual number of steps from codes of an encoder. Fewer steps are smaller, by the root of their share of these."""
NEAR_DISTANCE = 0.35
"""Usual distance of codes of an encoder from a generated image. Photos further away move by larger steps, by the root
of their distance over this one."""
LARGEST_SCALE = 3.0
"""Largest factor by which the steps of a photo further away are larger."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of the search, with an Adam of its own.

    Attributes:
        num_steps: number of steps.
        learning_rate: largest step, in standard deviations of a code.
        warmup: share of the steps in which the rate rises.
        momentum: decay of the mean gradient.
        together: all slots of a photo move by the same amount.
    """

    num_steps: int
    learning_rate: float
    warmup: float
    momentum: float
    together: bool

    def rate(self, step: int) -> float:
        """Returns the learning rate: a linear rise, then half a cosine down to 0."""
        done = (step + 0.5) / self.num_steps
        rise = min(1.0, done / self.warmup) if self.warmup else 1.0
        return self.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * done))


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Options of the search.

    A search that starts with one code for all slots of a photo has two stages. At first all slots keep one code, so
    that all regions lead the search, for example to the right kind of background. Then every slot is free. A search
    that starts with codes of an encoder has the second stage alone.

    Attributes:
        num_steps: largest number of steps for a photo.
        far_rate: largest step of the first stage, in standard deviations of a code.
        near_rate: largest step of the second stage, of a photo whose codes are near. A photo that is further away takes
            larger steps. Fewer than 60 steps are smaller.
        together: share of the steps that belong to the first stage.
        rough: share of the first steps that use bfloat16, on CPUs with fast bfloat16.
        prior: weight of the mean square of whitened codes (Mahalanobis distance to the mapping's distribution).
        spread: weight of the mean square differences of the slots of a region.
        patience: a photo is finished after this number of steps of the second stage without progress.
        progress: smallest decrease that counts as progress, as a share of the distance.
    """

    num_steps: int = 200
    far_rate: float = 0.15
    near_rate: float = 0.06
    together: float = 0.4
    rough: float = 0.9
    prior: float = 1e-3
    spread: float = 1e-3
    patience: int = 50
    progress: float = 2e-3

    def stages(self, one_code: bool) -> list[Stage]:
        """Returns the stages.

        Args:
            one_code: the search starts with one code for all slots of a photo.
        """
        first = round(self.together * self.num_steps) if one_code else 0
        far = Stage(num_steps=first, learning_rate=self.far_rate, warmup=0.1, momentum=0.9, together=True)
        last = self.num_steps - first
        rate = self.near_rate * min(1.0, math.sqrt(last / NEAR_STEPS))
        near = Stage(num_steps=last, learning_rate=rate, warmup=0.0, momentum=0.7, together=False)
        return [stage for stage in (far, near) if stage.num_steps]


@dataclass
class Found:
    """The result of a search.

    Attributes:
        ws: [N, num_ws, D], the best codes of each photo.
        distance: [N], their distances.
        steps: [N], steps taken.
        way: codes [N, num_ws, D] on the way there, where they are recorded.
    """

    ws: torch.Tensor
    distance: torch.Tensor
    steps: torch.Tensor
    way: list[torch.Tensor] = field(default_factory=list)


def invert(
    G: torch.nn.Module,
    space: CodeSpace,
    distance: Distance,
    targets: Targets,
    start: torch.Tensor,
    schedule: Schedule | None = None,
    record_every: int = 0,
    text: str = "Inversion",
    hide_progress: bool | None = None,
    watch: Callable[[int, torch.Tensor], None] | None = None,
) -> Found:
    """Returns the codes of photos, found by a search.

    Photos share the passes of the network and nothing else: the codes of one do not depend on the others. A photo that
    makes no more progress leaves the batch.

    Args:
        G: the generator, without gradients of its own.
        space: see `code_space`.
        distance: see `Distance`.
        targets: photos, and masks where they count.
        start: codes to start from, [N, num_ws, D].
        schedule: options of the search.
        record_every: steps between codes that are kept for a video. 0 keeps no codes.
        text: name of the progress bar.
        hide_progress: True hides the bar, None shows it on terminals.
        watch: function that is called after each step with its number, from 1, and the best codes so far.
    """
    schedule = schedule or Schedule()
    regions = getattr(G, "regions", None)
    prepared = distance.prepare(targets)
    with torch.no_grad():
        base = space.whiten(start)
        free = free_slots(regions, targets.masks, start.shape[1]).to(start).expand(len(start), -1)[:, :, None]
    spread = region_groups(regions, start.shape[1]).to(start)
    found = Found(start.clone(), torch.full_like(start[:, 0, 0], math.inf), torch.zeros(len(start), dtype=torch.int64))
    number = 0
    bar = tqdm(total=schedule.num_steps, desc=text, unit="step", leave=False, disable=hide_progress)
    for stage in schedule.stages(one_code=bool((start == start[:, :1]).all())):
        active = torch.arange(len(start), device=start.device)
        state = _Adam(torch.zeros_like(base[:, :1] if stage.together else base), stage.momentum)
        mark, since = found.distance.clone(), torch.zeros_like(active)
        scale = torch.ones_like(found.distance)
        for step in range(stage.num_steps):
            moved = state.value.requires_grad_(True)
            codes = base[active] + moved * free[active]
            ws = space.unwhiten(codes)
            with bfloat16_if_fast(start.device, number < schedule.rough * schedule.num_steps):
                image, mask, depth = _synthesize(G, ws, with_mask=targets.masks is not None)
                apart = distance(image, mask, prepared[active], depth)
            loss = apart + _prior(codes, spread, schedule)
            (gradient,) = torch.autograd.grad(loss.sum(), moved)
            with torch.no_grad():
                _keep_best(found, active, apart.detach(), ws.detach())
                found.steps[active.cpu()] = number + 1
                if record_every and number % record_every == 0:
                    found.way.append(found.ws.clone() if len(active) < len(start) else ws.detach().clone())
                if step == 0 and not stage.together:
                    scale = (apart.detach() / NEAR_DISTANCE).sqrt().clamp(1, LARGEST_SCALE)
                state.step(gradient, stage.rate(step) * scale[active][:, None, None])
                better = found.distance[active] < mark[active] * (1 - schedule.progress)
                mark[active] = torch.where(better, found.distance[active], mark[active])
                since[active] = torch.where(better, 0, since[active] + 1)
            number += 1
            bar.update()
            bar.set_postfix(distance=f"{float(found.distance.mean()):.4f}")
            if watch is not None:
                watch(number, found.ws)
            going = (since[active] < schedule.patience) | stage.together
            if not going.all():
                active = active[going]
                state.keep(going)
            if not len(active):
                break
        with torch.no_grad():
            base = space.whiten(found.ws)
    bar.close()
    return found


def free_slots(regions: Regions | None, masks: torch.Tensor | None, num_ws: int) -> torch.Tensor:
    """Returns which slots a search may move, bool [N, num_ws]. Slots of regions that the mask lacks stay.

    The photo says nothing about the codes of a missing region. Without regions or masks all slots are free.
    The result is then [1, num_ws].
    """
    if regions is None or masks is None:
        return torch.ones(1, num_ws, dtype=torch.bool, device=None if masks is None else masks.device)
    free = torch.ones(len(masks), num_ws, dtype=torch.bool, device=masks.device)
    for k in range(len(regions)):
        there = is_present((masks == k).float().mean(dim=(1, 2)))
        for slot in regions.slots(k).values():
            free[:, slot] = there
    return free


def region_groups(regions: Regions | None, num_ws: int) -> torch.Tensor:
    """Returns rows that average the slots of the base codes and of each region, [1 + K, num_ws].

    Without regions there is one row.
    """
    if regions is None:
        return torch.full([1, num_ws], 1 / num_ws)
    groups = [list(regions.base_slots)] + [list(regions.slots(k).values()) for k in range(len(regions))]
    rows = torch.zeros(len(groups), num_ws)
    for row, slots in zip(rows, groups, strict=True):
        row[slots] = 1 / max(len(slots), 1)
    return rows


def _synthesize(
    G: torch.nn.Module, ws: torch.Tensor, with_mask: bool
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Returns the image, and also the mask and pseudo-depths if masks count."""
    if not with_mask:
        return G.synthesis(ws, noise_mode="const"), None, None
    out = G.synthesis(ws, noise_mode="const", return_mask=True)
    return out.image, out.mask, getattr(out, "depth", None)


def _keep_best(found: Found, active: torch.Tensor, apart: torch.Tensor, ws: torch.Tensor) -> None:
    better = apart < found.distance[active]
    found.distance[active[better]] = apart[better]
    found.ws[active[better]] = ws[better]


def _prior(codes: torch.Tensor, groups: torch.Tensor, schedule: Schedule) -> torch.Tensor:
    """Returns the prior of whitened codes [N, num_ws, D], [N]: their size, and how far slots of a region differ."""
    means = torch.einsum("gs,nsd->ngd", groups, codes)
    rest = codes - torch.einsum("gs,ngd->nsd", (groups > 0).to(codes), means)
    return schedule.prior * codes.square().mean(dim=(1, 2)) + schedule.spread * rest.square().mean(dim=(1, 2))


class _Adam:
    """Adam (Kingma and Ba 2015) for a tensor whose first axis is photos. Finished photos leave the tensor."""

    def __init__(self, value: torch.Tensor, momentum: float):
        self.value, self.momentum = value, momentum
        self._first, self._second = torch.zeros_like(value), torch.zeros_like(value)
        self._count = 0

    def step(self, gradient: torch.Tensor, rate: torch.Tensor) -> None:
        self._count += 1
        self._first = torch.lerp(gradient, self._first, self.momentum)
        self._second = torch.lerp(gradient.square(), self._second, SQUARES_DECAY)
        first = self._first / (1 - self.momentum**self._count)
        second = self._second / (1 - SQUARES_DECAY**self._count)
        self.value = self.value.detach() - rate * first / (second.sqrt() + EPSILON)

    def keep(self, going: torch.Tensor) -> None:
        self.value, self._first, self._second = (x.detach()[going] for x in (self.value, self._first, self._second))
