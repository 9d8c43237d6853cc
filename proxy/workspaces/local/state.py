"""What the local backend keeps on disk, and where.

    <home>/workspaces/<name>/workspace.json   whose it is; written once, and when it is handed over
                             kept.json        whose the home is, once the workspace is deleted without it
                             config.json      what shelld is told; written at every start
                             running.json     which process it was; written when it answered
                             stopped.json     why it was stopped; gone with the next start
                             shelld.log       what shelld says; the one before as shelld.log.1
                             lock             held by whoever starts or stops it
                             home/            the person's files
    <runtime>/<8 hex>/shelld.sock             and sockets of ssh-agents: private, short paths

A socket path has at most 107 bytes, so sockets live apart from the rest: in /run for root and in
/tmp for everybody else. Not in XDG_RUNTIME_DIR, which is taken away when the user logs out.
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
    """Every path of one workspace."""

    root: Path
    runtime: Path

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def record(self) -> Path:
        return self.root / "workspace.json"

    @property
    def kept(self) -> Path:
        return self.root / "kept.json"

    @property
    def config(self) -> Path:
        return self.root / "config.json"

    @property
    def running(self) -> Path:
        return self.root / "running.json"

    @property
    def stopped(self) -> Path:
        return self.root / "stopped.json"

    @property
    def log(self) -> Path:
        return self.root / "shelld.log"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def socket(self) -> Path:
        return self.runtime / "shelld.sock"


class State:
    """The directory of all workspaces, and the one of their sockets."""

    def __init__(self, state_dir: Path, runtime_parent: Path | None = None) -> None:
        self.workspaces = state_dir / "workspaces"
        uid = os.geteuid()
        parent = runtime_parent or Path("/run" if uid == 0 else "/tmp")  # noqa: S108 - private_dir checks it
        digest = hashlib.sha256(os.fsencode(state_dir.resolve())).hexdigest()[:8]
        self.runtime = parent / f"fairlead-{uid}-{digest}"
        # As root a workspace may serve several accounts, and each must reach its own sockets in there.
        self._runtime_mode = 0o711 if uid == 0 else 0o700

    def places(self, name: str) -> Places:
        """Give the paths of a workspace, there or not.

        Raises: WorkspaceNotFound for what cannot be a name, `..` above all.
        """
        if not _NAME.fullmatch(name):
            raise WorkspaceNotFound(f"{name!r} cannot be the name of a workspace")
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        return Places(self.workspaces / name, self.runtime / digest)

    def record(self, name: str) -> WorkspaceRecord | None:
        """Read whose workspace it is; None when there is none.

        Raises: WorkspaceStartFailed when its record cannot be read: it may be anybody's then.
        """
        return _read_record(name, self.places(name).record)

    def holder(self, name: str) -> WorkspaceRecord | None:
        """Read whose a name is: the workspace's, or the home's that a deleted workspace left.

        Raises: as `record`.
        """
        places = self.places(name)
        found = _read_record(name, places.record) or _read_record(name, places.kept)
        if found is not None or not places.home.exists():
            return found
        # A home that an older release kept has no record; its lock was made with it, and never written to.
        try:
            made_at = datetime.fromtimestamp(places.lock.stat().st_mtime, UTC)
        except OSError:
            made_at = datetime.min.replace(tzinfo=UTC)
        return WorkspaceRecord(WorkspaceName(name), "", "", made_at)

    def records(self) -> Iterator[WorkspaceRecord]:
        """Give every workspace that can be read, by name; a broken one hides no other."""
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
        """Give the homes that deleted workspaces left, by name, where it was noted whose they are."""
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
        """Make what a workspace needs before its first start: the home is filled before it has a name."""
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
        """Record a user as the owner of a workspace, or of a home that was kept."""
        found = self.holder(places.root.name)
        assert found is not None
        file = places.record if places.record.exists() else places.kept
        write_json(file, _content(replace(found, user=user.name, owner=user.id)))

    def note_stop(self, places: Places, stop: Stop) -> None:
        """Keep why a workspace was stopped."""
        write_json(places.stopped, {"by": stop.by, "at": stop.at.isoformat(), "reason": stop.reason})

    def stop_of(self, places: Places) -> Stop | None:
        """Say why a workspace was stopped, as far as anybody noted it."""
        noted = read_json(places.stopped)
        try:
            return Stop(noted["by"], datetime.fromisoformat(noted["at"]), noted["reason"])
        except (KeyError, TypeError, ValueError):
            return None

    def forget_stop(self, places: Places) -> None:
        """It is started again."""
        places.stopped.unlink(missing_ok=True)

    def forget(self, places: Places, *, purge: bool) -> None:
        """Take a stopped workspace's record away; the home only with `purge`, else whose it is stays."""
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
        """Make the directory of the sockets, or make sure that it is still ours alone.

        Raises: WorkspaceStartFailed when somebody else may have had a hand in it.
        """
        for directory in (self.runtime, places.runtime):
            _private_dir(directory, self._runtime_mode)

    def remove_runtime(self, places: Places) -> None:
        """Take the sockets of a stopped workspace away; the directory of all of them stays."""
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
        path.chmod(mode)  # whatever the umask was
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
    """Replace a file whole: a reader sees the old or the new one, private from the first byte."""
    fresh = file.with_name(file.name + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as stream:
        json.dump(content, stream, indent=1)
    fresh.replace(file)


def read_json(file: Path) -> dict[str, Any]:
    """Read what `write_json` wrote; empty when there is none, or none that can be read."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def open_log(file: Path) -> int:
    """Open shelld's log to append, putting one that grew large aside; the caller closes it."""
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
    """Hold the lock of a file inside, when nobody else does; it goes with the process at the latest."""
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
