"""The terminal in the browser, in Chromium: it draws what a real terminal does, and is a shell on record."""

import asyncio
import hashlib
import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from proxy.web.terminal.channel import WINDOW_BYTES
from proxy.web.terminal.messages import SUBPROTOCOL
from tests.fakes.chromium import DEADLINE_S, ChromiumWindow, open_chromium
from tests.web.emulator import need_emulator
from tests.web.logins import Place, place
from tests.wire.harness import needs
from tests.wire.peers import until
from tests.wire.tmux import session

# Server and browser start once; each test opens a terminal of its own.
pytestmark = [needs("chromium"), pytest.mark.asyncio(loop_scope="module")]
MIB = 1024 * 1024
LABEL = "terminal--dev--alice"

WATCH = """
window.seen = {pieces: [], received: 0, shown: 0, most: 0};
window.WebSocket = class extends WebSocket {
  constructor(...given) {
    super(...given);
    seen.socket = this;
    this.addEventListener('message', event => {
      if (typeof event.data === 'string') return;
      seen.pieces.push(new Uint8Array(event.data));
      seen.received += event.data.byteLength;
      seen.most = Math.max(seen.most, seen.received - seen.shown);
    });
  }
  send(data) {
    if (typeof data === 'string') seen.shown = JSON.parse(data).shown ?? seen.shown;
    super.send(data);
  }
};
"""
"""Runs before the page's own scripts: keeps what comes, and how much of it was not drawn at the worst."""

ROWS = """[...Array(terminal.rows).keys()].map(y => terminal.buffer.active
  .getLine(terminal.buffer.active.baseY + y)?.translateToString(true).trimEnd() ?? '')"""

OUTPUT = """
import sys
sys.stdout.write("\\x1b[2J\\x1b[H<<<begin>>>")
line = 0
written = 0
while written < 10 * 1024 * 1024:
    text = f"\\x1b[38;5;{line % 256}m{line:8} \\x1b[0m" + "grüße 漢字 " * (line % 9)
    text += "x" * (line % 61) + "\\n"
    written += len(text.encode())
    sys.stdout.write(text)
    line += 1
sys.stdout.write("<<<end>>>")
sys.stdout.flush()
sys.stdin.readline()
"""

HTOP_LIKE = """
import os, sys, time
columns, rows = os.get_terminal_size()
sys.stdout.write("\\x1b[?1049h\\x1b[2J\\x1b[?25l")
for turn in range(20):
    for y in range(rows - 1):
        bar = "|" * ((y * 7 + turn * 3) % 30)
        sys.stdout.write(f"\\x1b[{y + 1};1H\\x1b[1;36m{y:3}\\x1b[0m[\\x1b[32m{bar:<30}\\x1b[0m] ")
        sys.stdout.write(f"\\x1b[30;46m{'process ' + str(turn * y):<20}\\x1b[0m")
        sys.stdout.write(f"\\x1b[38;5;{y + 20}mxx\\x1b[0m")
    sys.stdout.flush()
    time.sleep(0.01)
sys.stdout.write(f"\\x1b[{rows};1HREADY {columns}")
sys.stdout.flush()
sys.stdin.readline()
"""
WIDE = """printf '\033[2J\033[H漢字 かな 한글 wide\r\n\033[42m全角\033[0m|ﬁn|é|\r\nREADY wide'; read x"""
TEXT = "".join(f"line {number} grüße 漢字\n" for number in range(1, 101))


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    need_emulator()
    with place(tmp_path_factory.mktemp("terminal"), program="") as one:
        for name, text in {
            "output.py": OUTPUT,
            "htop.py": HTOP_LIKE,
            "long.txt": TEXT,
            "wide.sh": WIDE,
        }.items():
            assert one.fairlead.ssh(f"cat > {name}", data=text.encode()).returncode == 0
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def person(here: Place, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ChromiumWindow]:
    """A user who has signed in by an SSH key."""
    async with open_chromium(tmp_path_factory.mktemp("chromium"), ["--window-size=1000,700"]) as browser:
        window = await browser.person()
        await window.open((await asyncio.to_thread(here.link))["url"])
        await window.press("sign-in")
        permissions = ["clipboardReadWrite", "clipboardSanitizedWrite"]
        await browser.call("Browser.grantPermissions", permissions=permissions, browserContextId=window.jar)
        yield window


