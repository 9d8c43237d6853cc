"""Keeps trust: reads it, makes it where there is none, rotates it, and signs with what is newest."""

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
from proxy.trust.store import Store, Stored
from proxy.trust.tokens import Minter, key_file, workspace_key

CERTIFICATE_FILE = "tls.crt"
KEY_FILE = "tls.key"
CLIENT_CA_FILE = "client-ca.crt"
TOKEN_KEY_FILE = "token.key"  # noqa: S105 - the name of a file
"""What a workspace finds in its Secret, mounted read-only."""

_ATTEMPTS = 20
"""To write before giving up; each lost race means that somebody else has written."""

_T = TypeVar("_T")
_log = structlog.get_logger("trust")


class ClientIdentity(Protocol):
    """Where a proxy's own certificate comes from, when not from our own authority."""

    def material(self) -> TlsMaterial:
        """Give the newest; the same object as long as nothing is newer. Raises: TrustError."""


@dataclass(frozen=True, slots=True)
class _Own:
    """Our certificate of one set of generations."""

    generations: Generations
    number: int
    certificate: x509.Certificate
    material: TlsMaterial


class Keeper:
    """The trust of one proxy process. Sessions under way notice no rotation: they were authenticated."""

    def __init__(
        self,
        store: Store,
        settings: TrustSettings,
        *,
        identity: ClientIdentity | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`identity` stands in for our own authority; then only token keys are ours.

        `settings` then say whom to ask for the certificates of workspaces.
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
        """Read or make what is to be trusted, and keep it up to date until `close`.

        Proxies that do so at the same moment agree: whoever writes second reads what the first wrote.

        Raises: TrustError.
        """
        await self.refresh()
        self._tasks.spawn(self._keep_fresh(), name="refresh")

    async def close(self) -> None:
        """Stop keeping up; what was read goes on being used."""
        await self._tasks.close()

    async def refresh(self) -> None:
        """Read again, and do what is due. Raises: TrustError."""
        await self._change(
            lambda found: generations.advance(found, self._clock(), self._schedule, signs=self._signs)
        )

    async def rotate(self, announce: timedelta | None = None) -> None:
        """Announce a successor that takes over after `announce`, the settings' time by default.

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
        """Give what is trusted. Raises: TrustError before `open` or `refresh`."""
        if self._generations is None:
            raise TrustError("trust was not read yet")
        return self._generations

    @property
    def stage(self) -> object:
        """Give what changes with every step of a rotation. Raises: TrustError."""
        found = self.generations
        roots = self._identity.material().roots if self._identity else b""
        return tuple(one.number for one in found.all), found.issuing(self._clock()).number, roots

    @property
    def issuer(self) -> TrustSettings | None:
        """Say whom to ask for certificates of workspaces; None when `workspace_files` holds them."""
        return None if self._identity is None else self._settings

    def rows(self, now: datetime) -> list[dict[str, Any]]:
        """Describe every generation to an operator, without a secret. Raises: TrustError."""
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
        """Give what a new connection is made with: the same object as long as nothing is newer.

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
        """Give a token for calls to one workspace; `account` "" leaves the choice to it.

        Raises: TrustError.
        """
        now = self._clock()
        issuing = self.generations.issuing(now)
        if self._minter is None or self._minter[0] != issuing.number:
            self._minter = issuing.number, Minter(issuing.master, self._settings.token_lifetime_s)
        return self._minter[1].token(workspace, user, account, now)

    # ----------------------------------------------------------------------------- for workspaces

    def workspace_files(self, workspace: str, name: str, present: Mapping[str, bytes]) -> dict[str, bytes]:
        """Give the files of a workspace's Secret; `name` is its `authority.server_name`.

        What is `present` and still good stays, so that asking again changes nothing that need not be.
        Without the certificate and its key where there is an `issuer`. Raises: TrustError.
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
        """Read, change and write until nobody came in between. Raises: TrustError."""
        for _ in range(_ATTEMPTS):
            stored = await self._in_time(self._store.load())
            if stored is None:
                made = generations.first(self._clock(), self._schedule, signs=self._signs)
                if await self._in_time(self._store.create(generations.dump(made))):
                    _log.info("trust made", number=made.all[-1].number)
                continue  # and read what is there now, ours or another's
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
            f"trust could not be written in {_ATTEMPTS} attempts: somebody else always was faster"
        )

    def _take(self, found: Generations) -> None:
        """Use what was read, unless it is what we use already: material is told by identity."""
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
    """Read the parts of a generation's life from settings."""
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


def _parse(stored: Stored) -> Generations:
    try:
        return generations.load(stored.data)
    except ValueError as exc:
        raise TrustError(str(exc)) from exc
