"""Workspaces on this machine: each is a shelld process with a home of its own.

It runs under the proxy's account, separated by namespaces if the kernel permits it. That keeps workspaces out
of each other's way; it is no security boundary against hostile users.

A shelld outlives the proxy that started it. Whether it runs is asked of the kernel (is there a listener on
the socket?), never of a file, so that several proxies, and a proxy after a crash, agree.
"""

import asyncio
import errno
import os
import pwd
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from proxy.errors.workspaces import WorkspaceNotFound, WorkspaceStartFailed, WorkspaceUnstartable
from proxy.model import Endpoint, Phase, User, WorkspaceName
from proxy.settings.workspace import WorkspaceSettings
from proxy.userstring import format_user_string
from proxy.workspaces.backend import (
    Features,
    Report,
    Stop,
    WorkspaceEvent,
    WorkspacePhase,
    WorkspaceRecord,
    WorkspaceRequest,
)
from proxy.workspaces.local import namespaces
from proxy.workspaces.local.logtail import lines_of
from proxy.workspaces.local.namespaces import Separation
from proxy.workspaces.local.process import (
    Child,
    Handle,
    has_argument,
    listener_pid,
    spawn_detached,
    started_at,
)
from proxy.workspaces.local.state import (
    Places,
    State,
    last_words,
    open_log,
    read_json,
    try_lock,
    write_json,
)
from proxy.workspaces.ownership import Title, check_title
from proxy.workspaces.pending_starts import PendingStart, PendingStarts
from proxy.workspaces.shelldconfig import shelld_config
from proxy.workspaces.stop_holds import USUAL_WARN_S, check_hold, check_may_start, warn_before_s

INIT = "init"
"""Who ended a workspace whose required init script failed, as shelld notes it."""
STOP_GRACE_S = 10.0
"""Seconds from TERM to KILL: shelld gives its programs about half of it."""

_POLL_S = 0.01  # a start takes a few hundred of these milliseconds; the kernel has no event to wait for
_LOCK_POLL_S = 0.05
_PYTHON = (sys.executable, "-P", "-m", "shelld")  # -P: imports nothing from `/`

_log = structlog.get_logger("workspaces")


