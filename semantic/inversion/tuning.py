"""Pivotal tuning: fits the network to one photo around its codes (Roich et al. 2022)."""

import copy
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from dnnlib import atomic_open
from semantic.editing.codes import mix_regions
from semantic.inversion.distance import Distance, Targets, pyramid_distance
from semantic.inversion.space import CodeSpace
from semantic.masks import change_outside, is_present, mask_areas
from semantic.tuned import TUNED_DIGEST, network_digest
from torch_utils.devices import bfloat16_if_fast

LAYERED = ("affine_weight", "affine_bias", "weight", "bias")
"""Parameters of the local generators whose first axis is layers."""
WHOLE = 6
"""Every so many codes near the pivot, one differs in all regions."""
SMALL_CHANGE = 0.1
"""Share of the change of an edit before tuning below which its change after tuning counts less."""
EDGE = 1 / 64
"""Width of the edge around a region that counts as inside, as a share of the picture's side. One pixel at least."""


@dataclass(frozen=True, kw_only=True)
class TuningSchedule:
    """Options of the tuning.

    Attributes:
        num_steps: number of steps. Two thirds tune rendering and texture, the rest the whole synthesis network.
        learning_rate: first learning rate of Adam.
        images, masks: weights of changes of images and masks at codes near the pivot, see `NearbyEdit.wanted`.
        leak: weight of `NearbyEdit.leak`.
        samples: number of codes near the pivot.
        reach: smallest and largest distance of these codes from the pivot, as a share of the way to a random code.
        stop: photos whose distance falls below this are finished.
        rough: share of the first steps that use bfloat16, on CPUs with fast bfloat16.
    """

    num_steps: int = 100
    learning_rate: float = 1e-2
    images: float = 0.3
    masks: float = 0.3
    leak: float = 0.2
    samples: int = 60
    reach: tuple[float, float] = (0.1, 1.0)
    stop: float = 0.0
    rough: float = 0.9


def tune(
    G: torch.nn.Module,
    space: CodeSpace,
    distance: Distance,
    target: Targets,
    pivot: torch.Tensor,
    schedule: TuningSchedule | None = None,
    seed: int = 0,
    text: str = "Tuning",
    hide_progress: bool | None = None,
) -> torch.nn.Module:
    """Returns a copy of the generator that renders a photo better at given codes. At nearby codes it renders as before.

    At codes near the pivot, the copy is trained to draw the region that differs as before, and the photo around it. So
    edits still work. The share of the change outside the region is held down as well. See `NearbyEdit`.

    Args:
        G: the generator. It does not change.
        space, distance: space and distance of the search.
        target: one photo, with its mask if masks count.
        pivot: its codes [1, num_ws, D].
        schedule: options of the tuning.
        seed: seed of the nearby codes.
        text: name of the progress bar.
        hide_progress: True hides the bar, None shows it on terminals.
    """
    schedule = schedule or TuningSchedule()
    tuned = copy.deepcopy(G)
    prepared = distance.prepare(target)
    with torch.no_grad():
        untuned = _render(G, pivot)
        edits = [_edit(G, untuned, *nearby) for nearby in nearby_codes(G, pivot, untuned[1], schedule, seed)]
    first = dict(early_parameters(tuned.synthesis))
    everything = dict(tuned.synthesis.named_parameters())
    switch = schedule.num_steps * 2 // 3
    parameters = list(first.values())
    optimizer = torch.optim.Adam(parameters, lr=schedule.learning_rate, betas=(0.9, 0.99))
    tuned.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)
    bar = tqdm(range(schedule.num_steps), desc=text, unit="step", leave=False, disable=hide_progress)
    for step in bar:
        if step == switch:
            rest = [parameter for name, parameter in everything.items() if name not in first]
            for parameter in rest:
                parameter.requires_grad_(True)
            if rest:
                optimizer.add_param_group({"params": rest, "lr": schedule.learning_rate})
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate * (1 - 0.9 * step / schedule.num_steps)
        edit = edits[step % len(edits)] if edits else None
        with bfloat16_if_fast(pivot.device, step < schedule.rough * schedule.num_steps):
            image, mask = _render(tuned, pivot if edit is None else torch.cat([pivot, edit.ws]))
            apart = distance(image[:1], None if mask is None else mask[:1], prepared).sum()
        loss = apart
        if edit is not None:
            wanted_image, wanted_mask = edit.wanted(image, mask, untuned)
            loss = loss + schedule.images * pyramid_distance(image[1:], wanted_image).sum()
            if mask is not None:
                loss = loss + schedule.masks * (mask[1:] - wanted_mask).square().mean() * mask.shape[1]
            if edit.region is not None:
                loss = loss + schedule.leak * edit.leak(image)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if step < switch:
            hold_shapes(tuned.synthesis)
        optimizer.step()
        bar.set_postfix(distance=f"{apart.item():.4f}")
        if apart.item() < schedule.stop:
            break
    return tuned.requires_grad_(False)


def early_parameters(synthesis: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Yields the parameters to tune first: render network and texture. Without regions, yields all parameters."""
    for name, parameter in synthesis.named_parameters():
        early = name.startswith(("render.", "local.feature_")) or name.removeprefix("local.") in LAYERED
        if early or not hasattr(synthesis, "regions"):
            yield name, parameter


def hold_shapes(synthesis: torch.nn.Module) -> None:
    """Remove the gradients of the layers before the pseudo-depth, so that shapes stay."""
    local = getattr(synthesis, "local", None)
    for name in LAYERED if local is not None else ():
        gradient = getattr(local, name).grad
        if gradient is not None:
            gradient[: local.depth_layers] = 0


class NearbyEdit(NamedTuple):
    """A code near the pivot, and the picture that the network draws there before tuning.

    Attributes:
        ws: the code, [1, num_ws, D].
        region: the region in which it differs from the pivot. None: all of them.
        image: [1, C, R, R].
        mask: [1, K, R, R], or None.
        inside: bool [1, 1, R, R], the region before or after the edit.
        kept: [1, 1, R, R], share of the photo's own details that are to stay. 1 outside the region and its edge.
        size: total change of the image by the edit, see `change_outside`.
    """

    ws: torch.Tensor
    region: int | None
    image: torch.Tensor
    mask: torch.Tensor | None
    inside: torch.Tensor
    kept: torch.Tensor
    size: torch.Tensor

    def wanted(
        self, image: torch.Tensor, mask: torch.Tensor | None, untuned: tuple[torch.Tensor, torch.Tensor | None]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Returns image and mask that the tuned network is to draw at this code.

        Around the region that differs, the picture changes as tuning changes it at the pivot. In the region it does so
        less, the more the code differs. So small edits keep the details of the photo, and large edits do not.

        Args:
            image, mask: what the tuned network draws now. The first sample is the pivot's.
            untuned: image and mask at the pivot before tuning.
        """
        wanted = self.image + self.kept * (image[:1].detach() - untuned[0])
        if mask is None:
            return wanted, None
        return wanted, self.mask + self.kept * (mask[:1].detach() - untuned[1])

    def leak(self, image: torch.Tensor) -> torch.Tensor:
        """Returns the share of the change of the image outside the region, a scalar, as in the metric region_leak.

        Args:
            image: what the tuned network draws now, at the pivot and at this code.
        """
        before, after = image.float().clamp(-1, 1)
        outside, everywhere = change_outside((after - before)[None], self.inside)[0]
        return outside / (everywhere + SMALL_CHANGE * self.size)


def nearby_codes(
    G: torch.nn.Module, pivot: torch.Tensor, mask: torch.Tensor | None, schedule: TuningSchedule, seed: int
) -> Iterator[tuple[torch.Tensor, int | None, float]]:
    """Yields codes [1, num_ws, D] between the pivot and random samples, the region in which they differ, and the share
    of the way to the sample.

    Regions that the mask shows take turns. Every sixth code differs in all regions, and comes with None. So do all
    codes of a network without regions.

    Args:
        G, pivot, schedule, seed: see `tune`.
        mask: planes at the pivot [1, K, R, R], or None for networks without regions.
    """
    if not schedule.samples:
        return
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(schedule.samples, G.z_dim, generator=generator).to(pivot.device)
    labels = torch.zeros(schedule.samples, G.c_dim, device=pivot.device)
    if G.c_dim:
        labels[:, 0] = 1
    low, high = schedule.reach
    reach = low + (high - low) * torch.rand(schedule.samples, 1, 1, generator=generator).to(pivot.device)
    donors = pivot + reach * (G.mapping(z, labels, truncation_psi=0.7) - pivot)
    shown = [] if mask is None else is_present(mask_areas(mask)[0]).nonzero().flatten().tolist()
    turns = itertools.cycle(shown)
    for i, (donor, share) in enumerate(zip(donors.unsqueeze(1), reach.flatten().tolist(), strict=True)):
        if mask is None or i % WHOLE == WHOLE - 1:
            yield donor, None, share
        else:
            region = next(turns)
            yield mix_regions(pivot, donor, G.regions, [region]), region, share


def _edit(
    G: torch.nn.Module,
    untuned: tuple[torch.Tensor, torch.Tensor | None],
    ws: torch.Tensor,
    region: int | None,
    share: float,
) -> NearbyEdit:
    image, mask = _render(G, ws)
    inside, kept = torch.ones_like(image[:, :1], dtype=torch.bool), torch.full_like(image[:, :1], 1 - share)
    if region is not None:
        labels = torch.stack([untuned[1].argmax(dim=1), mask.argmax(dim=1)])
        inside = (labels == region).any(dim=0).unsqueeze(1)
        edge = max(1, round(EDGE * inside.shape[-1]))
        kept = 1 - share * F.max_pool2d(inside.to(image), 2 * edge + 1, stride=1, padding=edge)
    return NearbyEdit(ws, region, image, mask, inside, kept, change_outside(image - untuned[0], inside)[0, 1])


def save_tuned(path: str | os.PathLike, G: torch.nn.Module, tuned: torch.nn.Module) -> None:
    """Write the result of tuning: the differences of changed parameters of G_ema, and the checksum of G."""
    before, after = dict(G.named_parameters()), dict(tuned.named_parameters())
    changes = {name: (after[name] - before[name]).detach().cpu() for name in before}
    arrays = {name: change.numpy() for name, change in changes.items() if change.any()}
    with atomic_open(path, "wb") as file:
        np.savez(file, **{TUNED_DIGEST: np.array(network_digest(G))}, **arrays)


def _render(G: torch.nn.Module, ws: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    if not hasattr(G, "regions"):
        return G.synthesis(ws, noise_mode="const"), None
    out = G.synthesis(ws, noise_mode="const", return_mask=True)
    return out.image, out.mask
