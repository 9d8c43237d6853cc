"""Checks of files and directories that the settings name."""

import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from proxy.identity.revoked_keys import Revocations
from proxy.onboarding import vault
from proxy.onboarding.service import read_secret
from proxy.process.checks import Check, Status, Verdict, error, ok, warning
from proxy.recording.signing import load_or_create, load_public
from proxy.recording.threads import Threads
from proxy.settings import Settings
from proxy.ssh import hostkeys
from proxy.ssh.asyncssh_ext.certificates import read_authorities


def file_checks(settings: Settings, threads: Threads) -> Iterator[Check]:
    """Yield a check for `home` and for each configured file; `threads` bound the harm of a hanging disk."""

    def blocking(name: str, look: Callable[[], Verdict]) -> Check:
        return Check(name, partial(threads.run, look))

    yield blocking("home", partial(writable, settings.state_dir, "home"))
    yield blocking("host keys", partial(_host_keys, settings.host_key_dir))
    yield blocking("recording key", partial(_recording_keys, settings))
    if (grant_key := settings.grant_key_file) is not None:
        yield blocking(
            "refresh token key", partial(_grant_key, grant_key, made=settings.groups.key_file is None)
        )
    elif settings.front_door.providers:
        yield Check("refresh token key", _no_grant_key)
    if files := settings.identity.trusted_user_ca_keys:
        yield blocking("user certificate authorities", partial(_authorities, files))
    if files := settings.identity.revoked_keys:
        yield Check("revoked keys", partial(_revoked, files))
    for provider, file in settings.blueprint.repository.token_files.items():
        name = f"blueprint.repository.token_files.{provider}"
        yield blocking(f"token of {provider}", partial(_secret, name, file))


def writable(directory: Path, setting: str) -> Verdict:
    """Return whether files can be made in `directory`, or the directory itself where it is missing."""
    if directory.is_dir():
        try:
            with tempfile.TemporaryFile(dir=directory, prefix=".check-"):
                return ok(f"{directory} can be written")
        except OSError as exc:
            return error(f"{setting}: {directory}: cannot be written: {exc.strerror or exc}")
    if os.path.lexists(directory):
        return error(f"{setting}: {directory}: is not a directory")
    above = next(parent for parent in directory.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK, effective_ids=True):
        return error(f"{setting}: {directory}: does not exist and cannot be made in {above}")
    return ok(f"{directory} does not exist yet; a proxy that starts makes it")


def _host_keys(directory: Path) -> Verdict:
    setting = "ssh.host_key_dir"
    if not any(directory.glob("ssh_host_*_key")):
        made = writable(directory, setting)
        is_possible = made.status is Status.OK
        return ok(f"none in {directory} yet; a proxy that starts makes them") if is_possible else made
    return ok(", ".join(hostkeys.read(directory).fingerprints))


def _recording_keys(settings: Settings) -> Verdict:
    for trusted in settings.recording.trusted_key_files:
        load_public(trusted)
    file = settings.recording_key_file
    if file.exists():
        return ok(f"{file}: {load_or_create(file).public.fingerprint}")
    if settings.recording.signing_key_file is None:
        return ok(f"none in {file} yet; a proxy that starts makes it")
    made = writable(file.parent, "recording.signing_key_file")
    if made.status is not Status.OK:
        return made
    return warning(f"recording.signing_key_file: {file}: there is none; each replica makes its own")


def _grant_key(file: Path, *, made: bool) -> Verdict:
    if made and not file.exists():
        return ok(f"none in {file} yet; a proxy that starts makes it")
    vault.load(file, create=False)
    return ok(f"{file} holds a key")


async def _no_grant_key() -> Verdict:
    return warning(
        "groups.key_file: not set, so refresh tokens are not kept, and users approve again when their groups "
        "are too old; give every replica the same file"
    )


def _authorities(files: tuple[Path, ...]) -> Verdict:
    return ok(f"identity.trusted_user_ca_keys: {len(read_authorities(files))} keys")


async def _revoked(files: tuple[Path, ...]) -> Verdict:
    await Revocations(files).open()
    return ok(f"identity.revoked_keys: {len(files)} files can be read")


def _secret(setting: str, file: Path) -> Verdict:
    read_secret(file, setting)
    return ok(f"{file} holds a token")
