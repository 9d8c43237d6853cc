"""How a workspace is set apart from the rest of the machine: mount, PID, UTS and IPC namespaces.

The file system stays the machine's, and so does the network: this keeps workspaces out of each
other's way. It is no security boundary against hostile users.

In the PID namespace shelld is PID 1, so that the end of shelld is the end of everything in the
workspace; the program outside that made the namespace (the wrapper) takes it along when it is killed.
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
    """Why it is nothing better."""

    def wrap(self, program: Sequence[str], *, hostname: str, uid: int, gid: int) -> list[str]:
        """Give the command line that starts `program` as PID 1 of a workspace called `hostname`.

        `uid` and `gid` are those of this process, and those that the program sees itself as.
        """
        match self.kind:
            case "bwrap":
                return [*_bwrap(self.tool, hostname), *program]
            case "unshare":
                return [*_unshare(self.tool, hostname, uid, gid), *program]
            case "none":
                return ["/bin/sh", "-c", 'cd /; exec "$@"', "sh", *program]


def _bwrap(tool: str, hostname: str) -> list[str]:
    # bwrap leaves its child behind when it is killed, unless told to die with its own parent: so it is
    # given one that lives as long as the workspace, instead of the proxy, which may go earlier.
    parent = ["/bin/sh", "-c", '"$@"; exit $?', "sh"]
    apart = ["--unshare-pid", "--unshare-uts", "--unshare-ipc", "--hostname", hostname]
    machine = ["--dev-bind", "/", "/", "--proc", "/proc", "--chdir", "/"]
    return [*parent, tool, *apart, *machine, "--as-pid-1", "--die-with-parent", "--"]


def _unshare(tool: str, hostname: str, uid: int, gid: int) -> list[str]:
    apart = ["--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc"]
    # Mounts of the machine keep arriving; those of the workspace do not leave it.
    command = [tool, *apart, "--propagation", "slave"]
    if uid == 0:
        return [*command, "--", "/bin/sh", "-c", _SET_HOSTNAME_AND_GO, hostname]
    # Root of a first user namespace may mount and name; a second one inside gives the user back.
    inner = [tool, "--user", f"--map-user={uid}", f"--map-group={gid}", "--"]
    outer = [*command, "--user", "--map-root-user", "--"]
    return [*outer, "/bin/sh", "-c", _SET_HOSTNAME_AND_GO, hostname, *inner]


async def choose(choice: Choice, *, search_path: str = SEARCH_PATH) -> Separation:
    """Find the best way that works here by trying; logs which, and why when it is none."""
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
    """Order the ways: bwrap first, but as root unshare, since bwrap takes set-user-id programs away."""
    if choice == "auto":
        return ("unshare", "bwrap") if uid == 0 else ("bwrap", "unshare")
    return () if choice == "none" else (choice,)


async def _try(separation: Separation) -> str:
    """Make a namespace with nothing in it; the reason when that fails, empty when it works."""
    check = 'test "$$" = 1 && test "$(cat /proc/sys/kernel/hostname)" = probe && test -d /proc/1'
    command = separation.wrap(["/bin/sh", "-c", check], hostname="probe", uid=os.geteuid(), gid=os.getegid())
    # Into a file: a pipe would be held open by whatever the tool leaves behind.
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
