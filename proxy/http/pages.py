"""HTML of the pages that users see in a browser: plain, without scripts, everything escaped. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_STYLE = """
:root { color-scheme: light dark; --fg: #1c2733; --soft: #5b6b7b; --line: #d7dee6; --back: #f3f6f9;
  --card: #fff; --go: #0b6e4f; --warn: #8a4b00; --warnback: #fff4e0; }
@media (prefers-color-scheme: dark) { :root { --fg: #e6ecf2; --soft: #9fb0c0; --line: #33414f;
  --back: #10171e; --card: #18222c; --go: #2aa77c; --warn: #ffc46b; --warnback: #33270f; } }
* { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 1.5rem;
  font: 16px/1.5 system-ui, sans-serif; color: var(--fg); background: var(--back); }
main { width: 100%; max-width: 34rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 12px; padding: 2rem; }
h1 { font-size: 1.35rem; line-height: 1.25; margin: 0 0 .75rem; }
p { margin: .75rem 0; } .soft { color: var(--soft); font-size: .9rem; }
dl { margin: 1.25rem 0; border-top: 1px solid var(--line); }
dl div { display: grid; grid-template-columns: 9rem 1fr; gap: .75rem; padding: .6rem 0;
  border-bottom: 1px solid var(--line); }
dt { color: var(--soft); } dd { margin: 0; font-family: ui-monospace, monospace; overflow-wrap: anywhere; }
dd.code { font-size: 1.4rem; letter-spacing: .12em; line-height: 1.2; }
label { display: block; margin: 1rem 0 .3rem; font-weight: 600; }
input[type=text] { width: 100%; font: inherit; padding: .55rem .7rem; border: 1px solid var(--line);
  border-radius: 8px; background: var(--back); color: inherit; }
.buttons { display: flex; gap: .75rem; margin-top: 1.5rem; flex-wrap: wrap; }
button { font: inherit; font-weight: 600; padding: .6rem 1.4rem; border-radius: 8px; cursor: pointer;
  border: 1px solid var(--line); background: transparent; color: inherit; }
button.go { background: var(--go); border-color: var(--go); color: #fff; }
button:focus-visible, input:focus-visible { outline: 3px solid var(--go); outline-offset: 2px; }
.warning { border-left: 4px solid var(--warn); background: var(--warnback); color: var(--fg);
  padding: .6rem .9rem; border-radius: 0 8px 8px 0; font-size: .92rem; }
@media (max-width: 30rem) { main { padding: 1.25rem; } dl div { grid-template-columns: 1fr; gap: 0; } }
"""

_CLASS = {True: "code", False: "value"}
_EMPHASIS = {True: "go", False: "stay"}


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of the description of a request; `code` is displayed large."""

    label: str
    value: str
    code: bool = False
    is_address: bool = False
    """The value is a URL of ours, and is followed by a click."""


@dataclass(frozen=True, slots=True)
class Button:
    """One answer to a form; `decision` is the value that is sent."""

    decision: str
    label: str
    go: bool = False


def document(title: str, body: str, style_nonce: str) -> str:
    """Return a page with `body`, which is HTML already; `title` is text."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title>"
        f'<style nonce="{escape(style_nonce)}">{_STYLE}</style></head>'
        f"<body><main><h1>{escape(title)}</h1>{body}</main></body></html>"
    )


def paragraph(text: str, kind: str = "") -> str:
    """Return text as a paragraph; kinds are `soft` and `warning`."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def link(address: str, text: str) -> str:
    """Write a link in a paragraph of its own."""
    return f'<p><a href="{escape(address)}">{escape(text)}</a></p>'


def facts(entries: Sequence[Fact]) -> str:
    """Return the description of a request, without unknown values."""
    rows = "".join(
        f'<div><dt>{escape(entry.label)}</dt><dd class="{_CLASS[entry.code]}">{_shown(entry)}</dd></div>'
        for entry in entries
        if entry.value
    )
    return f"<dl>{rows}</dl>"


def _shown(entry: Fact) -> str:
    value = escape(entry.value)
    return f'<a href="{value}">{value}</a>' if entry.is_address else value


def form(
    action: str,
    hidden: Sequence[tuple[str, str]],
    inside: str,
    buttons: Sequence[Button],
    method: str = "post",
) -> str:
    """Return a form; `inside` is HTML already."""
    fields = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">' for name, value in hidden
    )
    ways = "".join(
        f'<button class="{_EMPHASIS[button.go]}" name="decision" value="{escape(button.decision)}">'
        f"{escape(button.label)}</button>"
        for button in buttons
    )
    return (
        f'<form method="{escape(method)}" action="{escape(action)}" autocomplete="off">{fields}{inside}'
        f'<div class="buttons">{ways}</div></form>'
    )


def text_input(name: str, label: str, value: str, options: Sequence[str] = ()) -> str:
    """Return an input field for text, with suggestions."""
    listed = "".join(f'<option value="{escape(option)}">' for option in options)
    suggestions = f'<datalist id="{escape(name)}-options">{listed}</datalist>' if listed else ""
    reference = f' list="{escape(name)}-options"' if listed else ""
    return (
        f'<label for="{escape(name)}">{escape(label)}</label>'
        f'<input type="text" id="{escape(name)}" name="{escape(name)}" value="{escape(value)}" '
        f'maxlength="128" required autocapitalize="none" spellcheck="false"{reference}>{suggestions}'
    )
