"""The needs of the web half: a byte stream to an app, however it is carried.

Both halves are those of an asyncio transport and its protocol, so that a TCP connection is one as it stands.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from proxy.blueprints.apps import PLAIN, Crossing
from proxy.blueprints.sharing import OWNER_ONLY, Share
from proxy.model import Principal, Target
from proxy.userstring import UserString

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class OwnApp:
    """An app that the proxy serves itself, for the owner of the workspace only."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Address:
    """The address of an app: its workspace and target. Every request looks it up: its hash is kept."""

    owner: str
    """User whom the workspace belongs to."""
    workspace: UserString
    target: Target | OwnApp
    share: Share = OWNER_ONLY
    """The users who may reach the app besides its owner."""
    principal: Principal | None = None
    """The user who asks; None for a visitor without a login."""
    starts: bool = False
    """Whether a request may start the workspace; false for visitors, who find it running or not at all."""
    app: str = ""
    """Name of the app in its blueprint."""
    activity: str = "http"
    """The preset of what counts as activity; see `activity`."""
    owner_id: str = ""
    """Id that the owner must have; empty for any user of that name."""
    label: str = ""
    """Of the app's origin."""
    crossing: Crossing = field(default=PLAIN, compare=False)
    """The app's dealings with pages of other origins; connections do not depend on it."""

    @cached_property
    def _hash(self) -> int:
        return hash((self.owner, self.workspace, self.target, self.starts))

    def __hash__(self) -> int:
        return self._hash


class Wire(Protocol):
    """The sending half of a stream. Every method returns at once and is harmless after the end."""

    def write(self, data: Buffer) -> None:
        """Send bytes, which must not change afterwards."""

    def writelines(self, pieces: Iterable[Buffer]) -> None:
        """Send pieces one behind the other."""

    def write_eof(self) -> None:
        """End this direction behind all written bytes; the other goes on."""

    def pause_reading(self) -> None:
        """Have no more bytes delivered; the sender is held up when the buffers on the way are full."""

    def resume_reading(self) -> None:
        """Undo `pause_reading`."""

    def abort(self) -> None:
        """Break the stream off; unsent bytes are lost."""


class Receiver(Protocol):
    """The receiving half."""

    def data_received(self, data: Buffer) -> None:
        """Take bytes."""

    def eof_received(self) -> bool | None:
        """Learn that no more bytes come; true keeps the other direction open."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Learn of the end; called once, and last. None: both directions ended, or `abort` was called."""

    def pause_writing(self) -> None:
        """Write no more for now: too much waits."""

    def resume_writing(self) -> None:
        """Undo `pause_writing`."""


class Road(Protocol):
    """The way to apps."""

    async def open(self, address: Address, receiver: Receiver) -> Wire:
        """Connect to an app, and start nothing; `receiver` hears of the stream from then on.

        Raises: FairleadError when the app cannot be reached; `receiver` then hears nothing.
        """
