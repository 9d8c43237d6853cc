"""The server of the file browser: HTTP/1.1 on one Unix socket, a thread for each connection.

    GET  /path/            the folder                POST /path/?upload   files of a form, as they come
    GET  /path             the file, or a range      POST /path/?folder   a new folder
    GET  /path?delete      asks first                POST /path?delete    deletes

A file is always sent as a download, in a sandbox: none of them can act as a page of this origin.
"""

from __future__ import annotations

import errno
import os
import secrets
import socketserver
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, quote_from_bytes, unquote_to_bytes

from shelld.files import pages, ranges
from shelld.files.folder import Folder, FolderError
from shelld.files.multipart import Form, FormCut, FormInvalid, Part, boundary_of

_IDLE_S = 300
"""A connection is closed when nothing moves for so long."""
_MOST_CONNECTIONS = 128
_READ_BYTES = 256 * 1024
_SKIPPED_BYTES = 1024 * 1024
_FORM_BYTES = 16 * 1024
"""Of a form without files."""
_STATUSES = {
    errno.ENOENT: (404, "it is not there"),
    errno.ENOTDIR: (404, "it is not there"),
    errno.ENAMETOOLONG: (400, "the name is too long"),
    errno.EACCES: (403, "the account of this workspace may not do that"),
    errno.EPERM: (403, "the account of this workspace may not do that"),
    errno.EROFS: (403, "the file system is read-only"),
    errno.ELOOP: (403, "its links lead in a circle"),
    errno.EEXIST: (409, "there is something of this name already"),
    errno.ENOTEMPTY: (409, "the folder is not empty"),
    errno.EISDIR: (409, "it is a folder"),
    errno.EBUSY: (409, "it is in use"),
    errno.ENOSPC: (507, "there is no space left"),
    errno.EDQUOT: (507, "the quota is used up"),
    errno.EFBIG: (413, "the file is too large for its file system"),
}


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """The listener. Connections beyond the limit wait for their turn."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, path: str, folder: Folder) -> None:
        """Listen at a path that only this account can connect to."""
        self.folder = folder
        self._slots = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        before = os.umask(0o177)
        try:
            super().__init__(path, Handler)
        finally:
            os.umask(before)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start the thread of a connection."""
        self._slots.acquire()
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._slots.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a bug; a client that went away is none."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    timeout = _IDLE_S
    server: Server
    rbufsize = _READ_BYTES
    _body: _Body | None = None
    """Of the request that is served, until its answer begins."""

    # ------------------------------------------------------------------------------ the requests

    def do_GET(self) -> None:
        """Show a folder, send a file, or ask whether to delete something."""
        self._serve(self._get)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        """Change something."""
        self._serve(self._post)

    def _serve(self, answer: Any) -> None:
        """Answer, with the failure where there is one."""
        target, _, query = self.path.partition("?")
        path = unquote_to_bytes(target).strip(b"/")
        try:
            answer(path, target.endswith("/"), query)
        except FolderError as error:
            self._problem(error.status, str(error), path)
        except FormCut:
            self.close_connection = True
        except FormInvalid as error:
            self._problem(400, str(error), path)
        except (ConnectionError, TimeoutError):
            raise
        except OSError as error:
            status, reason = _words(error)
            self._problem(status, reason, path)

    def _get(self, path: bytes, is_slashed: bool, query: str) -> None:
        folder = self.server.folder
        if query == "delete":
            folder.find(path.rpartition(b"/")[0])
            self._page(200, pages.delete_page(path, nonce := secrets.token_urlsafe(12)), nonce)
        elif not folder.is_folder(path):
            self._send_file(path)
        elif not is_slashed:
            self._go_to(path)
        else:
            nonce = secrets.token_urlsafe(12)
            shows_hidden = query == "hidden"
            html = pages.folder_page(path, folder.list(path), nonce, shows_hidden=shows_hidden)
            self._page(200, html, nonce)

    def _post(self, path: bytes, is_slashed: bool, query: str) -> None:
        del is_slashed
        body = self._body = _Body(self.rfile, self._length())
        self._check_origin()
        match query:
            case "upload":
                self._upload(path, body)
            case "folder":
                self.server.folder.make_folder(path, _field(body, "name"))
                self._go_to(path)
            case "delete":
                self.server.folder.remove(path)
                self.log_message("deleted %s", pages.shown(path))
                self._go_to(path.rpartition(b"/")[0])
            case _:
                raise FolderError(404, "it is not there")

    def _check_origin(self) -> None:
        """Refuse a form of another page: browsers put Origin on every one. Raises: FolderError."""
        given = self.headers.get_all("Origin", [])
        own = f"{self.headers.get('X-Forwarded-Proto', 'http')}://{self.headers.get('Host', '')}"
        if given not in ([], [own]):
            raise FolderError(403, "this was sent by a page of another origin")

    def _length(self) -> int:
        """Return the size of the body. Raises: FolderError."""
        given = self.headers.get("Content-Length", "")
        if not (given.isascii() and given.isdigit()):
            raise FolderError(411, "the size of what is sent has to be given (Content-Length)")
        return int(given)

    # -------------------------------------------------------------------------------- uploads

    def _upload(self, path: bytes, body: _Body) -> None:
        """Store the files of a form as they come; answer with names and reasons of those that were not."""
        self.server.folder.find(path)
        form = Form(boundary_of(self.headers.get("Content-Type", "")), body.read)
        replaces, problems, status = False, [], 409
        for part in form.parts():
            if part.name == b"replace":
                replaces = part.text(16) == b"yes"
            elif part.filename:
                try:
                    self._store(path, part, replaces=replaces)
                except FolderError as error:
                    problems.append(f"{pages.shown(part.filename)}: {error}")
                except OSError as error:
                    status, reason = _words(error)
                    problems.append(f"{pages.shown(part.filename)}: {reason}")
        if problems:
            nonce = secrets.token_urlsafe(12)
            self._page(status, pages.problem_page("Not everything was stored", problems, path, nonce), nonce)
        else:
            self._go_to(path)

    def _store(self, path: bytes, part: Part, *, replaces: bool) -> None:
        name = (part.filename or b"").rpartition(b"/")[2]  # some clients send the path that they read
        self.server.folder.store(path, name, part.content, replaces=replaces)
        self.log_message("stored %s", pages.shown(path + b"/" + name))

    # ------------------------------------------------------------------------------- downloads

    def _send_file(self, path: bytes) -> None:
        file = self.server.folder.open(path)
        with os.fdopen(file, "rb", buffering=0) as source:
            known = os.fstat(file)
            tag = f'"{known.st_ino:x}-{known.st_size:x}-{known.st_mtime_ns:x}"'
            if tag in [one.strip() for one in self.headers.get("If-None-Match", "").split(",")]:
                self._head(304, {"ETag": tag})
                return
            condition = self.headers.get("If-Range")
            asked = self.headers.get("Range") if condition in (None, tag) else None
            try:
                span = ranges.span_of(asked, known.st_size)
            except ranges.NotSatisfiable:
                self._head(416, {"Content-Range": f"bytes */{known.st_size}", "Content-Length": "0"})
                return
            size = known.st_size if span is None else span.size
            start = 0 if span is None else span.start
            fields = {
                "Content-Type": "application/octet-stream",
                "Content-Disposition": _disposition(path.rpartition(b"/")[2]),
                "Content-Security-Policy": "sandbox; default-src 'none'",
                "Accept-Ranges": "bytes",
                "Content-Length": str(size),
                "ETag": tag,
            }
            if span is not None:
                fields["Content-Range"] = f"bytes {start}-{start + size - 1}/{known.st_size}"
            self._head(200 if span is None else 206, fields)
            # A file that became shorter meanwhile cannot be completed: the answer must not look whole.
            if self.command != "HEAD" and size and self.connection.sendfile(source, start, size) < size:
                self.close_connection = True

    # --------------------------------------------------------------------------------- answers

    def _problem(self, status: int, reason: str, path: bytes) -> None:
        nonce = secrets.token_urlsafe(12)
        title = HTTPStatus(status).phrase
        back = path.rpartition(b"/")[0]
        self._page(status, pages.problem_page(title, [f"{pages.shown(path)}: {reason}"], back, nonce), nonce)

    def _page(self, status: int, html: str, nonce: str) -> None:
        body = html.encode()
        fields = {
            "Content-Type": "text/html; charset=utf-8",
            "Content-Security-Policy": pages.policy_of(nonce),
            "Content-Length": str(len(body)),
        }
        self._head(status, fields)
        if self.command != "HEAD":
            self.wfile.write(body)

    def _go_to(self, folder: bytes) -> None:
        """Lead a browser to the page of a folder."""
        address = pages.address_of(folder + b"/") if folder else "/"
        self._head(303, {"Location": address, "Content-Length": "0"})

    def _head(self, status: int, fields: dict[str, str]) -> None:
        if self._body is not None and not self._body.skip():
            self.close_connection = True
        self._body = None
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Cache-Control", "no-cache, private")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "same-origin")  # with no-referrer, forms come with Origin: null
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer a request that is none of HTTP, or none of ours."""
        del explain
        self.close_connection = True
        self._problem(code, message or HTTPStatus(code).phrase, b"")

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        """Log no request: the log is for changes."""

    def log_message(self, format: str, *args: Any) -> None:
        """Write a line to the log of the app."""
        sys.stderr.write(format % args + "\n")

    def address_string(self) -> str:
        """Return no address: it is a Unix socket's."""
        return ""


