"""The launcher: a small single-threaded process that forks on behalf of shelld.

shelld itself has the threads of gRPC and a hundred megabytes of mappings. To fork it is slow, and Python
between its fork and its exec could meet a lock that no thread will ever release. This process was forked
before the first thread existed and imports only the modules below, so its children may run Python freely:
they take a session, a controlling terminal and an account, and only then exec, connect or bind.

Each request is one frame on a Unix stream: four bytes of length, the JSON of a `Job`, and descriptors
with the first byte: the *report* socket, then those that the operation needs. The answer goes to the report
socket, a `SOCK_SEQPACKET`: first `{"pid"}`; then either end of file, which means that exec succeeded
because the socket is close-on-exec; or `{"done": true}` with a descriptor; or `{"errno", "stage"}`.
So a hung home or a slow connect delays only its own job.

The parent of a program must be shelld, because the parent receives its exit status. So each job is forked
twice and the middle process ends at once: the kernel gives the orphan to the nearest sub-reaper or
PID 1, which is shelld.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import fcntl
import json
import os
import signal
import socket
import stat
import struct
import sys
import termios
from collections.abc import Callable
from typing import Any, NoReturn

from shelld.octets import bytes_of

LENGTH = struct.Struct(">I")
MAX_FDS = 4
_UMASK = 0o022
_USER_RC = ".ssh/rc"
_THREAD_SIGNALS = (32, 33)
"""SIGCANCEL and SIGSETXID of glibc: nptl(7)."""
_RT_SIGACTION = {"x86_64": 13, "aarch64": 134, "riscv64": 134}
"""Number of the system call, by the machine's name of uname(2)."""
_DEFAULT_ACTION = bytes(64)
"""The kernel's struct sigaction: SIG_DFL, no flag, an empty mask; longer than any machine's."""


def main() -> NoReturn:
    """Serve the socket whose descriptor is the first argument, in an interpreter of its own."""
    serve(socket.socket(fileno=int(sys.argv[1])))


def serve(requests: socket.socket) -> NoReturn:
    """Fork a child per request until shelld closes its end; never returns."""
    os.setsid()  # a Ctrl-C at shelld's terminal is shelld's to handle
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)  # SIGCHLD: the middle processes need no wait
    os.chdir("/")
    requests.set_inheritable(False)
    while True:
        try:
            job, fds = _receive(requests)
        except (OSError, EOFError):
            os._exit(0)
        _fork_twice(requests, job, fds)
        for fd in fds:
            os.close(fd)


def _receive(requests: socket.socket) -> tuple[dict[str, Any], list[int]]:
    head, fds = receive_with_fds(requests, LENGTH.size)
    if not head:
        raise EOFError
    head += _exactly(requests, LENGTH.size - len(head))
    return json.loads(_exactly(requests, LENGTH.unpack(head)[0])), fds


