"""Host keys of the proxy: created once, stored, and announced to clients."""

import os
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from proxy.errors import SettingsError
from proxy.storage.files import create_once

_KINDS: tuple[tuple[str, str, dict[str, int]], ...] = (
    ("ed25519", "ssh-ed25519", {}),
    ("ecdsa", "ecdsa-sha2-nistp256", {}),
    ("rsa", "ssh-rsa", {"key_size": 3072}),
)


@dataclass(frozen=True, slots=True)
class HostKeys:
    """Private keys in the order of preference."""

    keys: tuple[asyncssh.SSHKey, ...]

    @property
    def fingerprints(self) -> list[str]:
        """`SHA256:… (algorithm)` of each key, as ssh shows it."""
        return [f"{key.get_fingerprint()} ({key.get_algorithm()})" for key in self.keys]

    @property
    def public_lines(self) -> list[str]:
        """`algorithm base64` of each key, as known_hosts has it after the host."""
        return [key.export_public_key("openssh").decode().strip() for key in self.keys]


def load_or_create(directory: Path) -> HostKeys:
    """Read the host keys in `directory`, and create missing ones with mode 0600.

    Several proxies may start at once with one directory: the first to write a key wins. A directory that
    cannot be written, such as a mounted Secret, is accepted when it holds at least one key.
    Raises: SettingsError for a key that cannot be read or written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        kinds = [(directory / f"ssh_host_{kind}_key", name, args) for kind, name, args in _KINDS]
        there = [path for path, _, _ in kinds if path.exists()]
        if there and not os.access(directory, os.W_OK, effective_ids=True):
            return HostKeys(tuple(_read(path) for path in there))
        return HostKeys(tuple(_one(path, name, args) for path, name, args in kinds))
    except (OSError, asyncssh.KeyImportError) as exc:
        raise SettingsError(f"ssh.host_key_dir: host keys in {directory}: {exc}") from exc


def read(directory: Path) -> HostKeys:
    """Read the host keys that are in `directory`, without making any.

    Raises: SettingsError for a key that cannot be read.
    """
    paths = (directory / f"ssh_host_{kind}_key" for kind, _, _ in _KINDS)
    try:
        return HostKeys(tuple(_read(path) for path in paths if path.exists()))
    except (OSError, asyncssh.KeyImportError) as exc:
        raise SettingsError(f"ssh.host_key_dir: host keys in {directory}: {exc}") from exc


_PROBE = b"fairlead host key"


def _read(path: Path) -> asyncssh.SSHKey:
    """Read one key, and let it sign once instead of a proof that its numbers are prime.

    OpenSSL's proof takes 0.2 s of CPU for RSA at every start. It protects from keys of other parties; this
    file is the operator's own. A damaged file is found by its signature.
    Raises: OSError, asyncssh.KeyImportError.
    """
    key = asyncssh.read_private_key(path, unsafe_skip_rsa_key_validation=True)
    algorithm = key.sig_algorithms[0]
    if not key.convert_to_public().verify(_PROBE, key.sign(_PROBE, algorithm)):
        raise asyncssh.KeyImportError(f"{path.name} is damaged: its public half refuses its signature")
    return key


def _one(path: Path, algorithm: str, args: dict[str, int]) -> asyncssh.SSHKey:
    if not path.exists():
        key = asyncssh.generate_private_key(algorithm, comment="fairlead", **args)
        create_once(path, key.export_private_key("openssh"))
    key = _read(path)
    public = path.with_name(path.name + ".pub")
    if not public.exists():
        create_once(public, key.export_public_key("openssh"), 0o644)
    return key
