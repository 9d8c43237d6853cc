"""The page that a browser shows while a workspace or its app is not there yet. Pure.

A script of this page follows the start by server-sent events; without scripts the page asks again every few
seconds. Both end at the page that the user opened.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from urllib.parse import urlencode

from proxy.http import pages
from proxy.web.gate import RESERVED_PATH

WAIT = RESERVED_PATH + b"/wait"
START = RESERVED_PATH + b"/start"
EVENTS = "text/event-stream"
REFRESH_S = 3
"""Seconds between two looks of a browser without scripts."""
MAX_LINES = 20
"""Of the log of an app."""
_MAX_LINE = 500

_SCRIPT = """
const main = document.getElementById("wait"), text = document.getElementById("text");
const log = document.getElementById("log"), again = document.getElementById("again");
const source = new EventSource(main.dataset.events);
const show = (lines) => { log.hidden = !lines.length; log.textContent = lines.join("\\n"); };
source.addEventListener("progress", (event) => {
  const said = JSON.parse(event.data);
  text.textContent = said.text; show(said.lines);
});
source.addEventListener("ready", () => {
  source.close();
  if (location.pathname === main.dataset.own) location.replace(main.dataset.to + location.hash);
  else location.reload();
});
source.addEventListener("over", (event) => {
  source.close();
  const said = JSON.parse(event.data);
  document.title = document.querySelector("h1").textContent = said.title;
  text.textContent = said.text; show(said.lines);
  again.hidden = false; again.querySelector("button").focus();
});
"""


@dataclass(frozen=True, slots=True)
class News:
    """One step of a start, or its end."""

    text: str
    """A sentence."""
    lines: tuple[str, ...] = ()
    """The last lines of the log of the app, which the app wrote."""
    title: str = ""
    """Of the page, where the start is over."""


def progress_event(news: News) -> bytes:
    """Write a step of a start as a server-sent event."""
    return _event("progress", {"text": news.text, "lines": _shown(news.lines)})


def over_event(news: News) -> bytes:
    """Write the end of a start that did not succeed."""
    return _event("over", {"title": news.title, "text": news.text, "lines": _shown(news.lines)})


READY_EVENT = b"event: ready\ndata: {}\n\n"
KEEPALIVE = b": still waiting\n\n"
"""A comment, so that no edge takes the stream for dead."""


def _event(name: str, about: dict[str, object]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(about)}\n\n".encode()


def wait_path(ticket: str, to: str) -> str:
    """Write the path of the waiting page of a ticket, which ends at `to`."""
    return f"{WAIT.decode()}?{urlencode({'ticket': ticket, 'to': to})}"


def starting(nonce: str, news: News, ticket: str, origin: str, to: str) -> bytes:
    """Write the page of a start that is under way; it ends at the path `to` of `origin`."""
    own = wait_path(ticket, to)
    data = {"events": own, "own": WAIT.decode(), "to": origin + to}
    given = " ".join(f'data-{name}="{escape(value)}"' for name, value in data.items())
    body = (
        f'<div id="wait" {given}>'
        f'<p id="text" role="status" aria-live="polite">{escape(news.text)}</p>{_log(news.lines)}'
        f'<div id="again" hidden>{_button("Try again", to)}</div></div>'
        f'<noscript><meta http-equiv="refresh" content="{REFRESH_S};url={escape(own)}">'
        f"{pages.paragraph('This page asks again every few seconds.', 'soft')}</noscript>"
        f'<script nonce="{escape(nonce)}">{_SCRIPT}</script>'
    )
    return pages.document(news.title, body, nonce).encode()


def over(nonce: str, news: News, label: str, to: str) -> bytes:
    """Write the page of an app that does not start by itself, with a button of that label."""
    body = f"{pages.paragraph(news.text)}{_log(news.lines)}{_button(label, to)}"
    return pages.document(news.title, body, nonce).encode()


def policy(nonce: str, origin: str) -> bytes:
    """Return the Content-Security-Policy of these pages; their forms and redirects stay on `origin`."""
    source = f"'nonce-{nonce}'"
    return (
        f"default-src 'none'; script-src {source}; style-src {source}; connect-src 'self'; "
        f"form-action 'self' {origin}; base-uri 'none'; frame-ancestors 'self'"
    ).encode()


def _button(label: str, to: str) -> str:
    action = f"{START.decode()}?{urlencode({'to': to})}"
    return pages.form(action, (), "", (pages.Button("start", label, go=True),))


def _log(lines: Sequence[str]) -> str:
    hidden = "" if lines else " hidden"
    text = escape("\n".join(_shown(lines)))
    return f'<pre id="log" aria-label="The last lines of its log"{hidden}>{text}</pre>'


def _shown(lines: Sequence[str]) -> list[str]:
    """Return the last lines without control characters, each cut."""
    return [
        "".join(one if one.isprintable() else " " for one in line[:_MAX_LINE]) for line in lines[-MAX_LINES:]
    ]
