"""Checks the page's description of a picture: a seed or latents, a truncation, and edits in order."""

import hashlib
import shlex
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from dnnlib import UserError
from semantic.browser.networks import LoadedNetwork
from semantic.editing.codes import PARTS
from semantic.editing.edits import Apply, Drop, Edit, Move, Swap, Truncate, options_of
from semantic.editing.state import EditState
from semantic.editing.transforms import RegionTransform

MAX_EDITS = 200
LARGEST = 1e300
"""Numbers beyond it are refused. JSON holds whole numbers of any length, and Python's float does not."""
LIMITS = {"dx": (-4, 4), "dy": (-4, 4), "scale": (0.05, 20), "rotate": (-360, 360)}


@dataclass(frozen=True)
class Scene:
    """A picture, as the page describes it.

    Attributes:
        seed: seed of the unedited picture. None if `latents` names codes of the session.
        latents: name of codes that the session holds.
        psi: truncation of all seeds.
        label: class of all seeds, for a network with labels.
        edits: in the order in which they apply.
    """

    seed: int | None
    latents: str | None
    psi: float
    label: int
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
    psi, label = number(data.get("psi", 1), "truncation", -4, 4), whole(data.get("label", 0), "class")
    return Scene(seed=seed, latents=latents, psi=psi, label=label, edits=tuple(data["edits"]))


def number(value: Any, what: str, least: float, most: float) -> float:
    """Returns the finite number of a value, within a range.

    Raises:
        UserError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < LARGEST:  # also refuses NaN
        raise UserError(f"The {what} must be a number.")
    if not least <= value <= most:
        raise UserError(f"The {what} must be from {least:g} to {most:g}, not {value:g}.")
    return value


def whole(value: Any, what: str) -> int:
    """Returns the seed or class of a value.

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
    return [_build(edit, scene, network, latents) for edit in scene.edits]


def _build(edit: Mapping[str, Any], scene: Scene, network: LoadedNetwork, latents: Mapping[str, torch.Tensor]) -> Edit:
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
        return Swap(k, part, network.codes(seed, scene.psi, scene.label), str(seed))
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


class Centers:
    """Centres of regions that moves measured, so a slider does not measure them again at each step."""

    MOST = 64

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, torch.Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def centered(self, G: torch.nn.Module, state: EditState, move: Move, compose: Callable[..., tuple]) -> EditState:
        """Returns the state with a centre of the region of a move, see `Move.centered`."""
        key = hashlib.blake2b(repr((move.region, state.ws.shape)).encode())
        for tensor in (state.ws, state.keep, state.frames, state.centers):
            key.update(tensor.numpy().tobytes())
        found = self._known.get(key.digest())
        if found is None:
            found = self._known[key.digest()] = move.centered(G, state, compose).centers
            while len(self._known) > self.MOST:
                self._known.popitem(last=False)
        return replace(state, centers=found)


def build_state(
    scene: Scene,
    network: LoadedNetwork,
    latents: Mapping[str, torch.Tensor],
    centers: Centers,
    compose: Callable[..., tuple],
) -> tuple[EditState, EditState, list[Edit]]:
    """Returns the unedited state, the edited state, and the edits between them.

    Args:
        centers: known centres of regions.
        compose: measures other centres, see `Move.centered`.

    Raises:
        UserError: the scene names a class, region, part, direction or latents that are not there.
    """
    if scene.label >= max(network.G.c_dim, 1):
        raise UserError(f"This network has no class {scene.label}.")
    ws = latents_of(scene.latents, latents) if scene.seed is None else network.codes(scene.seed, scene.psi, scene.label)
    edits = build_edits(scene, network, latents)
    before = state = EditState.of(ws, network.G.regions)
    for edit in edits:
        if isinstance(edit, Move):
            state = centers.centered(network.G, state, edit, compose)
        state = edit.apply(network.G, state)
    return before, state, edits


def command_of(scene: Scene, network: LoadedNetwork, edits: list[Edit], folder: str | None = None) -> str:
    """Returns the command line that draws a scene.

    Args:
        folder: output folder of projector.py that holds the codes of the scene, or None.
    """
    words = ["python", "edit.py", *network.options]
    if scene.seed is not None:
        words.append(f"--seeds={scene.seed}")
    else:
        words.append(f"--latents={scene.latents}.npz" if folder is None else f"--photo={folder}")
    words += [f"--trunc={scene.psi!r}", *network.class_option(scene.label)]
    if any(isinstance(edit, Apply) and edit.direction.name not in network.beside for edit in edits):
        words.append("--directions=directions.npz")
    return shlex.join([*words, *options_of(network.G, edits), "--outdir=out"])
