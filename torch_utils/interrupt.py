"""Turns Ctrl-C, a scheduler's SIGTERM and a closed terminal into a request to stop that all processes agree on."""

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
    """Inside `with`, the first of `SIGNALS` requests a stop, and the second one stops at once.

    A closed terminal sends SIGHUP. A signal that is already ignored, as under nohup, stays ignored.

    A launcher may repeat a signal that the terminal or scheduler has sent to all processes. Signals within `ECHO`
    seconds of the first signal count as the same request.

    Args:
        say: prints a line to the user.

    Attributes:
        agreed: last result of `requested_anywhere`, the same in all processes.
        failure: error that made this process request a stop, see `attempt`.
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
        with contextlib.suppress(RuntimeError):  # the signal may arrive while another line is printed
            self._say(f"{signal.Signals(number).name}: finishing this step and saving. A second signal stops at once.")

    def requested_anywhere(self) -> bool:
        """Returns whether a stop was requested in any process. In a group, all processes must call this together."""
        self.agreed = self._requested
        if distributed.is_distributed():
            self.agreed = bool(distributed.all_reduce(torch.tensor([float(self._requested)])).item())
        return self.agreed

    def attempt(self, function: Callable[[], Any]) -> Any:
        """Returns the result of `function`. An error of the user requests a stop and is stored as `failure`."""
        try:
            return function()
        except UserError as error:
            self.failure, self._requested = error, True
            return None
