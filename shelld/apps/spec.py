"""Descriptions of apps. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from shelld.errors import StartCode, StartError
from shelld.octets import bytes_of
from shelld.values import MAX_SOCKET_PATH_BYTES

READY_WITHIN_S = 60.0
"""Seconds from the start of an app to its first answer, unless its description has another limit."""
_URL_PATH = re.compile(r"/[\x21-\x7e]*")
BUILT_IN = {"@files": "shelld.files.server"}
"""Start commands that stand for programs of shelld, which listen on the socket of their only argument."""
_SLUG = re.compile(r"[a-z][a-z0-9-]{0,31}")


class Restart(StrEnum):
    """The ends of an app after which it is started again."""

    ON_FAILURE = "on-failure"
    ALWAYS = "always"
    NO = "no"


@dataclass(frozen=True, slots=True)
class AppSpec:
    """The description of an app, unchecked."""

    slug: str
    start: str
    """A command line for /bin/sh, or one of BUILT_IN."""
    env: Mapping[str, str] = field(default_factory=dict)
    account: str = ""
    workdir: str = ""
    """Absolute, or `~/...` in the account's home; empty: the home."""
    port: int | None = None
    """Of a loopback address; 0: a free one; None: the app listens on a socket."""
    socket: str = ""
    """Without a port: an absolute path; empty: one of shelld's choice."""
    restart: Restart = Restart.ON_FAILURE
    ready_path: str = ""
    """GET of it has to be answered with a status below 500; empty: a connect suffices."""
    within_s: float = READY_WITHIN_S
    digest: str = ""


def check(spec: AppSpec) -> None:
    """Refuse a description that cannot be used. Raises: StartError INVALID."""
    if problem := _problem(spec):
        raise StartError(StartCode.INVALID, f"app {spec.slug[:32]!r}: {problem}")


def _problem(spec: AppSpec) -> str:
    if not _SLUG.fullmatch(spec.slug):
        return "its name is not 1 to 32 of a-z, 0-9 and -, a letter first"
    if not spec.start.strip():
        return "it has no start command"
    if spec.start.startswith("@") and spec.start not in BUILT_IN:
        return f"there is no built-in app {spec.start[:32]}"
    if spec.start in BUILT_IN and spec.port is not None:
        return "a built-in app listens on a socket"
    texts = (spec.start, spec.account, spec.workdir, spec.socket, *spec.env, *spec.env.values())
    if any("\0" in text for text in texts) or any("=" in name or not name for name in spec.env):
        return "its command, account, environment or a path cannot be passed to a program"
    if spec.workdir not in {"", "~"} and not spec.workdir.startswith(("/", "~/")):
        return "its workdir is neither absolute nor in the home (~/...)"
    if spec.port is not None and not 0 <= spec.port < 65536:
        return "its port is above 65535"
    path = spec.socket
    if path and (not path.startswith("/") or len(bytes_of(path)) > MAX_SOCKET_PATH_BYTES):
        return f"its socket is no absolute path of at most {MAX_SOCKET_PATH_BYTES} bytes"
    if spec.ready_path and not _URL_PATH.fullmatch(spec.ready_path):
        return "the path of its readiness does not begin with / or holds spaces or bytes that need %-encoding"
    return ""
