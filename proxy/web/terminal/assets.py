"""The files of the page: ours, and those of the emulator where npm has installed it.

All are read once, and served under a path with the hash of them all, so that a browser keeps them for good.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

_HERE = Path(__file__).parent
EMULATOR = _HERE / "emulator"
"""The folder of the package manifest."""
_INSTALLED = EMULATOR / "node_modules" / "@xterm"

SCRIPTS = {
    "xterm.js": _INSTALLED / "xterm" / "lib" / "xterm.js",
    "addon-fit.js": _INSTALLED / "addon-fit" / "lib" / "addon-fit.js",
    "addon-web-links.js": _INSTALLED / "addon-web-links" / "lib" / "addon-web-links.js",
    "addon-unicode11.js": _INSTALLED / "addon-unicode11" / "lib" / "addon-unicode11.js",
    "addon-clipboard.js": _INSTALLED / "addon-clipboard" / "lib" / "addon-clipboard.js",
    "terminal.js": _HERE / "static" / "terminal.js",
}
"""In the order in which the page runs them."""
STYLES = {
    "xterm.css": _INSTALLED / "xterm" / "css" / "xterm.css",
    "terminal.css": _HERE / "static" / "terminal.css",
}


@dataclass(frozen=True, slots=True)
class Assets:
    """The contents of all files."""

    files: dict[str, bytes]
    version: str
    """Changes with any of them."""


def load(scripts: dict[str, Path] = SCRIPTS, styles: dict[str, Path] = STYLES) -> Assets | None:
    """Read all files; None when the emulator is not installed, or not completely."""
    try:
        files = {name: path.read_bytes() for name, path in {**scripts, **styles}.items()}
    except OSError:
        return None
    digest = hashlib.sha256()
    for name, content in files.items():
        digest.update(b"%b %d\n" % (name.encode(), len(content)))
        digest.update(content)
    return Assets(files, digest.hexdigest()[:16])
