"""Real reverse proxies before a front, with connections to it that are kept."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DEADLINE_S = 30

_NGINX = """
daemon off; worker_processes 1; pid {directory}/pid; error_log {directory}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off; underscores_in_headers on; ignore_invalid_headers off;
  client_body_temp_path {directory}/b; proxy_temp_path {directory}/p; fastcgi_temp_path {directory}/f;
  uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
  upstream front {{ server 127.0.0.1:{target}; keepalive 1; }}
  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://front; proxy_http_version 1.1;
    proxy_request_buffering off; proxy_buffering off; proxy_set_header Host $http_host;
    proxy_set_header Connection ""; }} }}
}}
"""
_HAPROXY = """
global
  maxconn 512
defaults
  mode http
  timeout connect 5s
  timeout client 120s
  timeout server 120s
  http-reuse always
frontend edge
  bind 127.0.0.1:{port}
  option accept-invalid-http-request
  default_backend front
backend front
  server front 127.0.0.1:{target} pool-max-conn 1
"""


def find(name: str) -> str | None:
    """Look for a proxy where Debian puts it."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def edge(name: str, directory: Path, target: int) -> Iterator[int]:
    """Run nginx or haproxy before a port; gives the port of the edge."""
    program, port = find(name), free_port()
    assert program, f"there is no {name}: this test should have been skipped"
    config = directory / "config"
    text = _NGINX if name == "nginx" else _HAPROXY
    config.write_text(text.format(directory=directory, port=port, target=target))
    command = (
        [program, "-c", str(config), "-p", str(directory)]
        if name == "nginx"
        else [program, "-f", str(config)]
    )
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait(process, port, directory / "log")
        yield port
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens: {log.read_text()}")
