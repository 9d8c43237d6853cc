"""The lifecycle of a part: entered as a context manager, it runs until the context is left."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar


class Closed(Protocol):
    """A part that works from its creation until it is closed."""

    async def close(self) -> None:
        """End everything that the part does."""


class Started(Closed, Protocol):
    """A part that works beside the connections from `start` until it is closed."""

    def start(self) -> None:
        """Begin; waits for nothing."""


_Closed = TypeVar("_Closed", bound=Closed)
_Started = TypeVar("_Started", bound=Started)


@asynccontextmanager
async def closing(part: _Closed) -> AsyncIterator[_Closed]:
    """Close the part on leaving."""
    try:
        yield part
    finally:
        await part.close()


@asynccontextmanager
async def running(part: _Started) -> AsyncIterator[_Started]:
    """Start the part, and close it on leaving."""
    part.start()
    async with closing(part):
        yield part
