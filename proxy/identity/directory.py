"""What Fairlead asks of whoever keeps its users: one Protocol, and the values that it returns.

Names are lower-case as `userstring` gives them. How they are kept is `store`; what a key may look like
is `keys`.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from proxy import userstring
from proxy.errors import IdentityError, UserStringInvalid
from proxy.identity.keys import PublicKey
from proxy.model import User


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A public key that opens the door for one user."""

    id: int
    user: str
    key: PublicKey
    origin: str
    """Where it came from: `static` for the command line, later a provider's name."""
    created_at: datetime
    last_used_at: datetime | None
    """Aware UTC, as every timestamp; None before the first login."""


@dataclass(frozen=True, slots=True)
class UserRecord:
    """All that is kept of a user."""

    user: User
    email: str
    uid: int | None
    """Numeric OS account, for backends that make one; None lets the backend choose."""
    created_at: datetime
    key_count: int


class Directory(Protocol):
    """Users and their keys. Safe to call from many tasks and many proxies at once.

    Raises: StoreError from every method when the store cannot answer within its deadline.
    """

    async def find(self, name: str) -> User | None:
        """Look a user up."""

    async def key_of(self, name: str, blob: bytes) -> StoredKey | None:
        """Find `blob` among the keys of `name`; one indexed query, whether or not the name is known."""

    async def add_user(
        self, name: str, *, full_name: str = "", email: str = "", uid: int | None = None
    ) -> User:
        """Record a user.

        Raises: UserExists; IdentityError for a name that no user string can hold.
        """

    async def remove_user(self, name: str) -> None:
        """Forget a user and the keys. Raises: UserNotFound."""

    async def show_user(self, name: str) -> UserRecord:
        """Give all that is kept of a user. Raises: UserNotFound."""

    async def list_users(self) -> list[UserRecord]:
        """Give every user, by name."""

    async def lock(self, name: str) -> None:
        """Keep a user out without forgetting anything. Raises: UserNotFound."""

    async def unlock(self, name: str) -> None:
        """Let a locked user in again. Raises: UserNotFound."""

    async def add_key(self, name: str, key: PublicKey, *, origin: str = "static") -> bool:
        """Let a key log in as `name`; False when it already could. Raises: UserNotFound."""

    async def remove_key(self, name: str, fingerprint: str) -> None:
        """Take a key from a user. Raises: UserNotFound, KeyNotFound."""

    async def keys_of(self, name: str) -> list[StoredKey]:
        """Give the keys of a user, oldest first. Raises: UserNotFound."""

    async def touch_key(self, key_id: int) -> None:
        """Note that a key was used now; within a minute of the last note nothing is written."""

    async def close(self) -> None:
        """Let go of connections."""


def check_name(name: str) -> str:
    """Give back a name that a user string can hold, unchanged.

    Raises: IdentityError with a sentence for the operator.
    """
    try:
        parsed = userstring.parse(name)
    except UserStringInvalid as exc:
        raise IdentityError(f"{name!r} cannot be a user name: {exc.reason}") from None
    if parsed.user != name:
        raise IdentityError(f"{name!r} cannot be a user name: ssh would be read as user {parsed.user!r}")
    return name