class LocalBackend:
    """The Backend of one machine."""

    def __init__(
        self,
        state_dir: Path,
        settings: WorkspaceSettings,
        *,
        command: Sequence[str] = _PYTHON,
        runtime_parent: Path | None = None,
    ) -> None:
        """Create it; `command` starts a shelld, and sockets are below `runtime_parent`."""
        self._state = State(state_dir, runtime_parent)
        self._settings = settings
        self._command = tuple(command)
        self._starts = PendingStarts(settings.start_timeout_s)
        self._children: set[Child] = set()
        self._separation: Separation | None = None
        self._choosing = asyncio.Lock()
        own = _own_account()["name"] or ""
        self.features = Features(repositories=True, account=own, stops_idle=True)

    async def find(self, name: str) -> WorkspaceRecord | None:
        """Read the record of a workspace, with its phase."""
        record = self._state.record(name)
        return None if record is None else self._running(record)

    async def holder(self, name: str) -> WorkspaceRecord | None:
        """Read the record of the owner of a name."""
        return self._state.holder(name)

    async def list(self) -> Sequence[WorkspaceRecord]:
        """Read all records, with their phases."""
        return [self._running(record) for record in self._state.records()]

    async def kept(self) -> Sequence[WorkspaceRecord]:
        """Read the records of kept homes."""
        return list(self._state.kept())

    async def locate(self, name: WorkspaceName) -> Endpoint | None:
        """Return the socket if shelld listens on it."""
        record = self._state.record(name)
        return None if record is None else _answering(name, self._state.places(name), record.user)

    async def upkeep(self) -> None:
        """Do nothing: private sockets need no certificates."""

    def check_access(self, request: WorkspaceRequest) -> None:
        """Allow everything: there are no rules besides the blueprint's."""

    async def ensure(self, request: WorkspaceRequest, report: Report) -> Endpoint:
        """Return the socket; start shelld if it does not listen."""
        places = self._state.places(request.name)
        title = self._check_owner(request)
        if endpoint := _answering(request.name, places):
            if title is Title.UNRECORDED:
                await self._record_owner(request, places)
            return endpoint
        check_may_start(request)
        check_hold(self._state.stop_of(places), request)
        return await self._starts.join(request, report, lambda start: self._start(start, request, places))

    async def stop(self, name: WorkspaceName, stop: Stop) -> None:
        """End shelld, and record the stop."""
        async with _locked(self._places_of(name)) as places:
            if _answering(name, places) is not None:
                self._state.note_stop(places, stop)
            await _end(_pids(places), places)
            self._state.remove_runtime(places)

    async def give(self, name: WorkspaceName, user: User, stop: Stop) -> None:
        """End shelld, and change the owner in the record."""
        async with _locked(self._places_of(name, kept=True)) as places:
            if _answering(name, places) is not None:
                self._state.note_stop(places, stop)
            await _end(_pids(places), places)
            self._state.remove_runtime(places)
            self._state.give(places, user)

    async def delete(self, name: WorkspaceName, *, purge: bool) -> None:
        """End shelld, and delete the record and with `purge` the home."""
        async with _locked(self._places_of(name, kept=purge)) as places:
            await _end(_pids(places), places)
            self._state.remove_runtime(places)
            self._state.forget(places, purge=purge)

    async def logs(self, name: WorkspaceName, *, follow: bool, tail: int) -> AsyncIterator[str]:
        """Follow shelld's log file."""
        async for line in lines_of(self._places_of(name).log, follow=follow, tail=tail):
            yield line

    async def events(self, name: WorkspaceName) -> Sequence[WorkspaceEvent]:
        """Return nothing: this backend has no messages besides shelld's log."""
        self._places_of(name)
        return []

    async def close(self) -> None:
        """Cancel starts, and stop watching children."""
        await self._starts.close()
        for child in tuple(self._children):
            child.release()

    def _places_of(self, name: WorkspaceName, *, kept: bool = False) -> Places:
        """Return the paths of a workspace, with `kept` also of a home without. Raises: WorkspaceNotFound."""
        if (self._state.holder(name) if kept else self._state.record(name)) is None:
            raise WorkspaceNotFound(f"there is no workspace {name!r}")
        return self._state.places(name)

    def _running(self, record: WorkspaceRecord) -> WorkspaceRecord:
        """Add facts of the kernel and of the files beside the record."""
        places = self._state.places(record.name)
        record = replace(record, location=str(places.root))
        if listener_pid(places.socket) is not None:
            return replace(record, phase=WorkspacePhase.RUNNING)
        stop = self._state.stop_of(places)
        if stop is not None and stop.by == INIT:
            return replace(record, phase=WorkspacePhase.FAILED, detail=stop.reason)
        return replace(record, stop=stop)

    def _check_owner(self, request: WorkspaceRequest) -> Title:
        """Return the user's right; a missing workspace is allowed if it may be created.

        Raises: WorkspaceNotFound, OwnerUnknown.
        """
        record = self._state.record(request.name)
        if record is None and request.may_create:
            record = self._state.holder(request.name)
            if record is None:
                return Title.RECORDED
        return check_title(record, request.name, request.user)

    async def _record_owner(self, request: WorkspaceRequest, places: Places) -> None:
        """Record the owner of a workspace that an older release started.

        A failure does not lock the user out.
        """
        try:
            async with _locked(places):
                if self._check_owner(request) is Title.UNRECORDED:
                    self._state.give(places, request.user)
        except OSError as exc:
            _log.warning("owner not recorded", workspace=request.name, why=str(exc))

    async def _start(self, start: PendingStart, request: WorkspaceRequest, places: Places) -> Endpoint:
        try:
            return await self._prepare(start, request, places)
        except OSError as exc:
            raise _failed_by_system(request.name, exc) from exc

    async def _prepare(self, start: PendingStart, request: WorkspaceRequest, places: Places) -> Endpoint:
        start.tell(Phase.PREPARING, f"preparing workspace {request.name}")
        places.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        async with _locked(places):
            if endpoint := _answering(request.name, places):
                return endpoint  # another proxy was faster
            # A shelld that listens no more may still be ending, and would share the home.
            await _end(_pids(places), places)
            separation = await self._choose()
            title = self._check_owner(request)
            self._state.make(places, record_of(request))
            if title is Title.UNRECORDED:
                self._state.give(places, request.user)
            self._state.make_runtime(places)
            write_json(places.config, local_config(request, places, separation, self._settings))
            self._state.forget_stop(places)
            if separation.kind == "none":
                start.tell(
                    Phase.STARTING, "workspaces are plain processes here, not set apart from each other"
                )
            start.tell(Phase.STARTING, f"starting workspace {request.name}")
            if any(script.required for script in request.blueprint.init):
                start.tell(Phase.STARTING, f"running the init scripts that workspace {request.name} requires")
            return await self._launch(request.name, places, separation)

    async def _choose(self) -> Separation:
        async with self._choosing:
            if self._separation is None:
                self._separation = await namespaces.choose(self._settings.namespaces)
            return self._separation

    async def _launch(self, name: WorkspaceName, places: Places, separation: Separation) -> Endpoint:
        program = [*self._command, "--listen", f"unix://{places.socket}", "--config", str(places.config)]
        argv = separation.wrap(program, hostname=name, uid=os.geteuid(), gid=os.getegid())
        env = {"PATH": namespaces.SEARCH_PATH, "LANG": "C.UTF-8", "HOME": str(places.home)}
        log_fd = open_log(places.log)
        try:
            log_from = os.fstat(log_fd).st_size
            child = spawn_detached(argv, env, log_fd)
        finally:
            os.close(log_fd)
        self._children.add(child)
        child.exited.add_done_callback(lambda _: self._children.discard(child))
        try:
            endpoint = await _wait_until_answering(name, places, child, log_from)
        except BaseException:
            child.kill()
            self._check_scripts(name, places)
            raise
        if pid := listener_pid(places.socket):
            write_json(places.running, {"pid": pid, "started_at": started_at(pid)})
        _log.info("workspace started", workspace=name, by=separation.kind)
        return endpoint

    def _check_scripts(self, name: WorkspaceName, places: Places) -> None:
        """Check the init scripts. Raises: WorkspaceUnstartable when shelld noted a failed required one."""
        noted = self._state.stop_of(places)
        if noted is not None and noted.by == INIT:
            raise WorkspaceUnstartable(f"workspace {name}: {noted.reason}", user_message=noted.reason)


