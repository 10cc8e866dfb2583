"""Ctrl-C, a scheduler's SIGTERM and a terminal that closes become a request to stop that all processes hear."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch

from dnnlib import UserError
from torch_utils import distributed


class StopRequest:
    """While it is entered, the first of `SIGNALS` only asks to stop; the second one stops at once.

    A closing terminal sends SIGHUP. The signal stays ignored where it is ignored already, as under nohup.

    A launcher may pass on a signal that the terminal or scheduler has sent to the whole group of processes already:
    what arrives within `ECHO` seconds of the first signal is the same request.

    Args:
        say: prints a line to the user.

    Attributes:
        agreed: what the last `requested_anywhere` said, the same in all processes.
        failure: a mistake because of which this process asked to stop, see `attempt`.
    """

    SIGNALS = distributed.STOP_SIGNALS
    ECHO = 1.0

    def __init__(self, say: Callable[[str], None] = print):
        self._say = say
        self.agreed = False
        self.failure: UserError | None = None
        self._requested = False
        self._since = 0.0
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            chosen = [number for number in self.SIGNALS if not distributed.stays_ignored(number)]
            self._previous = {number: signal.signal(number, self._handle) for number in chosen}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self._requested:
            if time.monotonic() > self._since + self.ECHO:
                raise KeyboardInterrupt
            return
        self._requested, self._since = True, time.monotonic()
        with contextlib.suppress(RuntimeError):  # the signal came in the middle of another line
            self._say(f"{signal.Signals(number).name}: finishing this step and saving. Once more stops at once.")

    def requested_anywhere(self) -> bool:
        """True once any process was asked to stop; in a group all must call this together."""
        self.agreed = self._requested
        if distributed.is_distributed():
            self.agreed = bool(distributed.all_reduce(torch.tensor([float(self._requested)])).item())
        return self.agreed

    def attempt(self, function: Callable[[], Any]) -> Any:
        """What `function` returns; a mistake that it finds is a request to stop, and is kept as `failure`."""
        try:
            return function()
        except UserError as error:
            self.failure, self._requested = error, True
            return None
