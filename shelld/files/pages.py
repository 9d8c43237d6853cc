"""Pages of the file browser, without any script. Pure.

Every name of a file is shown by `shown`, and comes into an address by `address_of`: it may hold any bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from urllib.parse import quote_from_bytes

from shelld import octets
from shelld.files.folder import MAX_ENTRIES, Entry, Listing

_STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.2rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; }
th { text-align: left; font-weight: 600; }
td, th { padding: .25rem .5rem .25rem 0; border-bottom: 1px solid #8884; vertical-align: top; }
td:first-child { overflow-wrap: anywhere; }
.number { text-align: right; white-space: nowrap; }
form { margin: 1rem 0; display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: center; }
input, button { font: inherit; }
.target { opacity: .7; }
.problem { border-left: 4px solid #c30; padding-left: .75rem; }
@media (max-width: 40rem) { .when { display: none; } }
"""


def shown(name: bytes) -> str:
    r"""Return a name for users: bytes that are not UTF-8 and unprintable characters as `\xe9` or `\u202e`."""
    text = octets.shown(octets.text_of(name))
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def address_of(path: bytes) -> str:
    """Return a path as the path of an address."""
    return "/" + quote_from_bytes(path.lstrip(b"/"))


def policy_of(nonce: str) -> str:
    """Return the Content-Security-Policy of these pages: one style, forms to this origin, nothing else."""
    return (
        f"default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    )


def folder_page(path: bytes, listing: Listing, nonce: str, *, shows_hidden: bool) -> str:
    """Write the page of a folder; `path` is relative to the folder that is shown, without slashes around."""
    here = address_of(path + b"/") if path else "/"
    entries = [one for one in listing.entries if shows_hidden or not one.name.startswith(b".")]
    hidden = len(listing.entries) - len(entries)
    rows = "".join(_row(here, one) for one in entries)
    notes = ""
    if hidden:
        notes += f'<p><a href="{here}?hidden">Show hidden files</a> ({hidden})</p>'
    if listing.left_out:
        notes += f"<p>There are {listing.left_out:,} more: {MAX_ENTRIES:,} are shown.</p>"
    table = (
        '<table><thead><tr><th scope="col">Name</th><th scope="col" class="number">Bytes</th>'
        '<th scope="col" class="when">Changed (UTC)</th><th scope="col"></th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
        if entries
        else "<p>There are no files here.</p>"
    )
    return _document(shown(path) or "Files", _crumbs(path) + table + notes + _forms(here), nonce)


def _row(here: str, entry: Entry) -> str:
    address = here + quote_from_bytes(entry.name)
    name = escape(shown(entry.name))
    slash = "/" if entry.is_folder else ""
    link = f' <span class="target">→ {escape(shown(entry.link))}</span>' if entry.link is not None else ""
    size = "" if entry.is_folder else f"{entry.size:,}"
    return (
        f'<tr><td><a href="{address}{slash}">{name}{slash}</a>{link}</td><td class="number">{size}</td>'
        f'<td class="when">{_moment(entry.modified_s)}</td>'
        f'<td><a href="{address}?delete" aria-label="Delete {name}">Delete</a></td></tr>'
    )


def _moment(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"
    except (OverflowError, ValueError, OSError):  # a file system stores any number
        return "?"


def _crumbs(path: bytes) -> str:
    links, so_far = ['<a href="/">Files</a>'], b""
    for part in filter(None, path.split(b"/")):
        so_far += part + b"/"
        links.append(f'<a href="{address_of(so_far)}">{escape(shown(part))}</a>')
    return f'<h1><nav aria-label="Folders">{" / ".join(links)}</nav></h1>'


def _forms(here: str) -> str:
    return (
        f'<form method="post" action="{here}?upload" enctype="multipart/form-data">'
        '<label><input type="checkbox" name="replace" value="yes"> Replace files of the same name</label>'
        '<input type="file" name="file" multiple required aria-label="Files to upload">'
        '<button type="submit" value="upload">Upload</button></form>'
        f'<form method="post" action="{here}?folder"><input name="name" required maxlength="255" '
        'aria-label="Name of the new folder"><button type="submit" value="folder">New folder</button></form>'
    )


def delete_page(path: bytes, nonce: str) -> str:
    """Write the question that is asked before something is deleted."""
    name = escape(shown(path))
    back = address_of(path.rpartition(b"/")[0])
    body = (
        f"<h1>Delete {name}?</h1><p>This cannot be undone. A folder has to be empty.</p>"
        f'<form method="post" action="{address_of(path)}?delete">'
        f'<button type="submit" value="delete">Delete</button> <a href="{_folder(back)}">Keep it</a></form>'
    )
    return _document(f"Delete {shown(path)}?", body, nonce)


def problem_page(title: str, problems: Sequence[str], back: bytes, nonce: str) -> str:
    """Write a page about a failure, with a way back to a folder."""
    items = "".join(f"<li>{escape(one)}</li>" for one in problems)
    body = (
        f'<h1>{escape(title)}</h1><ul class="problem">{items}</ul>'
        f'<p><a href="{_folder(address_of(back))}">Back to the files</a></p>'
    )
    return _document(title, body, nonce)


def _folder(address: str) -> str:
    return address if address.endswith("/") else f"{address}/"


def _document(title: str, body: str, nonce: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title><style nonce="{nonce}">{_STYLE}</style></head>'
        f"<body><main>{body}</main></body></html>\n"
    )