def receive_with_fds(source: socket.socket, size: int) -> tuple[bytes, list[int]]:
    """Receive up to `size` bytes and the descriptors sent with them, all close-on-exec.

    `socket.recv_fds` drops its flags in Python 3.11, so that received descriptors would be inherited.
    """
    room = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)
    data, ancillary, _, _ = source.recvmsg(size, room, socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    return data, list(fds)


def _exactly(requests: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = requests.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)


def _fork_twice(requests: socket.socket, job: dict[str, Any], fds: list[int]) -> None:
    report = socket.socket(fileno=os.dup(fds[0]))
    try:
        if os.fork() == 0:
            status = 0
            # If ignored here as well, a child that ends before this process would leave no status.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            try:
                if os.fork() == 0:
                    requests.close()
                    _child(job, fds, report)
            except OSError as error:
                _tell(report, errno=error.errno, stage="fork")
            finally:
                os._exit(status)
    except OSError as error:
        _tell(report, errno=error.errno, stage="fork")
    finally:
        report.close()


def _tell(report: socket.socket, **message: Any) -> None:
    with contextlib.suppress(OSError):  # shelld stopped waiting
        report.send(json.dumps(message).encode())


def _child(job: dict[str, Any], fds: list[int], report: socket.socket) -> NoReturn:
    stage = "start"
    try:
        _tell(report, pid=os.getpid())
        _reset_signals()
        os.umask(_UMASK)
        stage = "account"
        if "tty" in job:
            os.setsid()
            _take_descriptors(fds[1:], tty=job["tty"])
        _become(job["ids"])
        stage = job["op"]
        _OPERATIONS[job["op"]](job, report)
    except OSError as error:
        _tell(report, errno=error.errno, stage=stage)
    except Exception as error:  # noqa: BLE001 - the last handler of this process: no caller would see it
        _tell(report, errno=0, stage=f"{stage}: {error}")
    finally:
        os._exit(127)


def _reset_signals() -> None:
    """Reset signals to the dispositions that programs expect: exec keeps ignored ones."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in signal.valid_signals():
        if signal.getsignal(number) is not signal.SIG_DFL:  # which reads Python's own table, not the kernel's
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
    _reset_thread_signals()


def _reset_thread_signals() -> None:
    """Reset the two signals of glibc's threads to their default; a parent's posix_spawn left them ignored.

    glibc refuses these numbers, hence the system call. On other kinds of machines they stay unchanged.
    """
    if (number := _RT_SIGACTION.get(os.uname().machine)) is None:
        return
    system_call = ctypes.CDLL(None).syscall
    for signal_number in _THREAD_SIGNALS:
        system_call(ctypes.c_long(number), signal_number, _DEFAULT_ACTION, None, ctypes.c_size_t(8))


def _take_descriptors(fds: list[int], *, tty: bool) -> None:
    for target, fd in enumerate(fds):
        os.dup2(fd, target)
    if tty:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _become(ids: list[Any] | None) -> None:
    """Change to uid, gid and groups for good: real, effective and saved."""
    if ids is None:
        return
    uid, gid, groups = ids
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def _go_home(home: str) -> None:
    try:
        os.chdir(home)
    except OSError as error:
        # sshd's text, on the program's own stderr
        words = f"Could not chdir to home directory {home}: {error.strerror}\n"
        os.write(2, words.encode(errors="replace"))
        os.chdir("/")


def _sftp(job: dict[str, Any], report: socket.socket) -> None:
    """Serve sftp in this process: without an exec, it needs no file of the workspace."""
    from shelld.launch import sftp

    _go_home(job["cwd"])
    report.close()
    os.closerange(3, 65536)
    sftp.main()
    os._exit(0)


def _exec(job: dict[str, Any], report: socket.socket) -> None:
    _go_home(job["cwd"])
    if job["rc_shell"] and os.path.exists(os.path.join(job["cwd"], _USER_RC)):
        # From here the program counts as started, so that output of the rc is carried while it runs.
        report.close()
        os.closerange(3, 65536)
        _run_user_rc(job)
    try:
        os.execve(job["path"], *_words(job["argv"], job))  # noqa: S606 - the purpose of this process
    except OSError as error:
        if report.fileno() == -1:  # as with sshd: no other process would report it
            os.write(2, f"{job['path']}: {error.strerror}\n".encode(errors="replace"))
        raise


def _words(argv: list[str], job: dict[str, Any]) -> tuple[list[bytes], dict[bytes, bytes]]:
    """Return argv and the job's environment as execve(2) takes them, independent of the locale."""
    env = {bytes_of(name): bytes_of(value) for name, value in job["env"].items()}
    return [bytes_of(word) for word in argv], env


def _run_user_rc(job: dict[str, Any]) -> None:
    """Run `~/.ssh/rc` as sshd does and wait for its end: by /bin/sh in the account's shell, without input.

    Its status is ignored: sshd(8), SSHRC.
    """
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            argv = [os.path.basename(job["rc_shell"]), "-c", f'/bin/sh "$HOME/{_USER_RC}"']
            os.execve(job["rc_shell"], *_words(argv, job))  # noqa: S606 - the user's own file, as the user
        finally:
            os._exit(127)
    os.waitpid(pid, 0)


def _connect(job: dict[str, Any], report: socket.socket) -> None:
    """Connect to a Unix path with the account's permissions; the peer sees its credentials."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        # SO_SNDTIMEO bounds the wait for a full backlog; a non-blocking connect would fail at once.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(job["timeout_s"]))
        made.connect(bytes_of(job["path"]))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(0.0))
        socket.send_fds(report, [json.dumps({"done": True}).encode()], [made.fileno()])


def _timeval(seconds: float) -> bytes:
    return struct.pack("ll", int(seconds), int(seconds % 1 * 1_000_000))


def _bind(job: dict[str, Any], report: socket.socket) -> None:
    """Bind and listen on a Unix path that belongs to the account alone, from its creation on."""
    os.umask(0o177)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        made.bind(bytes_of(job["path"]))
        made.listen(job["backlog"])
        socket.send_fds(report, [json.dumps({"done": True}).encode()], [made.fileno()])


def _unlink(job: dict[str, Any], report: socket.socket) -> None:
    os.unlink(bytes_of(job["path"]))
    _tell(report, done=True)


def _open(job: dict[str, Any], report: socket.socket) -> None:
    """Open a regular file to append to, and make its directories, as the account; refuse a link."""
    path = bytes_of(job["path"])
    os.umask(0o077)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
    opened = os.open(path, flags, 0o600)
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    socket.send_fds(report, [json.dumps({"done": True}).encode()], [opened])


def _copy(job: dict[str, Any], report: socket.socket) -> None:
    """Copy the files of a directory into another one, as the account: links there are not followed."""
    import shutil

    mode = os.stat(job["target"]).st_mode & 0o7777
    shutil.copytree(job["source"], job["target"], symlinks=True, dirs_exist_ok=True)
    os.chmod(job["target"], mode)  # copytree sets the mode of its source
    _tell(report, done=True)


_OPERATIONS: dict[str, Callable[[dict[str, Any], socket.socket], None]] = {
    "exec": _exec,
    "sftp": _sftp,
    "connect": _connect,
    "bind": _bind,
    "unlink": _unlink,
    "open": _open,
    "copy": _copy,
}
