"""Separation of workspaces by mount, PID, UTS and IPC namespaces.

The file system and the network remain the machine's: this keeps workspaces out of each other's way. It is no
security boundary against hostile users.

In the PID namespace shelld is PID 1, so that the end of shelld ends everything in the workspace. The program
outside that made the namespace (the wrapper) ends it too when it is killed.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import structlog

from proxy.workspaces.local.process import spawn_detached

Kind = Literal["bwrap", "unshare", "none"]
Choice = Literal["auto", "bwrap", "unshare", "none"]

PROBE_TIMEOUT_S = 10.0
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_log = structlog.get_logger("workspaces")

_SET_HOSTNAME_AND_GO = 'hostname "$0" 2>/dev/null; cd /; exec "$@"'


@dataclass(frozen=True, slots=True)
class Separation:
    """One way to start a workspace's shelld."""

    kind: Kind
    tool: str = ""
    """Absolute path of bwrap or unshare."""
    reason: str = ""
    """The reason why there is no better way; else empty."""

    def wrap(self, program: Sequence[str], *, hostname: str, uid: int, gid: int) -> list[str]:
        """Return the command line that starts `program` as PID 1 of a workspace called `hostname`.

        `uid` and `gid` are those of this process, and the program sees itself as them.
        """
        match self.kind:
            case "bwrap":
                return [*_bwrap(self.tool, hostname), *program]
            case "unshare":
                return [*_unshare(self.tool, hostname, uid, gid), *program]
            case "none":
                return ["/bin/sh", "-c", 'cd /; exec "$@"', "sh", *program]


def _bwrap(tool: str, hostname: str) -> list[str]:
    # Killed, bwrap leaves its child behind, unless the child dies with bwrap's own parent. So bwrap gets a
    # parent that lives as long as the workspace; the proxy may end earlier.
    parent = ["/bin/sh", "-c", '"$@"; exit $?', "sh"]
    apart = ["--unshare-pid", "--unshare-uts", "--unshare-ipc", "--hostname", hostname]
    machine = ["--dev-bind", "/", "/", "--proc", "/proc", "--chdir", "/"]
    return [*parent, tool, *apart, *machine, "--as-pid-1", "--die-with-parent", "--"]


def _unshare(tool: str, hostname: str, uid: int, gid: int) -> list[str]:
    apart = ["--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc"]
    # New mounts of the machine appear inside; those of the workspace do not appear outside.
    command = [tool, *apart, "--propagation", "slave"]
    if uid == 0:
        return [*command, "--", "/bin/sh", "-c", _SET_HOSTNAME_AND_GO, hostname]
    # Root of a first user namespace may mount and set the hostname; a second one inside restores the user.
    inner = [tool, "--user", f"--map-user={uid}", f"--map-group={gid}", "--"]
    outer = [*command, "--user", "--map-root-user", "--"]
    return [*outer, "/bin/sh", "-c", _SET_HOSTNAME_AND_GO, hostname, *inner]


async def choose(choice: Choice, *, search_path: str = SEARCH_PATH) -> Separation:
    """Return the best way that works here, found by trying; log it, and the reason when there is none."""
    found = await _choose(choice, search_path)
    if found.kind == "none" and choice != "none":
        _log.warning("workspaces are plain processes: no namespaces can be made here", reason=found.reason)
    else:
        _log.info("workspaces are set apart", by=found.kind)
    return found


async def _choose(choice: Choice, search_path: str) -> Separation:
    if choice == "none":
        return Separation("none", reason="the settings say so")
    reasons = []
    for kind in candidates(choice, uid=os.geteuid()):
        if (tool := shutil.which(kind, path=search_path)) is None:
            reasons.append(f"{kind} is not installed")
            continue
        separation = Separation(kind, tool)
        if failure := await _try(separation):
            reasons.append(f"{kind}: {failure}")
        else:
            return separation
    return Separation("none", reason="; ".join(reasons))


def candidates(choice: Choice, *, uid: int) -> tuple[Kind, ...]:
    """Return the ways to try in order: bwrap first, but as root unshare.

    bwrap disables set-user-id programs, which root needs.
    """
    if choice == "auto":
        return ("unshare", "bwrap") if uid == 0 else ("bwrap", "unshare")
    return () if choice == "none" else (choice,)


async def _try(separation: Separation) -> str:
    """Make an empty namespace; return the error, empty when it works."""
    check = 'test "$$" = 1 && test "$(cat /proc/sys/kernel/hostname)" = probe && test -d /proc/1'
    command = separation.wrap(["/bin/sh", "-c", check], hostname="probe", uid=os.geteuid(), gid=os.getegid())
    # Into a file: processes that the tool leaves behind would keep a pipe open.
    with tempfile.TemporaryFile() as output:
        child = spawn_detached(command, {"PATH": SEARCH_PATH, "LANG": "C.UTF-8"}, output.fileno())
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                status = await asyncio.shield(child.exited)
        except TimeoutError:
            return f"no answer within {PROBE_TIMEOUT_S:g} s"
        finally:
            child.kill()
        output.seek(0)
        said = output.read(10_000).decode(errors="replace").strip().splitlines()
    if status == 0:
        return ""
    return said[-1] if said else f"it ended with status {status}"
