"""The pages of the terminal's origin, asked over a connection in the process."""

import asyncio
from typing import Any, cast

import pytest

from proxy.model import ConnId, Peer, Principal, User, WebSession
from proxy.userstring import UserString
from proxy.web.in_process import WithOwnApps
from proxy.web.road import Address, OwnApp
from proxy.web.terminal import assets
from proxy.web.terminal.assets import SCRIPTS, STYLES, Assets
from proxy.web.terminal.session import TerminalParts
from proxy.web.terminal.site import TerminalSite

FILES = Assets({name: f"/* {name} */".encode() for name in (*SCRIPTS, *STYLES)}, "0123456789abcdef")
ALICE = Principal(Peer(ConnId("c1"), "::1", 0, "", 0), User("alice"), WebSession("s1"))
OWN = Address("alice", UserString("alice", "dev"), OwnApp("terminal"), principal=ALICE)


class Answer(asyncio.Protocol):
    """The receiver of one answer."""

    def __init__(self) -> None:
        self.content = b""
        self.is_over = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.content += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_over.set()


async def asked(path: str, address: Address = OWN) -> str:
    """Return head and body of the answer to a GET."""
    site = TerminalSite(cast(TerminalParts, None))
    await site.start()
    answer = Answer()
    wire = await WithOwnApps(cast(Any, None), {"terminal": site.connection}, 65_536).open(address, answer)
    wire.write(f"GET {path} HTTP/1.1\r\nHost: t.localhost:8022\r\nConnection: close\r\n\r\n".encode())
    async with asyncio.timeout(10):
        await answer.is_over.wait()
    await site.close()
    return answer.content.decode()


async def test_the_page_runs_its_own_files_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "load", lambda: FILES)
    head, _, body = (await asked("/")).partition("\r\n\r\n")
    policy = next(line for line in head.splitlines() if line.startswith("Content-Security-Policy:"))
    assert head.startswith("HTTP/1.1 200 ")
    assert "default-src 'none'; script-src 'nonce-" in policy
    assert "connect-src 'self' ws://t.localhost:8022;" in policy
    assert policy.endswith("form-action 'none'; base-uri 'none'; frame-ancestors 'none'")
    assert [name for name in (*STYLES, *SCRIPTS) if f"/assets/{FILES.version}/{name}" not in body] == []
    assert "<title>alice+dev</title>" in body


async def test_a_file_is_kept_under_its_version_and_nothing_else_is_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(assets, "load", lambda: FILES)
    answer = await asked(f"/assets/{FILES.version}/xterm.js")
    assert "immutable" in answer
    assert "Content-Type: text/javascript; charset=utf-8" in answer
    assert answer.endswith("/* xterm.js */")
    for path in ("/assets/other/xterm.js", f"/assets/{FILES.version}/..%2fsite.py", "/xterm.js", "/assets/"):
        assert (await asked(path)).startswith("HTTP/1.1 404 "), path


async def test_without_the_emulator_the_page_says_how_to_add_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "load", lambda: None)
    answer = await asked("/")
    assert answer.startswith("HTTP/1.1 503 ")
    assert "npm ci --prefix proxy/web/terminal/emulator" in answer
    assert "<script" not in answer


@pytest.mark.parametrize(
    "address",
    [
        Address("alice", UserString("alice", "dev"), OwnApp("terminal")),
        Address("bob", UserString("bob", "dev"), OwnApp("terminal"), principal=ALICE),
    ],
    ids=["no login", "another user's"],
)
@pytest.mark.parametrize("path", ["/", "/socket"])
async def test_whatever_the_gate_lets_pass_a_terminal_is_the_owners(address: Address, path: str) -> None:
    assert (await asked(path, address)).startswith("HTTP/1.1 403 ")
