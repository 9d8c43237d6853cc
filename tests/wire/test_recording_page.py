"""The exported page in a real browser: it shows what was recorded, from one file, without network."""

import html
import json
import re
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from proxy.recording.archive import VerificationResult
from proxy.recording.lines import event_line, header_line
from proxy.recording.page import page
from tests.fakes.recordings import a_shell
from tests.wire.harness import Fairlead, needs
from tests.wire.peers import until
from tests.wire.tmux import session

SETTINGS = {
    "FAIRLEAD_RECORDING__RULES": '[{"users": ["alice"]}]',
    "FAIRLEAD_RECORDING__FLUSH_INTERVAL_S": "0.1",
}
BLUEPRINTS = {"dev": "shell: /bin/sh\n"}

pytestmark = needs("chromium")


def opened(file: Path, fragment: str = "") -> str:
    """Return the elements of a page after its script ran; the data of the recording left out."""
    done = subprocess.run(
        [
            *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
            *("--no-first-run", f"--user-data-dir={file.parent}/profile-{secrets.token_hex(4)}"),
            *("--virtual-time-budget=10000", "--dump-dom", file.as_uri() + fragment),
        ],
        capture_output=True,
        text=True,
        timeout=100,
    )
    return re.sub(r"<(script|style).*?</\1>", "", done.stdout, flags=re.DOTALL)


def screen_of(elements: str) -> list[str]:
    """Return the text of the rows that the player shows."""
    found = re.search(r'<div id="screen".*?>(.*)<div id="cursor"', elements, re.DOTALL)
    assert found, elements[-2_000:]
    rows = re.findall(r"<div>(.*?)</div>", found.group(1), re.DOTALL)
    return [html.unescape(re.sub(r"<[^>]+>", "", row)).rstrip() for row in rows]


async def written(file: Path, lines: AsyncIterator[bytes], *, has_terminal: bool = True) -> Path:
    now = datetime.now(UTC)
    manifest = a_shell("c1-1", has_terminal=has_terminal, started_at=now, ended_at=now)
    with file.open("w") as out:
        async for piece in page(manifest, VerificationResult("intact", "1 block", 1, 9), lines):
            out.write(piece)
    return file


async def short() -> AsyncIterator[bytes]:
    yield header_line({"version": 2, "width": 60, "height": 12})
    yield event_line(0.1, "o", "\x1b[32mhello\x1b[0m </script><img src=x onerror=alert(1)> grüße\r\n")
    yield event_line(0.5, "r", "70x14")
    yield event_line(1.0, "m", "a marker")
    yield event_line(1.2, "o", "second line\r\n\x1b[44m\x1b[K\x1b[0m")
    yield event_line(1.3, "h", "1 hash signature")


async def test_a_browser_shows_any_moment_of_it(tmp_path: Path) -> None:
    file = await written(tmp_path / "page.html", short())
    assert screen_of(opened(file)) == [""] * 12
    before = opened(file, "#t=0.3")
    assert screen_of(before)[:2] == ["hello </script><img src=x onerror=alert(1)> grüße", ""]
    after = opened(file, "#t=end")
    assert screen_of(after)[:3] == ["hello </script><img src=x onerror=alert(1)> grüße", "second line", ""]
    assert len(screen_of(after)) == 14
    assert "00:01 a marker" in after
    assert re.search(r'<div><span style="background: rgb[^>]*> {70}</span></div>', after), (
        "a coloured blank row"
    )
    assert "00:01 / 00:01" in after


async def test_player_and_page_without_the_data_are_small_and_load_nothing(tmp_path: Path) -> None:
    file = await written(tmp_path / "page.html", short())
    text = file.read_text()
    without_data = re.sub(r"(<script class=part[^>]*>)[^<]*", r"\1", text)
    assert len(without_data) <= 40 * 1024
    assert "default-src 'none'" in text
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?(?:https?:)?//", without_data)


