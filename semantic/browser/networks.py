"""The networks that the page may name. A few of them are in memory."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

import torch

from dnnlib import EasyDict, UserError
from semantic.editing.directions import Direction
from semantic.editing.latents import seed_latents
from semantic.encoder import SUFFIX as ENCODER_SUFFIX

IN_MEMORY = 2
SUFFIXES = (".pkl", ".pt", ".safetensors")


@dataclass(eq=False)
class LoadedNetwork:
    """A generator, and results for it that are kept during edits.

    Attributes:
        name: name of the network on the page.
        option: name of the network on the command line.
        networks: the result of `legacy.load_network`.
        source: path or address that it was read from.
        directions: found directions by name. They depend on the network alone, so all sessions share them.
        extras: anything else that depends on the network alone, such as its parser.
    """

    name: str
    option: str
    networks: EasyDict
    source: str
    directions: dict[str, Direction] = field(default_factory=dict)
    extras: dict[str, object] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def G(self) -> torch.nn.Module:
        return self.networks["G_ema"]

    @torch.no_grad()
    def codes(self, seed: int, psi: float = 1.0) -> torch.Tensor:
        """Returns the codes of a seed, [1, num_ws, D]."""
        z = seed_latents([seed], self.G.z_dim).to(next(self.G.parameters()).device)
        label = torch.zeros(1, self.G.c_dim, device=z.device)
        if self.G.c_dim:
            label[0, 0] = 1
        return self.G.mapping(z, label, truncation_psi=psi)

    def names_of(self, region: str) -> list[str]:
        """Returns the names of the directions of a region."""
        return [name for name, direction in self.directions.items() if direction.region == region]


class NetworkShelf:
    """Networks by name. The page can open these networks only.

    Args:
        load: reads a network from a path or name, as `legacy.load_network`.
        named: networks that may be named, {name: path or address}.
        folder: a folder whose network files, and whose run folders' newest snapshots, may be named.
        device: device of the networks.
        short: names that the command line knows, too.
    """

    def __init__(
        self,
        load: Callable[[str], EasyDict],
        named: dict[str, str],
        folder: Path | None = None,
        device: torch.device | str = "cpu",
        short: Collection[str] = (),
    ):
        self._load = load
        self._named = named
        self._folder = folder
        self._device = torch.device(device)
        self._short = short
        self._loaded: OrderedDict[str, LoadedNetwork] = OrderedDict()
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """Returns all names. The given networks come first."""
        return list(self._sources())

    def get(self, name: str) -> LoadedNetwork:
        """Returns the network with this name. Reads the network if it is not in memory.

        Raises:
            UserError: there is no network of that name, it cannot be read, or it has no regions.
        """
        with self._lock:
            if name in self._loaded:
                self._loaded.move_to_end(name)
                return self._loaded[name]
            source = self._sources().get(name)
            if source is None:
                raise UserError(f"The list has no network {name[:80]!r}. Load the page again.")
            networks = self._load(source)
            if not hasattr(networks["G_ema"], "regions"):
                raise UserError(f"{name} has no regions. Choose a network of --cfg=semantic.")
            for key in ("G_ema", "D"):
                if networks[key] is not None:
                    networks[key].eval().requires_grad_(False).to(self._device)
            found = self._loaded[name] = LoadedNetwork(name, self._option(name, source), networks, source)
            while len(self._loaded) > IN_MEMORY:
                self._loaded.popitem(last=False)
            return found

    def _option(self, name: str, source: str) -> str:
        """Returns the name of a network for the command line: its short name if that is enough, else a short path."""
        if name in self._short:
            return name
        path = Path(source)
        return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else source

    def _sources(self) -> dict[str, str]:
        sources = dict(self._named)
        if self._folder is None:
            return sources
        for path in sorted(self._folder.iterdir()) if self._folder.is_dir() else ():
            if path.name.endswith(ENCODER_SUFFIX):
                continue
            if path.suffix in SUFFIXES and path.is_file():
                sources.setdefault(path.stem, str(path))
            snapshots = sorted(path.glob("network-snapshot-??????.pkl")) if path.is_dir() else []
            if snapshots:
                sources.setdefault(path.name, str(snapshots[-1]))
        return sources
