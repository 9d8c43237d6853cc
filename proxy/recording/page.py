"""A recording as one HTML page that needs nothing else: player, recording and all, and no network.

The player is asciinema's, from `player/`. The page forbids itself to load anything (Content-Security-Policy).
"""

import html
from collections.abc import AsyncIterator
from importlib import resources

from proxy.recording.archive import Verdict
from proxy.recording.lines import read_line
from proxy.recording.manifest import Manifest
from proxy.recording.replay import log_lines, plain_cast

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'wasm-unsafe-eval' blob:; worker-src blob:; "
    "style-src 'unsafe-inline'; img-src data:; font-src data:; connect-src data:"
)

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.2rem; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: 1rem 0; }
dt { opacity: .65; } dd { margin: 0; overflow-wrap: anywhere; }
pre { overflow-x: auto; font: 13px/1.45 ui-monospace, monospace; }
.bad { color: #b3261e; font-weight: 600; }
"""

_PLAY = """
AsciinemaPlayer.create(
  { data: document.getElementById("recording").textContent },
  document.getElementById("player"),
  { fit: "width", idleTimeLimit: 2, preload: true, poster: "npt:0:1", theme: "asciinema" });
"""


async def page(manifest: Manifest, verdict: Verdict, lines: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """Write the page, piece by piece; as long as the recording, and never whole in memory."""
    title = html.escape(f"{manifest.user_string}: {manifest.command or manifest.target or manifest.kind}")
    yield (
        "<!doctype html>\n<html lang=en><meta charset=utf-8>\n"
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name=viewport content="width=device-width">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n<h1>{title}</h1>\n{_facts(manifest, verdict)}\n"
    )
    if manifest.format == "asciicast-2":
        async for piece in _player(manifest, lines):
            yield piece
    elif manifest.format:
        yield "<pre>"
        async for raw in lines:
            if (line := read_line(raw)) is not None:
                for text in log_lines(line):
                    yield html.escape(text) + "\n"
        yield "</pre>\n"
    yield "</html>\n"


async def _player(manifest: Manifest, lines: AsyncIterator[bytes]) -> AsyncIterator[str]:
    yield f"<style>{_packaged('asciinema-player.css')}</style>\n<div id=player></div>\n"
    yield '<script id=recording type="text/plain">'
    async for line in plain_cast(lines, has_terminal=manifest.has_terminal):
        # No character of JSON's own is "<": nothing that a program printed can end this element.
        yield line.decode().replace("<", "\\u003c")
    yield "</script>\n"
    yield f"<script>{_packaged('asciinema-player.min.js')}</script>\n<script>{_PLAY}</script>\n"


def _facts(manifest: Manifest, verdict: Verdict) -> str:
    ended = manifest.ended_at.isoformat(sep=" ", timespec="seconds") if manifest.ended_at else ""
    sound = "" if verdict.state == "intact" else " class=bad"
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
    return f"<dl>{rows}<dt>when exported<dd{sound}>{html.escape(f'{verdict.state}: {verdict.detail}')}</dl>"


def _packaged(name: str) -> str:
    return resources.files("proxy.recording").joinpath("player", name).read_text(encoding="utf-8")
