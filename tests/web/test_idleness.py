"""Workspaces with an idle limit of 30 s, used in Chromium: which ones stop, and the reasons shown."""

import asyncio
import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.chromium import ChromiumWindow, open_chromium
from tests.web.logins import Place, place
from tests.wire.harness import needs

JUPYTER = "jupyter-lab"
pytestmark = needs("chromium")
IDLE_STOP_S = 30
DEADLINE_S = 240
CASES = ("hidden", "polled", "typed", "loading", "computing")

_APP = r"""
import base64, hashlib, http.server, os, subprocess, sys, threading, time
PAGE = '''<!doctype html><title>app</title><body>APP <a id="load" href="/loading">load</a><script>
const socket = new WebSocket("ws://" + location.host + "/socket");
let refused = 0;
setInterval(() => fetch("/state").then((answer) => { if (answer.status === 503) refused += 1; }), 2000);
if (location.pathname === "/typed") setInterval(() => fetch("/save", {method: "POST", body: "x"}), 3000);
</script>'''
class App(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.headers.get("Upgrade"):
            return self.socket()
        if self.path == "/loading":
            return self.load()
        if self.path == "/computing" and not computing:
            # As a notebook server starts a kernel: in a session of its own.
            command = [sys.executable, "-c", "while True: pass"]
            computing.append(subprocess.Popen(command, start_new_session=True))
        self.answer(PAGE.encode())
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(b"saved")
    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def load(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(10 ** 9))
        self.end_headers()
        while True:
            self.wfile.write(b"x" * 1000)
            self.wfile.flush()
            time.sleep(0.5)
    def socket(self):
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        self.send_header("Sec-WebSocket-Accept", accept)
        self.end_headers()
        self.close_connection = True
        while True:  # the app talks all the time; its page does not
            self.wfile.write(b"\x89\x00\x81\x04news")
            self.wfile.flush()
            time.sleep(1)
    def log_message(self, *_): pass
computing = []
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
"""


def blueprint(_: int) -> str:
    """Write the blueprint `dev`, the template of those of the cases."""
    source = base64.b64encode(_APP.encode()).decode()
    start = "exec python3 -c 'import base64, os; exec(base64.b64decode(os.environ[\"SOURCE\"]))'"
    lab = {
        "listen": {"port": "auto"},
        "start": start,
        "env": {"SOURCE": source},
        "ready": {"path": "/", "within_s": 60},
    }
    return f"name: dev\nidle_stop_s: {IDLE_STOP_S}\napps: {json.dumps({'lab': lab})}\n"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(
        tmp_path_factory.mktemp("idle"),
        program="",
        blueprint=blueprint,
        more={name: f"name: {name}\ntemplate: dev\n" for name in CASES},
    ) as one:
        yield one


def shown(here: Place, blueprint: str) -> dict[str, Any]:
    name = here.fairlead.workspace(f"alice+{blueprint}").name
    return dict(json.loads(here.fairlead.cli("workspace", "show", name, "--json")))


async def until_stopped(here: Place, blueprint: str) -> dict[str, Any]:
    async with asyncio.timeout(DEADLINE_S):
        while (found := await asyncio.to_thread(shown, here, blueprint))["phase"] != "stopped":
            await asyncio.sleep(1)
    return found


async def open_app(window: ChromiumWindow, here: Place, name: str) -> ChromiumWindow:
    """Open the app of a workspace in a tab of its own; the start page lands there."""
    tab = await window.tab()
    await tab.open(here.url(f"lab--{name}--alice", "/" if name == "loading" else f"/{name}"))
    await tab.until("document.body.innerText.startsWith('APP')", "the app is shown")
    if name == "loading":
        await tab.click("#load")
    return tab


