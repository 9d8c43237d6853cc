"""Storage that is full, silent or broken while people work: what each rule makes of it, with real clients."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import pytest

from tests.contract.s3server import BUCKET, names, s3_server, silent_server
from tests.wire.conftest import MakeFairlead
from tests.wire.harness import Fairlead
from tests.wire.peers import until
from tests.wire.terminal import Terminal

QUICK = {
    "FAIRLEAD_RECORDING__FLUSH_INTERVAL_S": "0.1",
    "FAIRLEAD_RECORDING__RETRY_INTERVAL_S": "0.1",
    "FAIRLEAD_RECORDING__WRITE_TIMEOUT_S": "1",
    "FAIRLEAD_RECORDING__REFUSE_AFTER_S": "1",
    "FAIRLEAD_RECORDING__OPEN_TIMEOUT_S": "2",
    "FAIRLEAD_RECORDING__CLOSE_TIMEOUT_S": "2",
    "FAIRLEAD_RECORDING__MAX_DELAY_S": "0.5",
    "FAIRLEAD_RECORDING__BLOCK_BYTES": "65536",
    "FAIRLEAD_RECORDING__BUFFER_BYTES": "262144",
}
BLUEPRINTS = {"dev": "shell: /bin/sh\n"}


def rule(on_failure: str) -> dict[str, str]:
    return {"FAIRLEAD_RECORDING__RULES": json.dumps([{"on_failure": on_failure}])}


def s3(endpoint: str, directory: Path) -> dict[str, str]:
    secret = directory / "secret"
    secret.write_text("secret")
    return {
        "FAIRLEAD_RECORDING__STORE": "s3",
        "FAIRLEAD_RECORDING__S3__BUCKET": BUCKET,
        "FAIRLEAD_RECORDING__S3__ENDPOINT": endpoint,
        "FAIRLEAD_RECORDING__S3__ACCESS_KEY_ID": "id",
        "FAIRLEAD_RECORDING__S3__SECRET_ACCESS_KEY_FILE": str(secret),
    }


@contextmanager
def small_disk(directory: Path) -> Iterator[Path]:
    """Mount a disk of 512 KiB."""
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k,mode=0700", "tmpfs", directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", directory], check=True)


def manifests(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text())["recording"] for file in directory.glob("*/*.json")]


class Typist:
    """A shell on a terminal of the workspace, driven by lines; what it shows is only kept, not drawn."""

    def __init__(self, fairlead: Fairlead) -> None:
        command = fairlead.command("ssh", "-tt", "fl")
        self._ssh = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._turns = 0
        self.shown = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ssh.kill()
        self._ssh.communicate()

    def run(self, command: str) -> None:
        """Type a command and wait until it has ended."""
        self._turns += 1
        self._type(f"{command}; echo tu''rn {self._turns}.")
        mark = b"turn %d." % self._turns
        out = self._ssh.stdout
        assert out
        while mark not in self.shown[-100_000:]:
            piece = os.read(out.fileno(), 65_536)
            assert piece, self.shown[-1_000:]
            self.shown += piece

    def leave(self, command: str) -> int:
        """Type the last command; give the status of ssh."""
        self._type(command)
        rest, _ = self._ssh.communicate(timeout=60)
        self.shown += rest
        return self._ssh.returncode

    def _type(self, line: str) -> None:
        assert self._ssh.stdin
        self._ssh.stdin.write(line.encode() + b"\r")
        self._ssh.stdin.flush()


def terminal(fairlead: Fairlead) -> Terminal:
    return Terminal(fairlead.command("ssh", "-tt", "fl"))


def _fill(file: Path) -> None:
    """Write until nothing fits any more."""
    with suppress(OSError), file.open("wb", buffering=0) as out:
        while out.write(bytes(1_024)):
            pass


def can_mount(directory: Path) -> bool:
    done = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", directory], capture_output=True)
    if done.returncode == 0:
        subprocess.run(["umount", directory], check=True)
    return done.returncode == 0


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    probe = tmp_path / "probe"
    probe.mkdir()
    if os.geteuid() != 0 or not can_mount(probe):
        pytest.skip("optional, not possible here: mounting a small disk")
    with small_disk(tmp_path / "disk") as directory:
        yield directory


# ---------------------------------------------------------------------------------------- full disk


def test_a_full_disk_under_continue_costs_the_person_nothing_and_leaves_a_marked_gap(
    make_fairlead: MakeFairlead, full_disk: Path
) -> None:
    place = {"FAIRLEAD_RECORDING__DIRECTORY": str(full_disk)}
    fairlead = make_fairlead({**QUICK, **rule("continue"), **place}, BLUEPRINTS)
    ballast = full_disk / "ballast"
    with Typist(fairlead) as person:
        person.run("echo before")
        ballast.write_bytes(bytes(440 * 1024))
        person.run("seq 1 400000")
        until(lambda: "recording interrupted" in fairlead.log, "the disk was found full")
        person.run("seq 1 400000")
        ballast.unlink()
        until(lambda: "recording has a gap" in fairlead.log, "the gap was noted")
        person.run("echo at last")
        assert person.leave("exit 3") == 3
    assert b"399999\r\n400000\r\n" in person.shown
    until(lambda: all(one["ended_at"] for one in manifests(full_disk)), "the recording has ended")
    (row,) = manifests(full_disk)
    assert row["gaps"] >= 1
    assert row["lost_bytes"] > 0
    assert fairlead.cli("session", "verify", row["id"]).startswith("intact")
    text = fairlead.cli("session", "replay", row["id"], "--speed", "1000", "--idle-limit", "0")
    assert "before" in text
    assert "at last" in text
    assert len(text) < len(person.shown)
    cast = fairlead.cli("session", "replay", row["id"], "--export", "cast")
    assert any("gap: storage was down" in line for line in cast.splitlines())


def test_a_full_disk_under_refuse_ends_the_program_with_a_sentence_and_starts_no_other(
    make_fairlead: MakeFairlead, full_disk: Path
) -> None:
    place = {"FAIRLEAD_RECORDING__DIRECTORY": str(full_disk)}
    fairlead = make_fairlead({**QUICK, **rule("refuse"), **place}, BLUEPRINTS)
    with terminal(fairlead) as person:
        person.ready()
        (full_disk / "ballast").write_bytes(bytes(480 * 1024))
        person.send("yes filler | head -c 1000000; sleep 1000\r")
        person.expect("its recording can no longer be stored")
        assert person.wait() == 254
    _fill(full_disk / "rest")
    done = fairlead.ssh("echo ran")
    assert (done.returncode, done.stdout) == (254, b"")
    assert b"recordings cannot be stored right now" in done.stderr


# ------------------------------------------------------------------------------ an S3-compatible store


def test_a_bucket_keeps_what_a_directory_would(make_fairlead: MakeFairlead, tmp_path: Path) -> None:
    with s3_server() as endpoint:
        patient = {
            **QUICK,
            "FAIRLEAD_RECORDING__WRITE_TIMEOUT_S": "60",
            "FAIRLEAD_RECORDING__MAX_DELAY_S": "60",
        }
        fairlead = make_fairlead({**patient, **rule("refuse"), **s3(endpoint, tmp_path)}, BLUEPRINTS)
        with Typist(fairlead) as person:
            person.run("seq 1 50000")
            assert person.leave("exit 5") == 5

        def row() -> dict[str, Any]:
            (found,) = json.loads(fairlead.cli("session", "recordings", "list", "--json"))
            return found  # type: ignore[no-any-return]

        until(lambda: row()["ended_at"], "the recording has ended")
        found = row()
        assert found["end"] == "exit 5"
        assert found["blocks"] > 2
        assert fairlead.cli("session", "verify", found["id"]).startswith("intact")
        stored = [name for name in names(endpoint, tmp_path) if f"/{found['id']}/" in name]
        assert len(stored) == found["blocks"]
        text = fairlead.cli("session", "replay", found["id"], "--speed", "10000", "--idle-limit", "0")
        assert "50000" in text


def test_a_silent_store_under_continue_is_not_waited_for(make_fairlead: MakeFairlead, tmp_path: Path) -> None:
    with silent_server() as endpoint:
        fairlead = make_fairlead({**QUICK, **rule("continue"), **s3(endpoint, tmp_path)}, BLUEPRINTS)
        assert fairlead.ssh("echo ran").stdout == b"ran\n"
        done = fairlead.ssh("seq 1 300000 | tail -n 1; seq 1 300000 | wc -c")
        assert done.stdout == b"300000\n1988895\n"
        until(lambda: "recording interrupted" in fairlead.log, "the outage was noted")
        until(lambda: "recording not completed" in fairlead.log, "the recording was given up")


def test_a_silent_store_under_refuse_starts_nothing(make_fairlead: MakeFairlead, tmp_path: Path) -> None:
    with silent_server() as endpoint:
        fairlead = make_fairlead({**QUICK, **rule("refuse"), **s3(endpoint, tmp_path)}, BLUEPRINTS)
        done = fairlead.ssh("echo ran")
        assert (done.returncode, done.stdout) == (254, b"")
        assert b"recordings cannot be stored right now" in done.stderr
        forward = fairlead.command("ssh", "-o", "LogLevel=INFO", "-W", "localhost:1", "fl")
        refused = subprocess.run(forward, capture_output=True, timeout=60)
        assert b"recordings cannot be stored right now" in refused.stderr


def test_a_store_that_goes_away_under_refuse_ends_the_program(
    make_fairlead: MakeFairlead, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        endpoint = stack.enter_context(s3_server())
        fairlead = make_fairlead({**QUICK, **rule("refuse"), **s3(endpoint, tmp_path)}, BLUEPRINTS)
        with terminal(fairlead) as person:
            person.ready()
            stack.close()  # nobody at the address any more
            person.send("echo a l''ine; sleep 1000\r")
            person.expect("its recording can no longer be stored")
            assert person.wait() == 254


# -------------------------------------------------------------------------------------- proxy killed


def test_a_killed_proxy_leaves_what_was_stored_and_says_that_the_end_is_missing(
    make_fairlead: MakeFairlead,
) -> None:
    fairlead = make_fairlead({**QUICK, **rule("continue")}, BLUEPRINTS)
    kept = fairlead.home / "recordings"
    with terminal(fairlead) as person:
        person.ready()
        person.run("echo evi''dence")
        until(lambda: any(b"evidence" in file.read_bytes() for file in kept.glob("*/*.part")), "it is stored")
        fairlead.stop(signal.SIGKILL)
    (row,) = manifests(kept)
    assert row["ended_at"] is None
    assert fairlead.cli("session", "verify", row["id"]).startswith("unfinished")
    assert "evidence" in fairlead.cli("session", "replay", row["id"], "--speed", "1000")


def test_a_command_about_a_bucket_ends_in_order(make_fairlead: MakeFairlead, tmp_path: Path) -> None:
    """Threads of the store outlive the last request by a moment, and abort an interpreter that ends then."""
    with s3_server() as endpoint:
        fairlead = make_fairlead({**QUICK, **rule("continue"), **s3(endpoint, tmp_path)}, BLUEPRINTS)
        # Not `fairlead.run`: a forked process skips the end of the interpreter, which is what is tested.
        command = [sys.executable, "-m", "proxy", "session", "recordings", "list", "--json"]
        for _ in range(12):
            done = subprocess.run(command, env=fairlead.env(), capture_output=True, text=True, timeout=60)
            assert (done.returncode, done.stderr) == (0, "")
            assert type(json.loads(done.stdout)) is list, "nothing that was printed is lost"
