"""The rows by libssh, through the package `ssh-python`."""

import os
import threading
from pathlib import Path
from typing import Any

from ssh import options
from ssh.channel import Channel
from ssh.key import import_privkey_file
from ssh.session import Session

from tests.wire.foreign.python import rows


def login(at: rows.Arguments) -> Session:
    session = Session()
    session.options_set(options.HOST, "127.0.0.1")
    session.options_set(options.USER, at.user)
    session.options_set_port(at.port)
    config = Path(at.file("ssh_config"))
    config.write_text("Host *\n RekeyLimit 256K\n")
    session.options_parse_config(str(config))
    session.connect()
    session.userauth_publickey(import_privkey_file(at.key))
    return session


def read(channel: Channel, is_stderr: bool = False) -> bytes:
    return b"".join(iter(lambda: channel.read(is_stderr=is_stderr)[1], b""))


class Client:
    def __init__(self, at: rows.Arguments) -> None:
        self._at = at
        self._session = login(at)

    def run(self, command: str, data: bytes = b"") -> dict[str, Any]:
        channel = self._session.channel_new()
        channel.open_session()
        channel.request_exec(command)
        if data:
            channel.write(data)
        channel.send_eof()
        out, err = read(channel), read(channel, is_stderr=True)
        status = channel.get_exit_status()
        channel.close()
        return {"out": out.decode(), "err": err.decode(), "status": status}

    def pty(self) -> dict[str, Any]:
        channel = self._session.channel_new()
        channel.open_session()
        channel.request_pty_size("vt100", 91, 33)
        channel.request_shell()
        channel.write(b"stty size\n")
        shown = b""
        while b"33 91" not in shown:
            _, piece = channel.read(4096)
            if not piece:
                raise EOFError(shown)
            shown += piece
        channel.change_pty_size(120, 40)
        channel.write(rows.SIZE_TWICE.encode())
        shown += read(channel)
        return {"shown": shown.decode(), "status": channel.get_exit_status()}

    def symlink(self) -> dict[str, Any]:
        sftp = self._session.sftp_new()
        sftp.init()
        sftp.symlink(rows.TARGET, self._at.file("link"))
        return {"target": os.fsdecode(sftp.readlink(self._at.file("link")))}

    def transfer(self) -> dict[str, Any]:
        sftp = self._session.sftp_new()
        sftp.init()
        data = Path(self._at.file("payload")).read_bytes()
        with sftp.open(self._at.file("put"), os.O_WRONLY | os.O_CREAT, 0o644) as put:
            for start in range(0, len(data), 32_768):
                put.write(data[start : start + 32_768])
        with sftp.open(self._at.file("put"), os.O_RDONLY, 0) as source:
            got = b"".join(iter(lambda: source.read(32_768)[1], b""))
        Path(self._at.file("got")).write_bytes(got)
        return {}

    def local_forward(self) -> dict[str, Any]:
        channel = self._session.channel_new()
        channel.open_forward("127.0.0.1", self._at.echo_port, "127.0.0.1", 1)
        channel.write(self._at.piece())
        channel.send_eof()
        return {"digest": rows.digest(read(channel))}

    def remote_forward(self) -> dict[str, Any]:
        bound = rows.free_port()
        self._session.listen_forward("127.0.0.1", bound, 0)
        heard: list[bytes] = []
        near = threading.Thread(target=lambda: heard.append(rows.through(bound, b"hello")))
        near.start()
        channel = self._session.accept_forward(rows.PATIENCE_S * 1000, bound)
        channel.write(read(channel))
        channel.send_eof()
        channel.close()
        near.join(rows.PATIENCE_S)
        self._session.cancel_forward("127.0.0.1", bound)
        note = "the Python package does not give the port that a server chose"
        return {"heard": heard[0].decode(), "note": note}

    def rekey(self) -> dict[str, Any]:
        """Move more than the limit of the configuration; the library's log counts the exchanges."""
        log = Path(self._at.file("libssh.log"))
        with log.open("wb") as stream:
            os.dup2(stream.fileno(), 2)
        self._session.options_set_int_val(options.LOG_VERBOSITY, 3)
        self.run("head -c 1000000 /dev/zero")
        out = self.run("echo after")["out"]
        return {"out": out, "exchanges": log.read_text().count("Received SSH_MSG_NEWKEYS")}

    def keepalive(self) -> dict[str, Any]:
        for _ in range(3):
            self._session.send_ignore(b"still here")
        return self.run("echo kept")


def main() -> None:
    rows.run_all(Client(rows.arguments()))


if __name__ == "__main__":
    main()
