"""Blends two networks of one family: takes local generators of regions, or rendering, from another network.

The idea comes from Pinkney and Adler 2020, "Resolution dependent GAN interpolation".
"""

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click
import torch

from dnnlib import UserError

RENDERING = re.compile(r"(\d+)\+")

blend_option = click.option(
    "--blend",
    multiple=True,
    metavar="PART:FILE",
    help="Take a part from another network: hair:B.pkl a region's local generator, 64+:B.pkl rendering from 64² up.",
)


def load_blended(
    networks: Mapping[str, Any], blends: Sequence[str], load: Callable[[str], Mapping[str, Any]]
) -> torch.nn.Module:
    """Returns the G_ema of networks. `blends` names parts to take from other network files.

    Args:
        networks: the networks of a file, as `load` returns them.
        blends: texts PART:FILE in the order in which they apply, see `blend_option`.
        load: reads a network file, as `load_network` of legacy.py.

    Raises:
        UserError: a text names no part, or a network does not fit.
    """
    G = networks["G_ema"]
    for text in blends:
        part, separator, path = text.partition(":")
        if not separator or not part.strip() or not path.strip():
            raise UserError(f"--blend={text}: Expected PART:FILE, such as hair:other.pkl or 64+:other.pkl.")
        G = blended(G, load(path.strip())["G_ema"], part.strip(), f"--blend={text}")
    return G


def blended(G: torch.nn.Module, other: torch.nn.Module, part: str, where: str = "the other network") -> torch.nn.Module:
    """Returns a copy of a generator with one part from another generator.

    Args:
        G, other: generators with the same regions and sizes.
        part: a region's name for its local generator, or '64+' for the stages that render 64² pixels and more.
        where: name of the other generator in messages.

    Raises:
        UserError: the networks do not fit together, or there is no such part.
    """
    check_alike(G, other, where)
    taken = copy.deepcopy(G)
    rendering = RENDERING.fullmatch(part)
    state, theirs = taken.state_dict(), other.state_dict()
    with torch.no_grad():
        if rendering:
            for name in rendering_names(G, int(rendering[1]), where):
                state[name].copy_(theirs[name])
            return taken
        region = G.regions.index(part)
        for name, axis in G.synthesis.local.region_axes().items():
            ours = state[f"synthesis.local.{name}"]
            index = region - (len(G.regions) - ours.shape[axis])  # the background has no depth
            if index >= 0:
                ours.select(axis, index).copy_(theirs[f"synthesis.local.{name}"].select(axis, index))
    return taken


def rendering_names(G: torch.nn.Module, lowest: int, where: str) -> list[str]:
    """Returns the names of the tensors of the render stages that render at `lowest`² pixels and more.

    Raises:
        UserError: there is no stage of that size.
    """
    sizes = G.synthesis.render.resolutions
    if lowest not in sizes:
        raise UserError(
            f"{where}: The render network has no stage of {lowest}. Its stages are {', '.join(map(str, sizes))}."
        )
    stages = tuple(f"synthesis.render.b{size}." for size in sizes if size >= lowest)
    return [name for name in G.state_dict() if name.startswith(stages)]


def check_codes(G: torch.nn.Module, other: torch.nn.Module, where: str) -> None:
    """Compare regions and the shape of the codes of two generators.

    Raises:
        UserError: a generator has no regions, or the generators differ.
    """
    for network in (G, other):
        if not hasattr(network, "regions"):
            raise UserError(f"{where}: One network has no regions. Use two networks of --cfg=semantic.")
    if G.regions.names != other.regions.names:
        raise UserError(
            f"{where} has other regions ({', '.join(other.regions.names)}) than the network "
            f"({', '.join(G.regions.names)}). Choose a network that was adapted from it."
        )
    codes, theirs = ((network.num_ws, network.w_dim) for network in (G, other))
    if codes != theirs:
        raise UserError(
            f"{where} takes {theirs[0]} codes of {theirs[1]} numbers, but the network takes {codes[0]} of {codes[1]}. "
            f"Choose a network that was adapted from it."
        )


def check_alike(G: torch.nn.Module, other: torch.nn.Module, where: str) -> None:
    """Compare regions and all sizes of two generators.

    Raises:
        UserError: a generator has no regions, or the generators differ.
    """
    check_codes(G, other, where)
    shapes, theirs = ({name: t.shape for name, t in network.state_dict().items()} for network in (G, other))
    if shapes != theirs or G.img_resolution != other.img_resolution:
        raise UserError(
            f"{where} has other sizes ({other.extra_repr()}) than the network ({G.extra_repr()}). Choose a network "
            f"that was adapted from it."
        )
