"""What the kernel tells of processes: memory, families, who is left over."""

import os
import signal
from pathlib import Path

from tests.wire.harness import Fairlead
from tests.wire.peers import until

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def resident_bytes(pid: int) -> int:
    """Memory of a process that is in RAM now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES


def words(pid: int) -> list[str]:
    """The command line; empty for a zombie, and for one that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def every_pid() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def parents() -> dict[int, int]:
    """Every process and its parent."""
    found = {}
    for pid in every_pid():
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            continue
        found[pid] = int(stat.rpartition(")")[2].split()[1])
    return found


def descendants(root: int) -> set[int]:
    """Every process below `root`, zombies included."""
    tree = parents()
    found: set[int] = set()
    front = {root}
    while front := {pid for pid, parent in tree.items() if parent in front} - found:
        found |= front
    return found


def shellds(fairlead: Fairlead, user_string: str = "alice+dev") -> list[int]:
    """Every process that was started as a workspace's shelld: wrappers and launcher too."""
    config = str(fairlead.workspace(user_string) / "config.json")
    return [pid for pid in every_pid() if config in words(pid)]


def shelld(fairlead: Fairlead, user_string: str = "alice+dev") -> int:
    """The shelld itself: what serves, not what wrapped or helps it."""
    candidates = [pid for pid in shellds(fairlead, user_string) if "shelld" in words(pid)[:5]]
    tree = parents()
    return next(pid for pid in candidates if tree.get(pid) not in candidates)


def programs(fairlead: Fairlead, user_string: str = "alice+dev") -> set[int]:
    """What runs in a workspace besides shelld's own processes; zombies included."""
    own = set(shellds(fairlead, user_string))
    return descendants(shelld(fairlead, user_string)) - own if own else set()


def kill(pid: int) -> None:
    """End a process that the test's own proxy started, and wait until the kernel has."""
    os.kill(pid, signal.SIGKILL)
    until(lambda: pid not in parents(), "the killed process is gone")
