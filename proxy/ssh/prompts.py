"""Texts that users read in the terminal, as pure functions of values."""

import io
from collections.abc import Sequence
from datetime import UTC, datetime

import segno

from proxy.errors import FairleadError, user_sentence
from proxy.errors.login import UserStringInvalid
from proxy.errors.stores import StoreError
from proxy.model import Exit, ExitStatus, Progress
from proxy.onboarding.flow import DisplayedCode
from proxy.settings.connection import ConnectionSettings

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_PLAIN_FRAMES = "|/-\\"

MAX_QR_COLUMNS = 78
"""The width of a QR code in columns. Before the login the terminal's width is unknown; most have 80
columns.
"""

ERASE_LINE = b"\r\x1b[K"


def user_string_invalid(exc: UserStringInvalid) -> str:
    """Describe the error in the text before `@`, with an example of a correct one."""
    return (
        f"cannot read {exc.text!r}: {exc.reason} (character {exc.position + 1}). "
        "Expected user, user+blueprint or user+repo=owner/name+ref=branch"
    )


def key_first(name: str) -> str:
    """Explain that a new user needs a key, to a client that asked for approval without one."""
    return notice(
        f"nobody called {name} is known here yet, and an approval alone lets nobody in:\n"
        "log in with an SSH key (ssh-keygen -t ed25519 makes one), then approve in a browser."
    )


def new_here(name: str) -> str:
    """Explain the second step before it comes. A client that cannot do it ends with this text."""
    return notice(
        f"nobody called {name} is known here yet. Your key is fine;\n"
        "approve this login in a browser to come in (not possible with BatchMode)."
    )


def approve_again(provider: str) -> str:
    """Explain to a known user why an approval is needed again."""
    return notice(
        f"what {provider} said about your account is too old to count. Your key is fine;\n"
        "approve this login in a browser to come in (not possible with BatchMode)."
    )


def approval(shown: DisplayedCode, name: str) -> tuple[str, str]:
    """Return title and instruction of a challenge (RFC 4256 §3.2) that shows the address for the approval."""
    minutes = max(1, round((shown.expires_at - datetime.now(UTC)).total_seconds() / 60))
    if shown.is_code_typed:
        code = f"and enter the code     {shown.user_code}"
    else:
        code = f"and compare the code   {shown.user_code}"
    lines = [
        f"open                   {shown.verification_uri}",
        f"{code}   (valid for {minutes} minutes)",
        "Waiting for your approval; nothing to type here. Ctrl-C gives up.",
    ]
    return f"To log in as {name}, with your account at {shown.provider}:", "\n".join(lines) + "\n"


def qr_code(shown: DisplayedCode) -> str:
    """Draw the link as a QR code in half blocks, for a banner; empty when it is wider than MAX_QR_COLUMNS.

    OpenSSH prints a banner unchanged in a UTF-8 locale. It cuts the instruction of a challenge to 1,023 bytes
    and escapes all characters in it that are not ASCII.
    """
    uri = shown.verification_uri_complete or shown.verification_uri
    out = io.StringIO()
    code = segno.make(uri, error="l", micro=False)
    width, _height = code.symbol_size(border=2)
    if width > MAX_QR_COLUMNS:
        return ""
    code.terminal(out, border=2, compact=True)
    return "\n" + "\n".join(out.getvalue().splitlines()) + "\n\n"


def notice(text: str) -> str:
    """Return the text of a banner with this sentence (RFC 4252 §5.4)."""
    return f"fairlead: {text}\n"


def refusal(exc: FairleadError, reference: str) -> str:
    """Return the disconnect message that explains a refused login."""
    if isinstance(exc, StoreError):
        return f"login is not possible right now (reference {reference})"
    return user_sentence(exc, reference)


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
