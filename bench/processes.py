"""What running processes cost: CPU seconds and memory, read from the kernel's own books."""

import select
import signal
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from os import close, pidfd_open
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from time import monotonic, sleep
from typing import Any

import psutil


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of a group of processes, summed."""

    own: int
    """Resident and backed by no file, pages shared after a fork divided among the sharers. Program code is
    left out: its share moves whenever anybody else on the machine starts or ends the same program."""
    rss: int
    """Resident, shared pages counted once per process."""

    def minus(self, other: "Memory") -> "Memory":
        return Memory(self.own - other.own, self.rss - other.rss)


def own_cpu_s(processes: Iterable[psutil.Process]) -> float:
    """Add up user and system time, in seconds, of the processes themselves."""
    total = 0.0
    for process in processes:
        with suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def reaped_cpu_s(processes: Iterable[psutil.Process]) -> float:
    """Add up the time, in seconds, of children that the processes have already waited for."""
    total = 0.0
    for process in processes:
        with suppress(psutil.Error):
            times = process.cpu_times()
            total += times.children_user + times.children_system
    return total


def memory_of(processes: Iterable[psutil.Process]) -> Memory:
    """Add up the memory of the processes that are still there."""
    own = rss = 0
    for process in processes:
        with suppress(OSError):
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]
            kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
            own += (kib["Pss_Anon"] + kib["Pss_Shmem"]) * 1024
            rss += kib["Rss"] * 1024
    return Memory(own, rss)


def family_of(root: psutil.Process) -> list[psutil.Process]:
    """List the process and its descendants."""
    with suppress(psutil.Error):
        return [root, *root.children(recursive=True)]
    return []


def machine_cpu_s() -> float:
    """Seconds that all processors together have worked since boot, for whomever."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq + times.steal)


def await_exit(process: Popen[Any], timeout_s: float) -> None:
    """Return at the moment the process ends; it can still be read in /proc until it is reaped.

    `Popen.wait(timeout=…)` looks every 50 ms, which is too coarse for a stopwatch.

    Raises: TimeoutExpired.
    """
    if process.returncode is not None:
        return
    handle = pidfd_open(process.pid)
    try:
        poller = select.poll()
        poller.register(handle, select.POLLIN)
        if not poller.poll(timeout_s * 1000):
            raise TimeoutExpired(process.args, timeout_s)
    finally:
        close(handle)


def bytes_written(process: Popen[Any]) -> int | None:
    """Tell how much a process has passed to write calls, files and sockets together.

    None when only root may know: `ssh` hides from others what could betray its keys.
    """
    try:
        lines = Path(f"/proc/{process.pid}/io").read_text().splitlines()
    except PermissionError:
        return None
    return int(dict(line.split(": ") for line in lines)["wchar"])


def end(process: Popen[Any], grace_s: float = 10.0) -> None:
    """TERM, then KILL after `grace_s`; returns when the process is reaped."""
    if process.poll() is None:
        process.terminate()
        try:
            await_exit(process, grace_s)
        except TimeoutExpired:
            process.kill()
    process.wait()


def end_strangers(processes: list[psutil.Process], grace_s: float = 5.0) -> None:
    """End processes that are not our children: TERM, then KILL after `grace_s`."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            with suppress(psutil.Error):
                process.send_signal(number)
        _, processes = psutil.wait_procs(processes, timeout=grace_s)
        if not processes:
            return


def wait_until(holds: Any, timeout_s: float, every_s: float = 0.005) -> bool:
    """Ask `holds()` until it says yes or time is up; returns the last answer."""
    deadline = monotonic() + timeout_s
    while not holds():
        if monotonic() > deadline:
            return False
        sleep(every_s)
    return True
