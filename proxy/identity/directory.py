"""What Fairlead asks of whoever keeps its users: one Protocol, and the values that it returns.

Names are lower-case as `userstring` gives them. How they are kept is `store`; what a key may look like
is `keys`.
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
    """A public key that opens the door for one user."""

    id: int
    user: str
    key: PublicKey
    origin: str
    """Where it came from: `static` for the command line, or a provider's name."""
    created_at: datetime
    last_used_at: datetime | None
    """Aware UTC, as every timestamp; None before the first login."""


@dataclass(frozen=True, slots=True)
class Account:
    """The account at a provider that a user is bound to."""

    provider: str
    """Our name of the provider, from settings."""
    issuer: str
    subject: str
    """With `issuer` who this is; nobody else ever gets it."""
    login: str
    """What the provider called the account when it was last asked."""
    groups: tuple[str, ...] = ()
    refreshed_at: datetime | None = None
    """When the provider was last asked; what it said stays good while it is down."""
    reading: Reading | None = None
    """When `groups` were read, and what became of later questions; None for the waiting list."""


@dataclass(frozen=True, slots=True)
class UserRecord:
    """All that is kept of a user."""

    user: User
    email: str
    uid: int | None
    """Numeric OS account, nobody else's; None only for a user whom an older release just added."""
    gid: int | None
    created_at: datetime
    key_count: int
    account: Account | None = None
    """None for users whom an operator added."""


class OnboardingStatus(Enum):
    """What became of somebody on the waiting list."""

    WAITLISTED = "waitlisted"
    APPROVED = "approved"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class OnboardingRecord:
    """Somebody who approved in the browser, and whom a rule lets in only after an operator agrees."""

    id: int
    status: OnboardingStatus
    name: str
    """User name that was asked for."""
    full_name: str
    email: str
    account: Account
    key: PublicKey
    """Proved by the connection that asked, and the account's own; the one that approval lets in."""
    source_address: str
    """Where that connection came from."""
    created_at: datetime
    decided_by: str
    decided_at: datetime | None


@dataclass(frozen=True, slots=True)
class KeyStanding:
    """What is left of what somebody logged in with."""

    user: User | None
    """None when the user was removed."""
    has_key: bool
    ended_at_provider: str = ""
    """Name of the provider that vouched for the key and does not any more; else empty."""
    is_certain: bool = True
    """False when the user or the key is missing, nobody removed them, and the directory lost rows: then it
    says nothing."""


@dataclass(frozen=True, slots=True)
class UserEntry:
    """A user as a file describes one; None leaves what is there as it is."""

    where: str
    """Place in the file, for problems."""
    name: str
    full_name: str | None = None
    email: str | None = None
    uid: int | None = None
    expires_at: datetime | None = None
    locked: bool | None = None
    keys: tuple[PublicKey, ...] = ()


@dataclass(frozen=True, slots=True)
class UserChange:
    """What an import did to a user."""

    name: str
    action: str
    """`add`, `change`, or `same` when there was nothing to do."""
    keys: tuple[PublicKey, ...]
    """Those that are new."""
    locked: bool | None
    """None when that did not change."""


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What an import did, or would have done; with problems it did nothing."""

    changes: tuple[UserChange, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Census:
    """Rows that there are in the directory, and rows that there should be at least."""

    users: int
    keys: int
    expected_users: int
    expected_keys: int

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing that was not removed."""
        return self.users >= self.expected_users and self.keys >= self.expected_keys

    def lost_most(self, share: float) -> bool:
        """Whether a table is empty that should not be, or lost more than `share` of its rows (0 to 1)."""
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
        return f"the directory holds {' and '.join(parts)}, and nobody removed the others"


def _lost(actual: int, expected: int, share: float) -> bool:
    return actual < expected and (not actual or expected - actual > share * expected)


