"""A plain TCP source and sink on loopback that costs next to nothing: the far end of a forward.

A peer says `get` or `put` and a size; it is answered with one byte when the way is open. A `get`
is then sent that many zeros straight from a file; what a `put` sends is dropped in the kernel.
"""

import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_HEADER = struct.Struct("!3sQ")
_PIECE = 1024 * 1024


@contextmanager
def endpoint() -> Iterator[int]:
    """Serve for as long as the block lasts; yields the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_accept, args=(server,), name="endpoint", daemon=True).start()
        try:
            yield server.getsockname()[1]
        finally:
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)


def ask(peer: socket.socket, verb: str, size: int) -> None:
    """Announce a transfer and wait until the far end is ready for it."""
    peer.sendall(_HEADER.pack(verb.encode(), size))
    if peer.recv(1) != b"!":
        raise ConnectionError("the far end of the forward did not answer")


def send_zeros(peer: socket.socket, size: int) -> None:
    handle = os.memfd_create("zeros")
    with open(handle, "rb") as file:
        os.ftruncate(handle, size)
        peer.sendfile(file)


def drop(peer: socket.socket, size: int) -> int:
    """Take up to `size` bytes without copying them anywhere (tcp(7), MSG_TRUNC); returns how many came."""
    scratch, count = bytearray(_PIECE), 0
    while count < size:
        got = peer.recv_into(scratch, min(_PIECE, size - count), socket.MSG_TRUNC)
        if not got:
            break
        count += got
    return count


def _accept(server: socket.socket) -> None:
    with suppress(OSError):
        while True:
            peer, _ = server.accept()
            threading.Thread(target=_serve, args=(peer,), name="endpoint-peer", daemon=True).start()


def _serve(peer: socket.socket) -> None:
    with peer, suppress(OSError, struct.error):
        verb, size = _HEADER.unpack(peer.recv(_HEADER.size, socket.MSG_WAITALL))
        peer.sendall(b"!")
        if verb == b"get":
            send_zeros(peer, size)
        else:
            peer.sendall(struct.pack("!Q", drop(peer, size)))


def acknowledged(peer: socket.socket) -> int:
    """Read how many bytes of a `put` have arrived."""
    count: int = struct.unpack("!Q", peer.recv(8, socket.MSG_WAITALL))[0]
    return count
