"""Edits of one region each, and their texts. The command line and the browser use the same edits."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from dnnlib import UserError
from semantic.editing.codes import PARTS, check_parts, expand, expanded_slots, part_slots
from semantic.editing.directions import ROLES, Direction
from semantic.editing.latents import read_latents
from semantic.editing.state import EditState
from semantic.editing.transforms import RegionTransform, inverse_frame, parse_transform
from semantic.masks import region_centers

FINEST = 2.0**-40
"""Step in which the numbers of frames are counted."""


class Edit(Protocol):
    """A change of one region. An edit returns a new state and keeps the old state unchanged."""

    region: int
    """Index of the region that it changes."""

    def apply(self, G: torch.nn.Module, state: EditState) -> EditState:
        """Returns the state after the edit."""

    def scaled(self, amount: float) -> "Edit":
        """Returns the same edit, weaker or stronger. Amount 0 changes nothing. Negative amounts reverse edits with a
        direction.
        """

    def option(self, G: torch.nn.Module) -> str:
        """Returns the option of edit.py for this edit, such as ``--drop=glasses``."""


@dataclass(frozen=True, eq=False)
class Swap:
    """Takes codes of a region from a donor."""

    region: int
    part: str
    """One of `PARTS`."""
    donor: torch.Tensor
    """[1, b+2K, D], or expanded."""
    source: str
    """The seed or file of the donor."""
    amount: float = 1.0
    """How much of the way to the donor's codes."""

    def apply(self, G: torch.nn.Module, state: EditState) -> EditState:
        ws, donor, regions = state.ws, self.donor.to(state.ws), G.regions
        layer_slots = G.synthesis.local.layer_slots
        if self.part == "whole" or ws.shape[1] != donor.shape[1]:
            ws, donor = (expand(codes, layer_slots) for codes in (ws, donor))
        if self.part == "whole":
            slots = expanded_slots(ws, regions, [self.region])
        else:
            of_parts = part_slots(ws, regions, self.region, layer_slots)
            slots = [slot for part in check_parts(self.part) for slot in of_parts[part]]
        ws = ws.clone()
        taken = donor[:, slots].expand(len(ws), -1, -1)
        ws[:, slots] = taken if self.amount == 1 else torch.lerp(ws[:, slots], taken, self.amount)
        return state.changed(self.region, ws=ws)

    def scaled(self, amount: float) -> "Swap":
        return replace(self, amount=self.amount * amount)

    def option(self, G: torch.nn.Module) -> str:
        return f"--swap={G.regions.names[self.region]}:{self.source}:{self.part}"


@dataclass(frozen=True, eq=False)
class Apply:
    """Moves codes of a region along a direction."""

    region: int
    direction: Direction
    strength: float
    """In standard deviations of the codes along the direction."""

    def apply(self, G: torch.nn.Module, state: EditState) -> EditState:
        step = self.direction.codes.to(state.ws) * self.strength
        layer_slots = G.synthesis.local.layer_slots
        ws = expand(state.ws, layer_slots) if bool(self.direction.codes[0].any()) else state.ws
        slots = part_slots(ws, G.regions, self.region, layer_slots)
        ws = ws.clone()
        for role, move in zip(ROLES, step, strict=True):
            ws[:, slots[role]] += move
        return state.changed(self.region, ws=ws)

    def scaled(self, amount: float) -> "Apply":
        return replace(self, strength=self.strength * amount)

    def option(self, G: torch.nn.Module) -> str:
        return f"--apply={self.direction.name}:{self.strength!r}"


@dataclass(frozen=True)
class Move:
    """Shifts, enlarges and turns a region about its centre."""

    region: int
    change: RegionTransform

    def apply(self, G: torch.nn.Module, state: EditState) -> EditState:
        k = self.region
        state = self.centered(G, state, G.synthesis.compose)
        centers = state.centers
        frames, inverse = state.frames.clone(), inverse_frame(self.change, centers[:, k])
        turn, offset = state.frames[:, k, :, :2], state.frames[:, k, :, 2:]
        joined = torch.cat([turn @ inverse[..., :2], turn @ inverse[..., 2:] + offset], dim=-1)
        frames[:, k] = (joined / FINEST).round() * FINEST  # so that a move and its inverse are no move at all
        moved = centers.clone()
        moved[:, k] += centers.new_tensor([self.change.dx, self.change.dy])
        return state.changed(k, frames=frames, centers=moved)

    def centered(self, G: torch.nn.Module, state: EditState, compose: Callable[..., tuple]) -> EditState:
        """Returns the state with a centre of the region. Measures the centre in the state's picture if it has none.

        Args:
            compose: see `SynthesisNetwork.compose`. It runs only to measure a centre.
        """
        missing = state.centers[:, self.region].isnan()
        if not bool(missing.any()):
            return state
        with torch.no_grad():
            _, coarse, _ = compose(**state.inputs(G.synthesis.grid))
        measured = region_centers(coarse, G.synthesis.grid)[:, self.region].to(state.centers)
        centers = state.centers.clone()
        centers[:, self.region] = torch.where(missing, measured, centers[:, self.region])
        return replace(state, centers=centers)

    def scaled(self, amount: float) -> "Move":
        c = self.change
        change = RegionTransform(c.dx * amount, c.dy * amount, c.scale**amount, c.rotate * amount)
        return replace(self, change=change)

    def inverse(self) -> "Move":
        """Returns the move that reverses this move."""
        return self.scaled(-1)

    def option(self, G: torch.nn.Module) -> str:
        values = ",".join(f"{n}={getattr(self.change, n)!r}" for n in ("dx", "dy", "scale", "rotate"))
        return f"--transform={G.regions.names[self.region]}:{values}"


