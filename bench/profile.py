"""Runs rows with a Fairlead whose processes sample themselves, and says where their time goes.

Sampling costs a few per cent, so the figures of a profiled run are not for comparison.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

_FOLDER = Path(__file__).parent / "sampling"
_SHOWN = 25
_EVERYTHING = 0.95
"""Share above which a function is only the way in."""


def environment(samples: Path) -> dict[str, str]:
    """Give what makes every Python started with it sample itself into `samples`, which is made."""
    samples.mkdir(mode=0o700)
    return {"PYTHONPATH": str(_FOLDER), "BENCH_SAMPLES": str(samples)}


def sampled(samples: Path, work: Callable[[], None], console: Console) -> None:
    """Sample while `work` runs, then show what was found, busiest process first."""
    go = samples / "go"
    go.touch()
    try:
        work()
    finally:
        go.unlink()
    found = [json.loads(file.read_text()) for file in samples.glob("*.json")]
    for process in sorted(found, key=lambda each: -sum(each["self"].values())):
        _show(process, console)
    if not found:
        console.print("no samples: the processes were gone before their first one was written")


def _show(process: dict[str, Any], console: Console) -> None:
    total = sum(process["self"].values())
    if total < 0.05:
        return
    words = " ".join(process["argv"])
    console.print(f"\n[bold]{words[-100:]}[/]: {total:.2f} s of its main thread")
    busy = {name: seconds for name, seconds in process["threads"].items() if seconds >= 0.05}
    console.print(f"threads since start: {', '.join(f'{k} {v:.2f} s' for k, v in sorted(busy.items()))}")
    table = Table("itself", "function", "with what it calls", "function")
    own = [*process["self"].items()][:_SHOWN]
    calls = [(name, s) for name, s in process["with_calls"].items() if s < _EVERYTHING * total][:_SHOWN]
    for (a, own_s), (b, calls_s) in zip(own, calls, strict=False):
        table.add_row(f"{own_s / total:.1%}", a, f"{calls_s / total:.1%}", b)
    console.print(table)
