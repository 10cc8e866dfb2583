"""One thread computes for all sessions. It drops a request that a newer request has replaced."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from semantic.browser.session import Session


class Overtaken(Exception):
    """A newer request of the same session came before this request began."""


class Workshop:
    """Computes pictures in one thread and long work in another, so a photo does not delay a slider."""

    def __init__(self) -> None:
        self._quick = ThreadPoolExecutor(1, thread_name_prefix="pictures")
        self._long = ThreadPoolExecutor(1, thread_name_prefix="photos")

    async def run(self, work: Callable[..., Any], *args: Any) -> Any:
        """Returns the result of quick work."""
        return await asyncio.get_running_loop().run_in_executor(self._quick, work, *args)

    async def run_newest(self, session: Session, turn: int, work: Callable[..., Any], *args: Any) -> Any:
        """Returns the result of quick work, unless a newer request of the session comes before it begins.

        Raises:
            Overtaken: a newer request has come.
        """
        session.turn = max(session.turn, turn)

        def unless_overtaken() -> Any:
            if session.turn > turn:
                raise Overtaken
            return work(*args)

        return await self.run(unless_overtaken)

    async def run_long(self, work: Callable[..., Any], *args: Any) -> Any:
        """Returns the result of long work."""
        return await asyncio.get_running_loop().run_in_executor(self._long, work, *args)

    def close(self) -> None:
        """End both threads. Work that has not begun is dropped."""
        for executor in (self._quick, self._long):
            executor.shutdown(wait=False, cancel_futures=True)
