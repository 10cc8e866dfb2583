"""Sessions: the data that the server keeps for each page, with limits of time and size."""

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from dnnlib import UserError
from semantic.browser.partial import PartialSynthesis
from semantic.browser.scene import Centers
from semantic.placement import Placement

LIFE = 2 * 60 * 60
"""Seconds without a request after which a session ends."""
MAX_UPLOAD = 20 << 20
"""Largest size of an uploaded photo in bytes."""
MAX_SESSION_FILE = 2 * MAX_UPLOAD
"""Largest size of what a session file keeps, in bytes. A photo in it takes a third more bytes than its file."""
MAX_SESSIONS = 200
MAX_LATENTS = 8
"""Largest number of photos in a session. The oldest photo leaves first."""
MAX_PHOTO_BYTES = 512 << 20
"""Largest size in bytes of the photos of all sessions. The longest idle session loses its photos first."""
MAX_PARTIAL = 8
"""Number of sessions that keep maps of their last picture."""


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo of a session, and the place of the crop in it."""

    data: bytes
    placement: Placement
    folder: str | None = None
    """The output folder of projector.py that it comes from."""


@dataclass(eq=False)
class Session:
    """The data that the server keeps for one page. The page itself keeps the scenes."""

    key: str
    network: str
    latents: OrderedDict[str, torch.Tensor] = field(default_factory=OrderedDict)
    photos: dict[str, Photo] = field(default_factory=dict)
    partial: PartialSynthesis | None = None
    centers: Centers = field(default_factory=Centers)
    turn: int = 0
    """Number of the newest request for a picture. Older requests are dropped."""
    used: float = 0.0

    def keep(self, codes: torch.Tensor, photo: Photo | None = None) -> str:
        """Keep codes under a new name, with their photo if there is one. Returns the name."""
        name = f"photo-{secrets.token_hex(4)}"
        self.latents[name] = codes
        if photo is not None:
            self.photos[name] = photo
        while len(self.latents) > MAX_LATENTS:
            old, _ = self.latents.popitem(last=False)
            self.photos.pop(old, None)
        return name

    def photo_bytes(self) -> int:
        return sum(len(photo.data) for photo in self.photos.values())


class Sessions:
    """All sessions by their keys, which nobody can guess.

    Args:
        clock: function that returns seconds. Tests replace it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._sessions)

    def create(self, network: str) -> Session:
        """Returns a new session. If there are too many sessions, the session that was idle longest ends."""
        with self._lock:
            session = Session(secrets.token_urlsafe(24), network, used=self._clock())
            self._sessions[session.key] = session
            self._tidy()
            return session

    def get(self, key: str | None) -> Session:
        """Returns the session with this key.

        Raises:
            UserError: there is none, or it has ended.
        """
        with self._lock:
            self._tidy()
            session = self._sessions.get(key or "")
            if session is None:
                raise UserError("This session has ended. Load the page again. A saved session file restores it.")
            session.used = self._clock()
            self._sessions.move_to_end(session.key)
            return session

    def forget_maps(self, network: str) -> None:
        """Drop the maps of a network's pictures. Maps keep their network in memory."""
        with self._lock:
            for session in self._sessions.values():
                if session.network == network:
                    session.partial = None

    def tidy(self) -> None:
        """End unused sessions. Drop data beyond the limits."""
        with self._lock:
            self._tidy()

    def _tidy(self) -> None:
        now = self._clock()
        for key, session in list(self._sessions.items()):  # the session that was idle longest comes first
            if now - session.used > LIFE or len(self._sessions) > MAX_SESSIONS:
                del self._sessions[key]
        sessions = list(self._sessions.values())
        total = sum(session.photo_bytes() for session in sessions)
        for session in sessions:
            if total <= MAX_PHOTO_BYTES:
                break
            total -= session.photo_bytes()
            session.photos.clear()
        drawn = [session for session in sessions if session.partial is not None]
        for session in drawn[: max(len(drawn) - MAX_PARTIAL, 0)]:
            session.partial = None