class Directory(Protocol):
    """Users and their keys. Safe to call from many tasks and many proxies at once.

    Raises: StoreError from every method when the store cannot answer within its deadline.
    """

    async def find(self, name: str) -> User | None:
        """Look a user up. Raises: StoreError, too, for a missing user while most users are."""

    async def key_of(self, name: str, blob: bytes) -> StoredKey | None:
        """Find `blob` among the keys of `name`; one indexed query, whether or not the name is known.

        Raises: StoreError, too, for a missing key while most keys are.
        """

    async def standing_of(self, pairs: Collection[tuple[str, str]]) -> Mapping[tuple[str, str], KeyStanding]:
        """Look up many (user, fingerprint) at once; without a fingerprint only the user counts."""

    async def assure(self) -> None:
        """Check that a user who is missing now was never there or was removed.

        Raises: StoreError when users or keys were lost.
        """

    async def accept(self, seen: Census | None = None) -> Census:
        """Take users and keys that were lost for removed, unless the count changed since `seen`.

        Gives what was counted.
        """

    async def account_of(self, name: str) -> Account | None:
        """Give the account at a provider that a user is bound to, if there is one."""

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
        """Record a user; without a uid the next free one is taken.

        Raises: UserExists; IdentityError for a name that no user string can hold, or another user's uid.
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
        """Let a key log in as `name`; False when it already could, or when a provider brings back what
        `remove_key` took.

        Raises: UserNotFound.
        """

    async def remove_key(self, name: str, fingerprint: str) -> None:
        """Take a key from a user; only `add_key` with origin `static` gives it back.

        Raises: UserNotFound, KeyNotFound.
        """

    async def drop_unlisted(
        self, name: str, provider: str, listed: Collection[bytes], read_at: datetime
    ) -> list[str]:
        """Note what a provider listed at `read_at`; what came from it before and is not listed goes.

        Gives the fingerprints of what went.
        """

    async def keys_of(self, name: str) -> list[StoredKey]:
        """Give the keys of a user, oldest first. Raises: UserNotFound."""

    async def touch_key(self, key_id: int) -> None:
        """Note that a key was used now; within a minute of the last note nothing is written."""

    async def import_users(self, entries: Sequence[UserEntry], *, dry_run: bool = False) -> ImportResult:
        """Add and change users by entries of distinct names: all, or none when there is a problem."""

    # ------------------------------------------------------------------- those who come by a provider

    async def register(self, profile: Profile, name: str, key: PublicKey, provider: str) -> None:
        """Record a user bound to (profile.issuer, profile.subject), and this key; again changes nothing.

        A uid of the profile is taken when it is free. Raises: NameTaken, OnboardingRejected; StoreError when
        users were lost, of whom this may be one.
        """

    async def waitlist(self, profile: Profile, name: str, key: PublicKey, source: str) -> None:
        """Remember somebody for an operator to decide; one record for each account, the latest key counts.

        Raises: NameTaken, OnboardingRejected.
        """

    async def renew(self, profile: Profile, name: str) -> None:
        """Take over what a provider says now of the account that a user is bound to.

        Raises: NameTaken when the user is bound to another account, or to none.
        """

    async def note_provider(self, name: str, *, answers: bool) -> None:
        """Note whether the provider of a user answers now; one that does not takes nothing away by that."""

    async def account_ended(self, name: str) -> None:
        """Note that the provider of a user does not vouch for the account any more.

        Its groups and its keys count no longer; `renew` and `register` bring them back.
        """

    async def list_onboardings(self) -> list[OnboardingRecord]:
        """Give everybody who was ever on the waiting list, oldest first."""

    async def approve(self, onboarding_id: int, by: str) -> OnboardingRecord:
        """Make a user of somebody on the waiting list, with the key that was proved then.

        Raises: IdentityError when there is no such record or it is approved already; NameTaken.
        """

    async def reject(self, onboarding_id: int, by: str) -> OnboardingRecord:
        """Keep an account out until an operator approves it after all.

        Raises: IdentityError when there is no such record or it is approved already.
        """

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
