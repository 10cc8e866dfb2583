"""Does the work of the editor's sessions: draws scenes, finds directions, opens photos, makes files."""

import asyncio
import base64
import json
import queue
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dnnlib import UserError
from semantic.browser import answers, photos
from semantic.browser.networks import LoadedNetwork, NetworkShelf
from semantic.browser.partial import PartialSynthesis, Renders
from semantic.browser.scene import MAX_EDITS, build_state, command_of, latents_of, number, parse_scene, whole
from semantic.browser.session import MAX_LATENTS, MAX_SESSION_FILE, Photo, Session, Sessions
from semantic.browser.work import Workshop
from semantic.editing.codes import check_ws
from semantic.editing.directions import direction_arrays
from semantic.editing.edits import options_of
from semantic.editing.finding import factorised, principal
from semantic.editing.state import EditState, state_arrays
from training.images import to_uint8

MAX_FACES = 12
FACE_SIZE = 128
PREVIEW_FROM = 256
"""Smallest resolution with previews, which have a quarter of it."""
DIRECTIONS = 4
"""Number of directions of each method and region."""
SEARCHES = [(method, part) for part in ("shape", "texture") for method in (factorised, principal)]
FIRST_SEED, PSI = 2, 0.7


class Desk:
    """The editor without its web routes.

    Args:
        shelf: the networks.
        first: name of the network that a new page shows.
        photo: output folder of projector.py whose photo a new page shows, or None for a face of the network.
    """

    def __init__(self, shelf: NetworkShelf, first: str, photo: Path | None = None):
        self.shelf = shelf
        self.first = first
        self.photo = photo
        self.sessions = Sessions()
        self.workshop = Workshop()
        shelf.on_leave.append(self.sessions.forget_maps)

    def close(self) -> None:
        self.workshop.close()

    async def begin(self, name: Any) -> dict[str, Any]:
        """Returns a new session: its key, and the description of the network for the page."""
        name = self.first if name is None else str(name)
        network = await self.workshop.run(self.shelf.get, name)
        session = self.sessions.create(name)
        latents = None
        if self.photo is not None and name == self.first:
            latents = session.keep(*await self.workshop.run(photos.projected_photo, network, self.photo))
        regions = network.G.regions
        rows = [
            {"index": k, "name": regions.names[k], "color": regions.colors[k], "transparent": k in regions.transparent}
            for k in range(len(regions))
        ]
        return {
            "session": session.key, "network": name, "networks": self.shelf.names(), "regions": rows,
            "resolution": network.G.img_resolution, "classes": network.G.c_dim, "seed": FIRST_SEED, "psi": PSI,
            "latents": latents, "notice": network.notice, **self._directions(network),
        }  # fmt: skip

    def draw(self, session: Session, scene: Any, preview: bool) -> dict[str, Any]:
        """Returns the picture of a scene, with its mask and the command that draws it."""
        network, (_, after, edits), parsed = self._build(session, scene)
        small = preview and network.G.img_resolution >= PREVIEW_FROM
        size = network.G.img_resolution // 4 if small else None
        out = self._partial(session, network)(**after.inputs(network.G.synthesis.grid), size=size)
        photo = session.photos.get(parsed.latents or "")
        command = command_of(parsed, network, edits, photo.folder if photo else None)
        return {**answers.picture(out, command), "photo": photo is not None}

    def faces(self, session: Session, seeds: Any, psi: Any, label: Any = 0) -> dict[str, Any]:
        """Returns small pictures of seeds."""
        if not isinstance(seeds, list) or not 0 < len(seeds) <= MAX_FACES:
            raise UserError(f"The page must ask for 1 to {MAX_FACES} faces.")
        network = self.shelf.get(session.network)
        psi = number(psi, "truncation", -4, 4)
        label = whole(label, "class")
        if label >= max(network.G.c_dim, 1):
            raise UserError(f"This network has no class {label}.")
        ws = torch.cat([network.codes(whole(seed, "seed"), psi, label) for seed in seeds])
        with torch.no_grad():
            images = network.G.synthesis(ws, noise_mode="const")
        if images.shape[-1] > FACE_SIZE:
            images = torch.nn.functional.adaptive_avg_pool2d(images, FACE_SIZE)
        return {"images": [answers.text(answers.image_png(image)) for image in images]}

    def mask_file(self, session: Session, data: dict[str, Any]) -> bytes:
        """Returns the mask of a scene in the colours of the regions, as PNG."""
        network, (_, after, _), _ = self._build(session, data.get("scene"))
        mask = self._render(network, after).mask
        return answers.png(to_uint8(network.G.regions.paint(mask))[0].transpose(1, 2, 0))

    def latents_file(self, session: Session, data: dict[str, Any]) -> bytes:
        """Returns the state of a scene in the file format of edit.py."""
        network, (_, after, edits), _ = self._build(session, data.get("scene"))
        return answers.arrays_file(state_arrays(after, options_of(network.G, edits)))

    def base_latents_file(self, session: Session, data: dict[str, Any]) -> bytes:
        """Returns the unedited codes of a scene."""
        _, (before, _, _), _ = self._build(session, data.get("scene"))
        return answers.arrays_file(state_arrays(before))

    def blended(self, session: Session, data: dict[str, Any]) -> bytes:
        """Returns the photo with the edit of its scene, as PNG. A picture for display is smaller."""
        network, (before, after, _edits), scene = self._build(session, data.get("scene"))
        photo = session.photos.get(scene.latents or "")
        if photo is None:
            raise UserError("This picture has no photo. Open a photo first.")
        renders = [self._render(network, state) for state in (before, after)]
        most = photos.SHOWN_SIDE if data.get("shown") is True else None
        return photos.blended(photo, *renders, after.touched[0].nonzero().flatten().tolist(), most)

    def directions_file(self, session: Session, data: dict[str, Any]) -> bytes:
        """Returns all directions that were found for the network, in the file format of edit.py."""
        network = self.shelf.get(session.network)
        if not network.directions:
            raise UserError("There are no directions yet. Choose a region and find directions.")
        return answers.arrays_file(direction_arrays(network.directions.values(), network.G))

    async def find_directions(self, session: Session, region: Any) -> AsyncIterator[dict[str, Any]]:
        """Yields progress of a search for directions of a region, then the names of all its directions."""
        network = await self.workshop.run(self.shelf.get, session.network)
        name = network.G.regions.names[network.G.regions.index(str(region))]
        async for share in self._search(network, name):
            yield {"share": share}
        yield {"share": 1.0, "names": network.names_of(name)}

    async def _search(self, network: LoadedNetwork, region: str) -> AsyncIterator[float]:
        """Search the directions of a region, unless they were searched. Yields the share of the work that is done.

        Directions of the file beside the network keep their names.
        """
        if region in network.known.searched:
            return
        k = network.G.regions.index(region)
        for done, (method, part) in enumerate(SEARCHES):
            yield done / len(SEARCHES)
            found = await self.workshop.run_long(method, network.G, k, part, DIRECTIONS)
            network.known.add({d.name: d for d in found if d.name not in network.beside})
        network.known.add({}, [region])

    async def open_photo(self, session: Session, data: bytes) -> AsyncIterator[dict[str, Any]]:
        """Yields stages, progress and pictures while a photo is aligned, parsed and inverted, then the name of its
        codes.
        """
        network = await self.workshop.run(self.shelf.get, session.network)
        stop = threading.Event()
        news: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        work = asyncio.ensure_future(self.workshop.run_long(photos.invert_photo, network, data, news.put, stop))
        # A stopped photo ends with an error that nobody awaits. Reading it here keeps it out of the terminal.
        work.add_done_callback(lambda work: work.cancelled() or work.exception())
        try:
            while not work.done() or not news.empty():
                while not news.empty():
                    yield news.get()
                await asyncio.wait([work], timeout=0.1)
            codes, photo = await work
        finally:
            stop.set()
        yield {"share": 1.0, "latents": session.keep(codes, photo)}

    def save_session(self, session: Session, scenes: Any) -> dict[str, Any]:
        """Returns the data of a session that the page lacks: latents that scenes name, their photos, and directions.

        Raises:
            UserError: the data are no scenes, or so large that the server would not open them again.
        """
        if not isinstance(scenes, list) or len(scenes) > MAX_EDITS:
            raise UserError("The page sent no scenes to save.")
        used = {scene.latents for scene in map(parse_scene, scenes)} - {None}
        for scene in scenes:
            used |= {edit["latents"] for edit in scene["edits"] if isinstance(edit.get("latents"), str)}
        network = self.shelf.get(session.network)
        codes = {name: _packed(latents_of(name, session.latents)) for name in used}
        found = {name: photo for name in used if (photo := session.photos.get(name)) is not None}
        kept = {
            name: {"data": answers.text(photo.data), "placement": photo.placement.as_json()}
            for name, photo in found.items()
        }
        found = {"latents": codes, "photos": kept, "directions": self._directions(network)["directions"]}
        size = len(json.dumps({"kept": found}))  # the request that opens the file has as many bytes
        if size > MAX_SESSION_FILE:
            raise UserError(
                f"The session file would have {size / 2**20:.1f} MB, with {len(kept)} photo(s) in it, but may have "
                f"{MAX_SESSION_FILE >> 20} MB. Open smaller photos, or save latents and images."
            )
        return found

    async def open_session(self, session: Session, kept: Any) -> dict[str, Any]:
        """Read latents, photos and directions from a session file. Missing directions are searched.

        Returns the new names of the latents, and the names of all directions.
        """
        network = await self.workshop.run(self.shelf.get, session.network)
        codes, opened, asked = await self.workshop.run(_read_kept, kept, network)
        for region, names in asked.items():
            if region in network.G.regions.names and not network.directions.keys() >= set(names):
                async for _ in self._search(network, region):
                    pass
        if network.name == self.first and self.photo is not None:
            await self.workshop.run(self._recognise, network, codes, opened)
        names = {name: session.keep(ws, opened.get(name)) for name, ws in codes.items()}
        return {"latents": names, **self._directions(network)}

    def _recognise(self, network: LoadedNetwork, codes: dict[str, torch.Tensor], opened: dict[str, Photo]) -> None:
        """Name the photo of `--photo` in commands where a session file has the same photo with the same codes."""
        try:
            ws, own = photos.projected_photo(network, self.photo)
        except UserError:
            return  # its files have changed
        for name, photo in opened.items():
            if photo.data == own.data and photo.placement == own.placement and torch.equal(codes[name], ws.cpu()):
                opened[name] = own

    def _directions(self, network: LoadedNetwork) -> dict[str, Any]:
        """Returns names of directions by region, and the regions that were searched."""
        return {
            "directions": {region: network.names_of(region) for region in network.G.regions.names},
            "searched": sorted(network.known.searched),
        }

    @staticmethod
    def _partial(session: Session, network: LoadedNetwork) -> PartialSynthesis:
        """Returns the synthesis of a session that keeps the maps of its last picture."""
        found = session.partial  # another thread may drop it meanwhile
        if found is None or found.synthesis is not network.G.synthesis:
            if "renders" not in network.extras:
                network.extras["renders"] = Renders.of(network.G.synthesis)
            found = session.partial = PartialSynthesis(network.G.synthesis, network.extras["renders"])
        return found

    def _build(self, session: Session, scene: Any) -> tuple:
        parsed = parse_scene(scene)
        network = self.shelf.get(session.network)
        with torch.no_grad():
            compose = self._partial(session, network).compose
            return network, build_state(parsed, network, session.latents, session.centers, compose), parsed

    @staticmethod
    def _render(network: LoadedNetwork, state: EditState) -> Any:
        with torch.no_grad():
            inputs = state.inputs(network.G.synthesis.grid)
            return network.G.synthesis(noise_mode="const", return_mask=True, **inputs)


