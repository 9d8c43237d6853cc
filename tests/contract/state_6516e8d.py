"""The state that commit 6516e8d wrote, put back: see tests/fixtures/state-6516e8d/README.md."""

import base64
import contextlib
import hashlib
import json
import os
import sqlite3
import stat
from pathlib import Path
from typing import Any

from tests.contract.directories import sqlite_url
from tests.contract.postgres import Cluster

FIXTURE = Path(__file__).parent.parent / "fixtures" / "state-6516e8d"

Tree = dict[str, tuple[object, ...]]
"""By path below a home: kind, mode, and bytes or target."""


def restore_database(kind: str, file: Path, server: Cluster | None) -> str:
    """Make the database as that commit left it; return its URL."""
    dump = (FIXTURE / f"identity.{kind}.sql").read_text()
    if server is None:
        file.touch(mode=0o600)
        with contextlib.closing(sqlite3.connect(file)) as connection:
            connection.executescript(dump)
        return sqlite_url(file)
    name = server.create()
    server.sql(name, dump)
    return server.url(name)


def restore_home(home: Path) -> None:
    """Make the state directory of the local backend, with modes and times."""
    entries = json.loads((FIXTURE / "home.json").read_text())
    home.mkdir(mode=0o700)
    for entry in entries:
        path = home / entry["path"]
        if "link" in entry:
            path.symlink_to(entry["link"])
        elif "data" in entry:
            path.write_bytes(bytes_of(entry["data"]))
            path.chmod(entry["mode"])
            os.utime(path, (entry["mtime"], entry["mtime"]))
        else:
            path.mkdir()
    for entry in reversed(entries):
        if "link" not in entry and "data" not in entry:
            (home / entry["path"]).chmod(entry["mode"])


def bytes_of(text: str) -> bytes:
    """Read what `make.py` wrote for bytes."""
    kind, _, data = text.partition(":")
    return data.encode() if kind == "text" else base64.b64decode(data)


def tree(home: Path) -> Tree:
    """Describe every file of a home: what must stay as it is."""
    found: Tree = {}
    for path in sorted(home.rglob("*")):
        entry = path.lstat()
        mode = stat.S_IMODE(entry.st_mode)
        name = str(path.relative_to(home))
        if path.is_symlink():
            found[name] = ("link", os.readlink(path))
        elif path.is_dir():
            found[name] = ("directory", mode)
        else:
            found[name] = ("file", mode, hashlib.sha256(path.read_bytes()).hexdigest())
    return found


def cluster_state() -> dict[str, Any]:
    """Read what the Kubernetes backend of that commit left."""
    loaded: dict[str, Any] = json.loads((FIXTURE / "cluster.json").read_text())
    return loaded
