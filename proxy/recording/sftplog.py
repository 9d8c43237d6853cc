"""A log of sftp operations, as lines `[seconds, operation, {…}]`, each written when the server has answered.

    open      path, flags, handle, status          rename, symlink, hardlink   from, to, status
    close     path, read, written, handle, status  remove, mkdir, rmdir, list  path, status
    setstat   path, status                         gap, stopped                what is missing, and why

`status` is `ok` or the server's word for a failure. File contents are not kept. For a stream that cannot be
parsed the log stops, with a line that says so: the bytes themselves are never changed or delayed.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from proxy.recording.lines import event_line, header_line
from proxy.recording.sftpwire import Packet, Packets, SftpInvalid, Type

FORMAT: Final = "sftp-log-1"

MAX_PENDING = 16_384
"""Requests without an answer; clients keep 64 to some thousands under way."""
MAX_HANDLES = 4_096

_FLAGS = ((1, "read"), (2, "write"), (4, "append"), (8, "create"), (16, "truncate"), (32, "exclusive"))

_STATUSES = (
    "ok",
    "eof",
    "no such file",
    "permission denied",
    "failure",
    "bad message",
    "no connection",
    "connection lost",
    "unsupported",
)

_PATH_REQUESTS = {
    Type.REMOVE: "remove",
    Type.MKDIR: "mkdir",
    Type.RMDIR: "rmdir",
    Type.SETSTAT: "setstat",
    Type.OPENDIR: "list",
}

_EXTENSIONS = {
    "posix-rename@openssh.com": "rename",
    "hardlink@openssh.com": "hardlink",
    "lsetstat@openssh.com": "setstat",
}
_TWO_PATHS = frozenset({"rename", "hardlink"})


@dataclass(slots=True)
class _OpenFile:
    """A file or directory that is open."""

    path: str
    number: int
    """Our number, from 1: the server's handle may be bytes of any kind."""
    read: int = 0
    written: int = 0
    is_directory: bool = False


@dataclass(slots=True)
class _Request:
    """A request that waits for its answer; `file` is for a read, a write or a close."""

    operation: str
    about: dict[str, Any] = field(default_factory=dict)
    file: _OpenFile | None = None
    length: int = 0


def header(*, timestamp: int, title: str, about: Mapping[str, Any]) -> bytes:
    """Return the header line."""
    return header_line(
        {"version": 1, "log": "sftp", "timestamp": timestamp, "title": title, "fairlead": about}
    )


