"""`python -m bench`: what to measure, on what, and where the report goes."""

import shutil
import sys
import tempfile
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from statistics import median
from subprocess import TimeoutExpired
from typing import Any

from rich.console import Console
from rich.markup import escape

from bench import machine, profile, report
from bench.fairlead import fairlead_target
from bench.pairs import CANDIDATE, YARDSTICK, Metric
from bench.plan import MIB, QUICK, Bench, Plan
from bench.rows import crowds, execs, files, forwards, latency, neighbours, web, web_chain
from bench.sshd import HOW_TO_INSTALL, find_sshd, sshd_target
from bench.targets import BenchError, Target, make_key
from bench.transfers import OTHERS

_QUIET_CORES = 0.25

ROWS: dict[str, Callable[[Bench], list[Metric]]] = {
    "download": execs.download,
    "upload": execs.upload,
    "download-gcm": execs.download_gcm,
    "upload-gcm": execs.upload_gcm,
    "sftp-get": files.get,
    "sftp-put": files.put,
    "forward-get": forwards.get,
    "forward-put": forwards.put,
    "parallel": execs.parallel,
    "true": latency.new_connection,
    "true-mux": latency.shared_connection,
    "echo": latency.echo,
    "floods": neighbours.floods,
    "rate": crowds.rate,
    "idle": crowds.idle,
    "web": web.web,
    "web-chain": web_chain.web_chain,
}


def main() -> int:
    """Measure; 0 when every chosen row could be measured, 1 when one could not, 2 for bad arguments."""
    arguments = _arguments()
    console = Console(width=None if sys.stdout.isatty() else 150)
    if shutil.which("ssh") is None:
        console.print(
            "no ssh found: the benchmark drives OpenSSH's own client (Debian: apt install openssh-client)"
        )
        return 2
    facts = machine.facts()
    for sentence in machine.warnings_of(facts):
        console.print(f"[yellow]note:[/] {sentence}")
    try:
        return _run(arguments, console, facts)
    except BenchError as exc:
        console.print(f"[red]nothing measured:[/] {escape(str(exc))}")
        return 1


def _run(arguments: Namespace, console: Console, facts: dict[str, Any]) -> int:
    with _targets(arguments, console) as bench:
        facts["servers"] = {target.label: target.product for target in bench.targets}
        facts["shells"] = {
            target.label: target.run("readlink /proc/$$/exe").strip() for target in bench.targets
        }
        _introduce(console, facts)
        lines, failed = _measure(bench, arguments, console)
    report.show(console, lines, {t.label: _heading(t.label, arguments.self_check) for t in bench.targets})
    path = arguments.json or Path(__file__).parent / "results" / f"{facts['date'].replace(':', '')}.json"
    if (noise := _noise(lines)) > _QUIET_CORES:
        console.print(
            f"[yellow]note:[/] others kept {noise:.1f} cores busy meanwhile: trust CPU, not throughput ratios"
        )
    report.write(path, facts, asdict(bench.plan) | {"self_check": arguments.self_check}, lines)
    console.print(f"every sample: {path}")
    return 1 if failed else 0


def _noise(lines: list[Metric]) -> float:
    """Give the processors that others used in the worst row, its median."""
    return max(
        (median(v) for line in lines if line.name == OTHERS for v in line.samples.values()), default=0.0
    )


def _introduce(console: Console, facts: dict[str, Any]) -> None:
    where = f"{facts['processor']}, Linux {facts['kernel']}, load {facts['load_1min']}"
    console.print(f"{facts['cores_allowed']} cores, {where}")
    console.print(f"client {facts['client']}; servers {facts['servers']}; commit {facts['commit']}")
    if len(set(facts["shells"].values())) > 1:
        console.print(f"[yellow]note:[/] the targets use different shells: {facts['shells']}")


def _heading(label: str, self_check: bool) -> str:
    return f"{label} (a second sshd)" if self_check and label == CANDIDATE else label


@contextmanager
def _targets(arguments: Namespace, console: Console) -> Iterator[Bench]:
    """Start what is measured, in a directory that goes away with it."""
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True))
        )
        identity = make_key(folder / "id")
        sampling = profile.environment(folder / "samples") if arguments.profile else None
        number = count()

        def start(label: str) -> AbstractContextManager[Target]:
            place = folder / f"{next(number)}"
            if label == YARDSTICK or arguments.self_check:
                return sshd_target(label, place, identity)
            return fairlead_target(label, place, identity, sampling)

        labels = [YARDSTICK, CANDIDATE]
        if find_sshd() is None:
            console.print(f"[yellow]note:[/] {HOW_TO_INSTALL}; measuring Fairlead alone")
            labels.remove(YARDSTICK)
        targets = [stack.enter_context(start(label)) for label in labels]
        for target in targets:
            target.run("true")

        def say(words: str) -> None:
            console.print(f"[dim]  {words}[/]")

        yield Bench(_plan(arguments), targets, folder, say, lambda target: start(target.label))


def _measure(bench: Bench, arguments: Namespace, console: Console) -> tuple[list[Metric], list[str]]:
    """Measure row by row; one that cannot be measured costs the others nothing."""
    lines: list[Metric] = []
    failed: list[str] = []
    if arguments.profile:
        alone = replace(bench, targets=[target for target in bench.targets if target.label == CANDIDATE])
        profile.sampled(
            bench.folder / "samples",
            lambda: _rows(alone, [arguments.profile], console, lines, failed),
            console,
        )
    else:
        _rows(bench, arguments.rows, console, lines, failed)
    return lines, failed


def _rows(bench: Bench, rows: list[str], console: Console, lines: list[Metric], failed: list[str]) -> None:
    for row in rows:
        bench.say(row)
        try:
            lines += ROWS[row](bench)
        except (BenchError, OSError, TimeoutExpired) as exc:
            failed.append(row)
            console.print(f"[red]{row} could not be measured:[/] {escape(str(exc))}")


def _plan(arguments: Namespace) -> Plan:
    plan = QUICK if arguments.quick else Plan()
    if arguments.size_mib:
        plan = replace(plan, exec_bytes=arguments.size_mib * MIB)
    if arguments.runs:
        plan = replace(plan, runs=arguments.runs)
    return plan


def _arguments() -> Namespace:
    parser = ArgumentParser(prog="python -m bench", description="Measure Fairlead beside a direct sshd.")
    parser.add_argument(
        "--rows", type=_row_names, default=list(ROWS), metavar="A,B", help=f"of {', '.join(ROWS)}"
    )
    parser.add_argument(
        "--size-mib", type=_positive, metavar="N", help="bytes through exec; files and forwards: half"
    )
    parser.add_argument("--runs", type=_positive, metavar="N", help="samples of each transfer and target")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="where the samples go (bench/results/DATE.json)"
    )
    parser.add_argument("--quick", action="store_true", help="small amounts: a look, not a verdict")
    parser.add_argument(
        "--self-check", action="store_true", help="compare sshd with sshd: every ratio should be 1"
    )
    parser.add_argument(
        "--profile", choices=list(ROWS), metavar="ROW", help="say where Fairlead's time goes in ROW"
    )
    return parser.parse_args()


def _row_names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in ROWS]:
        raise ArgumentTypeError(f"unknown {', '.join(unknown)}; there are {', '.join(ROWS)}")
    return names


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
