"""Processes of the workspace as /proc describes them. Read-only."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_HUP_BIT = 1 << (signal.SIGHUP - 1)


@dataclass(frozen=True, slots=True)
class Process:
    """One line of /proc/PID/stat: proc_pid_stat(5)."""

    pid: int
    parent: int
    session: int
    state: str
    cpu_s: float
    """User and system time, its own and that of the children it has waited for."""
    resident_bytes: int


def parse_stat(text: str) -> Process:
    """Parse /proc/PID/stat; the name in parentheses may contain any character, parentheses too."""
    pid, _, rest = text.partition(" (")
    fields = rest.rpartition(") ")[2].split()
    ticks = sum(int(field) for field in fields[11:15])
    return Process(
        pid=int(pid),
        parent=int(fields[1]),
        session=int(fields[3]),
        state=fields[0],
        cpu_s=ticks / _TICKS_PER_S,
        resident_bytes=int(fields[21]) * _PAGE_BYTES,
    )


def processes() -> list[Process]:
    """Return every visible process, zombies included; those that end meanwhile are left out."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                    found.append(parse_stat(file.read()))
            except (OSError, IndexError, ValueError):
                continue
    return found


def name_of(pid: int) -> str:
    """Return the short name of a process, printable; "a program" for one that has ended."""
    try:
        name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        name = ""
    return "".join(one if one.isprintable() else "?" for one in name) or "a program"


def ignores_hup(pid: int) -> bool:
    """Return whether a process ignores HUP, as `nohup` makes it; True for a process that has ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    for line in text.splitlines():
        if line.startswith("SigIgn:"):
            return bool(int(line.split()[1], 16) & _HUP_BIT)
    return False


def descendants(root: int, among: Iterable[Process]) -> list[Process]:
    """Return the processes below `root`, without it."""
    children: dict[int, list[Process]] = {}
    for process in among:
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    generation = children.get(root, [])
    while generation:
        found.extend(generation)
        generation = [child for process in generation for child in children.get(process.pid, [])]
    return found
