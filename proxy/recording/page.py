"""A recording as one HTML page with a player, which needs no network.

The page forbids itself to load anything: its Content-Security-Policy allows only its own script and style, by
their hashes. Recorded text reaches the page as compressed data or escaped.
"""

import base64
import hashlib
import html
from collections.abc import AsyncIterator
from importlib import resources

from proxy.recording.archive import VerificationResult
from proxy.recording.frames import Ending, Part, parts
from proxy.recording.lines import read_line
from proxy.recording.manifest import Manifest
from proxy.recording.replay import log_lines

_SPEEDS = ("0.5", "1", "2", "4", "8", "16")

_OPTIONS = "".join(
    f"<option value={speed}{' selected' if speed == '1' else ''}>{speed}&times;</option>" for speed in _SPEEDS
)
_CONTROLS = f"""
<div id=stage><div id=screen tabindex=0 aria-label="terminal"><div id=cursor hidden></div></div></div>
<div id=controls>
<button id=play type=button>Play</button>
<input id=seek type=range min=0 step=any value=0 aria-label="position">
<span id=time></span>
<label>speed <select id=speed>
{_OPTIONS}
</select></label>
<label><input id=skip type=checkbox checked> skip pauses</label>
<form id=find><input id=search type=search placeholder="search" aria-label="search"></form>
</div>
<p id=keys><kbd>space</kbd> play or pause · <kbd>←</kbd> <kbd>→</kbd> 5 s · <kbd>Home</kbd> <kbd>End</kbd> ·
<kbd>&lt;</kbd> <kbd>&gt;</kbd> speed · <kbd>/</kbd> search, Enter for the next place</p>
"""


def policy() -> str:
    """Return the Content-Security-Policy of the page: its own script and style, and nothing else."""
    style, script = _packaged("player.css"), _packaged("player.js")
    return f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}"


async def page(
    manifest: Manifest, result: VerificationResult, lines: AsyncIterator[bytes]
) -> AsyncIterator[str]:
    """Yield the page, piece by piece; it is never whole in memory."""
    title = html.escape(f"{manifest.user_string}: {manifest.command or manifest.target or manifest.kind}")
    style, script = _packaged("player.css"), _packaged("player.js")
    yield (
        "<!doctype html>\n<html lang=en><meta charset=utf-8>\n"
        f'<meta http-equiv="Content-Security-Policy" content="{policy()}">\n'
        '<meta name=viewport content="width=device-width">\n'
        f"<title>{title}</title>\n<style>{style}</style>\n<h1>{title}</h1>\n{_facts(manifest, result)}\n"
    )
    if manifest.format == "asciicast-2":
        async for piece in _player(manifest, lines):
            yield piece
        yield f"<script>{script}</script>\n"
    elif manifest.format:
        yield "<pre class=log>"
        async for raw in lines:
            if (line := read_line(raw)) is not None:
                for text in log_lines(line):
                    yield html.escape(text) + "\n"
        yield "</pre>\n"
    yield "</html>\n"


async def _player(manifest: Manifest, lines: AsyncIterator[bytes]) -> AsyncIterator[str]:
    yield _CONTROLS
    async for item in parts(lines, has_terminal=manifest.has_terminal):
        match item:
            case Part(begins_s, data):
                yield (
                    f'<script class=part type="application/octet-stream" data-begins={begins_s:.3f}>'
                    f"{data}</script>\n"
                )
            case Ending(duration_s, markers):
                notes = "".join(
                    f"<li><button type=button data-at={at_s:.3f}>{_clock(at_s)} {html.escape(text)}</button>"
                    for at_s, text in markers
                )
                yield f"<ul id=notes>{notes}</ul>\n<div id=player data-duration={duration_s:.3f}></div>\n"


def _clock(at_s: float) -> str:
    minutes, seconds = divmod(int(at_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}" if hours else f"{minutes:02}:{seconds:02}"


def _facts(manifest: Manifest, result: VerificationResult) -> str:
    ended = manifest.ended_at.isoformat(sep=" ", timespec="seconds") if manifest.ended_at else ""
    sound = "" if result.state == "intact" else " class=bad"
    facts = {
        "user": manifest.user,
        "client": f"{manifest.client_address} with {manifest.fingerprint}",
        "command": manifest.command,
        "target": manifest.target,
        "began": manifest.started_at.isoformat(sep=" ", timespec="seconds"),
        "ended": f"{ended} {manifest.end}".strip(),
        "bytes": f"{manifest.bytes_up} up, {manifest.bytes_down} down" if manifest.kind == "forward" else "",
        "recording": manifest.id,
    }
    rows = "".join(f"<dt>{name}<dd>{html.escape(value)}" for name, value in facts.items() if value)
    return f"<dl>{rows}<dt>when exported<dd{sound}>{html.escape(f'{result.state}: {result.detail}')}</dl>"


def _hash(text: str) -> str:
    """Return the source expression that allows this inline element (CSP Level 3 §2.3.1)."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _packaged(name: str) -> str:
    return resources.files("proxy.recording").joinpath("web", name).read_text(encoding="utf-8")
