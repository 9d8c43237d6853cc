"""What stands at the far end of a forward, and at its near end: small servers, noise, SOCKS."""

import hashlib
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Any

MIB = 1024 * 1024
GIB = 1024 * MIB
PATIENCE_S = 60


def noise(size: int, seed: int = 1) -> Iterator[bytes]:
    """Give `size` bytes that do not compress and that differ by seed, in pieces of up to 1 MiB."""
    source = random.Random(seed)
    while size > 0:
        yield source.randbytes(min(size, MIB))
        size -= MIB


def digest(pieces: Iterator[bytes]) -> str:
    """SHA-256 of what the pieces join to."""
    total = hashlib.sha256()
    for piece in pieces:
        total.update(piece)
    return total.hexdigest()


def file_digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def received(link: socket.socket) -> Iterator[bytes]:
    """Give what arrives until its end."""
    while piece := link.recv(256 * 1024):
        yield piece


class Peer:
    """A listening socket; each connection is given to `serve` in a thread of its own.

    What `serve` returns (or the error it raised) can be waited for with `result`.
    """

    def __init__(self, serve: Callable[[socket.socket], Any], path: Path | None = None) -> None:
        self._serve = serve
        self._results: Queue[Any] = Queue()
        if path is None:
            self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        else:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(path))
            self._listener.listen(128)
        self.path = path

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def target(self) -> str:
        """The address, as `-L` and `-R` want to read it."""
        return str(self.path) if self.path else f"127.0.0.1:{self.port}"

    def result(self) -> Any:
        """Wait for the end of one connection and give what came of it."""
        outcome = self._results.get(timeout=PATIENCE_S)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def __enter__(self) -> "Peer":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            link.settimeout(PATIENCE_S)
            threading.Thread(target=self._run, args=(link,), daemon=True).start()

    def _run(self, link: socket.socket) -> None:
        with link:
            try:
                self._results.put(self._serve(link))
            except Exception as exc:
                self._results.put(exc)


def echo(link: socket.socket) -> str:
    """Send back what comes, then its end; returns the digest."""
    total = hashlib.sha256()
    for piece in received(link):
        total.update(piece)
        link.sendall(piece)
    link.shutdown(socket.SHUT_WR)
    return total.hexdigest()


def connect(address: int | Path) -> socket.socket:
    """Connect to a port of loopback or to a Unix path, waiting until somebody listens there."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            if isinstance(address, int):
                return socket.create_connection(("127.0.0.1", address), timeout=PATIENCE_S)
            link = socket.socket(socket.AF_UNIX)
            link.settimeout(PATIENCE_S)
            try:
                link.connect(str(address))
            except OSError:
                link.close()
                raise
            return link
        except (ConnectionRefusedError, FileNotFoundError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def send_noise(link: socket.socket, size: int, seed: int = 1) -> None:
    """Send noise and end this direction."""
    for piece in noise(size, seed):
        link.sendall(piece)
    link.shutdown(socket.SHUT_WR)


def digest_of_echo(link: socket.socket, size: int) -> str:
    """Send noise and read at the same time; digest of what came back before the end."""
    sending = threading.Thread(target=send_noise, args=(link, size), daemon=True)
    sending.start()
    try:
        return digest(received(link))
    finally:
        sending.join(PATIENCE_S)


def socks_connect(proxy_port: int, host: str, port: int) -> socket.socket:
    """Connect through a SOCKS5 server, without authentication (RFC 1928)."""
    link = connect(proxy_port)
    try:
        link.sendall(b"\x05\x01\x00")
        assert _exactly(link, 2) == b"\x05\x00"
        link.sendall(b"\x05\x01\x00\x03" + bytes([len(host)]) + host.encode() + port.to_bytes(2, "big"))
        reply = _exactly(link, 10)
        assert reply[:2] == b"\x05\x00", f"SOCKS refused: {reply!r}"
    except BaseException:
        link.close()
        raise
    return link


def _exactly(link: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := link.recv(size - len(data))):
        data += piece
    return data


def until(condition: Callable[[], Any], what: str, timeout_s: float = PATIENCE_S) -> Any:
    """Wait until something is so, and give it."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:g} s in vain until {what}")
        time.sleep(0.02)
    return value


def at_once(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Run every call in a thread of its own; what they return, in order. Raises what the first raised."""
    with ThreadPoolExecutor(max_workers=len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]
