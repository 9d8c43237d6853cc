"""A person's terminal: a real pseudo-terminal with a client in it, and a screen that can be read."""

import contextlib
import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import pyte

PATIENCE_S = 45
PROMPT = "ready> "


class _Screen(pyte.Screen):
    """A screen that answers the questions that programs ask a terminal."""

    def __init__(self, columns: int, rows: int, answer: Any) -> None:
        super().__init__(columns, rows)
        self._answer = answer

    def write_process_input(self, data: str) -> None:
        self._answer(data.encode())

    def select_graphic_rendition(self, *attrs: int, **private: bool) -> None:
        if not private:  # a query of xterm's, which pyte does not know
            super().select_graphic_rendition(*attrs)


class Terminal:
    """One program, usually `ssh -tt`, as the session leader of a terminal of its own."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        columns: int = 80,
        rows: int = 24,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.master, slave = os.openpty()
        self.raw = b""
        """Everything that was shown, as it came."""
        self._seen = 0  # characters of `plain` that were matched
        self.screen: pyte.Screen = _Screen(columns, rows, self.send)
        self._stream = pyte.ByteStream(self.screen)
        self.ended = False
        _set_size(slave, columns, rows)
        self.process = subprocess.Popen(
            # As in a terminal, Ctrl-C ends the client, even when these tests run in the background.
            ["setsid", "--ctty", "env", "--default-signal", *command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "xterm-256color", **(env or {})},
        )
        self.slave = slave
        """Held open, so that its modes can be read and set while the client runs."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE_S)
        for descriptor in (self.master, self.slave):
            with contextlib.suppress(OSError):
                os.close(descriptor)

    # -------------------------------------------------------------------------------- the hands

    def send(self, keys: bytes | str) -> None:
        """Type."""
        os.write(self.master, keys.encode() if isinstance(keys, str) else keys)

    def resize(self, columns: int, rows: int) -> None:
        """Drag the corner of the window; the kernel tells the client."""
        self.screen.resize(rows, columns)
        _set_size(self.master, columns, rows)

    def hang_up(self) -> None:
        """Take the client away without a goodbye."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE_S)

    def ready(self) -> Self:
        """Wait for the first prompt of a shell and make it one that can be told from everything else."""
        self.expect(r"[#$%>] ?$")
        self.send("PS1='rea''dy> '; stty -echo\r")
        self.expect(PROMPT + "$")
        return self

    def run(self, command: str) -> str:
        """Type a command at the prompt of `ready`; give what it prints."""
        self.send(command + "\r")
        return str(self.expect(r"(?s)(.*)" + PROMPT + "$").group(1)).replace("\r\n", "\n")

    # --------------------------------------------------------------------------------- the eyes

    def expect(self, pattern: str, timeout_s: float = PATIENCE_S) -> "re.Match[str]":
        """Wait for a pattern in what was shown since the last match; escape sequences are left out."""
        deadline = time.monotonic() + timeout_s
        while True:
            text = plain(self.raw)[self._seen :]
            if found := re.search(pattern, text):
                self._seen += found.end()
                return found
            if not self.look(deadline):
                raise AssertionError(f"{pattern!r} was not shown; shown was:\n{text}")

    def look(self, deadline: float) -> bool:
        """Take in what is shown next; False when nothing will be, or not in time."""
        wait_s = max(deadline - time.monotonic(), 0)
        if self.ended or not select.select([self.master], [], [], min(wait_s, 0.2))[0]:
            if self.process.poll() is not None and not select.select([self.master], [], [], 0)[0]:
                self.ended = True
            return not self.ended and wait_s > 0
        data = os.read(self.master, 65_536)
        self.raw += data
        self._stream.feed(data)
        return True

    @property
    def lines(self) -> list[str]:
        """The screen as it is now, without blanks at the ends."""
        return [line.rstrip() for line in self.screen.display]

    @property
    def text(self) -> str:
        """The screen as one text."""
        return "\n".join(self.lines).rstrip()

    def expect_screen(self, pattern: str, timeout_s: float = PATIENCE_S) -> "re.Match[str]":
        """Wait until the screen shows a pattern, whatever bytes brought it there."""
        deadline = time.monotonic() + timeout_s
        while not (found := re.search(pattern, self.text)):
            if not self.look(deadline):
                raise AssertionError(f"{pattern!r} is not on the screen:\n{self.text}")
        self._seen = len(plain(self.raw))
        return found

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """Read on until the client has ended; give its status."""
        deadline = time.monotonic() + timeout_s
        while self.look(deadline):
            pass
        return self.process.wait(max(deadline - time.monotonic(), 0.1))


def plain(data: bytes) -> str:
    """Leave out what moves the cursor or colours."""
    text = data.decode(errors="replace")
    return re.sub(r"\x1b(\[[0-9;?>=]*[A-Za-z]|\][^\x07\x1b]*(\x07|\x1b\\)|[()][A-Za-z0-9]|[=>])", "", text)


def _set_size(descriptor: int, columns: int, rows: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
