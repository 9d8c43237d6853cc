"""The rows by Paramiko."""

import threading
from typing import Any

import paramiko

from tests.wire.foreign.python import rows


def echo_one(transport: paramiko.Transport) -> None:
    """Accept one forwarded connection and send back what comes."""
    channel = transport.accept(rows.PATIENCE_S)
    assert channel is not None
    channel.sendall(b"".join(iter(lambda: channel.recv(65_536), b"")))
    channel.close()


class Client:
    def __init__(self, at: rows.Arguments) -> None:
        self._at = at
        self._transport = paramiko.Transport(("127.0.0.1", at.port))
        self._transport.start_client(timeout=rows.PATIENCE_S)
        self._transport.auth_publickey(at.user, paramiko.Ed25519Key.from_private_key_file(at.key))

    def close(self) -> None:
        self._transport.close()

    def run(self, command: str, data: bytes = b"") -> dict[str, Any]:
        with self._transport.open_session() as channel:
            channel.settimeout(rows.PATIENCE_S)
            channel.exec_command(command)
            channel.sendall(data)
            channel.shutdown_write()
            out, err = channel.makefile("rb").read(), channel.makefile_stderr("rb").read()
            return {"out": out.decode(), "err": err.decode(), "status": channel.recv_exit_status()}

    def pty(self) -> dict[str, Any]:
        with self._transport.open_session() as channel:
            channel.settimeout(rows.PATIENCE_S)
            channel.get_pty("vt100", 91, 33)
            channel.invoke_shell()
            channel.sendall(b"stty size\n")
            shown = b""
            while b"33 91" not in shown:
                piece = channel.recv(4096)
                assert piece, shown
                shown += piece
            channel.resize_pty(120, 40)
            channel.sendall(rows.SIZE_TWICE.encode())
            shown += b"".join(iter(lambda: channel.recv(4096), b""))
            return {"shown": shown.decode(), "status": channel.recv_exit_status()}

    def symlink(self) -> dict[str, Any]:
        with self._sftp() as sftp:
            sftp.symlink(rows.TARGET, self._at.file("link"))
            return {"target": sftp.readlink(self._at.file("link"))}

    def transfer(self) -> dict[str, Any]:
        with self._sftp() as sftp:
            sftp.put(self._at.file("payload"), self._at.file("put"))
            sftp.get(self._at.file("put"), self._at.file("got"))
        return {}

    def local_forward(self) -> dict[str, Any]:
        target = ("127.0.0.1", self._at.echo_port)
        with self._transport.open_channel("direct-tcpip", target, ("127.0.0.1", 1)) as channel:
            channel.settimeout(rows.PATIENCE_S)
            channel.sendall(self._at.piece())
            channel.shutdown_write()
            return {"digest": rows.digest(b"".join(iter(lambda: channel.recv(65_536), b"")))}

    def remote_forward(self) -> dict[str, Any]:
        bound = self._transport.request_port_forward("127.0.0.1", 0)
        far = threading.Thread(target=echo_one, args=(self._transport,), daemon=True)
        far.start()
        heard = rows.through(bound, b"hello")
        self._transport.cancel_port_forward("127.0.0.1", bound)
        return {"heard": heard.decode()}

    def rekey(self) -> dict[str, Any]:
        """Exchange keys anew; returns only when that is over."""
        self._transport.renegotiate_keys()
        return {"out": self.run("echo after")["out"], "exchanges": 1}

    def keepalive(self) -> dict[str, Any]:
        self._transport.set_keepalive(1)
        return self.run("sleep 3; echo kept")

    def _sftp(self) -> paramiko.SFTPClient:
        sftp = paramiko.SFTPClient.from_transport(self._transport)
        assert sftp is not None
        return sftp


def main() -> None:
    client = Client(rows.arguments())
    rows.run_all(client)
    client.close()


if __name__ == "__main__":
    main()