@asynccontextmanager
async def a_terminal(here: Place, person: ChromiumWindow) -> AsyncIterator[ChromiumWindow]:
    """Open a terminal in a tab of its own, and wait for its shell."""
    tab = await person.tab()
    await tab.call("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
    await tab.open(here.url(LABEL))
    await tab.until("seen.received > 0", "the shell has said something")
    yield tab
    await tab.call("Page.close")


async def rows(tab: ChromiumWindow) -> list[str]:
    return list(await tab.run(ROWS))


async def shows(tab: ChromiumWindow, text: str) -> list[str]:
    """Wait until a row of the screen has the text; return all rows."""
    await tab.until(f"({ROWS}).some(row => row.includes({text!r}))", f"{text!r} is on the screen")
    return await rows(tab)


async def row_of(tab: ChromiumWindow, text: str) -> int:
    """Wait until a row of the screen is the text; return its number."""
    await tab.until(f"({ROWS}).includes({text!r})", f"{text!r} is a row")
    return (await rows(tab)).index(text)


@needs("tmux")
@pytest.mark.parametrize(
    ("program", "awaited"),
    [
        pytest.param(
            "vim -n -u NONE -N '+set ruler' '+normal G' long.txt", "100,1", marks=needs("vim"), id="vim"
        ),
        pytest.param(f"{sys.executable} htop.py", "READY", id="htop-like"),
        pytest.param("bash wide.sh", "READY wide", id="wide characters"),
        pytest.param(f"{sys.executable} output.py", "<<<end>>>", id="10 MiB"),
    ],
)
async def test_the_screen_is_that_of_a_real_terminal(
    here: Place, person: ChromiumWindow, tmp_path: Path, program: str, awaited: str
) -> None:
    async with a_terminal(here, person) as tab:
        columns, lines = await tab.run("[terminal.cols, terminal.rows]")
        ssh = [*here.fairlead.command("ssh", "-tt", "fl"), "LC_ALL=C.UTF-8", program]
        await tab.type(f"clear; LC_ALL=C.UTF-8 {program}")
        with session(tmp_path, ssh, columns, lines) as real:
            await shows(tab, awaited)
            await asyncio.to_thread(real.wait_for, awaited)
            deadline = asyncio.get_running_loop().time() + DEADLINE_S
            wanted, drawn = [""], []
            while wanted != drawn and asyncio.get_running_loop().time() < deadline:
                await asyncio.sleep(0.1)  # both may still be drawing
                wanted, drawn = await asyncio.to_thread(real.rows), await rows(tab)
                wanted += [""] * (lines - len(wanted))
        assert drawn == wanted


async def test_ten_mebibytes_arrive_whole_and_at_the_pace_of_the_screen(
    here: Place, person: ChromiumWindow
) -> None:
    wanted = await asyncio.to_thread(here.fairlead.ssh, f"{sys.executable} output.py", data=b"\n")
    async with a_terminal(here, person) as tab:
        await tab.type(f"clear; stty -onlcr; {sys.executable} output.py")
        await shows(tab, "<<<end>>>")
        digest = await tab.run(
            """(async () => {
              const all = new Uint8Array(await new Blob(seen.pieces).arrayBuffer());
              const text = new TextDecoder().decode(all);
              const begin = new TextEncoder().encode(text.slice(0, text.indexOf('<<<begin>>>'))).length;
              const end = new TextEncoder().encode(text.slice(0, text.indexOf('<<<end>>>'))).length;
              const found = await crypto.subtle.digest('SHA-256', all.slice(begin, end));
              return [...new Uint8Array(found)].map(one => one.toString(16).padStart(2, '0')).join('');
            })()"""
        )

        sent = wanted.stdout
        assert len(sent) > 10 * MIB
        assert digest == hashlib.sha256(sent[sent.index(b"<<<beg") : sent.index(b"<<<end")]).hexdigest()
        assert 0 < await tab.run("seen.most") <= WINDOW_BYTES


async def test_the_program_learns_the_size_of_the_window_and_its_changes(
    here: Place, person: ChromiumWindow
) -> None:
    async with a_terminal(here, person) as tab:
        before = await tab.run("[terminal.rows, terminal.cols]")
        await tab.type("trap 'echo changed to $(stty size)' WINCH; echo begins with $(stty size)")
        await shows(tab, f"begins with {before[0]} {before[1]}")
        size = {"width": 640, "height": 400, "deviceScaleFactor": 1, "mobile": False}
        await tab.call("Emulation.setDeviceMetricsOverride", **size)
        await tab.until(f"terminal.cols < {before[1]} && terminal.rows < {before[0]}", "a smaller terminal")
        after = await tab.run("[terminal.rows, terminal.cols]")
        await shows(tab, f"changed to {after[0]} {after[1]}")


async def test_text_is_pasted_whole_and_as_text(here: Place, person: ChromiumWindow) -> None:
    text = "".join(f"{number:6} grüße 漢字 {'x' * (number % 50)}\n" for number in range(6_000))
    assert len(text.encode()) > 256 * 1024  # more than the window
    async with a_terminal(here, person) as tab:
        await tab.type("stty -echo; echo n''ow; head -n 6000 > pasted; stty echo; sha256sum pasted")
        await shows(tab, "now")
        await tab.run(f"terminal.paste({json.dumps(text)}); 0")
        await shows(tab, hashlib.sha256(text.encode()).hexdigest()[:40])


async def test_what_is_selected_is_copied_and_a_program_may_set_the_clipboard_but_not_read_it(
    here: Place, person: ChromiumWindow
) -> None:
    async with a_terminal(here, person) as tab:
        await tab.call("Page.bringToFront")
        await tab.type("clear; echo 'to be'' copied'; read x")
        at = await row_of(tab, "to be copied")
        await tab.run(f"terminal.select(0, {at}, 12); 0")
        await press(tab, "C", 67, 2 + 8)
        await tab.until("navigator.clipboard.readText().then(text => text === 'to be copied')", "copied")
        await tab.type("")
        await tab.type(r"clear; printf '\033]52;c;%s\007' $(printf 'by a program' | base64); echo asked")
        await shows(tab, "asked")
        await tab.until("navigator.clipboard.readText().then(text => text === 'by a program')", "set")
        await tab.type(
            "clear; stty -echo -icanon min 0 time 30; "
            r"printf '\033]52;c;?\007'; head -c 8 | cat -v; stty sane; echo"
        )
        await shows(tab, "^[]52;c;^G")


async def press(tab: ChromiumWindow, key: str, code: int, modifiers: int) -> None:
    """Press a key with modifiers: 1 alt, 2 control, 4 meta, 8 shift."""
    said = {"key": key, "code": f"Key{key}", "windowsVirtualKeyCode": code, "modifiers": modifiers}
    for kind in ("rawKeyDown", "keyUp"):
        await tab.call("Input.dispatchKeyEvent", type=kind, **said)


async def at_cell(tab: ChromiumWindow, column: int, row: int, *kinds: str) -> None:
    """Move and press the mouse in the middle of a cell."""
    x, y = await tab.run(
        f"""(() => {{ const box = document.querySelector('.xterm-screen').getBoundingClientRect();
          return [box.x + ({column} + .5) * box.width / terminal.cols,
                  box.y + ({row} + .5) * box.height / terminal.rows]; }})()"""
    )
    for kind in kinds:
        button = "none" if kind == "mouseMoved" else "left"
        await tab.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, clickCount=1)


