"""shelld's side of the launcher: sends a job and receives its result."""

from __future__ import annotations

import array
import asyncio
import contextlib
import gc
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shelld.errors import ShelldError
from shelld.launch import launcher
from shelld.launch.account import Ids
from shelld.launch.fds import readable
from shelld.launch.reaper import Reaper
from shelld.log import Log

_log = Log("shelld.launch.launch")
_REPORT_BYTES = 4096
_ATTEMPTS = 3


class LaunchError(ShelldError, OSError):
    """A job that failed before its purpose; `stage` names the failed step."""

    def __init__(self, number: int, stage: str) -> None:
        """Take an errno, 0 for a failure outside the kernel."""
        OSError.__init__(self, number, os.strerror(number) if number else stage)
        self.stage = stage


@dataclass(frozen=True, slots=True)
class Command:
    """One execve: absolute path, whole argv, whole environment, working directory.

    An empty path selects the sftp server that is part of shelld.
    """

    path: str
    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    rc_shell: str = ""
    """Absolute path of the shell that first runs `.ssh/rc` of the directory, if that exists; empty: never."""


def fork_launcher() -> tuple[int, socket.socket]:
    """Start the launcher; return its pid and shelld's end of its socket. It ends when that is closed.

    Only for a process of one thread, before uvloop is imported: libuv replaces descriptors of its own in
    every child that is forked afterwards.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    pid = os.fork()
    if pid == 0:
        gc.disable()  # a collection would copy every page that is still shared with shelld
        ours.close()
        launcher.serve(theirs)
    theirs.close()
    ours.setblocking(False)
    return pid, ours


def _execute_launcher() -> tuple[int, socket.socket]:
    """Start another launcher in an interpreter of its own, after the first one was killed.

    The command line is that of this process up to its interpreter: a bundle is started through a loader of
    its own, which `sys.executable` does not name.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    whole = Path("/proc/self/cmdline").read_bytes().split(b"\0")[:-1]
    loader = whole[: max(0, len(whole) - len(sys.orig_argv))]
    code = f"import sys; sys.path[:] = {sys.path!r}; from shelld.launch import launcher; launcher.main()"
    started = subprocess.Popen(
        [*loader, sys.executable, "-I", "-S", "-c", code, str(theirs.fileno())],
        executable="/proc/self/exe",
        pass_fds=[theirs.fileno()],
    )
    started.returncode = 0  # the reaper waits for it, not subprocess
    theirs.close()
    ours.setblocking(False)
    return started.pid, ours


