"""The directory of users: one Protocol, and the values that it returns.

Names are lower-case as `userstring` returns them. `store` keeps them; `keys` defines the form of a key.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Protocol

from proxy import userstring
from proxy.errors.login import UserStringInvalid
from proxy.errors.stores import IdentityError
from proxy.identity.groups import Reading
from proxy.identity.keys import PublicKey
from proxy.identity.profile import Profile
from proxy.model import User


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A public key that authenticates one user."""

    id: int
    user: str
    key: PublicKey
    origin: str
    """Its source: `static` for the command line, or a provider's name."""
    created_at: datetime
    last_used_at: datetime | None
    """Aware UTC, like every timestamp here; None before the first login."""


@dataclass(frozen=True, slots=True)
class Account:
    """The account at a provider that a user is bound to."""

    provider: str
    """The name of the provider in the settings."""
    issuer: str
    subject: str
    """Identifies the account together with `issuer`; no other account ever gets it."""
    login: str
    """The account's name at the provider, as of the provider's last answer."""
    groups: tuple[str, ...] = ()
    refreshed_at: datetime | None = None
    """Time of the provider's last answer; it stays valid while the provider is down."""
    reading: Reading | None = None
    """When `groups` were read, and the result of later requests; None for the waiting list."""


@dataclass(frozen=True, slots=True)
class UserRecord:
    """The complete record of a user."""

    user: User
    email: str
    uid: int | None
    """Numeric OS account, unique; None only for a user whom an older release just added."""
    gid: int | None
    created_at: datetime
    key_count: int
    account: Account | None = None
    """None for users whom an operator added."""


class OnboardingStatus(Enum):
    """The states of an entry of the waiting list."""

    WAITLISTED = "waitlisted"
    APPROVED = "approved"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class OnboardingRecord:
    """An entry of the waiting list.

    The user approved in the browser, and a rule leaves the decision to an operator.
    """

    id: int
    status: OnboardingStatus
    name: str
    """The requested user name."""
    full_name: str
    email: str
    account: Account
    key: PublicKey
    """Proved by the requesting connection, and the account's own; approval admits this key."""
    source_address: str
    """The address of that connection."""
    created_at: datetime
    decided_by: str
    decided_at: datetime | None


@dataclass(frozen=True, slots=True)
class KeyStanding:
    """The present state of the user and key of an earlier login."""

    user: User | None
    """None when the user was removed."""
    has_key: bool
    ended_at_provider: str = ""
    """Name of the provider that vouched for the key and no longer does; else empty."""
    is_certain: bool = True
    """False when the directory lost rows, and the user or the key is missing without a recorded removal: then
    the missing row proves nothing.
    """


@dataclass(frozen=True, slots=True)
class UserEntry:
    """A user in an import file; None leaves the present value unchanged."""

    where: str
    """Place in the file, for messages."""
    name: str
    full_name: str | None = None
    email: str | None = None
    uid: int | None = None
    expires_at: datetime | None = None
    locked: bool | None = None
    keys: tuple[PublicKey, ...] = ()


@dataclass(frozen=True, slots=True)
class UserChange:
    """The change that an import made to a user."""

    name: str
    action: str
    """`add`, `change`, or `same` when nothing differed."""
    keys: tuple[PublicKey, ...]
    """The new keys."""
    locked: bool | None
    """None when that did not change."""