async def test_a_program_gets_the_mouse_and_a_link_is_opened_by_a_click(
    here: Place, person: ChromiumWindow
) -> None:
    async with a_terminal(here, person) as tab:
        await tab.run("window.opened = []; window.open = (...given) => { opened.push(given); }; 0")
        await tab.type("clear; echo see https://example.org/a?b=c; echo")
        at = await row_of(tab, "see https://example.org/a?b=c")
        await at_cell(tab, 8, at, "mouseMoved")
        await tab.until("!!document.querySelector('.xterm-cursor-pointer')", "the link is found")
        await at_cell(tab, 8, at, "mousePressed", "mouseReleased")
        await tab.until("opened.length", "the link was opened")
        assert await tab.run("opened") == [["https://example.org/a?b=c", "_blank", "noopener,noreferrer"]]
        await tab.type(
            r"clear; stty -icanon -echo; printf '\033[?1000h\033[?1006h'; echo mo''use; "
            "head -c 9 | cat -v; stty sane"
        )
        await shows(tab, "mouse")
        await at_cell(tab, 4, 6, "mouseMoved", "mousePressed", "mouseReleased")
        await shows(tab, "^[[<0;5;7M")


async def test_a_sign_out_ends_the_shell_with_its_reason(here: Place, person: ChromiumWindow) -> None:
    async with a_terminal(here, person) as tab:
        live = await asyncio.to_thread(one_live, here)
        await tab.run("fetch('/.fairlead/sign-out', {method: 'POST'}).then(answer => answer.status)")
        await tab.shows("The terminal was closed: you signed out.")
        ended = await asyncio.to_thread(ended_record, here, live["id"])
        assert [ended["end_reason"], ended["end_detail"]] == ["revoked", "you signed out"]


