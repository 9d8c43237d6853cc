"""What clients do because of the version that the server answers with: sftp's symlinks, Unix sockets."""

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

import paramiko
import pytest

from tests.wire.direct import Place
from tests.wire.peers import Peer

TARGET = "a-target-that-is-not-there"

pytestmark = pytest.mark.usefixtures("warm")


@pytest.fixture
def link(tmp_path: Path) -> Path:
    """Where a link is to be made; workspaces of the local backend see the files of this machine."""
    return tmp_path / "link"


async def test_asyncssh_makes_links_the_right_way_round(place: Place, link: Path) -> None:
    async with place.login() as client, client.start_sftp_client() as sftp:
        await sftp.symlink(TARGET, str(link))
        assert await sftp.readlink(str(link)) == TARGET
    assert os.readlink(link) == TARGET


def test_paramiko_makes_links_the_right_way_round(place: Place, link: Path) -> None:
    with paramiko.Transport(("127.0.0.1", place.port)) as transport:
        transport.start_client(timeout=60)
        transport.auth_publickey(place.user, paramiko.Ed25519Key.from_private_key_file(str(place.key)))
        with paramiko.SFTPClient.from_transport(transport) as sftp:  # type: ignore[union-attr]
            sftp.symlink(TARGET, str(link))
            assert sftp.readlink(str(link)) == TARGET
    assert os.readlink(link) == TARGET


def test_libssh_makes_links_the_right_way_round(place: Place, link: Path) -> None:
    session_module = pytest.importorskip("ssh.session", reason="optional: pip install ssh-python (libssh)")
    options, keys = pytest.importorskip("ssh.options"), pytest.importorskip("ssh.key")
    session = session_module.Session()
    session.options_set(options.HOST, "127.0.0.1")
    session.options_set(options.USER, place.user)
    session.options_set_port(place.port)
    session.connect()
    session.userauth_publickey(keys.import_privkey_file(str(place.key)))
    sftp = session.sftp_new()
    sftp.init()
    sftp.symlink(TARGET, str(link))
    session.disconnect()
    assert os.readlink(link) == TARGET


def test_libssh2_makes_links_the_right_way_round(place: Place, link: Path) -> None:
    session_module = pytest.importorskip("ssh2.session", reason="optional: pip install ssh2-python (libssh2)")
    with socket.create_connection(("127.0.0.1", place.port)) as tcp:
        session = session_module.Session()
        session.handshake(tcp)
        session.userauth_publickey_fromfile(place.user, str(place.key))
        session.sftp_init().symlink(TARGET, str(link))
        session.disconnect()
    assert os.readlink(link) == TARGET


class TestNpmSsh2:
    """The npm package `ssh2`; NODE_PATH says where it is, as for every program of node."""

    def test_links_are_made_the_right_way_round(self, place: Place, link: Path) -> None:
        self._run(place, f"connection.sftp((error, sftp) => sftp.symlink('{TARGET}', '{link}', done))")
        assert os.readlink(link) == TARGET

    def test_unix_sockets_are_forwarded(self, place: Place, tmp_path: Path) -> None:
        """`ssh2` asks only servers that it takes for OpenSSH (its option `strictVendor`)."""
        path = tmp_path / "far"
        with Peer(lambda link: link.sendall(b"welcome"), path):
            heard = self._run(
                place,
                f"connection.openssh_forwardOutStreamLocal('{path}', (error, stream) => {{"
                " if (error) throw error;"
                " stream.on('data', (data) => { process.stdout.write(data); done(); }); })",
            )
        assert heard == "welcome"

    def _run(self, place: Place, script: str) -> str:
        """Log in and run a line of JavaScript that calls `done`; gives what it printed."""
        node = shutil.which("node")
        if node is None or subprocess.run([node, "-e", "require('ssh2')"], capture_output=True).returncode:
            pytest.skip("optional: node, and NODE_PATH with the npm package ssh2")
        login = {"host": "127.0.0.1", "port": place.port, "username": place.user}
        program = (
            f"const login = {json.dumps(login)};"
            f"login.privateKey = require('fs').readFileSync({json.dumps(str(place.key))});"
            "const connection = new (require('ssh2').Client)();"
            "const done = (error) => { if (error) throw error; connection.end(); };"
            f"connection.on('ready', () => {{ {script}; }}).connect(login);"
        )
        ran = subprocess.run([node, "-e", program], capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout
