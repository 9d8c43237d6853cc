"""Lists of revoked keys on disk, read again after every change.

An unreadable list is not an empty list: while it lasts, the state of every key is unknown and every key is
refused, as by `sshd`.
"""

import asyncio
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Self

import structlog

from proxy.errors import SettingsError
from proxy.identity import krl
from proxy.identity.sshwire import WireInvalid
from proxy.model import CertificateProof, Credential, KeyProof, WebSession

_log = structlog.get_logger("keys")

_SETTLED_S = 2.0
"""A file that changed more recently may change again without a new modification time."""


class Revocation(Enum):
    """The state of a credential by the lists."""

    GOOD = "good"
    REVOKED = "revoked"
    UNKNOWN = "unknown"
    """A list cannot be read."""


@dataclass(frozen=True, slots=True)
class _Stamp:
    """Metadata that distinguish one content of a file from the next."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, file: Path) -> "_Stamp":
        """Return the stamp of a file. Raises: OSError."""
        found = file.stat()
        if not stat.S_ISREG(found.st_mode):
            raise OSError("it is not a regular file")
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    @property
    def is_settled(self) -> bool:
        return datetime.now(UTC).timestamp() - self.changed_ns / 1e9 > _SETTLED_S


class _Followed:
    """One file and its last content."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.revoked: krl.RevokedKeys | None = None
        """None while the file cannot be read."""
        self.fault = ""
        self._stamp: _Stamp | None = None
        self._reading = asyncio.Lock()
        self._begun = 0
        """Counts reads."""

    async def refresh(self) -> None:
        """Read the file if it has changed since the last read."""
        if self._is_current():
            return
        begun = self._begun
        async with self._reading:
            # Otherwise a read began after this call, and its result is recent enough.
            if self._begun == begun:
                self._begun += 1
                await self._read()

    def _is_current(self) -> bool:
        try:
            return self.revoked is not None and _Stamp.of(self.file) == self._stamp
        except OSError:
            return False

    async def _read(self) -> None:
        try:
            stamp = _Stamp.of(self.file)
            revoked = await asyncio.to_thread(_parse_file, self.file)
        except (OSError, WireInvalid) as exc:
            self.revoked, self._stamp = None, None
            self._tell(getattr(exc, "strerror", None) or str(exc))
            return
        self.revoked = revoked
        self._stamp = stamp if stamp.is_settled else None
        if self.fault:
            _log.info("revoked keys can be read again", file=str(self.file))
        self.fault = ""

    def _tell(self, fault: str) -> None:
        if fault != self.fault:  # once, not at every login
            _log.error("revoked keys cannot be read, no key is accepted", file=str(self.file), reason=fault)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class RevocationLists:
    """The lists at one moment; None stands for an unreadable one."""

    lists: tuple[krl.RevokedKeys | None, ...] = ()

    def of(self, credential: Credential) -> Revocation:
        """Return the state of a credential; for a browser session, of its SSH key.

        A credential without a key is good.
        """
        proof = credential.proof if isinstance(credential, WebSession) else credential
        if not isinstance(proof, KeyProof | CertificateProof):
            return Revocation.GOOD
        if any(one is not None and one.revokes(proof) for one in self.lists):
            return Revocation.REVOKED
        return Revocation.UNKNOWN if None in self.lists else Revocation.GOOD


class Revocations:
    """The list files of this process."""

    def __init__(self, files: Sequence[Path] = ()) -> None:
        self._lists = [_Followed(file) for file in files]

    async def open(self) -> Self:
        """Read the lists for the first time. Raises: SettingsError naming an unreadable one."""
        for one in self._lists:
            await one.refresh()
            if one.fault:
                raise SettingsError(f"identity.revoked_keys: {one.file}: {one.fault}")
        return self

    async def current(self) -> "RevocationLists":
        """Return the lists as they are now."""
        for one in self._lists:
            await one.refresh()
        return RevocationLists(tuple(one.revoked for one in self._lists))


def _parse_file(file: Path) -> krl.RevokedKeys:
    """Read and parse a list. Raises: OSError, WireInvalid."""
    # A FIFO that replaced the file after its check would block the thread.
    with open(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
        return krl.parse(stream.read(krl.MAX_LIST_BYTES + 1))
