"""Recordings of real sessions: they replay to the screen that the person saw, and the person was told."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyte
import pytest

from tests.wire.harness import Fairlead, needs
from tests.wire.peers import Peer, echo, until
from tests.wire.terminal import Terminal

SETTINGS = {
    "FAIRLEAD_RECORDING__RULES": '[{"users": ["alice"]}]',
    "FAIRLEAD_RECORDING__FLUSH_INTERVAL_S": "0.1",
}
BLUEPRINTS = {"dev": "shell: /bin/sh\n"}

pytestmark = pytest.mark.usefixtures("warm")

NOTICE = "fairlead: this session is recorded"


def ssh(fairlead: Fairlead, *words: str, **options: Any) -> Terminal:
    return Terminal([*fairlead.command("ssh", "-tt", "fl"), *words], **options)


def rows(fairlead: Fairlead) -> list[dict[str, Any]]:
    """Every manifest there is, past the command line, which takes a second to start."""
    return [
        json.loads(file.read_text())["recording"] for file in (fairlead.home / "recordings").glob("*/*.json")
    ]


def newest(fairlead: Fairlead, known: set[str]) -> dict[str, Any]:
    """Wait until the one recording that is not among `known` has ended."""
    found: list[dict[str, Any]] = []

    def ended() -> bool:
        found[:] = [row for row in rows(fairlead) if row["id"] not in known]
        return bool(found) and all(row["ended_at"] for row in found)

    until(ended, "the recording has ended")
    assert len(found) == 1, found
    return found[0]


def known(fairlead: Fairlead) -> set[str]:
    return {row["id"] for row in rows(fairlead)}


def lines_of(fairlead: Fairlead, row: dict[str, Any]) -> list[Any]:
    day = row["started_at"][:10]
    suffix = ".cast" if row["format"] == "asciicast-2" else ".sftp.jsonl"
    file = fairlead.home / "recordings" / day / (row["id"] + suffix)
    return [json.loads(line) for line in file.read_text().splitlines()]


class _Screen(pyte.Screen):
    def select_graphic_rendition(self, *attrs: int, **private: bool) -> None:
        if not private:
            super().select_graphic_rendition(*attrs)


def replayed(fairlead: Fairlead, row: dict[str, Any]) -> pyte.Screen:
    """Play what is stored on a new screen, resizes included."""
    header, *events = lines_of(fairlead, row)
    screen = _Screen(header["width"], header["height"])
    stream = pyte.Stream(screen)
    for _, code, data in events:
        if code == "o":
            stream.feed(data)
        elif code == "r":
            columns, lines = data.split("x")
            screen.resize(int(lines), int(columns))
    return screen


def assert_same_screen(terminal: Terminal, screen: pyte.Screen) -> None:
    """Compare characters, colours and the cursor."""
    live = terminal.screen
    assert screen.display == live.display
    assert (screen.lines, screen.columns) == (live.lines, live.columns)
    assert (screen.cursor.y, screen.cursor.x) == (live.cursor.y, live.cursor.x)
    for y in range(live.lines):
        for x in range(live.columns):
            assert screen.buffer[y][x] == live.buffer[y][x], (y, x)


# ------------------------------------------------------------------------------------------ screens


def test_a_shell_replays_to_the_screen_that_was_seen(fairlead: Fairlead) -> None:
    before = known(fairlead)
    with ssh(fairlead) as terminal:
        terminal.expect(NOTICE)
        terminal.ready()
        terminal.run("printf 'gr\\303\\274\\303\\237e \\033[31mred\\033[0m\\n'")
        terminal.run("seq 1 100")
        terminal.send("exit 7\r")
        assert terminal.wait() == 7
        row = newest(fairlead, before)
        assert_same_screen(terminal, replayed(fairlead, row))
    assert (row["kind"], row["end"], row["gaps"]) == ("shell", "exit 7", 0)
    assert fairlead.cli("session", "verify", row["id"]).startswith("intact")


def test_utf_8_that_is_cut_anywhere_is_whole_in_the_recording(fairlead: Fairlead) -> None:
    """Each byte in a write of its own, slowly enough to be a frame of its own."""
    before = known(fairlead)
    text = "äöü€漢字🙂é"
    octal = " ".join(f"\\\\{byte:03o}" for byte in text.encode())
    script = f"for b in {octal}; do printf $b; sleep 0.02; done"
    with ssh(fairlead, script) as terminal:
        assert terminal.wait() == 0
        row = newest(fairlead, before)
        assert_same_screen(terminal, replayed(fairlead, row))
    shown = "".join(data for _, code, data in lines_of(fairlead, row)[1:] if code == "o")
    assert text in shown
    assert "\ufffd" not in shown


def test_a_command_that_is_not_utf8_is_recorded_with_its_bytes_shown(fairlead: Fairlead) -> None:
    before = known(fairlead)
    command = [*fairlead.command("ssh"), "fl", b"printf %s caf\xe9; echo after"]
    assert subprocess.run(command, capture_output=True, timeout=60).stdout == b"caf\xe9after\n"
    row = newest(fairlead, before)
    assert row["command"] == r"printf %s caf\xe9; echo after"
    header, *events = lines_of(fairlead, row)
    assert header["title"].endswith(row["command"])
    assert "".join(data for _, code, data in events if code == "o").endswith("caf\ufffdafter\n")
    assert fairlead.cli("session", "verify", row["id"]).startswith("intact")
    assert "after" in fairlead.cli("session", "replay", row["id"], "--speed", "1000")


@needs("vim")
def test_vim_with_resizes_replays_to_the_screen_that_was_seen(fairlead: Fairlead) -> None:
    before = known(fairlead)
    with ssh(fairlead, "vim -u NONE -N notes.txt", columns=70, rows=20) as terminal:
        terminal.expect_screen(r"(?m)^~$")
        terminal.send("ihello from vïm\x1b:set ruler hlsearch\r")
        terminal.expect_screen("hello from vïm")
        terminal.resize(50, 12)
        terminal.expect_screen(r"\Ahello from vïm\n(~\n){10}.*All")
        terminal.resize(90, 30)
        terminal.expect_screen(r"\Ahello from vïm\n(~\n){28}.*All")
        terminal.send(":q!\r")
        assert terminal.wait() == 0
        row = newest(fairlead, before)
        assert_same_screen(terminal, replayed(fairlead, row))
    sizes = [data for _, code, data in lines_of(fairlead, row)[1:] if code == "r"]
    assert sizes == ["50x12", "90x30"]


@needs("vim")
def test_a_session_that_is_torn_off_shows_what_was_last_on_the_screen(fairlead: Fairlead) -> None:
    before = known(fairlead)
    with ssh(fairlead, "exec vim -u NONE -N torn.txt", columns=70, rows=20) as terminal:
        terminal.expect_screen(r"(?m)^~$")
        terminal.send("iunsaved\x1b:set ruler\r")
        terminal.expect_screen(r"\Aunsaved\n(~\n){18}.*All")
        terminal.hang_up()
        row = newest(fairlead, before)
        assert "unsaved" in replayed(fairlead, row).display[0]
        assert_same_screen(terminal, replayed(fairlead, row))


@needs("tmux")
def test_tmux_with_panes_and_a_resize_replays_to_the_screen_that_was_seen(fairlead: Fairlead) -> None:
    before = known(fairlead)
    with ssh(
        fairlead, "exec tmux -L recorded -f /dev/null new -s work /bin/sh", columns=80, rows=24
    ) as terminal:
        terminal.expect_screen(r"\[work\]")
        terminal.send("tmux -L recorded set status-right '' \\; split-window -h /bin/sh\r")
        terminal.expect_screen("│")
        terminal.send("echo ri''ght\r")
        terminal.expect_screen("(?m)right$")
        terminal.resize(100, 30)
        terminal.expect_screen(r"\A(?:[^\n]*\n){29}\[work\]")
        terminal.send("\x02d")
        terminal.expect_screen(r"\[detached")
        terminal.wait()
        row = newest(fairlead, before)
        assert_same_screen(terminal, replayed(fairlead, row))
        screens = "".join(str(data) for _, code, data in lines_of(fairlead, row)[1:] if code == "o")
        assert "right" in screens
    fairlead.ssh("tmux -L recorded kill-server")


def test_the_command_replays_in_a_terminal(fairlead: Fairlead) -> None:
    """`fairlead session replay` itself, on a terminal, ends with what the person saw."""
    before = known(fairlead)
    with ssh(
        fairlead, "printf 'one\\ntwo \\033[1mbold\\033[0m\\n\\033]0;title\\007three'; exit 0"
    ) as terminal:
        assert terminal.wait() == 0
        row = newest(fairlead, before)
        live = terminal.lines
    command = [sys.executable, "-m", "proxy", "session", "replay", row["id"], "--speed", "100"]
    with Terminal(command, env=fairlead.env()) as player:
        player.expect("end of recording")
        assert player.wait() == 0
        assert "title" not in player.text
        shown = [line for line in player.lines if line and "end of recording" not in line]
    assert shown == [line for line in live if line]


# ------------------------------------------------------------------------------ without a terminal


def test_a_command_is_recorded_with_both_outputs_told_apart(fairlead: Fairlead) -> None:
    before = known(fairlead)
    done = fairlead.ssh("echo out; echo err >&2; exit 3")
    assert (done.returncode, done.stdout) == (3, b"out\n")
    assert done.stderr == f"{NOTICE}\nerr\n".encode()
    row = newest(fairlead, before)
    assert (row["kind"], row["command"], row["end"]) == ("exec", "echo out; echo err >&2; exit 3", "exit 3")
    events = [(code, data) for _, code, data in lines_of(fairlead, row)[1:] if code in "oe"]
    assert [data for code, data in events if code == "o"] == ["out\n"]
    assert [data for code, data in events if code == "e"] == [f"{NOTICE}\n", "err\n"]


def test_bulk_passes_untouched_and_is_counted(fairlead: Fairlead) -> None:
    before = known(fairlead)
    done = fairlead.ssh("head -c 3000000 /dev/zero")
    assert done.stdout == bytes(3_000_000)
    row = newest(fairlead, before)
    assert row["size"] < 10_000
    markers = [data for _, code, data in lines_of(fairlead, row)[1:] if code == "m"]
    assert "3000000 bytes of stdout are left out: not text" in markers


def test_what_is_typed_is_not_recorded_unless_asked_for(fairlead: Fairlead) -> None:
    before = known(fairlead)
    assert fairlead.ssh("read secret; echo done", data=b"password\n").stdout == b"done\n"
    row = newest(fairlead, before)
    assert "password" not in json.dumps(lines_of(fairlead, row))


def test_sftp_leaves_operations_and_is_told_on_stderr_alone(fairlead: Fairlead, tmp_path: Path) -> None:
    before = known(fairlead)
    content = bytes(range(256)) * 2_000
    (tmp_path / "up").write_bytes(content)
    steps = f"put {tmp_path}/up a.bin;rename a.bin b.bin;mkdir d;get b.bin {tmp_path}/down;rm b.bin;rmdir d;"
    batch = steps.replace(";", "\n")
    done = subprocess.run(
        [*fairlead.command("sftp", "-b", "-"), "fl"], input=batch.encode(), capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert NOTICE.encode() not in done.stdout
    assert NOTICE.encode() in done.stderr
    assert (tmp_path / "down").read_bytes() == content
    row = newest(fairlead, before)
    assert row["kind"] == "sftp"
    operations = [(code, data) for _, code, data in lines_of(fairlead, row)[1:] if code != "h"]
    home = fairlead.workspace() / "home"

    def short(path: str) -> str:
        return path.removeprefix(f"{home}/")

    told = [
        (
            code,
            short(data.get("path") or data.get("from")),
            data["status"],
            data.get("written"),
            data.get("read"),
        )
        for code, data in operations
        if code in ("close", "rename", "mkdir", "remove", "rmdir")
    ]
    size = len(content)
    assert told == [
        ("close", "a.bin", "ok", size, 0),
        ("rename", "a.bin", "ok", None, None),
        ("mkdir", "d", "ok", None, None),
        ("close", "b.bin", "ok", 0, size),
        ("remove", "b.bin", "ok", None, None),
        ("rmdir", "d", "ok", None, None),
    ]
    text = fairlead.cli("session", "replay", row["id"])
    assert re.search(r"rename +\S*a\.bin to=\S*b\.bin", text)
    assert fairlead.cli("session", "verify", row["id"]).startswith("intact")


def test_a_forward_leaves_its_totals(fairlead: Fairlead) -> None:
    before = known(fairlead)
    with Peer(echo) as peer:
        port = peer.port
        command = fairlead.command("ssh", "-W", f"localhost:{port}", "fl")
        done = subprocess.run(command, input=b"x" * 70_000, capture_output=True, timeout=60)
        assert len(done.stdout) == 70_000
    row = newest(fairlead, before)
    assert (row["kind"], row["target"]) == ("forward", f"localhost:{port}")
    assert (row["bytes_up"], row["bytes_down"]) == (70_000, 70_000)
    assert fairlead.cli("session", "verify", row["id"]).startswith("intact")


def test_a_page_is_exported(fairlead: Fairlead, tmp_path: Path) -> None:
    before = known(fairlead)
    fairlead.ssh("echo for the page")
    row = newest(fairlead, before)
    page = tmp_path / "page.html"
    fairlead.cli("session", "replay", row["id"], "--export", "html", "-o", str(page))
    assert "for the page" in page.read_text()
    assert page.stat().st_mode & 0o777 == 0o600
    cast = fairlead.cli("session", "replay", row["id"], "--export", "cast")
    codes = {json.loads(line)[1] for line in cast.splitlines()[1:]}
    assert codes <= {"o", "m"}


def test_recordings_are_listed(fairlead: Fairlead) -> None:
    fairlead.ssh("true")
    listed = json.loads(fairlead.cli("session", "recordings", "list", "--json"))
    assert listed[0]["command"] == "true"
    assert {row["id"] for row in listed} == known(fairlead)
    fairlead.cli("user", "add", "carol", "--key", f"{fairlead.key}.pub")
    assert fairlead.cli("session", "recordings", "list", "--user", "carol") == ""


def test_somebody_without_a_rule_is_neither_recorded_nor_told(fairlead: Fairlead) -> None:
    before = known(fairlead)
    fairlead.cli("user", "add", "bob", "--key", f"{fairlead.key}.pub")
    assert fairlead.ssh("true", "-l", "bob+dev").returncode == 0
    done = fairlead.ssh("echo quiet", "-l", "bob+dev")
    assert (done.stdout, done.stderr) == (b"quiet\n", b"")
    time.sleep(0.3)
    assert known(fairlead) == before
