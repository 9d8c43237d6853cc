"""Processes that outlive the proxy: started detached, identified, and ended by pidfd instead of by number.

Not asyncio's subprocesses, because those are killed when their event loop ends.
"""

import asyncio
import os
import signal
import socket
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

_KEPT_SIGNALS = frozenset({signal.SIGKILL, signal.SIGSTOP})
"""Signals without a disposition to set."""
_PEER_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: struct ucred of unix(7)


class Child:
    """A process that we started in its own session; reaped when it ends, and left running when we end."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[int] = self._loop.create_future()
        """Its wait status, 0 to 255 or negative for a signal."""
        self._pidfd = os.pidfd_open(pid)
        self._loop.add_reader(self._pidfd, self._reap)

    def _reap(self) -> None:
        try:
            _, status = os.waitpid(self.pid, os.WNOHANG)
            code = os.waitstatus_to_exitcode(status)
        except ChildProcessError:  # SIGCHLD is set to be ignored; there is nothing to reap
            code = 255
        self._let_go()
        if not self.exited.done():
            self.exited.set_result(code)

    def kill(self) -> None:
        """Kill it and its process group; a wrapper ends the rest with it."""
        if self._pidfd >= 0:  # not reaped, so the number is still its own
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def release(self) -> None:
        """Stop watching; init reaps it once we are gone."""
        self._let_go()
        self.exited.cancel()

    def _let_go(self) -> None:
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1


def spawn_detached(argv: Sequence[str], env: Mapping[str, str], output_fd: int) -> Child:
    """Start `argv` (an absolute path first) in its own session; it inherits only `output_fd`.

    It has descriptors 0 to 2, `env` and no other variable, no blocked signal, and every signal at its default
    but 32 and 33, which glibc's posix_spawn leaves ignored: shelld's launcher resets them for programs. Its
    limits are those of this process at its start, which the proxy does not change.

    Raises: OSError.
    """
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, output_fd, 1),
        (os.POSIX_SPAWN_DUP2, output_fd, 2),
        *((os.POSIX_SPAWN_CLOSE, fd) for fd in _inherited_descriptors()),
    ]
    return Child(
        os.posix_spawn(
            argv[0],
            list(argv),
            dict(env),
            file_actions=actions,
            setsid=True,
            setsigmask=[],
            setsigdef=signal.valid_signals() - _KEPT_SIGNALS,
        )
    )


def _inherited_descriptors() -> list[int]:
    """Return the descriptors above 2 that an exec would pass on: those that our own parent left open.

    Python opens every descriptor close-on-exec (PEP 446).
    """
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the listing's own descriptor is closed by now
            if (fd := int(name)) > 2 and os.get_inheritable(fd):
                found.append(fd)
    return found


class Handle:
    """A process by pidfd; it never becomes another process with the same number."""

    def __init__(self, pid: int) -> None:
        """Open the process. Raises: ProcessLookupError when there is none."""
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._pidfd)

    async def end(self, *, grace_s: float) -> None:
        """Terminate it, kill it after `grace_s` seconds, and return when it is gone."""
        for sign, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, None)):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, sign)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self.gone()
                return

    async def gone(self) -> None:
        """Wait until it has ended."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(self._pidfd, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self._pidfd)


def listener_pid(path: Path) -> int | None:
    """Return the process that listens on a Unix socket, as seen from our PID namespace; None without one.

    0 stands for a process that cannot be identified, also when the backlog is full.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except BlockingIOError:
            return 0
        except OSError:
            return None
        data = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
        pid: int = _PEER_CREDENTIALS.unpack(data)[0]
        return pid


def started_at(pid: int) -> int | None:
    """Return the start time in clock ticks since boot: with the PID, it identifies a process for ever."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # Field 22; the name in field 2 may contain spaces and parentheses.
    return int(stat.rpartition(b")")[2].split()[19])


def has_argument(pid: int, argument: str) -> bool:
    """Return whether a process was started with the argument `argument`."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return os.fsencode(argument) in words