def local_config(
    request: WorkspaceRequest, places: Places, separation: Separation, settings: WorkspaceSettings
) -> dict[str, Any]:
    """Return shelld's configuration for a workspace of this machine; it stops by itself when idle."""
    own_idle_s = request.blueprint.idle_stop_s
    idle_stop_s = settings.idle_stop_s if own_idle_s is None else own_idle_s
    config = shelld_config(
        request,
        account={**_own_account(), "home": str(places.home)},
        runtime_dir=str(places.runtime),
        hostname=None if separation.kind == "none" else request.name,
        idle_stop_s=idle_stop_s,
    )
    warn_s = warn_before_s(settings.idle_warn_s, idle_stop_s)
    # Sent only where shelld would choose another: an older one refuses unknown fields.
    is_usual = warn_s == warn_before_s(USUAL_WARN_S, idle_stop_s)
    return config | {"stop_note": str(places.stopped)} | ({} if is_usual else {"idle_warn_s": warn_s})


def record_of(request: WorkspaceRequest) -> WorkspaceRecord:
    """Return the record of a new workspace."""
    return WorkspaceRecord(
        request.name,
        request.user.name,
        request.blueprint.name,
        datetime.now(UTC),
        user_string=format_user_string(replace(request.origin, account="")),
        owner=request.user.id,
    )


def _own_account() -> dict[str, Any]:
    """Return the account of this process; a uid without passwd entry has no name or shell."""
    account: dict[str, Any] = {"uid": os.geteuid(), "gid": os.getegid(), "name": None, "shell": None}
    try:
        entry = pwd.getpwuid(os.geteuid())
    except KeyError:
        return account
    return {**account, "name": entry.pw_name, "shell": entry.pw_shell or None}


def _answering(name: WorkspaceName, places: Places, user: str = "") -> Endpoint | None:
    """Return the socket if a process listens on it; this takes only a few system calls."""
    if (pid := listener_pid(places.socket)) is None:
        return None
    try:
        made_ns = places.socket.stat().st_mtime_ns
    except OSError:  # it has just unlinked its socket: it is ending
        return None
    return Endpoint(name, f"unix://{places.socket}", generation=f"{pid}-{made_ns}", user=user)


async def _wait_until_answering(name: WorkspaceName, places: Places, child: Child, log_from: int) -> Endpoint:
    while True:
        if endpoint := _answering(name, places):
            return endpoint
        if child.exited.done():
            status = child.exited.result()
            said = last_words(places.log, log_from) or "it said nothing"
            raise WorkspaceStartFailed(
                f"shelld of {name} ended with status {status} before it answered: {said}",
                user_message="the workspace ended while it was starting; its operator can see why in the log",
            )
        await asyncio.sleep(_POLL_S)


def _failed_by_system(name: WorkspaceName, exc: OSError) -> WorkspaceStartFailed:
    full = exc.errno in (errno.ENOSPC, errno.EDQUOT)
    return WorkspaceStartFailed(
        f"workspace {name} could not be started: {exc}",
        user_message="the workspace could not be started: "
        + ("its disk is full" if full else (exc.strerror or "the machine refused").lower()),
    )


def _pids(places: Places) -> set[int]:
    """Find all processes that are this workspace's shelld, or were when it last answered."""
    noted = read_json(places.running)
    pid, begun = noted.get("pid"), noted.get("started_at")
    found = {listener_pid(places.socket) or 0}
    if isinstance(pid, int) and begun is not None and started_at(pid) == begun:
        found.add(pid)
    return found - {0}


async def _end(pids: Iterable[int], places: Places) -> None:
    for pid in pids:
        try:
            with Handle(pid) as handle:
                # Read after the handle was opened, so it is the command line of this process.
                if has_argument(pid, str(places.config)):
                    await handle.end(grace_s=STOP_GRACE_S)
        except ProcessLookupError:
            continue
    places.running.unlink(missing_ok=True)


@asynccontextmanager
async def _locked(places: Places) -> AsyncIterator[Places]:
    """Hold the lock of a workspace, which excludes all other starts and stops, in every proxy."""
    while True:
        with try_lock(places.lock) as held:
            if held:
                yield places
                return
        await asyncio.sleep(_LOCK_POLL_S)
