"""The trust of a proxy: loaded or created, rotated, and used to sign with the newest generation."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

import structlog
from cryptography import x509

from proxy.aio import TaskOwner
from proxy.errors.upstream import TrustError
from proxy.model import TlsMaterial
from proxy.settings.trust import TrustSettings
from proxy.trust import generations
from proxy.trust.authority import Authority, KeyPair, bundle, is_fresh, serves
from proxy.trust.generations import Generation, Generations, Schedule
from proxy.trust.store import StoredTrust, TrustStore
from proxy.trust.tokens import Minter, key_file, workspace_key

CERTIFICATE_FILE = "tls.crt"
KEY_FILE = "tls.key"
CLIENT_CA_FILE = "client-ca.crt"
TOKEN_KEY_FILE = "token.key"  # noqa: S105 - the name of a file
"""File in a workspace's Secret, mounted read-only."""

_ATTEMPTS = 20
"""Attempts to write before giving up; each failed one means that another writer was faster."""

_T = TypeVar("_T")
_log = structlog.get_logger("trust")


class ClientIdentity(Protocol):
    """A source of a proxy's own certificate other than Fairlead's authority."""

    def material(self) -> TlsMaterial:
        """Return the newest certificate; the same object as long as none is newer. Raises: TrustError."""


@dataclass(frozen=True, slots=True)
class _Own:
    """This proxy's certificate, issued from one set of generations."""

    generations: Generations
    number: int
    certificate: x509.Certificate
    material: TlsMaterial