async def hour() -> AsyncIterator[bytes]:
    """One hour in which something happens five times a second."""
    yield header_line({"version": 2, "width": 100, "height": 30})
    for tick in range(18_000):
        yield event_line(tick / 5, "o", f"\x1b[{tick % 30 + 1};1H\x1b[3{tick % 8}mtick {tick:06}\x1b[K")


async def test_a_seek_into_an_hour_decodes_one_part(tmp_path: Path) -> None:
    file = await written(tmp_path / "page.html", hour())
    parts = re.findall(r"<script class=part[^>]*>([^<]*)", file.read_text())
    assert len(parts) >= 3, "an hour is many parts"
    assert max(map(len, parts)) < 512 * 1024
    assert "tick 009000" in "\n".join(screen_of(opened(file, "#t=1800")))


# ------------------------------------------------------------------------------------ real sessions


HTOP_LIKE = """
import sys, time
for turn in range(4):
    sys.stdout.write("\\x1b[?1049h\\x1b[H")
    for y in range(48):
        bar = "|" * ((y * 7 + turn * 3) % 60)
        sys.stdout.write(f"\\x1b[{y + 1};1H\\x1b[1;36m{y:3}\\x1b[0m[\\x1b[32m{bar:<60}\\x1b[0m] ")
        sys.stdout.write(f"\\x1b[30;46m{'process ' + str(turn * y):<60}\\x1b[0m")
        sys.stdout.write(f"\\x1b[38;5;{y + 20}m{'x' * 60}\\x1b[0m")
    sys.stdout.flush()
    time.sleep(0.1)
sys.stdout.write("\\x1b[50;1HREADY 200")
sys.stdout.flush()
time.sleep(600)
"""
WIDE = (
    "printf '\\033[2J\\033[H漢字 かな 한글 wide\\r\\n\\033[42m全角\\033[0m|e\\314\\201|ﬁn\\r\\nREADY wide'; "
    "sleep 600"
)


def cast_with(fairlead: Fairlead, text: str) -> Path:
    """Wait until a recording that goes on holds a text of this run, and return its file."""

    def find() -> Path | None:
        casts = fairlead.home.glob("recordings/*/*.cast.part")
        return next((file for file in casts if text in file.read_text().partition("\n")[2]), None)

    return until(find, f"{text!r} is recorded")


@needs("tmux")
@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize(
    ("program", "columns", "rows", "awaited"),
    [
        pytest.param(["vim -u NONE -N long.txt"], 80, 24, "line 100", marks=needs("vim"), id="vim"),
        pytest.param([f"{sys.executable} htop.py"], 200, 50, "READY 200", id="two hundred columns"),
        pytest.param([WIDE], 80, 24, "READY wide", id="wide characters"),
    ],
)
def test_the_last_screen_is_the_one_that_tmux_shows(
    fairlead: Fairlead, tmp_path: Path, program: list[str], columns: int, rows: int, awaited: str
) -> None:
    content = "".join(f"line {number} grüße 漢字\n" for number in range(1, 101))
    fairlead.ssh("cat > long.txt", data=content.encode())
    fairlead.ssh("cat > htop.py", data=HTOP_LIKE.encode())
    command = fairlead.command("ssh", "-tt", "fl")
    with session(tmp_path, [*command, "LC_ALL=C.UTF-8", *program], columns, rows) as live:
        if "vim" in program[0]:
            live.wait_for("line 20")
            live.tmux("send-keys", ":set hlsearch | /line 2", "Enter", "G")
        live.wait_for(awaited)
        file = cast_with(fairlead, awaited)
        wanted = live.rows()
        events = [json.loads(line) for line in file.read_text().splitlines()[1:]]
        moment = [at_s for at_s, code, _ in events if code == "o"][-1]
    until(file.with_suffix("").exists, "the recording has ended")
    identity = file.name.removesuffix(".cast.part")
    exported = tmp_path / "page.html"
    fairlead.cli("session", "replay", identity, "--export", "html", "-o", str(exported))
    shown = screen_of(opened(exported, f"#t={moment}"))
    assert shown == wanted + [""] * (rows - len(wanted))
