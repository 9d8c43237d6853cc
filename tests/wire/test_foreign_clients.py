"""Clients of other projects as programs (tests/wire/foreign), at the proxy and at `sshd` as the measure."""

import contextlib
import hashlib
import json
import os
import random
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.wire.direct import Place, fairlead_place
from tests.wire.foreign.programs import CLIENTS, Client, NotInstalledError
from tests.wire.harness import Fairlead
from tests.wire.peers import MIB, Peer, echo

SETTINGS = {  # with the MAC that Twisted Conch needs; the others choose what they would without
    "FAIRLEAD_SSH__MACS": '["hmac-sha2-256-etm@openssh.com", "hmac-sha2-256"]'
}
BLUEPRINTS = {"dev": "shell: /bin/sh\n"}
PROGRAM_DEADLINE_S = 150
PAGE = Path(__file__).parents[2] / "docs" / "clients.md"
TABLE = re.compile(
    r"(?<=<!-- made by tests/wire/test_foreign_clients.py -->\n).*?(?=<!-- until here -->)", re.DOTALL
)

pytestmark = [
    pytest.mark.usefixtures("warm"),
    pytest.mark.timeout(900),  # the first test of a client installs it
]

NOT_TRIED = {
    "WinSCP": "a program for Windows; by its sources, a server whose version begins with `OpenSSH` is sent "
    "the arguments of symlinks as OpenSSH wants them, and offered sftp versions above 3",
    "FileZilla": "a desktop program; its `fzsftp` speaks to that alone",
}
"""Clients that no test runs, and why."""


@dataclass(frozen=True)
class Report:
    """What one program saw at one place."""

    directory: Path
    payload: bytes
    rows: dict[str, dict[str, Any]]
    errors: str


def _login(_report: Report, _seen: dict[str, Any]) -> None:
    """Nothing more: the program reports this row after it."""


def _exec(_report: Report, seen: dict[str, Any]) -> None:
    assert (seen["out"], seen["err"], seen["status"]) == ("out\n", "err\n", 7)


def _pty(_report: Report, seen: dict[str, Any]) -> None:
    assert "33 91" in seen["shown"]
    assert "40 120" in seen["shown"]
    assert "vt100" in seen["shown"]
    assert seen["status"] == 4


def _symlink(report: Report, seen: dict[str, Any]) -> None:
    assert os.readlink(report.directory / "link") == "a-target"
    assert seen.get("target", "a-target") == "a-target"


def _transfer(report: Report, _seen: dict[str, Any]) -> None:
    assert (report.directory / "put").read_bytes() == report.payload
    assert (report.directory / "got").read_bytes() == report.payload


def _local_forward(report: Report, seen: dict[str, Any]) -> None:
    assert seen["digest"] == hashlib.sha256(report.payload[:65_536]).hexdigest()


def _remote_forward(_report: Report, seen: dict[str, Any]) -> None:
    assert seen["heard"] == "hello"


def _rekey(_report: Report, seen: dict[str, Any]) -> None:
    assert seen["exchanges"] >= 1
    assert seen["out"] == "after\n"


def _keepalive(_report: Report, seen: dict[str, Any]) -> None:
    assert seen["out"] == "kept\n"


ROWS: dict[str, Callable[[Report, dict[str, Any]], None]] = {
    "login": _login,
    "exec": _exec,
    "pty": _pty,
    "symlink": _symlink,
    "transfer": _transfer,
    "local_forward": _local_forward,
    "remote_forward": _remote_forward,
    "rekey": _rekey,
    "keepalive": _keepalive,
}


