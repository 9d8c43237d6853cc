"""The files of the local backend.

    <home>/workspaces/<name>/workspace.json   its record; written once, and when its owner changes
                             kept.json        the record of a kept home, once the workspace is deleted
                             config.json      the configuration of shelld; written at every start
                             running.json     the process of shelld; written when it answered
                             stopped.json     the reason of a stop; deleted by the next start
                             shelld.log       the log of shelld; the previous one is shelld.log.1
                             lock             held during a start or a stop
                             home/            the user's files
    <runtime>/<8 hex>/shelld.sock             and sockets of ssh-agents: private, short paths

A socket path has at most 107 bytes, so sockets live apart from the rest: in /run for root and in
/tmp for every other account. Not in XDG_RUNTIME_DIR, which is taken away when the user logs out.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from proxy.errors.workspaces import WorkspaceNotFound, WorkspaceStartFailed
from proxy.model import User, WorkspaceName
from proxy.workspaces.backend import Stop, WorkspaceRecord

MAX_LOG_BYTES = 4 * 1024 * 1024

_log = structlog.get_logger("workspaces")
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,126}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Places:
    """All paths of one workspace."""

    root: Path
    runtime: Path

    @property
    def home(self) -> Path:
        """Return the user's files."""
        return self.root / "home"

    @property
    def record(self) -> Path:
        """Return the record of the workspace."""
        return self.root / "workspace.json"

    @property
    def kept(self) -> Path:
        """Return the record of a kept home."""
        return self.root / "kept.json"

    @property
    def config(self) -> Path:
        """Return the configuration of shelld."""
        return self.root / "config.json"

    @property
    def running(self) -> Path:
        """Return the process that last answered."""
        return self.root / "running.json"

    @property
    def stopped(self) -> Path:
        """Return the reason of the last stop."""
        return self.root / "stopped.json"

    @property
    def log(self) -> Path:
        """Return the log of shelld."""
        return self.root / "shelld.log"

    @property
    def lock(self) -> Path:
        """Return the lock for starts and stops."""
        return self.root / "lock"

    @property
    def socket(self) -> Path:
        """Return the socket of shelld."""
        return self.runtime / "shelld.sock"


class State:
    """The directory of all workspaces, and the one of their sockets."""

    def __init__(self, state_dir: Path, runtime_parent: Path | None = None) -> None:
        self.workspaces = state_dir / "workspaces"
        uid = os.geteuid()
        parent = runtime_parent or Path("/run" if uid == 0 else "/tmp")  # noqa: S108 - private_dir checks it
        digest = hashlib.sha256(os.fsencode(state_dir.resolve())).hexdigest()[:8]
        self.runtime = parent / f"fairlead-{uid}-{digest}"
        # As root a workspace may serve several accounts, and each must reach its own sockets there.
        self._runtime_mode = 0o711 if uid == 0 else 0o700

    def places(self, name: str) -> Places:
        """Return the paths of a workspace, existing or not.

        Raises: WorkspaceNotFound for an invalid name, such as `..`.
        """
        if not _NAME.fullmatch(name):
            raise WorkspaceNotFound(f"{name!r} cannot be the name of a workspace")
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        return Places(self.workspaces / name, self.runtime / digest)

    def record(self, name: str) -> WorkspaceRecord | None:
        """Read the record of a workspace; None when there is none.

        Raises: WorkspaceStartFailed when it cannot be read: its owner is unknown then.
        """
        return _read_record(name, self.places(name).record)

    def holder(self, name: str) -> WorkspaceRecord | None:
        """Read the record of the owner of a name: of the workspace, or of a kept home.

        Raises: as `record`.
        """
        places = self.places(name)
        found = _read_record(name, places.record) or _read_record(name, places.kept)
        if found is not None or not places.home.exists():
            return found
        # A home kept by an older release has no record; its lock was made with it, and never written to.
        try:
            made_at = datetime.fromtimestamp(places.lock.stat().st_mtime, UTC)
        except OSError:
            made_at = datetime.min.replace(tzinfo=UTC)
        return WorkspaceRecord(WorkspaceName(name), "", "", made_at)

    def records(self) -> Iterator[WorkspaceRecord]:
        """Yield every readable record, by name; a damaged one hides no other."""
        if not self.workspaces.is_dir():
            return
        for name in sorted(filter(_NAME.fullmatch, os.listdir(self.workspaces))):
            try:
                record = self.record(name)
            except WorkspaceStartFailed as exc:
                _log.warning("workspace is damaged", workspace=name, why=str(exc))
            else:
                if record:
                    yield record

    def kept(self) -> Iterator[WorkspaceRecord]:
        """Yield the homes that deleted workspaces left, by name, if their owners were recorded."""
        for file in sorted(self.workspaces.glob("*/kept.json")):
            name = file.parent.name
            try:
                record = _read_record(name, file)
            except WorkspaceStartFailed as exc:
                _log.warning("kept home is damaged", workspace=name, why=str(exc))
                continue
            if record is not None and not self.places(name).record.exists():
                yield record

    def make(self, places: Places, record: WorkspaceRecord) -> None:
        """Create the files for a first start: the home is filled before it gets its name."""
        for directory in (places.root.parent, places.root):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not places.home.exists():
            fresh = places.root / "home.new"
            shutil.rmtree(fresh, ignore_errors=True)
            _copy_skeleton(fresh)
            fresh.rename(places.home)
        if not places.record.exists():
            write_json(places.record, _content(record))
        places.kept.unlink(missing_ok=True)

    def give(self, places: Places, user: User) -> None:
        """Record a user as the owner of a workspace, or of a kept home."""
        found = self.holder(places.root.name)
        assert found is not None
        file = places.record if places.record.exists() else places.kept
        write_json(file, _content(replace(found, user=user.name, owner=user.id)))

    def note_stop(self, places: Places, stop: Stop) -> None:
        """Record why a workspace was stopped."""
        write_json(places.stopped, {"by": stop.by, "at": stop.at.isoformat(), "reason": stop.reason})

    def stop_of(self, places: Places) -> Stop | None:
        """Read why a workspace was stopped; None when it is not recorded."""
        noted = read_json(places.stopped)
        try:
            return Stop(noted["by"], datetime.fromisoformat(noted["at"]), noted["reason"])
        except (KeyError, TypeError, ValueError):
            return None

    def forget_stop(self, places: Places) -> None:
        """Delete the record of a stop, at the next start."""
        places.stopped.unlink(missing_ok=True)

    def forget(self, places: Places, *, purge: bool) -> None:
        """Delete a stopped workspace's record.

        The home only with `purge`, otherwise its owner is recorded.
        """
        if purge:
            shutil.rmtree(places.home, ignore_errors=True)
        elif places.record.exists():
            places.record.replace(places.kept)
        for file in places.root.iterdir():
            if file not in (places.home, places.lock, places.kept):
                file.unlink(missing_ok=True)
        if purge:
            shutil.rmtree(places.root, ignore_errors=True)

    def make_runtime(self, places: Places) -> None:
        """Create the directory of the sockets, or check that it is still private.

        Raises: WorkspaceStartFailed when another account may have changed it.
        """
        for directory in (self.runtime, places.runtime):
            _private_dir(directory, self._runtime_mode)

    def remove_runtime(self, places: Places) -> None:
        """Delete the sockets of a stopped workspace; the directory of all of them stays."""
        shutil.rmtree(places.runtime, ignore_errors=True)


