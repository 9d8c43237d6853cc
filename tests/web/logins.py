"""A Fairlead process with its web half and the development provider, an app over SSH, and ways to sign in."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.wire.harness import Fairlead, free_port

ACCEPT = {"Accept": "text/html"}
DEADLINE_S = 60

_APP = r"""
import http.server, json, sys
import base64, hashlib, time
seen = []
class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.headers.get("Upgrade", "").lower() == "websocket":
            return self.socket()
        if self.path == "/endless":
            return self.endless()
        if self.path == "/seen":
            self.path = repr(seen)
        seen.append(self.path)
        body = ("APP " + json.dumps({"path": self.path, "headers": self.headers.items()})).encode()
        if self.path.endswith(".js"):
            body = b"self.onfetch = () => {}"
        self.send_response(200)
        is_script = self.path.endswith(".js")
        self.send_header("Content-Type", "text/javascript" if is_script else "text/html")
        if self.path.startswith("/toss-"):
            self.send_header("Set-Cookie", self.path[1:] + "=1; Path=/; Domain=apps.localhost")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_GET
    def endless(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        while True:
            self.wfile.write(b"tick\n")
            self.wfile.flush()
            time.sleep(0.1)
    def socket(self):
        seen.append(self.path)
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", accept)
        self.end_headers()
        self.wfile.write(b"\x81\x05hello")
        self.wfile.flush()
        self.close_connection = True
        while self.rfile.read1(65536):
            pass
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Echo).serve_forever()
"""


@dataclass
class Place:
    """A running Fairlead whose user alice has an app `lab`."""

    fairlead: Fairlead
    port: int
    app_port: int
    scheme: str = "http"
    domain: str = "localhost"

    def url(self, label: str = "lab--dev--alice", path: str = "/") -> str:
        return f"{self.scheme}://{label}.{self.domain}:{self.port}{path}"

    @property
    def login(self) -> str:
        return f"{self.scheme}://login.{self.domain}:{self.port}"

    def link(self, user: str = "alice", key: Path | None = None) -> dict[str, str]:
        """Ask the lobby for a link, by the key of alice or another."""
        identity = () if key is None else ("-i", str(key))
        done = self.fairlead.ssh("web --json", "-l", f"{user}+lobby", *identity)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))


def blueprint(app_port: int, share: str = "owner") -> str:
    return (
        f"name: dev\napps:\n  lab: {{title: a lab, listen: {{port: {app_port}}}, share: {share}}}\n"
        f"  open: {{listen: {{port: {app_port}}}, share: public}}\n"
    )


def app_by_init(app_port: int) -> str:
    """Write a blueprint whose workspace starts the app by itself."""
    script = f"#!/bin/sh\nsetsid python3 - {app_port} >app.log 2>&1 <<'EOF' &\n{_APP}\nEOF\n"
    init = {"name": "app", "when": "every", "script": script}
    return blueprint(app_port) + f"init: {json.dumps([init])}\n"


@contextmanager
def place(
    directory: Path,
    module: str = "proxy",
    *,
    program: str = _APP,
    blueprint: Callable[[int], str] = blueprint,
    more: Mapping[str, str] | None = None,
    blueprints: Mapping[str, str] | None = None,
    **env: str,
) -> Iterator[Place]:
    """Start Fairlead, and the app in the workspace of alice by SSH unless it is empty; end both."""
    directory.mkdir(exist_ok=True)
    port, app_port = free_port(), free_port()
    fairlead = Fairlead(
        directory,
        extra_env={
            "FAIRLEAD_WEB__LISTEN": f"127.0.0.1:{port}",
            "FAIRLEAD_WEB__DEV_USER": "alice",
            "FAIRLEAD_FRONT_DOOR__DEV_ON_LOOPBACK": "true",
            **env,
        },
        module=module,
    )
    fairlead.prepare(blueprints or {"dev": blueprint(app_port), **(more or {})})
    try:
        fairlead.start()
        if program:
            serve(fairlead, app_port, program)
        domain = env.get("FAIRLEAD_WEB__APPS_DOMAIN", "localhost")
        yield Place(fairlead, port, app_port, "https" if domain != "localhost" else "http", domain)
    finally:
        fairlead.close()


def serve(fairlead: Fairlead, port: int, program: str = _APP, user: str = "alice+dev") -> None:
    """Start an app in the workspace by SSH, as its user would, and wait until it listens."""
    run_app(fairlead, f"exec python3 - {port} <<'EOF'\n{program}\nEOF\n", port, user)


def run_app(fairlead: Fairlead, command: str, port: int, user: str = "alice+dev") -> None:
    """Start a server in the workspace by SSH, as its user would, and wait until it listens."""
    start = f"(\n{command}\n) >app-{port}.log 2>&1 &\n"
    tries = f"(exec 3<>/dev/tcp/localhost/{port}) 2>/dev/null && exit 0; sleep .1"
    wait = f"for i in $(seq {DEADLINE_S * 10}); do {tries}; done; cat app-{port}.log >&2; exit 1"
    done = fairlead.ssh(f"{start} bash -c '{wait}'", "-l", user, timeout_s=DEADLINE_S * 2)
    assert done.returncode == 0, done.stderr