class Launcher:
    """A client of the launcher that runs jobs as an account. One per shelld; safe for concurrent callers."""

    def __init__(self, forked: tuple[int, socket.socket], reaper: Reaper) -> None:
        """Take the result of `fork_launcher`, and the reaper."""
        self.pid, self._requests = forked
        self._reaper = reaper
        self._turn = asyncio.Lock()

    async def start(
        self, command: Command, ids: Ids | None, stdio: tuple[int, int, int], *, tty: bool
    ) -> tuple[int, asyncio.Future[os.waitid_result]]:
        """Start a program in a session of its own; return its pid and the future of its end.

        The caller closes `stdio`. With `tty`, descriptor 0 becomes the controlling terminal.

        Raises: LaunchError of stage "fork", "account" or "exec" with the errno of that call.
        """
        job = {
            "op": "exec" if command.path else "sftp",
            "path": command.path,
            "argv": list(command.argv),
            "env": dict(command.env),
            "cwd": command.cwd,
            "rc_shell": command.rc_shell,
            "tty": tty,
        }
        with self._reaper.launching():
            async with self._sent(job, ids, stdio) as (report, first):
                end = self._reaper.watch(first["pid"])
                while message := await report.next():
                    _raise(message)
                return first["pid"], end

    async def connect(self, path: str, ids: Ids | None, *, timeout_s: float) -> socket.socket:
        """Connect to a Unix path as an account; EAGAIN when its backlog stays full.

        Raises: LaunchError of stage "connect".
        """
        return await self._socket({"op": "connect", "path": path, "timeout_s": timeout_s}, ids)

    async def bind(self, path: str, ids: Ids | None, *, backlog: int) -> socket.socket:
        """Listen on a new Unix path of mode 0600 as an account.

        Raises: LaunchError of stage "bind".
        """
        return await self._socket({"op": "bind", "path": path, "backlog": backlog}, ids)

    async def unlink(self, path: str, ids: Ids | None) -> None:
        """Remove a path as an account.

        Raises: LaunchError of stage "unlink".
        """
        async with self._sent({"op": "unlink", "path": path}, ids) as (report, _):
            while message := await report.next():
                _raise(message)

    async def copy(self, source: str, target: str, ids: Ids | None) -> None:
        """Copy the content of a directory into another one as an account, which owns the copies.

        Raises: LaunchError of stage "copy".
        """
        async with self._sent({"op": "copy", "source": source, "target": target}, ids) as (report, _):
            while message := await report.next():
                _raise(message)

    async def open(self, path: str, ids: Ids | None) -> int:
        """Open a regular file of mode 0600 as an account, to read and to append; make its directories.

        The caller closes the descriptor. Raises: LaunchError of stage "open".
        """
        return await self._descriptor({"op": "open", "path": path}, ids)

    async def _socket(self, job: dict[str, Any], ids: Ids | None) -> socket.socket:
        made = socket.socket(fileno=await self._descriptor(job, ids))
        made.setblocking(False)
        return made

    async def _descriptor(self, job: dict[str, Any], ids: Ids | None) -> int:
        async with self._sent(job, ids) as (report, _):
            while message := await report.next():
                _raise(message)
                if report.received:
                    return report.received.pop()
        raise LaunchError(0, "the launcher's child ended without a word")

    @contextlib.asynccontextmanager
    async def _sent(
        self, job: dict[str, Any], ids: Ids | None, fds: Sequence[int] = ()
    ) -> AsyncIterator[tuple[_Report, dict[str, Any]]]:
        """Send a job; yield its report and the first message of it, which holds the pid.

        A launcher may die with the job in its socket. A report that ends before its first message means that
        the job was never started, so it is sent to the next launcher.
        """
        for _ in range(_ATTEMPTS):
            async with _Report() as report:
                await self._send(job, ids, [report.theirs.fileno(), *fds])
                report.theirs.close()
                if first := await report.next():
                    _raise(first)
                    yield report, first
                    return
        raise LaunchError(0, "the launcher ended")

    async def _send(self, job: dict[str, Any], ids: Ids | None, fds: list[int]) -> None:
        job["ids"] = None if ids is None else [ids.uid, ids.gid, list(ids.groups)]
        body = json.dumps(job).encode()
        async with self._turn:
            try:
                await self._send_frame(body, fds)
            except (BrokenPipeError, ConnectionResetError):
                _log.warning("launcher was gone, another one is started")
                self._requests.close()
                self.pid, self._requests = _execute_launcher()
                await self._send_frame(body, fds)

    async def _send_frame(self, body: bytes, fds: list[int]) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        head = launcher.LENGTH.pack(len(body))
        loop = asyncio.get_running_loop()
        while True:
            try:
                sent = self._requests.sendmsg([head, body], rights, socket.MSG_NOSIGNAL)
                break
            except BlockingIOError:
                await asyncio.sleep(0.001)  # the launcher forks others; its socket holds 200 kB
        if rest := (head + body)[sent:]:
            await loop.sock_sendall(self._requests, rest)

    def close(self) -> None:
        """End the launcher process; the programs that it started continue."""
        self._requests.close()


def _raise(message: dict[str, Any]) -> None:
    if "errno" in message:
        raise LaunchError(int(message["errno"] or 0), str(message["stage"]))


class _Report:
    """The socket on which one job reports."""

    def __init__(self) -> None:
        self.received: list[int] = []

    async def __aenter__(self) -> _Report:
        try:
            self._ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise LaunchError(error.errno or 0, "shelld") from error
        self._ours.setblocking(False)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ours.close()
        self.theirs.close()
        for fd in self.received:
            with contextlib.suppress(OSError):
                os.close(fd)

    async def next(self) -> dict[str, Any]:
        """Return the next message; an empty one means that the job has executed its program or ended."""
        while True:
            try:
                data, fds = launcher.receive_with_fds(self._ours, _REPORT_BYTES)
            except BlockingIOError:
                await readable(self._ours.fileno())
                continue
            except ConnectionResetError:
                return {}
            self.received.extend(fds)
            message: dict[str, Any] = json.loads(data) if data else {}
            return message