def _packed(codes: torch.Tensor) -> dict[str, Any]:
    numbers = codes.detach().cpu().float().numpy().astype("<f4")
    return {"shape": list(numbers.shape), "data": base64.b64encode(numbers.tobytes()).decode()}


Kept = tuple[dict[str, torch.Tensor], dict[str, Photo], dict[str, list[str]]]


def _read_kept(kept: Any, network: LoadedNetwork) -> Kept:
    """Returns what a session file keeps: codes by name, photos by name, and names of directions by region.

    Raises:
        UserError: the file is damaged, or belongs to another network.
    """
    if not isinstance(kept, dict) or not isinstance(kept.get("latents"), dict):
        raise UserError("The session file is damaged: it has no latents. Choose another file.")
    if len(kept["latents"]) > MAX_LATENTS:
        raise UserError(f"The session file has more than {MAX_LATENTS} photos.")
    asked = kept.get("directions") or {}
    lists = list(asked.values()) if isinstance(asked, dict) else [None]
    if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in lists):
        raise UserError("The session file is damaged: its directions cannot be read. Choose another file.")
    codes = {name: _unpacked(data, network) for name, data in kept["latents"].items()}
    known = kept.get("photos") if isinstance(kept.get("photos"), dict) else {}
    opened = {name: photos.kept_photo(known[name], network) for name in codes if name in known}
    return codes, opened, asked


def _unpacked(data: Any, network: LoadedNetwork) -> torch.Tensor:
    try:
        shape = tuple(int(n) for n in data["shape"])
        numbers = np.frombuffer(base64.b64decode(data["data"], validate=True), "<f4").reshape(shape)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError("The session file is damaged: its latents cannot be read. Choose another file.") from error
    codes = torch.from_numpy(numbers.astype(np.float32))
    if codes.ndim != 3 or len(codes) != 1 or codes.shape[2] != network.G.w_dim or not bool(codes.isfinite().all()):
        raise UserError("The session file belongs to another network. Choose its network first.")
    check_ws(codes, network.G.regions)
    return codes
