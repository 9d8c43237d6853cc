"""The file browser over its socket: downloads are no pages, forms are of this origin, errors are words."""

import http.client
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote_from_bytes

import pytest

from shelld.files.folder import Folder
from shelld.files.server import Server

HOST = "files--dev--alice.localhost:8022"
ORIGIN = f"http://{HOST}"
HOSTILE = b'"><img src=x onerror=alert(1)>\xff\r\nSet-Cookie: a=b'


class Connection(http.client.HTTPConnection):
    """A connection to a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__(HOST, timeout=20)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(str(self._path))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    inside = tmp_path / "home"
    inside.mkdir()
    return inside


@pytest.fixture
def client(root: Path, tmp_path: Path) -> Iterator[Connection]:
    path = tmp_path / "s"
    with Server(str(path), Folder(os.fsencode(root))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        connection = Connection(path)
        try:
            assert path.stat().st_mode & 0o777 == 0o600
            yield connection
        finally:
            connection.close()
            server.shutdown()
            thread.join()


def ask(
    client: Connection, path: str, method: str = "GET", body: bytes | None = None, **fields: str
) -> tuple[http.client.HTTPResponse, bytes]:
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    client.request(method, path, body, headers)
    answer = client.getresponse()
    return answer, answer.read()


def form(name: str, content: bytes, *, replace: bool = False) -> tuple[bytes, str]:
    """Write a form with one file; return it with its content type."""
    before = b'--x\r\nContent-Disposition: form-data; name="replace"\r\n\r\nyes\r\n' if replace else b""
    head = f'--x\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode()
    return before + head + content + b"\r\n--x--\r\n", "multipart/form-data; boundary=x"


def upload(client: Connection, path: str, name: str, content: bytes, **fields: str) -> tuple[int, str]:
    body, kind = form(name, content, replace=fields.pop("replace", "") == "yes")
    answer, page = ask(client, f"{path}?upload", "POST", body, Content_Type=kind, **fields)
    return answer.status, page.decode()


def test_a_name_that_looks_like_markup_is_text_in_every_place(client: Connection, root: Path) -> None:
    name = HOSTILE.replace(b"/", b"")
    (root / os.fsdecode(name)).write_text("content")
    address = "/" + quote_from_bytes(name)
    answer, page = ask(client, "/")
    assert answer.getheader("Content-Security-Policy", "").startswith("default-src 'none'; style-src 'nonce-")
    assert b"<img" not in page
    assert address.encode() in page
    assert rb"\xff\r\nSet-Cookie: a=b" in page
    answer, content = ask(client, address)
    assert content == b"content"
    assert answer.getheader("Set-Cookie") is None
    assert b"<img" not in ask(client, address + "?delete")[1]
    assert b"<img" not in ask(client, address + "-gone")[1]


def test_a_file_is_always_a_download_in_a_sandbox(client: Connection, root: Path) -> None:
    (root / "page ü.html").write_text("<script>alert(1)</script>")
    answer, _ = ask(client, "/page%20%C3%BC.html")
    assert answer.getheader("Content-Type") == "application/octet-stream"
    disposition = "attachment; filename=\"page _.html\"; filename*=UTF-8''page%20%C3%BC.html"
    assert answer.getheader("Content-Disposition") == disposition
    assert answer.getheader("Content-Security-Policy") == "sandbox; default-src 'none'"
    assert answer.getheader("X-Content-Type-Options") == "nosniff"


def test_a_part_of_a_file_is_sent_and_only_of_the_file_that_was_begun(client: Connection, root: Path) -> None:
    (root / "f").write_bytes(b"0123456789")
    answer, content = ask(client, "/f", Range="bytes=2-4")
    tag = answer.getheader("ETag", "")
    assert [answer.status, answer.getheader("Content-Range"), content] == [206, "bytes 2-4/10", b"234"]
    answer, content = ask(client, "/f", Range="bytes=10-")
    assert [answer.status, answer.getheader("Content-Range"), content] == [416, "bytes */10", b""]
    answer, content = ask(client, "/f", "HEAD", Range="bytes=2-")
    assert [answer.status, answer.getheader("Content-Length"), content] == [206, "8", b""]
    assert ask(client, "/f", If_None_Match=tag)[0].status == 304
    assert ask(client, "/f", Range="bytes=2-4", If_Range=tag)[0].status == 206
    (root / "f").write_bytes(b"9876543210")
    answer, content = ask(client, "/f", Range="bytes=2-4", If_Range=tag)
    assert [answer.status, content] == [200, b"9876543210"]
    (root / "empty").touch()
    assert ask(client, "/empty")[1] == b""


def test_an_upload_is_stored_and_a_taken_name_is_told(client: Connection, root: Path) -> None:
    assert upload(client, "/", "a%22b.txt", b"one", Origin=ORIGIN)[0] == 303
    assert (root / 'a"b.txt').read_bytes() == b"one"
    status, page = upload(client, "/", "a%22b.txt", b"two", Origin=ORIGIN)
    assert [status, "there is something of this name already" in page] == [409, True]
    assert (root / 'a"b.txt').read_bytes() == b"one"
    assert upload(client, "/", "a%22b.txt", b"two", Origin=ORIGIN, replace="yes")[0] == 303
    assert (root / 'a"b.txt').read_bytes() == b"two"
    assert upload(client, "/", "../../up", b"x", Origin=ORIGIN)[0] == 303
    assert sorted(os.listdir(root)) == ['a"b.txt', "up"]


def test_folders_are_made_and_files_deleted_after_a_question(client: Connection, root: Path) -> None:
    answer, _ = ask(client, "/?folder", "POST", b"name=gr%C3%BC%C3%9Fe", Origin=ORIGIN)
    assert [answer.status, answer.getheader("Location")] == [303, "/"]
    assert upload(client, "/gr%C3%BC%C3%9Fe/", "f", b"x", Origin=ORIGIN)[0] == 303
    answer, page = ask(client, "/gr%C3%BC%C3%9Fe/f?delete")
    assert [answer.status, b"Delete gr\xc3\xbc\xc3\x9fe/f?" in page] == [200, True]
    assert (root / "grüße" / "f").exists()
    answer, page = ask(client, "/gr%C3%BC%C3%9Fe?delete", "POST", b"", Origin=ORIGIN)
    assert [answer.status, b"the folder is not empty" in page] == [409, True]
    answer, _ = ask(client, "/gr%C3%BC%C3%9Fe/f?delete", "POST", b"", Origin=ORIGIN)
    assert [answer.status, answer.getheader("Location")] == [303, "/gr%C3%BC%C3%9Fe/"]
    assert os.listdir(root / "grüße") == []
    assert ask(client, "/gr%C3%BC%C3%9Fe")[0].getheader("Location") == "/gr%C3%BC%C3%9Fe/"


@pytest.mark.parametrize("origin", ["null", "http://evil.example", "https://" + HOST, ORIGIN + "0", ""])
def test_a_form_of_another_origin_changes_nothing(client: Connection, root: Path, origin: str) -> None:
    (root / "f").touch()
    assert upload(client, "/", "new", b"x", Origin=origin)[0] == 403
    assert ask(client, "/?folder", "POST", b"name=new", Origin=origin)[0].status == 403
    assert ask(client, "/f?delete", "POST", b"", Origin=origin)[0].status == 403
    assert os.listdir(root) == ["f"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/gone", 404),
        ("GET", "/f/inner", 404),
        ("GET", "/%2e%2e/x", 400),
        ("GET", "/a%00b", 400),
        ("GET", "/" + "x" * 300, 400),
        ("POST", "/", 404),
        ("POST", "/?folder", 400),
        ("POST", "/f?upload", 400),
        ("PUT", "/f", 501),
    ],
)
def test_what_cannot_be_done_is_told_on_a_page(
    client: Connection, root: Path, method: str, path: str, status: int
) -> None:
    (root / "f").touch()
    answer, page = ask(client, path, method, b"" if method == "POST" else None)
    assert [answer.status, b'<ul class="problem"><li>' in page] == [status, True]
    assert os.listdir(root) == ["f"]


def test_an_upload_that_breaks_off_leaves_nothing(client: Connection, root: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(tmp_path / "s"))
        body, kind = form("f", b"x" * 1_000)
        head = (
            f"POST /?upload HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: {kind}\r\nContent-Length: 5000\r\n\r\n"
        )
        raw.sendall(head.encode() + body[:600])
        raw.shutdown(socket.SHUT_WR)
        assert raw.recv(1_000) == b""
    assert os.listdir(root) == []
    assert ask(client, "/")[0].status == 200
