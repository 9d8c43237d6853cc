"""Blueprints over https from a real `git http-backend`, which wants a token."""

import base64
import os
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from proxy.blueprints.git import GitSource
from proxy.errors.blueprints import BlueprintSourceFailed
from proxy.settings.blueprints import GitSettings
from tests.fakes.certificates import Authority
from tests.wire.harness import needs

TOKEN = "token-that-nobody-may-see"
pytestmark = needs("git")


def http_backend() -> Path:
    said = subprocess.run(["git", "--exec-path"], capture_output=True, text=True, check=True, timeout=60)
    return Path(said.stdout.strip()) / "git-http-backend"


class Handler(BaseHTTPRequestHandler):
    """CGI by hand: one request a connection, Basic as forges take tokens."""

    root = Path()

    def _answer(self, status: int, headers: dict[str, str], content: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _serve(self) -> None:
        if self.path.startswith("/moved/"):
            self._answer(302, {"Location": self.path.removeprefix("/moved")})
            return
        given = base64.b64encode(f"git:{TOKEN}".encode()).decode()
        if self.headers.get("Authorization") != f"Basic {given}":
            self._answer(401, {"WWW-Authenticate": 'Basic realm="git"'})
            return
        path, _, query = self.path.partition("?")
        environ = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": self.headers.get("Content-Length", "0"),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        done = subprocess.run([http_backend()], input=body, env=environ, capture_output=True, timeout=60)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        status = int(headers.pop("Status", "200").split()[0])
        self._answer(status, headers, content)

    do_GET = do_POST = _serve

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(directory: Path, authority: Authority) -> Iterator[str]:
    handler = type("Own", (Handler,), {"root": directory})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("127.0.0.1").write(directory, "server"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(60)


async def test_a_token_is_given_to_the_server_and_to_nobody_else(tmp_path: Path) -> None:
    bare, work, authority = tmp_path / "blueprints.git", tmp_path / "work", Authority()
    (tls := tmp_path / "ca.pem").write_bytes(authority.pem)
    git = ["git", "-C", str(work), "-c", "user.name=t", "-c", "user.email=t@example.com"]
    subprocess.run(["git", "init", "-q", "-b", "main", str(work)], check=True)
    (work / "dev.yaml").write_text("description: over https")
    subprocess.run([*git, "add", "dev.yaml"], check=True)
    subprocess.run([*git, "commit", "-qm", "one"], check=True)
    subprocess.run(["git", "clone", "-q", "--bare", str(work), str(bare)], check=True)
    if not http_backend().exists():
        pytest.skip("optional, not found here: git-http-backend")
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    (tmp_path / "wrong").write_text("wrong")

    def source(path: str, token: str, ca_file: Path | None) -> GitSource:
        settings = GitSettings(url=f"{url}/{path}", token_file=tmp_path / token, ca_file=ca_file)
        return GitSource(settings)

    with serving(tmp_path, authority) as url:
        assert (await source("blueprints.git", "token", tls).fetch()).files == {
            "dev.yaml": b"description: over https"
        }
        for path, token, ca_file, said in [
            ("blueprints.git", "wrong", tls, "Authentication failed"),
            ("blueprints.git", "token", None, "certificate"),
            ("moved/blueprints.git", "token", tls, "302"),
            ("none.git", "token", tls, "not found"),
        ]:
            with pytest.raises(BlueprintSourceFailed, match=said) as caught:
                await source(path, token, ca_file).fetch()
            assert TOKEN not in str(caught.value)