@dataclass(frozen=True)
class Drop:
    """Leaves a region out. Other regions take its place."""

    region: int
    amount: float = 1.0

    def apply(self, G: torch.nn.Module, state: EditState) -> EditState:
        keep = state.keep.clone()
        keep[:, self.region] = min(max(1 - self.amount, 0.0), 1.0)
        if not bool(keep.any(dim=1).all()):
            raise UserError("All regions are dropped. Keep at least one region.")
        return state.changed(self.region, keep=keep)

    def scaled(self, amount: float) -> "Drop":
        return replace(self, amount=self.amount * amount)

    def option(self, G: torch.nn.Module) -> str:
        return f"--drop={G.regions.names[self.region]}"


@dataclass(frozen=True)
class Truncate:
    """Moves shape and texture codes of a region towards the average. 1 leaves the codes, 0 is the average."""

    region: int
    psi: float

    def apply(self, G: torch.nn.Module, state: EditState) -> EditState:
        average = G.mapping.w_avg.to(state.ws)
        of_parts = part_slots(state.ws, G.regions, self.region, G.synthesis.local.layer_slots)
        slots = of_parts["shape"] + of_parts["texture"]
        ws = state.ws.clone()
        ws[:, slots] = average + self.psi * (ws[:, slots] - average)
        return state.changed(self.region, ws=ws)

    def scaled(self, amount: float) -> "Truncate":
        return replace(self, psi=1 + (self.psi - 1) * amount)

    def option(self, G: torch.nn.Module) -> str:
        return f"--psi={G.regions.names[self.region]}:{self.psi!r}"


@dataclass(frozen=True)
class EditTools:
    """The objects that texts of edits name: the network, codes of seeds, and directions."""

    G: torch.nn.Module
    seed_codes: Callable[[int], torch.Tensor]
    """Codes [1, num_ws, D] of a seed."""
    directions: Mapping[str, Direction]
    """By name."""


def apply_edits(G: torch.nn.Module, state: EditState, edits: Iterable[Edit]) -> EditState:
    """Returns the state after all edits, one after another."""
    for edit in edits:
        state = edit.apply(G, state)
    return state


def parse_edit(name: str, text: str, tools: EditTools) -> Edit:
    """Returns the edit of the option `name` of edit.py with the value `text`.

    Names are 'swap', 'apply', 'transform', 'drop' and 'psi'.

    Raises:
        UserError: an unknown region, part, direction or file, or another form than the option has.
    """
    return PARSERS[name](text, tools)


def parse_swap(text: str, tools: EditTools) -> Swap:
    """Returns the edit of ``hair:5``, ``hair:5:shape`` or ``hair:donor.npz:whole``."""
    k, source = tools.G.regions.split(text)
    donor, _, part = source.rpartition(":")
    if not donor or part not in PARTS:
        donor, part = source, "both"
    if not donor:
        raise UserError(f"Cannot read --swap={text}. Write REGION:SEED or REGION:NPZ, such as hair:5 or hair:5:shape.")
    if donor.isdigit():
        if int(donor) >= 2**32:
            raise UserError(f"Cannot read --swap={text}. The largest seed is {2**32 - 1}.")
        return Swap(k, part, tools.seed_codes(int(donor)), donor)
    if donor.count(":") == 1 and donor.rpartition(":")[0].isdigit():
        wrong = donor.rpartition(":")[2]
        raise UserError(f"Cannot read --swap={text}. A region has no part {wrong!r}. Choose {', '.join(PARTS)}.")
    codes = read_latents(donor, tools.G)
    if len(codes) != 1:
        raise UserError(f"{donor} holds codes of {len(codes)} images. --swap needs a file with one image.")
    return Swap(k, part, codes, donor)


def parse_apply(text: str, tools: EditTools) -> Apply:
    """Returns the edit of ``hair/volume:2``."""
    name, _, strength = (s.strip() for s in text.rpartition(":"))
    if not name:
        raise UserError(f"Cannot read --apply={text}. Write NAME:STRENGTH, such as hair/area:2.")
    if name not in tools.directions:
        known = ", ".join(tools.directions) or "none. Name a file with --directions, or find directions with --find"
        raise UserError(f"There is no direction {name!r}. The directions are: {known}.")
    direction = tools.directions[name]
    return Apply(tools.G.regions.index(direction.region), direction, number(strength, f"--apply={text}", "STRENGTH"))


def parse_move(text: str, tools: EditTools) -> Move:
    """Returns the edit of ``hair:dx=0.1,scale=1.2``."""
    return Move(*parse_transform(text, tools.G.regions))


def parse_drop(text: str, tools: EditTools) -> Drop:
    """Returns the edit that drops the named region."""
    return Drop(tools.G.regions.index(text.strip()))


def parse_psi(text: str, tools: EditTools) -> Truncate:
    """Returns the edit of ``hair:0.5``."""
    k, psi = tools.G.regions.split(text)
    if not psi:
        raise UserError(f"Cannot read --psi={text}. Write REGION:PSI, such as hair:0.5.")
    return Truncate(k, number(psi, f"--psi={text}", "PSI"))


def number(text: str, where: str, what: str) -> float:
    """Returns the finite number in a text.

    Raises:
        UserError: it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if value - value != 0:
        raise UserError(f"Cannot read {where}. {what} must be a finite number, not {text!r}.")
    return value


PARSERS = {"swap": parse_swap, "apply": parse_apply, "transform": parse_move, "drop": parse_drop, "psi": parse_psi}
"""Readers of the options of edit.py that edit."""


def options_of(G: torch.nn.Module, edits: Sequence[Edit]) -> list[str]:
    """Returns the options of edit.py for these edits."""
    return [edit.option(G) for edit in edits]
