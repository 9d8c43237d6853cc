"""`python -m bench.recording`: what a recording costs, as the ratio of two Fairleads, one of which records.

Both run from this checkout, on this machine, at the same time, and take turns; each row is the median of the
ratios of its pairs. Nothing is judged: read the ratios.
"""

import json
import statistics
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from subprocess import DEVNULL, run

from rich.console import Console
from rich.table import Table

from bench.fairlead import fairlead_target
from bench.plan import MIB
from bench.targets import BenchError, Target, make_key
from bench.transfers import zeros

_TIMEOUT_S = 600
_TEXT = "2026-02-03 04:05:06 INFO worker-7 handled request /api/v1/items?page=12 in 3.4 ms, status 200"
_RULES = json.dumps([{"record": ["shell", "exec", "sftp", "forward"]}])


def _zeros_down(target: Target, size: int) -> None:
    _ssh(target, f"head -c {size} /dev/zero")


def _text_down(target: Target, size: int) -> None:
    _ssh(target, f"yes '{_TEXT}' | head -c {size}")


def _terminal(target: Target, size: int) -> None:
    _ssh(target, f"yes '{_TEXT}' | head -c {size}", "-tt")


def _zeros_up(target: Target, size: int) -> None:
    with zeros(size) as source:
        done = run(
            target.ssh("cat >/dev/null"), stdin=source, stdout=DEVNULL, timeout=_TIMEOUT_S, check=False
        )
    _require(done.returncode)


def _sftp(target: Target, size: int) -> None:
    target.run(f"test -f big || head -c {size} /dev/zero > big")
    words = ["sftp", "-q", *target.options(), "-b", "-", "127.0.0.1"]
    done = run(words, input=b"get big /dev/null\n", stdout=DEVNULL, timeout=_TIMEOUT_S, check=False)
    _require(done.returncode)


def _true(target: Target, size: int) -> None:
    del size
    _ssh(target, "true")


ROWS: dict[str, Callable[[Target, int], None]] = {
    "exec, zeros down": _zeros_down,
    "exec, text down": _text_down,
    "exec, zeros up": _zeros_up,
    "terminal, text": _terminal,
    "sftp get": _sftp,
    "ssh true": _true,
}


def main() -> None:
    """Measure every row and print the ratios, recorded to plain: below 1 is what the recording costs."""
    arguments = _arguments()
    console = Console(width=100)
    table = Table("row", "plain", "recorded", "throughput ratio", "proxy CPU ratio", box=None)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        identity = make_key(folder / "id")
        plain = stack.enter_context(fairlead_target("plain", folder / "a", identity))
        rule = {"FAIRLEAD_RECORDING__RULES": _RULES}
        recorded = stack.enter_context(fairlead_target("recorded", folder / "b", identity, rule))
        for target in (plain, recorded):
            target.run("true")
        for name in arguments.rows or ROWS:
            table.add_row(name, *_row(ROWS[name], plain, recorded, arguments))
            console.print(f"[dim]  {name}: done[/]")
    console.print(table)


def _row(
    work: Callable[[Target, int], None], plain: Target, recorded: Target, arguments: Namespace
) -> tuple[str, str, str, str]:
    size = arguments.mib * MIB
    pairs = []
    for turn in range(arguments.pairs + 1):
        order = (plain, recorded) if turn % 2 else (recorded, plain)
        taken = {target.label: _timed(work, target, size) for target in order}
        if turn:  # the first warms
            pairs.append((taken["plain"], taken["recorded"]))
    walls = [statistics.median(pair[which][0] for pair in pairs) for which in (0, 1)]
    ratio = statistics.median(a[0] / b[0] for a, b in pairs)
    cpu = statistics.median(b[1] / a[1] for a, b in pairs if a[1])
    shown = [
        f"{size / MIB / wall:.0f} MiB/s" if work is not _true else f"{wall * 1000:.0f} ms" for wall in walls
    ]
    return shown[0], shown[1], f"{ratio:.2f}", f"{cpu:.2f}"


def _timed(work: Callable[[Target, int], None], target: Target, size: int) -> tuple[float, float]:
    """Give seconds of the clock, and of the proxy's processors."""
    cpu, began = target.cpu()["proxy"], time.monotonic()
    work(target, size)
    return time.monotonic() - began, target.cpu()["proxy"] - cpu


def _ssh(target: Target, command: str, *options: str) -> None:
    words = target.ssh(command, *options)
    done = run(words, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL, timeout=_TIMEOUT_S, check=False)
    _require(done.returncode)


def _require(status: int) -> None:
    if status:
        raise BenchError(f"a client ended with status {status}")


def _arguments() -> Namespace:
    parser = ArgumentParser(prog="python -m bench.recording", description=__doc__)
    parser.add_argument("rows", nargs="*", choices=[[], *ROWS], help="which to measure; default: all")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--mib", type=int, default=128, help="bytes of one transfer, in MiB")
    return parser.parse_args()


if __name__ == "__main__":
    main()
