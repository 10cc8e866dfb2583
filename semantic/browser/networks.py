"""The networks that the page may name. A few of them are in memory."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from dnnlib import EasyDict, UserError
from semantic.adaptation.layer_swap import load_blended
from semantic.editing.directions import Direction, directions_beside
from semantic.editing.latents import seed_latents
from semantic.encoder import SUFFIX as ENCODER_SUFFIX
from semantic.tuned import apply_tuned

IN_MEMORY = 2
SUFFIXES = (".pkl", ".pt", ".safetensors")


@dataclass(frozen=True)
class Source:
    """A network file and changes to it, as options of edit.py name them."""

    path: str
    """Path or address."""
    tuned: str | None = None
    """A tuned.npz of projector.py."""
    blend: tuple[str, ...] = ()
    """Values of --blend."""


class Known:
    """Directions that are known for a network. They stay when the network leaves memory.

    Other threads read while a search adds directions. So the attributes are replaced, and their values never change.

    Attributes:
        directions: directions by name.
        searched: names of the regions whose directions were searched.
    """

    def __init__(self) -> None:
        self.directions: Mapping[str, Direction] = {}
        self.searched: frozenset[str] = frozenset()
        self._lock = threading.Lock()

    def add(self, found: Mapping[str, Direction], searched: Iterable[str] = ()) -> None:
        """Add directions, and names of regions whose search has ended."""
        with self._lock:
            self.directions = {**self.directions, **found}
            self.searched = self.searched.union(searched)


@dataclass(eq=False)
class LoadedNetwork:
    """A generator, and results for it that are kept during edits.

    Attributes:
        name: name of the network on the page.
        options: options of edit.py that open the network.
        networks: the result of `legacy.load_network`.
        source: path or address that it was read from.
        known: its known directions. They depend on the network alone, so all sessions share them.
        beside: names of the directions in the file beside the network, which edit.py finds itself.
        notice: one sentence about a problem that does not prevent editing, or "".
        extras: anything else that depends on the network alone, such as its parser.
    """

    name: str
    options: tuple[str, ...]
    networks: EasyDict
    source: str
    known: Known = field(default_factory=Known)
    beside: frozenset[str] = frozenset()
    notice: str = ""
    extras: dict[str, object] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def G(self) -> torch.nn.Module:
        return self.networks["G_ema"]

    @property
    def directions(self) -> Mapping[str, Direction]:
        """Known directions by name."""
        return self.known.directions

    @torch.no_grad()
    def codes(self, seed: int, psi: float = 1.0, label: int = 0) -> torch.Tensor:
        """Returns the codes of a seed, [1, num_ws, D]. A network without labels ignores `label`."""
        z = seed_latents([seed], self.G.z_dim).to(next(self.G.parameters()).device)
        c = torch.zeros(1, self.G.c_dim, device=z.device)
        if self.G.c_dim:
            c[0, label] = 1
        return self.G.mapping(z, c, truncation_psi=psi)

    def names_of(self, region: str) -> list[str]:
        """Returns the names of the directions of a region."""
        return [name for name, direction in self.directions.items() if direction.region == region]

    def class_option(self, label: int) -> list[str]:
        """Returns the option of edit.py for a class. Networks without labels have none."""
        if not self.G.c_dim:
            return []
        vectors = (self.networks.get("training_set_kwargs") or {}).get("classes") == []
        numbers = (str(int(k == label)) for k in range(self.G.c_dim))
        return [f"--class={','.join(numbers) if vectors else label}"]

    def read_beside(self) -> None:
        """Take the directions in the file beside the network. A file that does not fit leaves a notice."""
        try:
            found = directions_beside(self.source, self.G)
        except UserError as error:
            self.notice = error.message
            return
        self.known.add(found)
        self.beside = frozenset(found)


class NetworkShelf:
    """Networks by name. The page can open these networks only.

    Args:
        load: reads a network from a path or name, as `legacy.load_network`.
        named: networks that may be named, {name: path, address or `Source`}.
        folder: a folder whose network files, and whose run folders' newest snapshots, may be named.
        device: device of the networks.
        short: names that the command line knows, too.

    Attributes:
        on_leave: functions that get the name of a network when it leaves memory.
    """

    def __init__(
        self,
        load: Callable[[str], EasyDict],
        named: Mapping[str, str | Source],
        folder: Path | None = None,
        device: torch.device | str = "cpu",
        short: Collection[str] = (),
    ):
        self._load = load
        self._named = {name: Source(found) if isinstance(found, str) else found for name, found in named.items()}
        self._folder = folder
        self._device = torch.device(device)
        self._short = short
        self.on_leave: list[Callable[[str], None]] = []
        self._loaded: OrderedDict[str, LoadedNetwork] = OrderedDict()
        self._known: dict[tuple[str, Source], Known] = {}  # a newer snapshot of a run has directions of its own
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
            networks = self._load(source.path)
            if not hasattr(networks["G_ema"], "regions"):
                raise UserError(f"{name} has no regions. Choose a network of --cfg=semantic.")
            if source.tuned is not None:
                apply_tuned(networks["G_ema"], source.tuned)
            networks = EasyDict({**networks, "G_ema": load_blended(networks, source.blend, self._load)})
            for key in ("G_ema", "D"):
                if networks[key] is not None:
                    networks[key].eval().requires_grad_(False).to(self._device)
            known = self._known.setdefault((name, source), Known())
            found = LoadedNetwork(name, self._options(name, source), networks, source.path, known)
            found.read_beside()
            self._loaded[name] = found
            while len(self._loaded) > IN_MEMORY:
                old, _ = self._loaded.popitem(last=False)
                for leave in self.on_leave:
                    leave(old)
            return found

    def _options(self, name: str, source: Source) -> tuple[str, ...]:
        """Returns the options of edit.py for a network. A short name stands for its path if that is enough."""
        same = (short for short in self._short if short in self._named and self._named[short].path == source.path)
        words = [f"--network={next(same, shown_path(source.path))}"]
        if source.tuned is not None:
            words.append(f"--tuned={shown_path(source.tuned)}")
        return (*words, *(f"--blend={part}" for part in source.blend))

    def _sources(self) -> dict[str, Source]:
        sources = dict(self._named)
        if self._folder is None:
            return sources
        for path in sorted(self._folder.iterdir()) if self._folder.is_dir() else ():
            if path.name.endswith(ENCODER_SUFFIX):
                continue
            if path.suffix in SUFFIXES and path.is_file():
                sources.setdefault(path.stem, Source(str(path)))
            snapshots = sorted(path.glob("network-snapshot-??????.pkl")) if path.is_dir() else []
            if snapshots:
                sources.setdefault(path.name, Source(str(snapshots[-1])))
        return sources


def shown_path(path: str) -> str:
    """Returns a path relative to the working folder where it lies within it."""
    found = Path(path)
    return str(found.relative_to(Path.cwd())) if found.is_relative_to(Path.cwd()) else path