@dataclass(frozen=True, slots=True)
class ImportResult:
    """The changes that an import made or would make; with problems it made none."""

    changes: tuple[UserChange, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Census:
    """Present rows of the directory, and the expected minimum."""

    users: int
    keys: int
    expected_users: int
    expected_keys: int

    @property
    def is_whole(self) -> bool:
        """Return whether every row is present that was not removed."""
        return self.users >= self.expected_users and self.keys >= self.expected_keys

    def lost_most(self, share: float) -> bool:
        """Return whether a table is unexpectedly empty, or lost more than `share` of its rows (0 to 1)."""
        return _lost(self.users, self.expected_users, share) or _lost(self.keys, self.expected_keys, share)

    def __str__(self) -> str:
        parts = [
            f"{actual} of {expected} {what}"
            for what, actual, expected in (
                ("users", self.users, self.expected_users),
                ("keys", self.keys, self.expected_keys),
            )
            if actual < expected
        ]
        if not parts:
            return f"the directory is whole: {self.users} users, {self.keys} keys"
        return f"the directory holds {' and '.join(parts)}, and no command removed the others"


def _lost(actual: int, expected: int, share: float) -> bool:
    return actual < expected and (not actual or expected - actual > share * expected)


class Directory(Protocol):
    """Users and their keys. Safe for concurrent calls from many tasks and many proxies.

    Raises: StoreError from every method when the store cannot answer within its deadline.
    """

    async def find(self, name: str) -> User | None:
        """Return a user, or None.

        Raises: StoreError, also for a missing user while most users are missing.
        """

    async def key_of(self, name: str, blob: bytes) -> StoredKey | None:
        """Return `blob` among the keys of `name`, or None; one indexed query, for unknown names as well.

        Raises: StoreError, also for a missing key while most keys are missing.
        """

    async def standing_of(self, pairs: Collection[tuple[str, str]]) -> Mapping[tuple[str, str], KeyStanding]:
        """Return the standing of many (user, fingerprint) pairs; without a fingerprint, of the user only."""

    async def assure(self) -> None:
        """Check that a user who is missing now never existed or was removed.

        Raises: StoreError when users or keys were lost.
        """

    async def accept(self, seen: Census | None = None) -> Census:
        """Accept lost users and keys as removed, unless the counts changed since `seen`.

        Returns the counts.
        """

    async def account_of(self, name: str) -> Account | None:
        """Return the account at a provider that a user is bound to, or None."""

    async def find_account(self, issuer: str, subject: str) -> User | None:
        """Return the user who is bound to an account at a provider; None when no user is."""

    async def add_user(
        self,
        name: str,
        *,
        full_name: str = "",
        email: str = "",
        uid: int | None = None,
        expires_at: datetime | None = None,
    ) -> User:
        """Add a user; without a uid the next free one is used.

        Raises: UserExists; IdentityError for a name that no user string can hold, or another user's uid.
        """

    async def remove_user(self, name: str) -> None:
        """Remove a user and the keys. Raises: UserNotFound."""

    async def show_user(self, name: str) -> UserRecord:
        """Return the complete record of a user. Raises: UserNotFound."""

    async def list_users(self) -> list[UserRecord]:
        """Return every user, by name."""

    async def lock(self, name: str) -> None:
        """Lock a user out; nothing is deleted. Raises: UserNotFound."""

    async def unlock(self, name: str) -> None:
        """Unlock a user. Raises: UserNotFound."""

    async def add_key(self, name: str, key: PublicKey, *, origin: str = "static") -> bool:
        """Add a key to a user; return False when it was there, or when `remove_key` took it from a provider.

        A key that `remove_key` took stays away when a provider lists it again. Raises: UserNotFound.
        """

    async def remove_key(self, name: str, fingerprint: str) -> None:
        """Remove a key from a user; only `add_key` with origin `static` restores it.

        Raises: UserNotFound, KeyNotFound.
        """

    async def drop_unlisted(
        self, name: str, provider: str, listed: Collection[bytes], read_at: datetime
    ) -> list[str]:
        """Remove the keys of a provider that are older than its list of `read_at` and not on it.

        Returns the fingerprints of the removed keys.
        """

    async def keys_of(self, name: str) -> list[StoredKey]:
        """Return the keys of a user, oldest first. Raises: UserNotFound."""

    async def touch_key(self, key_id: int) -> None:
        """Record the use of a key; within a minute of the last record nothing is written."""

    async def import_users(self, entries: Sequence[UserEntry], *, dry_run: bool = False) -> ImportResult:
        """Add and change users with distinct names: all, or none when there is a problem."""

    # ------------------------------------------------------------------- users of a provider

    async def register(self, profile: Profile, name: str, key: PublicKey, provider: str) -> None:
        """Add a user bound to (profile.issuer, profile.subject), with this key; a repetition changes nothing.

        A uid of the profile is used when it is free. Raises: NameTaken, OnboardingRejected; StoreError when
        users were lost, because this may be one of them.
        """

    async def waitlist(self, profile: Profile, name: str, key: PublicKey, source: str) -> None:
        """Add an entry to the waiting list; one entry for each account, the latest key counts.

        Raises: NameTaken, OnboardingRejected.
        """

    async def renew(self, profile: Profile, name: str) -> None:
        """Update a user with the provider's present description of the account.

        Raises: NameTaken when the user is bound to another account, or to none.
        """

    async def note_provider(self, name: str, *, answers: bool) -> None:
        """Record whether the provider of a user answers now; a failure by itself removes nothing."""

    async def account_ended(self, name: str) -> None:
        """Record that the provider of a user no longer vouches for the account.

        Its groups and keys no longer count; `renew` and `register` restore them.
        """

    async def list_onboardings(self) -> list[OnboardingRecord]:
        """Return every entry that was ever on the waiting list, oldest first."""

    async def approve(self, onboarding_id: int, by: str) -> OnboardingRecord:
        """Add the user of an entry of the waiting list, with the key that was proved then.

        Raises: IdentityError when there is no such entry or it is approved already; NameTaken.
        """

    async def reject(self, onboarding_id: int, by: str) -> OnboardingRecord:
        """Refuse an account until an operator approves it after all.

        Raises: IdentityError when there is no such entry or it is approved already.
        """

    async def close(self) -> None:
        """Close connections."""


def check_name(name: str) -> str:
    """Return a name unchanged after checking that a user string can hold it.

    Raises: IdentityError with a sentence for the operator.
    """
    try:
        parsed = userstring.parse(name)
    except UserStringInvalid as exc:
        raise IdentityError(f"{name!r} cannot be a user name: {exc.reason}") from None
    if parsed.user != name:
        raise IdentityError(f"{name!r} cannot be a user name: ssh would be read as user {parsed.user!r}")
    return name
