"""Pictures of real runs for the README: `python -m tests.pictures DIRECTORY`, which is `make pictures`.

A proxy is started as `make run` starts it, commands are typed into a pseudo-terminal, and what that terminal
shows is drawn by the screen renderer of the player of recordings.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from proxy.recording import screen as screens
from tests.wire.browser import decide, find_shown
from tests.wire.harness import Fairlead
from tests.wire.peers import until
from tests.wire.terminal import Terminal, plain

COLUMNS, ROWS = 90, 44
_WIDE = 150
"""Columns for a table whose cells are not cut."""
_USUAL_PORT = 2222

_COLOURS = [(0, 0, 0), (205, 49, 49), (13, 188, 121), (229, 229, 16)]
_COLOURS += [(36, 114, 200), (188, 63, 188), (17, 168, 205), (229, 229, 229)]
_THEME = TerminalTheme((24, 24, 27), (228, 228, 231), _COLOURS)

_SVG = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, monospace; font-size: {char_height}px;
  line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: system-ui, sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
"""The picture as Rich fills it in; its own would load a font from elsewhere."""


def draw(raw: bytes, title: str, columns: int = COLUMNS, rows: int = ROWS) -> str:
    """Return the last screen of a terminal's output as SVG, without empty rows at its end."""
    with screens.Terminal(columns, rows) as terminal:
        terminal.feed(raw.decode("utf-8", "replace"))
        shown = list(terminal.screen().rows)
    while shown and not shown[-1]:
        shown.pop()
    console = Console(
        width=columns, record=True, file=StringIO(), force_terminal=True, color_system="truecolor"
    )
    for row in shown:
        line = "".join(f"\x1b[{run.style}m{run.text}\x1b[0m" for run in row)
        console.print(Text.from_ansi(line), no_wrap=True, crop=True, highlight=False)
    return console.export_svg(title=title, theme=_THEME, code_format=_SVG, unique_id="picture")


class Desk:
    """The machine of a new user, with a proxy on it and a key that no user has yet."""

    def __init__(self, directory: Path) -> None:
        self.server = Fairlead(directory)
        self.server.port = _USUAL_PORT if _is_free(_USUAL_PORT) else self.server.port
        self.server.extra_env["FAIRLEAD_FRONT_DOOR__DEV_ON_LOOPBACK"] = "true"
        self._home = directory / "desk"
        self._home.mkdir()

    def start(self) -> None:
        """Start the proxy, and put `ssh` and `fairlead` on the path of the user's shell."""
        self.server.prepare()
        self.server.start()
        key, tools = self._home / "id", self._home / "tools"
        tools.mkdir()
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", key], check=True)
        known = self._home / "known"
        public = (self.server.home / "host_keys" / "ssh_host_ed25519_key.pub").read_text()
        known.write_text(f"[127.0.0.1]:{self.server.port} {public}")
        options = f"-F none -o UserKnownHostsFile={known} -o IdentityAgent=none -i {key}"
        for name, command in {
            "ssh": f"{shutil.which('ssh')} {options}",
            "fairlead": f"{sys.executable} -m proxy",
        }.items():
            (tools / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
            (tools / name).chmod(0o755)

    @contextmanager
    def shell(self, columns: int = COLUMNS) -> Iterator[Terminal]:
        """Open a terminal with a shell of the user."""
        env = self.server.env() | {
            "PATH": f"{self._home}/tools:{os.environ['PATH']}",
            "PYTHONPATH": os.getcwd(),
            "LANG": "C.UTF-8",
            "PS1": "$ ",
        }
        with Terminal(["sh", "-i"], columns=columns, rows=ROWS, env=env) as terminal:
            terminal.expect(r"\$ $")
            yield terminal


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def log_in(terminal: Terminal, port: int) -> None:
    """Log in as a new user: type the line, approve in a browser, run a command."""
    terminal.send(f"ssh -p {port} carol+dev@127.0.0.1\r")
    terminal.expect("Waiting for your approval")
    shown = find_shown(plain(terminal.raw))
    assert shown is not None
    decide(shown)
    terminal.expect(r"[#$] $")
    terminal.send("id -un; hostname\r")
    terminal.expect(r"id -un; hostname\s+\S+\s+\S+\s+.*[#$] $")


def run(directory: Path) -> dict[str, str]:
    """Make every picture. Return them by file name."""
    desk = Desk(directory)
    try:
        desk.start()
        with desk.shell() as first:
            log_in(first, desk.server.port)
            until(lambda: "carol" in desk.server.cli("session", "list"), "the session is on record")
            with desk.shell(_WIDE) as second:
                second.send("fairlead session list\r")
                second.expect(r"(?s)carol.*\$ $")
                return {
                    "first-login.svg": draw(first.raw, "a first login"),
                    "session-list.svg": draw(second.raw, "connected users", _WIDE),
                }
    finally:
        desk.server.close()


def main() -> None:
    """Write the pictures into the directory that is named, `docs/pictures` if none is."""
    target = Path(*sys.argv[1:2] or ("docs/pictures",))
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fl-") as directory:
        for name, picture in run(Path(directory)).items():
            (target / name).write_text(picture, encoding="utf-8")
            sys.stdout.write(f"{target / name}\n")


if __name__ == "__main__":
    main()
