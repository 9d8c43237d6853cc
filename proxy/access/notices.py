"""Texts about a program for the user's terminal, as pure functions of values."""

from collections.abc import Sequence

from proxy.errors import user_sentence
from proxy.model import Exit, ExitStatus, Progress
from proxy.settings.connection import ConnectionSettings

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_PLAIN_FRAMES = "|/-\\"

ERASE_LINE = b"\r\x1b[K"


def progress_line(progress: Progress, elapsed_s: float, tick: int, columns: int, *, unicode: bool) -> bytes:
    """Draw the progress of a start as one line for a PTY, without a line break."""
    frames = _FRAMES if unicode else _PLAIN_FRAMES
    text = f"{frames[tick % len(frames)]} {progress.text} ({elapsed_s:.0f} s, Ctrl-C to leave)"
    return ERASE_LINE + text[: max(columns - 1, 20)].encode()


def progress_note(progress: Progress, *, pty: bool) -> bytes:
    """Return progress as a plain line, for programs without a PTY and terminals without cursor movement."""
    return _line(progress.text, pty=pty)


def splash(text: str) -> bytes:
    """Return the welcome text of a blueprint for a PTY, on its own lines; empty for an empty text."""
    return b"".join(f"{line}\r\n".encode() for line in text.splitlines())


def recorded(*, pty: bool) -> bytes:
    """Return the notice that the session is recorded, which comes before all other output."""
    return _line("this session is recorded", pty=pty)


def env_left_out(count: int, limits: ConnectionSettings, *, pty: bool) -> bytes:
    """Return the notice that the program lacks some of the variables that the client sent."""
    most = f"{limits.max_env_variables} variables and {limits.max_env_bytes:,} bytes are taken"
    return _line(f"left out of the environment: {count}; at most {most}", pty=pty)


def env_not_utf8(names: Sequence[str], *, pty: bool) -> bytes:
    """Tell the user which variables an older shelld does not take."""
    return _line(f"left out of the environment, since not UTF-8: {', '.join(names)}", pty=pty)


def end_of(end: Exit) -> str:
    """Describe the end of a program for its recording."""
    return f"exit {end.status}" if isinstance(end, ExitStatus) else f"ended by SIG{end.name}"


def failure(exc: BaseException, reference: str, *, pty: bool, ran: bool = False) -> bytes:
    """Return the line that explains a program that could not run or, when it `ran`, ended early.

    In the second case the text begins on a new line, since the cursor of the terminal may be anywhere.
    """
    return (b"\r\n" if pty and ran else b"") + _line(user_sentence(exc, reference), pty=pty)


def announcement(sentence: str, *, pty: bool) -> bytes:
    """Return a message for a running program, on lines of its own on a PTY."""
    return (b"\r\n" if pty else b"") + _line(sentence, pty=pty)


def cancelled(*, pty: bool) -> bytes:
    """Return the reply to a Ctrl-C that was typed while the workspace started."""
    return _line("cancelled; the workspace goes on starting", pty=pty)


def _line(text: str, *, pty: bool) -> bytes:
    # A PTY in raw mode needs the carriage return; erasing the line also removes a half-drawn prompt.
    end = "\r\n" if pty else "\n"
    return f"fairlead: {text}{end}".encode()
