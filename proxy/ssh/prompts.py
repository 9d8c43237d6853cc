"""Every sentence of ours that a person reads in a terminal, as pure functions of values."""

import io
from collections.abc import Sequence
from datetime import UTC, datetime

import segno

from proxy.errors import FairleadError, user_sentence
from proxy.errors.login import UserStringInvalid
from proxy.errors.stores import StoreError
from proxy.model import Exit, ExitStatus, Progress
from proxy.onboarding.flow import DisplayedCode
from proxy.settings import ConnectionSettings

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_PLAIN_FRAMES = "|/-\\"

MAX_QR_COLUMNS = 78
"""The width of the terminal is not known before login; nearly all have 80 columns."""

ERASE_LINE = b"\r\x1b[K"


def user_string_invalid(exc: UserStringInvalid) -> str:
    """Say what is wrong with what was typed before `@`, and how it looks when it is right."""
    return (
        f"cannot read {exc.text!r}: {exc.reason} (character {exc.position + 1}). "
        "Expected user, user+blueprint or user+repo=owner/name+ref=branch"
    )


def key_first(name: str) -> str:
    """Say what is missing to a client that asks for an approval and has no key, or does not use it."""
    return notice(
        f"nobody called {name} is known here yet, and an approval alone lets nobody in:\n"
        "log in with an SSH key (ssh-keygen -t ed25519 makes one), then approve in a browser."
    )


def new_here(name: str) -> str:
    """Explain the second step before it comes; a client that cannot take it ends with these words."""
    return notice(
        f"nobody called {name} is known here yet. Your key is fine;\n"
        "approve this login in a browser to come in (not possible with BatchMode)."
    )


def approve_again(provider: str) -> str:
    """Explain to a known user why an approval is asked for."""
    return notice(
        f"what {provider} said about your account is too old to count. Your key is fine;\n"
        "approve this login in a browser to come in (not possible with BatchMode)."
    )


def approval(shown: DisplayedCode, name: str) -> tuple[str, str]:
    """Say where to approve, as title and instruction of a challenge without prompts (RFC 4256 §3.2)."""
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
    """Draw the link for a telephone, in half blocks, as a banner; nothing when it would not fit 80 columns.

    A banner, because OpenSSH prints that one as it comes in a UTF-8 locale, while it cuts the instruction of
    a challenge to 1,023 bytes and escapes all of it that is not ASCII.
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
    """Make a banner of a sentence (RFC 4252 §5.4)."""
    return f"fairlead: {text}\n"


def refusal(exc: FairleadError, reference: str) -> str:
    """Say in the disconnect message why nobody gets in."""
    if isinstance(exc, StoreError):
        return f"login is not possible right now (reference {reference})"
    return user_sentence(exc, reference)


def progress_line(progress: Progress, elapsed_s: float, tick: int, columns: int, *, unicode: bool) -> bytes:
    """Draw the one line that is redrawn on a PTY while a workspace starts; no line break."""
    frames = _FRAMES if unicode else _PLAIN_FRAMES
    text = f"{frames[tick % len(frames)]} {progress.text} ({elapsed_s:.0f} s, Ctrl-C to leave)"
    return ERASE_LINE + text[: max(columns - 1, 20)].encode()


def progress_note(progress: Progress, *, pty: bool) -> bytes:
    """Say the same as a plain line, for programs without a PTY and for terminals that cannot redraw."""
    return _line(progress.text, pty=pty)


def splash(text: str) -> bytes:
    """Show a blueprint's own words on a PTY, on lines of their own; nothing for an empty text."""
    return b"".join(f"{line}\r\n".encode() for line in text.splitlines())


def recorded(*, pty: bool) -> bytes:
    """Tell the person, before anything else is shown."""
    return _line("this session is recorded", pty=pty)


def env_left_out(count: int, limits: ConnectionSettings, *, pty: bool) -> bytes:
    """Tell the person that the program lacks some of the variables that were sent."""
    most = f"{limits.max_env_variables} variables and {limits.max_env_bytes:,} bytes are taken"
    return _line(f"left out of the environment: {count}; at most {most}", pty=pty)


def env_not_utf8(names: Sequence[str], *, pty: bool) -> bytes:
    """Tell the user which variables an older shelld does not take."""
    return _line(f"left out of the environment, since not UTF-8: {', '.join(names)}", pty=pty)


def end_of(end: Exit) -> str:
    """Say in a recording how its program ended."""
    return f"exit {end.status}" if isinstance(end, ExitStatus) else f"ended by SIG{end.name}"


def failure(exc: BaseException, reference: str, *, pty: bool, ran: bool = False) -> bytes:
    """Say why a program could not run or, when it `ran`, ended early.

    A terminal shows its last words then, and the cursor may be anywhere.
    """
    return (b"\r\n" if pty and ran else b"") + _line(user_sentence(exc, reference), pty=pty)


def announcement(sentence: str, *, pty: bool) -> bytes:
    """Say something to a person whose program runs: a terminal may be in the middle of a line."""
    return (b"\r\n" if pty else b"") + _line(sentence, pty=pty)


def cancelled(*, pty: bool) -> bytes:
    """Answer a Ctrl-C that was typed while the workspace started."""
    return _line("cancelled; the workspace goes on starting", pty=pty)


def _line(text: str, *, pty: bool) -> bytes:
    # A PTY in raw mode needs the carriage return; the erased line takes a half-drawn prompt with it.
    end = "\r\n" if pty else "\n"
    return f"fairlead: {text}{end}".encode()
