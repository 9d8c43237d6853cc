"""A real terminal whose screen can be read: a window of tmux."""

import secrets
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.wire.peers import until


@dataclass
class Session:
    """One window with a program in it."""

    name: str
    settings: Path

    def tmux(self, *words: str) -> str:
        """Run a command of tmux; return what it prints."""
        command = ["tmux", "-L", self.name, "-f", str(self.settings), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout

    def rows(self) -> list[str]:
        """Return the rows of the screen, without blanks at their ends."""
        return [row.rstrip() for row in self.tmux("capture-pane", "-p").split("\n")[:-1]]

    def wait_for(self, text: str) -> list[str]:
        """Wait until a row has the text; return all rows."""
        until(lambda: any(text in row for row in self.rows()), f"{text!r} is on the screen")
        return self.rows()


@contextmanager
def session(directory: Path, command: Sequence[str], columns: int, rows: int) -> Iterator[Session]:
    """Run a program in a window of that size, and end both."""
    settings = directory / "tmux.conf"
    settings.write_text("set -g status off\n")
    one = Session(f"fl-{secrets.token_hex(4)}", settings)
    one.tmux("new-session", "-d", "-x", str(columns), "-y", str(rows), *command)
    try:
        yield one
    finally:
        one.tmux("kill-server")