async def test_only_the_owner_and_only_the_page_of_this_origin_get_a_terminal(
    here: Place, person: ChromiumWindow
) -> None:
    async with a_terminal(here, person) as tab:
        cookies = await tab.cookies_for(here.url(LABEL))
    base = {"Host": f"{LABEL}.localhost:{here.port}", "Sec-WebSocket-Protocol": SUBPROTOCOL}
    own = {**base, "Origin": here.url(LABEL, ""), "Cookie": "; ".join(f"{k}={v}" for k, v in cookies.items())}
    assert await upgraded(here, own) == 101
    assert await upgraded(here, {**own, "Sec-WebSocket-Protocol": "another"}) == 400
    assert await upgraded(here, {**own, "Origin": here.url()}) == 403
    assert await upgraded(here, {k: v for k, v in own.items() if k != "Origin"}) == 403
    assert await upgraded(here, {k: v for k, v in own.items() if k != "Cookie"}) == 401
    await person.open(here.url("terminal--dev--bob"))
    assert person.status == 404
    await person.open(here.url("terminal--nothing--alice"))
    assert person.status == 404


async def upgraded(here: Place, headers: dict[str, str]) -> int:
    """Ask for the WebSocket with these fields; return the status of the answer."""
    async with aiohttp.ClientSession() as http:
        try:
            async with http.ws_connect(f"http://127.0.0.1:{here.port}/socket", headers=headers):
                return 101
        except aiohttp.WSServerHandshakeError as exc:
            return exc.status


async def test_the_shell_is_on_record_and_its_end_is_told(here: Place, person: ChromiumWindow) -> None:
    fairlead = here.fairlead
    async with a_terminal(here, person) as tab:
        live = await asyncio.to_thread(one_live, here)
        assert [live["user"], live["owner"], live["client_type"]] == ["alice", "alice", "browser"]
        (shell,) = live["programs"]
        assert [shell["kind"], shell["pty"]] == ["shell", True]
        await tab.type("exit 7")
        await tab.shows("The shell has ended with status 7.")
        ended = await asyncio.to_thread(ended_record, here, live["id"])
        assert [ended["end_reason"], ended["programs"][0]["exit_status"]] == ["left", 7]
        await tab.click("#again")
        await tab.until("document.getElementById('bar').hidden", "another shell")
        other = await asyncio.to_thread(one_live, here)
        await asyncio.to_thread(fairlead.cli, "session", "kill", other["programs"][0]["id"])
        await shows(tab, "fairlead: ")
        await tab.until("!document.getElementById('bar').hidden", "the shell has ended")
        await tab.click("#again")
        last = await asyncio.to_thread(one_live, here)
        await asyncio.to_thread(fairlead.cli, "session", "kill", last["id"])
        await tab.shows("The terminal was closed: ")


def ended_record(here: Place, session_id: str) -> dict[str, Any]:
    """Wait until a connection that is over has its end on record; return it with its programs."""
    found: dict[str, Any] = {}

    def is_ended() -> bool:
        found.update(json.loads(here.fairlead.cli("session", "show", session_id, "--json")))
        return bool(found["ended_at"])

    until(is_ended, "the end is on record")
    return found


def one_live(here: Place) -> dict[str, Any]:
    """Wait until one connection is on record, and its shell; return it with its programs."""
    found: list[dict[str, Any]] = []

    def is_there() -> bool:
        rows = json.loads(here.fairlead.cli("session", "list", "--json"))
        found[:] = [json.loads(here.fairlead.cli("session", "show", row["id"], "--json")) for row in rows]
        return len(found) == 1 and bool(found[0]["programs"])

    until(is_there, "one shell is on record")
    return found[0]