class _Body:
    """The body of a request, read piece by piece."""

    def __init__(self, source: Any, size: int) -> None:
        self._source = source
        self._left = size

    def skip(self) -> bool:
        """Read the rest, if it is little: a client that still sends may not see the answer.

        Return whether all of it was read.
        """
        if self._left <= _SKIPPED_BYTES:
            while self.read():
                pass
        return not self._left

    def read(self) -> bytes:
        """Return the next bytes; none at the end."""
        piece: bytes = self._source.read1(min(self._left, _READ_BYTES)) if self._left else b""
        self._left -= len(piece)
        return piece


def _field(body: _Body, name: str) -> bytes:
    """Read a form without files, and return one of its fields. Raises: FolderError."""
    text = b""
    while piece := body.read():
        text += piece
        if len(text) > _FORM_BYTES:
            raise FolderError(413, "the form is too large")
    fields = parse_qs(text.decode("ascii", "replace"), errors="surrogateescape", max_num_fields=10)
    return os.fsencode(fields.get(name, [""])[0])


def _words(error: OSError) -> tuple[int, str]:
    """Return status and sentence of an error of the file system."""
    known = _STATUSES.get(error.errno or 0)
    return known or (500, f"the file system says: {error.strerror or error}")


def _disposition(name: bytes) -> str:
    """Return the field that makes a browser store a file under its name (RFC 6266, RFC 8187)."""
    plain = "".join(
        one if one.isascii() and one.isprintable() and one not in '"\\%' else "_"
        for one in name.decode("utf-8", "replace")
    )
    shown = quote_from_bytes(name.decode("utf-8", "replace").encode(), safe="")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{shown}"


def main() -> None:
    """Serve the working directory on the socket of the only argument, until the process is ended."""
    if len(sys.argv) != 2:
        sys.exit("usage: files SOCKET")
    with Server(sys.argv[1], Folder(os.fsencode(os.getcwd()))) as server:
        server.serve_forever(poll_interval=3_600)