async def test_workspaces_stop_or_not_as_the_documentation_says(here: Place, tmp_path: Path) -> None:
    """Hidden tabs, polls and chatting apps stop; typing, a download and a kernel that computes do not."""
    terminal = subprocess.Popen(
        [*here.fairlead.command("ssh", "-l", "alice+hidden", "-tt"), "fl", "sleep 1000"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        async with open_chromium(tmp_path) as browser:
            window = await browser.person()
            await window.open((await asyncio.to_thread(here.link))["url"])
            await window.press("sign-in")
            tabs = {name: await open_app(window, here, name) for name in CASES}
            await tabs["hidden"].call("Page.setWebLifecycleState", state="frozen")
            for name in ("hidden", "polled"):
                found = await until_stopped(here, name)
                assert found["stopped_by"] == "idle", found
            said = await asyncio.to_thread(terminal.communicate, timeout=60)
            assert b"did nothing for" in said[0]
            assert b"unless it is used" in said[0]
            # The page polls on, and does not wake what stopped.
            before = await tabs["polled"].run("refused")
            await tabs["polled"].until(f"refused > {before} + 2", "polls are refused")
            assert (await asyncio.to_thread(shown, here, "polled"))["phase"] == "stopped"
            whys = {}
            for name in ("typed", "loading", "computing"):
                found = await asyncio.to_thread(shown, here, name)
                assert found["phase"] == "running", found
                whys[name] = found["why"]
            assert whys["typed"] == "POST /save by alice through lab"
            assert whys["loading"] == "GET /loading by alice through lab"
            assert "was computing" in whys["computing"]
            words = [*here.fairlead.command("ssh", "-l", "alice+typed", "-s"), "fl", "workspace-status"]
            status = await asyncio.to_thread(subprocess.run, words, capture_output=True, timeout=60)
            assert b": POST /save by alice through lab" in status.stdout
            assert b"unless it is used" in status.stdout
    finally:
        terminal.kill()
        terminal.wait()


# ------------------------------------------------------------------------------------- JupyterLab

BUSY = "while True: pass"
_NOTEBOOK = {
    "cells": [
        {
            "cell_type": "code",
            "id": "only",
            "metadata": {},
            "outputs": [],
            "execution_count": None,
            "source": BUSY,
        }
    ],
    "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}


def lab(name: str) -> str:
    """Write a blueprint with JupyterLab, as docs/web.md does."""
    app = {
        "listen": {"socket": "auto"},
        "start": f'exec {shutil.which(JUPYTER)} --no-browser --ServerApp.sock="$FAIRLEAD_APP_SOCKET"'
        " --allow-root --ServerApp.allow_remote_access=True --IdentityProvider.token=",
        "ready": {"path": "/api", "within_s": 120},
        "activity": "jupyter",
    }
    script = f"#!/bin/sh\ncat >one.ipynb <<'EOF'\n{json.dumps(_NOTEBOOK)}\nEOF\n"
    init = [{"name": "notebook", "when": "once", "script": script}]
    return (
        f"name: {name}\nidle_stop_s: {IDLE_STOP_S}\napps: {json.dumps({'lab': app})}\n"
        f"init: {json.dumps(init)}\n"
    )


@needs(JUPYTER)
@pytest.mark.timeout(300)
async def test_a_hidden_lab_with_an_idle_kernel_stops_and_one_that_computes_does_not(tmp_path: Path) -> None:
    """Both notebooks are open in Chromium, whose pages poll and hold the WebSockets of their kernels."""
    names = ("resting", "working")
    blueprints = {"dev": lab("dev"), **{name: lab(name) for name in names}}
    with place(tmp_path / "fairlead", program="", blueprints=blueprints) as here:
        async with open_chromium(tmp_path) as browser:
            window = await browser.person()
            await window.open((await asyncio.to_thread(here.link))["url"])
            await window.press("sign-in")
            tabs = {}
            for name in names:
                tab = tabs[name] = await window.tab()
                await tab.open(here.url(f"lab--{name}--alice", "/lab/tree/one.ipynb"))
                await tab.shows("Python 3 (ipykernel) | Idle")
            await tabs["working"].run("document.querySelector('.jp-toast-button[title=No]')?.click()")
            await tabs["working"].click("[data-command='notebook:run-cell-and-select-next']")
            await tabs["working"].shows("Python 3 (ipykernel) | Busy")
            found = await until_stopped(here, "resting")
            assert found["stopped_by"] == "idle"
            found = await asyncio.to_thread(shown, here, "working")
            assert found["phase"] == "running"
            assert "was computing" in found["why"]
