"""Every sentence of ours that a person reads in a terminal, as pure functions of values."""

from proxy.errors import UserStringInvalid, user_sentence
from proxy.model import Progress

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_PLAIN_FRAMES = "|/-\\"

ERASE_LINE = b"\r\x1b[K"


def user_string_invalid(exc: UserStringInvalid) -> str:
    """Say what is wrong with what was typed before `@`, and how it looks when it is right."""
    return (
        f"cannot read {exc.text!r}: {exc.reason} (character {exc.position + 1}). "
        "Expected user, user+blueprint or user+repo=owner/name+ref=branch"
    )


def progress_line(progress: Progress, elapsed_s: float, tick: int, columns: int, *, unicode: bool) -> bytes:
    """Draw the one line that is redrawn on a PTY while a workspace starts; no line break."""
    frames = _FRAMES if unicode else _PLAIN_FRAMES
    text = f"{frames[tick % len(frames)]} {progress.text} ({elapsed_s:.0f} s, Ctrl-C to leave)"
    return ERASE_LINE + text[: max(columns - 1, 20)].encode()


def progress_note(progress: Progress) -> bytes:
    """Say the same as a plain line, for stderr of programs without a PTY."""
    return f"fairlead: {progress.text}\n".encode()


def failure(exc: BaseException, reference: str, *, pty: bool) -> bytes:
    """Say why a program could not run or ended early."""
    return _line(user_sentence(exc, reference), pty=pty)


def cancelled(*, pty: bool) -> bytes:
    """Answer a Ctrl-C that was typed while the workspace started."""
    return _line("cancelled; the workspace goes on starting", pty=pty)


def closing(reason: str, *, pty: bool) -> bytes:
    """Say why a live session is ended from our side."""
    return _line(reason, pty=pty)


def _line(text: str, *, pty: bool) -> bytes:
    # A PTY in raw mode needs the carriage return; the erased line takes a half-drawn prompt with it.
    end = "\r\n" if pty else "\n"
    return f"fairlead: {text}{end}".encode()