class Reports:
    """The programs' reports; each program runs once at each place."""

    def __init__(self, made: Callable[[str], Path]) -> None:
        self._directory = made
        self._reports: dict[tuple[str, bool], Report] = {}
        self.not_installed: dict[str, str] = {}

    def of(self, client: Client, place: Place) -> Report:
        """Run the program if it has not run there; skip the test where it cannot be installed."""
        if missing := client.kind.missing():
            pytest.skip(f"optional, not found here: {', '.join(missing)}")
        if why := self.not_installed.get(client.kind.name):
            pytest.skip(why)
        if (client.name, place.is_ours) not in self._reports:
            self._reports[client.name, place.is_ours] = self._run(self._command(client), place)
        return self._reports[client.name, place.is_ours]

    def seen(self, client: Client) -> Report | None:
        """Return the report of a client that ran at the proxy."""
        return self._reports.get((client.name, True))

    def _command(self, client: Client) -> list[str]:
        try:
            return client.command()
        except NotInstalledError as exc:
            self.not_installed[client.kind.name] = f"not installed: {exc}"
            pytest.skip(self.not_installed[client.kind.name])

    def _run(self, command: list[str], place: Place) -> Report:
        directory = self._directory("client")
        payload = random.Random(1).randbytes(MIB)
        (directory / "payload").write_bytes(payload)
        with (
            Peer(echo) as server,
            (directory / "out").open("wb") as out,
            (directory / "err").open("wb") as err,
        ):
            words = [*command, place.port, place.user, place.key, directory, server.port]
            program = subprocess.Popen(
                [str(word) for word in words], stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )
            try:
                program.wait(PROGRAM_DEADLINE_S)
            except subprocess.TimeoutExpired:
                program.kill()
                program.wait()
        told = [json.loads(line) for line in (directory / "out").read_text().splitlines()]
        errors = (directory / "err").read_text(errors="replace")
        return Report(directory, payload, {seen.pop("row"): seen for seen in told}, errors)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Reports:
    return Reports(tmp_path_factory.mktemp)


def judge(report: Report, row: str) -> str | None:
    """Raise unless the row is as it should be; gives what the library lacks for it, if it does."""
    assert row in report.rows, f"no word of it: {report.errors[-2_000:]}"
    seen = report.rows[row]
    assert "error" not in seen, (seen, report.errors[-2_000:])
    if "lacks" in seen:
        return str(seen["lacks"])
    ROWS[row](report, seen)
    return None


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_a_client_of_another_project(place: Place, reports: Reports, client: Client, row: str) -> None:
    judge(reports.of(client, place), row)


def table(reports: Reports, written: str) -> str:
    """Return the table of the page: what was seen now, or what `written` has of a client that did not run."""
    lines = [
        f"| client | {' | '.join(row.replace('_', ' ') for row in ROWS)} |",
        "| --- " * (len(ROWS) + 1) + "|",
    ]
    notes: list[str] = []
    for client in CLIENTS:
        report = reports.seen(client)
        if report is None:
            lines += [line for line in written.splitlines() if line.startswith(f"| {client.name} ")]
            notes += [line for line in written.splitlines() if line.startswith(f"* {client.name}, ")]
            continue
        cells = []
        for row in ROWS:
            lacks = judge(report, row)
            note = lacks or report.rows[row].get("note")
            cells.append("lacks" if lacks else "yes, see below" if note else "yes")
            notes += [f"* {client.name}, {row.replace('_', ' ')}: {note}."] if note else []
        lines.append(f"| {client.name} {client.version()} | {' | '.join(cells)} |")
    for name, why in NOT_TRIED.items():
        lines.append(f"| {name} {'| not tried ' * len(ROWS)}|")
        notes.append(f"* {name}, not tried: {why}.")
    return "\n".join([*lines, "", *notes, ""])


def test_the_table_of_the_documentation_is_what_was_seen(fairlead: Fairlead, reports: Reports) -> None:
    """`REWRITE_GOLDEN=1` writes it anew; then read the difference."""
    for client in CLIENTS:
        with contextlib.suppress(pytest.skip.Exception):  # one that cannot be had keeps the line that it has
            reports.of(client, fairlead_place(fairlead))
    page = PAGE.read_text()
    found = TABLE.search(page)
    assert found is not None
    made = table(reports, found[0])
    if os.environ.get("REWRITE_GOLDEN"):
        PAGE.write_text(TABLE.sub(lambda _: made, page))
    else:
        assert made == found[0], "docs/clients.md: REWRITE_GOLDEN=1 writes the table anew"


@pytest.mark.skipif(not os.environ.get("CI"), reason="only CI has to try every client that it could")
def test_ci_tries_every_client_whose_language_is_there(fairlead: Fairlead, reports: Reports) -> None:
    for client in CLIENTS:
        if not client.kind.missing():
            try:
                reports.of(client, fairlead_place(fairlead))
            except pytest.skip.Exception as exc:
                pytest.fail(f"{client.name} was not tried: {exc.msg}")
