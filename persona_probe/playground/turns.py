"""One model, many requests: each waits for its turn, and a new reply ends the one before.

The model is as it was between two tokens of a reply, so a turn is one token, one profile, or one
saved file. Turns are taken in the order of asking.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool

Result = TypeVar("Result")
END = object()


class Turns:
    """Whose turn it is. All of it runs on one event loop; the work itself runs in threads."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._newest = 0

    async def take(self, work: Callable[[], Result]) -> Result:
        """Do one piece of work when its turn comes."""
        async with self._lock:
            return await run_in_threadpool(work)

    async def stream(self, pieces: Iterator[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
        """Pass the pieces on until they end, or until a newer stream begins.

        The last piece says which of the two it was: `{"end": "done"}` or `{"end": "replaced"}`.
        """
        self._newest += 1
        number = self._newest
        while True:
            piece: Any = await self.take(
                lambda: next(pieces, END) if self._newest == number else END
            )
            if self._newest != number:
                yield {"end": "replaced"}
                return
            if piece is END:
                yield {"end": "done"}
                return
            yield piece