class SftpLog:
    """The parser of both directions of one sftp subsystem; its memory is bounded."""

    def __init__(self) -> None:
        self._up = Packets()
        self._down = Packets()
        self._pending: dict[int, _Request] = {}
        self._handles: dict[bytes, _OpenFile] = {}
        self._opened = 0
        self._stopped = False

    def from_client(self, at_s: float, data: bytes | bytearray | memoryview) -> Iterator[bytes]:
        """Yield lines for data of the client. Consume them before the answer is fed."""
        return self._follow(at_s, data, self._up, self._request)

    def from_server(self, at_s: float, data: bytes | bytearray | memoryview) -> Iterator[bytes]:
        """Yield lines for data of the server."""
        return self._follow(at_s, data, self._down, self._answer)

    def gap(self, at_s: float, began_s: float, lost_bytes: int) -> bytes:
        """Return the line of a gap."""
        return event_line(at_s, "gap", {"since": round(began_s, 1), "lost_bytes": lost_bytes})

    def ended(self, at_s: float) -> Iterator[bytes]:
        """Yield the totals of files that were never closed."""
        if not self._stopped:
            for file in self._handles.values():
                if not file.is_directory:
                    yield event_line(at_s, "close", _totals(file) | {"status": "open at the end"})
        self._handles.clear()

    def _follow(
        self,
        at_s: float,
        data: bytes | bytearray | memoryview,
        packets: Packets,
        take: Callable[[Packet], tuple[str, dict[str, Any]] | None],
    ) -> Iterator[bytes]:
        if self._stopped:
            return
        try:
            for packet in packets.feed(data):
                if (line := take(packet)) is not None:
                    yield event_line(at_s, *line)
        except SftpInvalid as exc:
            yield from self.ended(at_s)
            self._stopped = True
            self._pending.clear()
            yield event_line(at_s, "stopped", {"reason": str(exc)})

    # ---------------------------------------------------------------------------- from the client

    def _request(self, packet: Packet) -> None:
        if packet.type == Type.INIT:
            return
        number = packet.number()
        if (request := self._read_request(packet)) is None:
            return
        if len(self._pending) >= MAX_PENDING:
            raise SftpInvalid(f"more than {MAX_PENDING} requests without an answer")
        self._pending[number] = request

    def _read_request(self, packet: Packet) -> _Request | None:
        kind = packet.type
        if kind in (Type.READ, Type.WRITE):
            file = self._file(packet)
            packet.long()  # the offset
            return _Request("read" if kind == Type.READ else "write", file=file, length=packet.number())
        if kind == Type.OPEN:
            path, flags = packet.text(), packet.number()
            words = [word for bit, word in _FLAGS if flags & bit]
            return _Request("open", {"path": path, "flags": words})
        if kind == Type.CLOSE:
            handle = packet.string()
            # No later request may use it, for any answer of the server.
            return _Request("close", file=self._handles.pop(handle, None))
        if (operation := _PATH_REQUESTS.get(Type(kind)) if kind in _KNOWN else None) is not None:
            return _Request(operation, {"path": packet.text()})
        return self._read_rare(packet)

    def _read_rare(self, packet: Packet) -> _Request | None:
        match packet.type:
            case Type.FSETSTAT:
                file = self._file(packet)
                return _Request("setstat", {"path": file.path if file else ""})
            case Type.RENAME:
                return _Request("rename", {"from": packet.text(), "to": packet.text()})
            case Type.SYMLINK:
                # OpenSSH and clients like it send the target first, unlike the draft.
                target, link = packet.text(), packet.text()
                return _Request("symlink", {"from": link, "to": target})
            case Type.EXTENDED:
                operation = _EXTENSIONS.get(packet.text())
                if operation in _TWO_PATHS:
                    return _Request(operation, {"from": packet.text(), "to": packet.text()})
                return _Request(operation, {"path": packet.text()}) if operation else None
        return None

    def _file(self, packet: Packet) -> _OpenFile | None:
        return self._handles.get(packet.string())

    # ---------------------------------------------------------------------------- from the server

    def _answer(self, packet: Packet) -> tuple[str, dict[str, Any]] | None:
        if packet.type == Type.VERSION:
            return None
        request = self._pending.pop(packet.number(), None)
        if request is None:
            return None
        match packet.type:
            case Type.DATA if request.file is not None:
                request.file.read += packet.number()
                return None
            case Type.HANDLE if request.operation in ("open", "list"):
                return self._handed(packet.string(), request)
            case Type.STATUS:
                return self._status(packet.number(), request)
        return None

    def _handed(self, handle: bytes, request: _Request) -> tuple[str, dict[str, Any]]:
        if len(self._handles) >= MAX_HANDLES:
            raise SftpInvalid(f"more than {MAX_HANDLES} files open at once")
        self._opened += 1
        file = _OpenFile(request.about["path"], self._opened, is_directory=request.operation == "list")
        self._handles[handle] = file
        return request.operation, request.about | {"handle": file.number, "status": "ok"}

    def _status(self, code: int, request: _Request) -> tuple[str, dict[str, Any]] | None:
        file, status = request.file, _STATUSES[code] if code < len(_STATUSES) else f"code {code}"
        match request.operation:
            case "read":
                return None  # the end of the file, or a failure without data
            case "write":
                if file is not None and code == 0:
                    file.written += request.length
                return None
            case "close":
                if file is None or file.is_directory:
                    return None
                return "close", _totals(file) | {"status": status}
        return request.operation, request.about | {"status": status}


_KNOWN = frozenset(Type)


def _totals(file: _OpenFile) -> dict[str, Any]:
    return {"path": file.path, "read": file.read, "written": file.written, "handle": file.number}