_BROKEN = "this workspace is damaged; its operator can see why in the log"


def _read_record(name: str, file: Path) -> WorkspaceRecord | None:
    try:
        raw = json.loads(file.read_bytes())
        return WorkspaceRecord(
            WorkspaceName(name),
            str(raw["user"]),
            str(raw["blueprint"]),
            datetime.fromisoformat(raw["created_at"]),
            user_string=str(raw.get("user_string", "")),  # older releases wrote none
            owner=str(raw.get("owner", "")),  # and no owner
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise WorkspaceStartFailed(f"{file} cannot be read: {exc!r}", user_message=_BROKEN) from exc


def _content(record: WorkspaceRecord) -> dict[str, str]:
    return {
        "user": record.user,
        "owner": record.owner,
        "blueprint": record.blueprint,
        "user_string": record.user_string,
        "created_at": record.created_at.isoformat(),
    }


def _private_dir(path: Path, mode: int) -> None:
    try:
        path.mkdir(mode=mode)
        path.chmod(mode)  # regardless of the umask
    except FileExistsError:
        pass
    found = path.lstat()
    wrong = (
        "it is no directory"
        if not stat.S_ISDIR(found.st_mode)
        else f"it belongs to uid {found.st_uid}"
        if found.st_uid != os.geteuid()
        else f"its mode is {stat.S_IMODE(found.st_mode):o}, not {mode:o}"
        if stat.S_IMODE(found.st_mode) & ~mode
        else ""
    )
    if wrong:
        raise WorkspaceStartFailed(
            f"{path} cannot be used for sockets: {wrong}; remove it",
            user_message="the machine's directory for sockets is not safe to use",
        )


def _copy_skeleton(home: Path) -> None:
    skeleton = Path("/etc/skel")
    if skeleton.is_dir():
        shutil.copytree(skeleton, home, symlinks=True)
    else:
        home.mkdir()
    home.chmod(0o700)


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Replace a file atomically; it is private from the first byte."""
    fresh = file.with_name(file.name + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as stream:
        json.dump(content, stream, indent=1)
    fresh.replace(file)


def read_json(file: Path) -> dict[str, Any]:
    """Read the output of `write_json`; return an empty value for a missing or unreadable file."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def open_log(file: Path) -> int:
    """Open shelld's log to append, after renaming one that is too large; the caller closes it."""
    if file.exists() and file.stat().st_size > MAX_LOG_BYTES:
        file.replace(file.with_name(file.name + ".1"))
    return os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def last_words(file: Path, since: int, *, most: int = 2_000) -> str:
    """Read the end of a log, from `since` bytes on."""
    try:
        with file.open("rb") as stream:
            end = stream.seek(0, os.SEEK_END)
            stream.seek(max(min(since, end), end - most))
            return stream.read(most).decode(errors="replace").strip()
    except OSError:
        return ""


@contextmanager
def try_lock(file: Path) -> Iterator[bool]:
    """Hold the lock of a file while inside, if it is free; it ends with the process at the latest."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