class TrustManager:
    """The trust of one proxy process.

    Sessions in progress are authenticated already, so a rotation does not affect them.
    """

    def __init__(
        self,
        store: TrustStore,
        settings: TrustSettings,
        *,
        identity: ClientIdentity | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Take the store and the settings; `identity` replaces Fairlead's own authority.

        With `identity` only the token keys are Fairlead's, and `settings` name the issuer of the certificates
        of workspaces.
        """
        self._store = store
        self._settings = settings
        self._identity = identity
        self._clock = clock
        self._schedule = schedule_of(settings)
        self._generations: Generations | None = None
        self._own: _Own | None = None
        self._minter: tuple[int, Minter] | None = None
        self._tasks = TaskOwner("trust")

    @property
    def _signs(self) -> bool:
        return self._identity is None

    async def open(self) -> None:
        """Load or create the trusted generations, and keep them up to date until `close`.

        Proxies that do so at the same moment agree: the second to write reads what the first wrote.

        Raises: TrustError.
        """
        await self.refresh()
        self._tasks.spawn(self._keep_fresh(), name="refresh")

    async def close(self) -> None:
        """Stop the updates; the loaded generations stay in use."""
        await self._tasks.close()

    async def refresh(self) -> None:
        """Load the generations again, and change them where due. Raises: TrustError."""
        await self._change(
            lambda found: generations.advance(found, self._clock(), self._schedule, signs=self._signs)
        )

    async def rotate(self, announce: timedelta | None = None) -> None:
        """Announce a successor that takes over after `announce`, by default the settings' time.

        Raises: TrustError, also while a rotation is under way.
        """
        wait = self._schedule.announce if announce is None else announce

        def succeed(found: Generations) -> Generations:
            if found.is_rotating:
                raise TrustError("a rotation is under way; `fairlead trust show` tells when it ends")
            return found.with_successor(self._clock(), wait, self._schedule, signs=self._signs)

        await self._change(succeed)

    @property
    def generations(self) -> Generations:
        """Return the trusted generations. Raises: TrustError before `open` or `refresh`."""
        if self._generations is None:
            raise TrustError("trust was not read yet")
        return self._generations

    @property
    def rotation_state(self) -> object:
        """Return a value that differs after every step of a rotation. Raises: TrustError."""
        found = self.generations
        roots = self._identity.material().roots if self._identity else b""
        return tuple(one.number for one in found.all), found.issuing(self._clock()).number, roots

    @property
    def issuer(self) -> TrustSettings | None:
        """Return the settings of the issuer of workspace certificates.

        None when `workspace_files` issues them.
        """
        return None if self._identity is None else self._settings

    def rows(self, now: datetime) -> list[dict[str, Any]]:
        """Return a description of every generation for an operator, without a secret. Raises: TrustError."""
        found = self.generations
        issuing = found.issuing(now).number
        states = {True: "retiring", False: "announced"}
        successors: list[Generation | None] = [*found.all[1:], None]
        return [
            {
                "number": one.number,
                "state": "signing" if one.number == issuing else states[one.number < issuing],
                "issues_from": _moment(one.issues_from),
                "retires_at": _moment(successor.issues_from + self._schedule.retire if successor else None),
                "authority_until": _moment(one.authority.expires_at if one.authority else None),
                "fingerprint": one.authority.fingerprint if one.authority else None,
            }
            for one, successor in zip(found.all, successors, strict=True)
        ]

    # --------------------------------------------------------------------- for calls to workspaces

    def material(self) -> TlsMaterial:
        """Return the credentials of new connections: the same object as long as none is newer.

        Raises: TrustError.
        """
        if self._identity is not None:
            return self._identity.material()
        found, now = self.generations, self._clock()
        own = self._own
        if (
            own is None
            or own.generations is not found
            or own.number != found.issuing(now).number
            or not is_fresh(own.certificate, now)
        ):
            self._own = own = self._issue_own(found, now)
        return own.material

    def token(self, workspace: str, user: str, account: str) -> str:
        """Return a token for calls to one workspace; `account` "" lets the workspace choose it.

        Raises: TrustError.
        """
        now = self._clock()
        issuing = self.generations.issuing(now)
        if self._minter is None or self._minter[0] != issuing.number:
            self._minter = issuing.number, Minter(issuing.master, self._settings.token_lifetime_s)
        return self._minter[1].token(workspace, user, account, now)

    # ----------------------------------------------------------------------------- for workspaces

    def workspace_files(self, workspace: str, name: str, present: Mapping[str, bytes]) -> dict[str, bytes]:
        """Return the files of a workspace's Secret; `name` is its `authority.server_name`.

        A certificate in `present` that is still good is kept, so a repeated call changes no more than it
        must. Where there is an `issuer`, certificate and key are left out. Raises: TrustError.
        """
        found, now = self.generations, self._clock()
        keys = [workspace_key(one.master, workspace) for one in found.all]
        files = {TOKEN_KEY_FILE: key_file(keys)}
        if self._identity is not None:
            return files | {CLIENT_CA_FILE: self._identity.material().roots}
        authority = _authority(found.issuing(now))
        pair = KeyPair(present.get(CERTIFICATE_FILE, b""), present.get(KEY_FILE, b""))
        if not serves(pair, name, authority, now):
            pair = authority.issue_server(
                name, now, _seconds(self._settings.server_lifetime_s), self._back_date
            )
        return files | {
            CERTIFICATE_FILE: pair.certificate,
            KEY_FILE: pair.key,
            CLIENT_CA_FILE: bundle(found.authorities),
        }

    # ----------------------------------------------------------------------------------- helpers

    @property
    def _back_date(self) -> timedelta:
        return _seconds(self._settings.back_date_s)

    def _issue_own(self, found: Generations, now: datetime) -> _Own:
        issuing = found.issuing(now)
        pair = _authority(issuing).issue_client(
            now, _seconds(self._settings.client_lifetime_s), self._back_date
        )
        material = TlsMaterial(bundle(found.authorities), pair.certificate, pair.key)
        return _Own(found, issuing.number, x509.load_pem_x509_certificate(pair.certificate), material)

    async def _change(self, change: Callable[[Generations], Generations]) -> None:
        """Load, change and write, until no other writer interferes. Raises: TrustError."""
        for _ in range(_ATTEMPTS):
            stored = await self._in_time(self._store.load())
            if stored is None:
                made = generations.first(self._clock(), self._schedule, signs=self._signs)
                if await self._in_time(self._store.create(generations.dump(made))):
                    _log.info("trust made", number=made.all[-1].number)
                continue  # and read what is stored now, by this proxy or another
            found = _parse(stored)
            changed = change(found)
            if changed is found:
                self._take(found)
                return
            if await self._in_time(self._store.replace(generations.dump(changed), stored.version)):
                _log.info("trust changed", generations=[one.number for one in changed.all])
                self._take(changed)
                return
        raise TrustError(
            f"trust could not be written in {_ATTEMPTS} attempts: another writer was faster each time"
        )

    def _take(self, found: Generations) -> None:
        """Use these generations unless they equal those in use: `material` promises the same object."""
        if self._generations is None or generations.dump(found) != generations.dump(self._generations):
            self._generations = found

    async def _in_time(self, call: Awaitable[_T]) -> _T:
        try:
            async with asyncio.timeout(self._settings.store_timeout_s):
                return await call
        except TimeoutError:
            raise TrustError(
                f"what is kept of trust could not be had in {self._settings.store_timeout_s:g} s"
            ) from None

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(self._settings.refresh_s)
            try:
                await self.refresh()
            except TrustError as exc:
                _log.warning("trust not refreshed", why=str(exc))


def schedule_of(settings: TrustSettings) -> Schedule:
    """Return the parts of a generation's life from settings."""
    return Schedule(
        announce=_seconds(settings.announce_s),
        rotate_after=_seconds(settings.rotate_after_s),
        retire=_seconds(settings.retire_s),
        authority_lifetime=_seconds(settings.authority_lifetime_s),
        back_date=_seconds(settings.back_date_s),
    )


def _moment(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="seconds")


def _seconds(value: float) -> timedelta:
    return timedelta(seconds=value)


def _authority(generation: Generation) -> Authority:
    if generation.authority is None:
        raise TrustError("no authority of our own yet; the next refresh makes one")
    return generation.authority


def _parse(stored: StoredTrust) -> Generations:
    try:
        return generations.load(stored.data)
    except ValueError as exc:
        raise TrustError(str(exc)) from exc
