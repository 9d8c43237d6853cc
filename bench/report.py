"""Shows the lines as a table and keeps every sample as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.pairs import CANDIDATE, YARDSTICK, Metric, Spread


def show(console: Console, lines: Sequence[Metric], labels: dict[str, str]) -> None:
    """Print medians with least and greatest, and the median of the pairs' ratios."""
    table = Table(
        title="median (least to greatest) of each target; ratio = Fairlead / sshd, pair by pair",
        title_justify="left",
    )
    for heading in ("row", "what", "unit"):
        table.add_column(heading, no_wrap=True)
    for label in (YARDSTICK, CANDIDATE):
        table.add_column(labels.get(label, label), justify="right")
    table.add_column("ratio", justify="right", style="bold")
    table.add_column("promised")
    previous = ""
    for line in lines:
        if previous and line.row != previous:
            table.add_section()
        arrow = "↑" if line.better == "higher" else "↓"
        table.add_row(
            line.row if line.row != previous else "",
            line.name,
            f"{line.unit} {arrow}",
            _cell(line.spread(YARDSTICK)),
            _cell(line.spread(CANDIDATE)),
            _cell(line.ratio()),
            line.goal,
        )
        previous = line.row
    console.print(table)


def _cell(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    if spread.low == spread.high:
        return _number(spread.median)
    return f"{_number(spread.median)} ({_number(spread.low)} to {_number(spread.high)})"


def _number(value: float) -> str:
    size = abs(value)
    return f"{value:.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def write(path: Path, machine: dict[str, Any], options: dict[str, Any], lines: Sequence[Metric]) -> None:
    """Write machine, options and all samples; the folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine, "options": options, "lines": [_line(line) for line in lines]}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n")


def _line(line: Metric) -> dict[str, Any]:
    ratio = line.ratio()
    summary = {label: asdict(spread) for label in line.samples if (spread := line.spread(label))}
    return asdict(line) | {"summary": summary, "ratio": asdict(ratio) if ratio else None}
