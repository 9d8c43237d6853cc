"""Facts without which a figure cannot be read."""

import os
import platform
import shutil
from datetime import UTC, datetime
from pathlib import Path
from subprocess import run
from typing import Any

import psutil


def facts() -> dict[str, Any]:
    """Describe the machine, the programs and the source measured, at this moment."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "cores_allowed": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "aes_instructions": " aes " in _cpuinfo(),
        "memory_mib": psutil.virtual_memory().total // 2**20,
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "client": _words(["ssh", "-V"]),
        "load_1min": round(os.getloadavg()[0], 2),
        "commit": _words(["git", "rev-parse", "--short", "HEAD"]),
        "uncommitted_changes": bool(
            _words(["git", "status", "--porcelain", "--", "proxy", "shelld", "protos"])
        ),
    }


def warnings_of(machine: dict[str, Any]) -> list[str]:
    """Say what about this machine makes its figures doubtful."""
    found = []
    if machine["load_1min"] > 1:
        found.append(
            f"the load is {machine['load_1min']}: others are at work, so trust ratios only, and not far"
        )
    if machine["cores_allowed"] < 2:
        found.append(
            "with one core, client and server take turns: throughput is not what two machines would see"
        )
    if not machine["aes_instructions"]:
        found.append("no AES instructions: AES-GCM, which Fairlead prefers, is slow here")
    return found


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""


def _processor() -> str:
    for line in _cpuinfo().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _words(argv: list[str]) -> str:
    if shutil.which(argv[0]) is None:
        return ""
    done = run(argv, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    return (done.stdout or done.stderr).strip()
