"""Texts of a login for the user's terminal, as pure functions of values."""

import io
from datetime import UTC, datetime

import segno

from proxy.errors import FairleadError, user_sentence
from proxy.errors.login import UserStringInvalid
from proxy.errors.stores import StoreError
from proxy.onboarding.flow import DisplayedCode

MAX_QR_COLUMNS = 78
"""The width of a QR code in columns. Before the login the terminal's width is unknown; most have 80
columns.
"""


def user_string_invalid(exc: UserStringInvalid) -> str:
    """Describe the error in the text before `@`, with an example of a correct one."""
    return (
        f"cannot read {exc.text!r}: {exc.reason} (character {exc.position + 1}). "
        "Expected user, user+blueprint or user+repo=owner/name+ref=branch"
    )


def key_first(name: str) -> str:
    """Explain that a new user needs a key, to a client that asked for approval without one."""
    return notice(
        f"the user {name} is not known here yet, and an approval alone is not enough:\n"
        "log in with an SSH key (ssh-keygen -t ed25519 makes one), then approve in a browser."
    )


def new_here(name: str) -> str:
    """Explain the second step before it comes. A client that cannot do it ends with this text."""
    return notice(
        f"the user {name} is not known here yet. Your key is fine;\n"
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
