"""The rows by libssh2, through the package `ssh2-python`."""

import threading
from pathlib import Path
from typing import Any

from ssh2 import sftp as flags
from ssh2.channel import Channel
from ssh2.exceptions import Timeout
from ssh2.session import Session

from tests.wire.foreign.python import rows


def write(channel: Channel, data: bytes) -> None:
    while data:
        _, sent = channel.write(data)
        data = data[sent:]


class Client:
    def __init__(self, at: rows.Arguments) -> None:
        self._at = at
        self._beats = False
        self._tcp = rows.connect(at.port)
        self._tcp.settimeout(None)
        self._session = Session()
        self._session.handshake(self._tcp)
        self._session.userauth_publickey_fromfile(at.user, at.key)

    def run(self, command: str, data: bytes = b"") -> dict[str, Any]:
        channel = self._session.open_session()
        channel.execute(command)
        write(channel, data)
        channel.send_eof()
        out = self._read(channel)
        err = b"".join(iter(lambda: channel.read_stderr()[1], b""))
        channel.close()
        channel.wait_closed()
        return {"out": out.decode(), "err": err.decode(), "status": channel.get_exit_status()}

    def pty(self) -> dict[str, Any]:
        channel = self._session.open_session()
        channel.pty("vt100")
        channel.shell()
        write(channel, rows.SIZE_TWICE.encode())
        shown = self._read(channel)
        channel.close()
        channel.wait_closed()
        status = channel.get_exit_status()
        if b"24 80" not in shown or b"vt100" not in shown or status != 4:
            raise AssertionError((shown, status))
        raise rows.LackingError("the Python package sets no size; a terminal of 80x24 works")

    def symlink(self) -> dict[str, Any]:
        self._session.sftp_init().symlink(rows.TARGET, self._at.file("link"))
        return {"note": "the Python package reads no link back"}

    def transfer(self) -> dict[str, Any]:
        sftp = self._session.sftp_init()
        data = Path(self._at.file("payload")).read_bytes()
        creating = flags.LIBSSH2_FXF_WRITE | flags.LIBSSH2_FXF_CREAT | flags.LIBSSH2_FXF_TRUNC
        with sftp.open(self._at.file("put"), creating, 0o644) as put:
            for start in range(0, len(data), 32_768):
                put.write(data[start : start + 32_768])
        with sftp.open(self._at.file("put"), flags.LIBSSH2_FXF_READ, 0) as source:
            got = b"".join(piece for _, piece in source)
        Path(self._at.file("got")).write_bytes(got)
        return {}

    def local_forward(self) -> dict[str, Any]:
        channel = self._session.direct_tcpip("127.0.0.1", self._at.echo_port)
        write(channel, self._at.piece())
        channel.send_eof()
        return {"digest": rows.digest(self._read(channel))}

    def remote_forward(self) -> dict[str, Any]:
        listener, bound = self._session.forward_listen_ex(1, "127.0.0.1", 0)
        heard: list[bytes] = []
        near = threading.Thread(target=lambda: heard.append(rows.through(bound, b"hello")))
        near.start()
        channel = listener.forward_accept()
        write(channel, self._read(channel))
        channel.send_eof()
        channel.close()
        near.join(rows.PATIENCE_S)
        listener.forward_cancel()
        return {"heard": heard[0].decode()}

    def rekey(self) -> dict[str, Any]:
        raise rows.LackingError("it begins none")

    def keepalive(self) -> dict[str, Any]:
        self._session.keepalive_config(True, 1)
        for _ in range(3):
            self._session.keepalive_send()
        self._beats = True
        return self.run("sleep 2; echo kept")

    def _read(self, channel: Channel) -> bytes:
        """Read to the end; a blocking read ends where the next heartbeat is due."""
        data = b""
        while True:
            try:
                _, piece = channel.read(65_536)
            except Timeout:
                if not self._beats:
                    raise
                self._session.keepalive_send()
                continue
            if not piece:
                return data
            data += piece


def main() -> None:
    rows.run_all(Client(rows.arguments()))


if __name__ == "__main__":
    main()
