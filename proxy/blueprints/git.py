"""Blueprints from a Git repository, read with the local `git` command.

A refresh asks for the name of the commit, and fetches only a new one: one commit, into an empty temporary
bare repository, from which the files are read as objects. Nothing is ever checked out, so that no hook,
filter, link or submodule of the repository has an effect.

Source: git-ls-remote(1), git-fetch(1), git-ls-tree(1), git-cat-file(1), gitcredentials(7).
"""

import asyncio
import os
import resource
import shlex
import shutil
import signal
import tempfile
from asyncio.subprocess import Process
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from proxy.blueprints.sources import MAX_FILE_BYTES, MAX_FILES, Snapshot, is_blueprint
from proxy.errors.blueprints import BlueprintSourceFailed
from proxy.settings.blueprints import GitSettings

MAX_OUTPUT_BYTES = 32 * 1024 * 1024
"""Largest output of one git command, and so of all blueprints together."""

_MAX_WORDS_BYTES = 64 * 1024
_CREDENTIALS = (
    '!f() { test "$1" = get && printf "username=%s\\npassword=%s\\n" '
    '"$FAIRLEAD_GIT_USER" "$(cat "$FAIRLEAD_GIT_TOKEN_FILE")"; }; f'
)
"""A helper that keeps the secret out of command lines and environments."""


class GitSource:
    """One branch or tag of one repository."""

    def __init__(self, settings: GitSettings) -> None:
        self._settings = settings
        self._last: tuple[bytes, Snapshot] | None = None

    async def fetch(self) -> Snapshot:
        """Return the files of the newest commit; the same value again while there is no newer one.

        Raises: BlueprintSourceFailed, after `timeout_s` at the latest.
        """
        place = f"{self._settings.ref} of {self._settings.url}"
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                return await self._fetch(place)
        except TimeoutError:
            raise BlueprintSourceFailed(f"{place}: not read within {self._settings.timeout_s:g} s") from None
        except OSError as exc:
            raise BlueprintSourceFailed(f"{place}: {exc.strerror or exc}") from None
        except (ValueError, IndexError):
            raise BlueprintSourceFailed(f"{place}: git said something that is not understood") from None

    async def _fetch(self, place: str) -> Snapshot:
        heads = await self._git("ls-remote", self._settings.url, self._settings.ref)
        if not heads:
            raise BlueprintSourceFailed(f"{place}: there is no such branch or tag")
        if self._last is not None and self._last[0] == heads:
            return self._last[1]
        directory = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="fairlead-git-"))
        try:
            snapshot = await self._read(directory)
        finally:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True))
        self._last = (heads, snapshot)
        return snapshot

    async def _read(self, directory: Path) -> Snapshot:
        """Fetch one commit into an empty repository, and read its files."""
        url, ref = self._settings.url, self._settings.ref
        await self._git("init", "--quiet", "--bare", str(directory))
        flags = ("--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules")
        await self._git("fetch", *flags, url, f"+{ref}:refs/fairlead/new", at=directory)
        name = await self._git("rev-parse", "--verify", "refs/fairlead/new^{commit}", at=directory)
        commit = name.decode().strip()
        tree = f"{commit}:{self._settings.directory.strip('/')}"
        objects, unreadable = _chosen(await self._git("ls-tree", "-z", "--long", tree, at=directory))
        if len(objects) > MAX_FILES:
            raise BlueprintSourceFailed(f"commit {commit} has more than {MAX_FILES} blueprints")
        given = "".join(f"{identity}\n" for identity in objects.values())
        printed = await self._git("cat-file", "--batch", at=directory, given=given)
        return Snapshot(_contents(printed, list(objects)), commit, unreadable)

    async def _git(self, command: str, *words: str, at: Path | None = None, given: str = "") -> bytes:
        """Run one command to its end, without a terminal and without the account's own configuration."""
        program = shutil.which("git")
        if program is None:
            raise BlueprintSourceFailed("blueprints are kept in Git, and there is no git on this machine")
        process = await asyncio.create_subprocess_exec(
            program,
            *self._options(),
            *(("-C", str(at)) if at else ()),
            command,
            *words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment(program),
            start_new_session=True,
        )
        try:
            _limit_files(process.pid, self._settings.max_bytes)
            status, printed, said = await _communicate(process, given)
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await asyncio.shield(process.wait())
        if status != 0:
            raise BlueprintSourceFailed(f"git {command}: {_why(said) or f'exit status {status}'}")
        return printed

    def _options(self) -> list[str]:
        settings = self._settings
        local = settings.url.startswith("file://")
        options = {
            "core.hooksPath": "/dev/null",
            "protocol.allow": "never",
            "protocol.file.allow": "always" if local else "never",
            "protocol.https.allow": "always",
            "protocol.ssh.allow": "always",
            "http.followRedirects": "false",
            "fetch.fsckObjects": "true",
            "credential.helper": _CREDENTIALS if settings.token_file else "",
            **({"http.sslCAInfo": str(settings.ca_file)} if settings.ca_file else {}),
            **({"http.proxy": settings.proxy_url} if settings.proxy_url else {}),
        }
        return [word for key, value in options.items() for word in ("-c", f"{key}={value}")]

    def _environment(self, program: str) -> Mapping[str, str]:
        settings = self._settings
        ssh = ["ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"]
        if settings.ssh_key_file:
            ssh += ["-o", "IdentitiesOnly=yes", "-i", str(settings.ssh_key_file)]
        if settings.known_hosts_file:
            ssh += ["-o", f"UserKnownHostsFile={settings.known_hosts_file}"]
        return {
            "PATH": f"{Path(program).parent}:{os.defpath}",
            "LC_ALL": "C",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_SSH_COMMAND": shlex.join(ssh),
            "FAIRLEAD_GIT_USER": settings.user,
            "FAIRLEAD_GIT_TOKEN_FILE": str(settings.token_file or os.devnull),
        }


