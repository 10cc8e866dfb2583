"""Checks the page's description of a picture: a seed or latents, a truncation, and edits in order."""

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from dnnlib import UserError
from semantic.browser.networks import LoadedNetwork
from semantic.editing.codes import PARTS
from semantic.editing.edits import Apply, Drop, Edit, Move, Swap, Truncate, apply_edits, options_of
from semantic.editing.state import EditState
from semantic.editing.transforms import RegionTransform

MAX_EDITS = 200
LIMITS = {"dx": (-4, 4), "dy": (-4, 4), "scale": (0.05, 20), "rotate": (-360, 360)}


@dataclass(frozen=True)
class Scene:
    """A picture, as the page describes it.

    Attributes:
        seed: seed of the unedited picture. None if `latents` names codes of the session.
        latents: name of codes that the session holds.
        psi: truncation of all seeds.
        edits: in the order in which they apply.
    """

    seed: int | None
    latents: str | None
    psi: float
    edits: tuple[Mapping[str, Any], ...]


def parse_scene(data: Any) -> Scene:
    """Returns the scene that the page describes.

    Raises:
        UserError: it is no scene.
    """
    if not isinstance(data, dict) or not isinstance(data.get("edits"), list) or len(data["edits"]) > MAX_EDITS:
        raise UserError(f"The page must send a scene of at most {MAX_EDITS} edits.")
    if not all(isinstance(edit, dict) for edit in data["edits"]):
        raise UserError("The page sent a scene with an unreadable edit.")
    latents = data.get("latents")
    if latents is not None and not isinstance(latents, str):
        raise UserError("The page sent a scene without a first picture.")
    seed = None if latents is not None else whole(data.get("seed"), "seed")
    return Scene(seed, latents, number(data.get("psi", 1), "truncation", -4, 4), tuple(data["edits"]))


def number(value: Any, what: str, least: float, most: float) -> float:
    """Returns the finite number of a value, within a range.

    Raises:
        UserError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UserError(f"The {what} must be a number.")
    if not least <= value <= most:
        raise UserError(f"The {what} must be from {least:g} to {most:g}, not {value:g}.")
    return value


def whole(value: Any, what: str) -> int:
    """Returns the seed of a value.

    Raises:
        UserError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**32:
        raise UserError(f"The {what} must be a whole number from 0 to {2**32 - 1}.")
    return value


def build_edits(scene: Scene, network: LoadedNetwork, latents: Mapping[str, torch.Tensor]) -> list[Edit]:
    """Returns the edits of a scene as objects.

    Args:
        scene: from `parse_scene`.
        network: the network that draws it.
        latents: codes of the session by name.

    Raises:
        UserError: an edit names a region, part, direction or latents that are not there.
    """
    return [_build(edit, scene.psi, network, latents) for edit in scene.edits]


def _build(edit: Mapping[str, Any], psi: float, network: LoadedNetwork, latents: Mapping[str, torch.Tensor]) -> Edit:
    region = edit.get("region")
    if not isinstance(region, str):
        raise UserError("The page sent an edit without a region.")
    k = network.G.regions.index(region)
    op = edit.get("op")
    if op == "swap":
        part = edit.get("part")
        if part not in PARTS:
            raise UserError(f"A region has no part {str(part)[:40]!r}. Choose {', '.join(PARTS)}.")
        name = edit.get("latents")
        if name is not None:
            return Swap(k, part, latents_of(name, latents), f"{name}.npz")
        seed = whole(edit.get("seed"), "seed of the other face")
        return Swap(k, part, network.codes(seed, psi), str(seed))
    if op == "apply":
        direction = network.directions.get(str(edit.get("name")))
        if direction is None or direction.region != region:
            raise UserError(f"There is no direction {str(edit.get('name'))[:80]!r} of {region}. Find directions first.")
        return Apply(k, direction, number(edit.get("strength"), "strength", -100, 100))
    if op == "transform":
        change = {name: number(edit.get(name), name, *limits) for name, limits in LIMITS.items()}
        return Move(k, RegionTransform(**change))
    if op == "drop":
        return Drop(k)
    if op == "psi":
        return Truncate(k, number(edit.get("psi"), "truncation", -4, 4))
    raise UserError(f"There is no edit {str(op)[:40]!r}.")


def latents_of(name: Any, latents: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Returns codes of the session by name.

    Raises:
        UserError: there are none.
    """
    if not isinstance(name, str) or name not in latents:
        raise UserError("The server no longer has the photo of this picture. Open the photo again.")
    return latents[name]


def build_state(
    scene: Scene, network: LoadedNetwork, latents: Mapping[str, torch.Tensor]
) -> tuple[EditState, EditState, list[Edit]]:
    """Returns the unedited state, the edited state, and the edits between them."""
    ws = latents_of(scene.latents, latents) if scene.seed is None else network.codes(scene.seed, scene.psi)
    edits = build_edits(scene, network, latents)
    before = EditState.of(ws, network.G.regions)
    return before, apply_edits(network.G, before, edits), edits


def command_of(scene: Scene, network: LoadedNetwork, edits: list[Edit]) -> str:
    """Returns the command line that draws a scene."""
    words = ["python", "edit.py", f"--network={network.option}"]
    words.append(f"--latents={scene.latents}.npz" if scene.seed is None else f"--seeds={scene.seed}")
    words.append(f"--trunc={scene.psi!r}")
    if any(isinstance(edit, Apply) for edit in edits):
        words.append("--directions=directions.npz")
    return shlex.join([*words, *options_of(network.G, edits), "--outdir=out"])
