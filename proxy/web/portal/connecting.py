"""Ways to connect to a workspace, to be copied: command, block of ~/.ssh/config, links to IDEs. Pure.

VS Code takes the name of a host from ~/.ssh/config, so its link works once the block is there; Gateway takes
host, port and user. Sources: ssh_config(5); links of the form `vscode://vscode-remote/ssh-remote+HOST/PATH`
and `jetbrains-gateway://connect#type=ssh&host=…&port=…&user=…&deploy=true`.
"""

import re
from typing import NamedTuple
from urllib.parse import quote, urlencode

from proxy.userstring import UserString, format_user_string, wrap


class Reached(NamedTuple):
    """The address by which clients reach SSH."""

    host: str
    port: int


class Ways(NamedTuple):
    """Everything that a page offers to be copied or followed."""

    command: str
    alias: str
    """Name of the host in the block."""
    block: str
    vscode: str
    jetbrains: str


def ways(value: UserString, reached: Reached) -> Ways:
    """Return the ways to a workspace."""
    user = format_user_string(value)
    alias = alias_of(value)
    option = f"-p {reached.port} " if reached.port != 22 else ""
    block = "\n".join(
        [
            f"Host {alias}",
            f"    HostName {reached.host}",
            *([f"    Port {reached.port}"] if reached.port != 22 else []),
            f"    User {user}",
            "    ServerAliveInterval 30",
        ]
    )
    gateway = urlencode(
        {"type": "ssh", "host": reached.host, "port": reached.port, "user": wrap(user), "deploy": "true"}
    )
    return Ways(
        f"ssh {option}{user}@{reached.host}",
        alias,
        block,
        f"vscode://vscode-remote/ssh-remote+{quote(alias)}/",
        f"jetbrains-gateway://connect#{gateway}",
    )


def alias_of(value: UserString) -> str:
    """Return a name for a workspace that is one word of ~/.ssh/config."""
    place = value.blueprint or value.repo or value.pod or value.workload
    words = re.sub(r"[^A-Za-z0-9]+", "-", place).strip("-") or "workspace"
    ref = re.sub(r"[^A-Za-z0-9]+", "-", value.ref).strip("-")
    return "-".join(part for part in ("fairlead", words, ref) if part)