def _chosen(listed: bytes) -> tuple[dict[str, str], dict[str, str]]:
    """Parse the output of `ls-tree -z --long` into objects to read and errors, by file name."""
    objects: dict[str, str] = {}
    unreadable: dict[str, str] = {}
    for entry in listed.split(b"\0"):
        facts, _, raw_name = entry.partition(b"\t")
        name = raw_name.decode(errors="replace")
        if not is_blueprint(name):
            continue
        mode, kind, identity, size = facts.decode().split()
        if kind != "blob" or mode == "120000":
            unreadable[name] = "not a plain file"
        elif int(size) > MAX_FILE_BYTES:
            unreadable[name] = f"larger than {MAX_FILE_BYTES} bytes"
        else:
            objects[name] = identity
    return objects, unreadable


def _contents(printed: bytes, names: list[str]) -> dict[str, bytes]:
    """Split the output of `cat-file --batch` into the contents of these files, in this order."""
    files, at = {}, 0
    for name in names:
        end = printed.index(b"\n", at)
        size = int(printed[at:end].split()[2])
        files[name] = printed[end + 1 : end + 1 + size]
        at = end + 1 + size + 1
    return files


def _limit_files(pid: int, max_bytes: int) -> None:
    """Limit the size of files that a process may write, if the system can; it has written nothing yet."""
    if hasattr(resource, "prlimit"):
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (max_bytes, max_bytes))


async def _communicate(process: Process, given: str) -> tuple[int, bytes, bytes]:
    """Send a process its input; return its status, output and error output."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdin.write(given.encode())
    process.stdin.close()
    printed, said = await asyncio.gather(
        _read_at_most(process.stdout, MAX_OUTPUT_BYTES), _read_at_most(process.stderr, _MAX_WORDS_BYTES)
    )
    return await process.wait(), printed, said


async def _read_at_most(stream: asyncio.StreamReader, limit: int) -> bytes:
    """Read to the end. Raises: BlueprintSourceFailed for more than `limit` bytes."""
    data = bytearray()
    while chunk := await stream.read(64 * 1024):
        data += chunk
        if len(data) > limit:
            raise BlueprintSourceFailed(f"git printed more than {limit} bytes")
    return bytes(data)


def _why(data: bytes) -> str:
    lines = [line.strip() for line in data.decode(errors="replace").splitlines() if line.strip()]
    # Git's first line of errors has the reason; later ones are general advice.
    said = next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[-1] if lines else "")
    return "".join(character for character in said if character.isprintable())[:300]
