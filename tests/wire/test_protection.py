"""Attacks on two proxies that share a real NATS; everything stays on loopback, and ends by itself."""

import json
import socket
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.contract.natsserver import NatsServer
from tests.wire.harness import Fairlead, needs
from tests.wire.listener import Ears
from tests.wire.newcomer import make_key, public_line
from tests.wire.peers import until
from tests.wire.storm import login_times_ms, p99

ATTACKER, NEIGHBOUR, SHARED = "127.66.0.1", "127.66.0.2", "127.0.0.1"
MIB = 1024 * 1024
BANS = {"failures": 10, "window_s": 600, "probes_per_minute": 0}


@dataclass
class Pair:
    """Two replicas: each knows the users `alice` and `known0` to `known9`."""

    one: Fairlead
    other: Fairlead
    ears: Ears
    keys: list[Path]

    @property
    def both(self) -> tuple[Fairlead, Fairlead]:
        return self.one, self.other

    def banned(self, server: Fairlead) -> list[str]:
        return [row["address"] for row in json.loads(server.cli("ban", "list", "--json"))]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    directory = tmp_path_factory.mktemp("pair")
    nats = NatsServer(directory / "nats")
    nats.start()
    servers = [Fairlead(directory / name) for name in ("one", "other")]
    keys = [make_key(directory / f"known{number}") for number in range(10)]
    try:
        with Ears(nats.port) as ears:
            for number, server in enumerate(servers):
                server.extra_env = {
                    "FAIRLEAD_EVENTS__URLS": nats.url,
                    "FAIRLEAD_PROXY_ID": f"p{number}",
                    "FAIRLEAD_PROTECTION__ALLOW": "[]",
                    "FAIRLEAD_PROTECTION__BANS": json.dumps(BANS),
                    "FAIRLEAD_LOG__LEVEL": "debug",
                }
                server.prepare()
                server.cli("user", "import", str(_people(directory, keys)))
                server.start()
            yield Pair(servers[0], servers[1], ears, keys)
    finally:
        for server in servers:
            server.close()
        nats.kill()


def _people(directory: Path, keys: list[Path]) -> Path:
    file = directory / "people.json"
    people = [{"name": f"known{user}", "keys": [public_line(key)]} for user, key in enumerate(keys)]
    file.write_text(json.dumps(people))
    return file


def first_words(server: Fairlead, address: str) -> bytes:
    """Connect from an address and give the first line that the proxy says."""
    with socket.create_connection(("127.0.0.1", server.port), 30, source_address=(address, 0)) as link:
        heard = b""
        while not heard.endswith(b"\n") and (piece := link.recv(200)):
            heard += piece
        return heard


def is_banned(server: Fairlead, address: str) -> bool:
    return b"banned" in first_words(server, address)


def log_in(server: Fairlead, pair: Pair, user: int, source: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [
            *("ssh", "-F", "none", "-p", str(server.port), "-b", source, "-i", pair.keys[user]),
            *("-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "BatchMode=yes"),
            *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
            *(f"known{user}+dev@127.0.0.1", "echo in"),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=100,
    )


def attack(server: Fairlead, address: str, keys: int) -> dict[str, int]:
    command = [sys.executable, "-m", "tests.wire.attacker", str(server.port), address, str(keys)]
    done = subprocess.run(command, capture_output=True, timeout=110, check=True)
    return json.loads(done.stdout)


def test_thousands_of_keys_ban_an_address_on_both(pair: Pair) -> None:
    found = attack(pair.one, ATTACKER, 2_000)
    assert found["let in"] == 0
    assert found["keys"] == 2_000
    assert found["heard"] < 20  # ten, and those that were under way when the tenth failed
    until(lambda: is_banned(pair.other, ATTACKER), "the other replica bans too")
    assert is_banned(pair.one, ATTACKER)
    assert first_words(pair.other, NEIGHBOUR).startswith(b"SSH-2.0-")
    told = [event["data"] for subject, event in pair.ears.heard if subject == "fairlead.auth.banned"]
    assert [data["address"] for data in told] == [ATTACKER]
    assert told[0]["reasons"] == ["key_unknown"]
    assert pair.banned(pair.other) == [ATTACKER]


def test_an_operator_asks_and_lets_in_again(pair: Pair) -> None:
    address = "127.66.0.9"
    pair.one.cli("ban", "add", address, "--for", "600", "--reason", "scans")
    until(lambda: is_banned(pair.other, address), "the other replica bans too")
    assert "scans" in pair.other.cli("ban", "why", address)
    pair.other.cli("ban", "remove", address)
    until(lambda: not is_banned(pair.one, address), "the other replica lets in again")


def test_bans_outlive_every_proxy(pair: Pair) -> None:
    address = "127.66.0.10"
    pair.one.cli("ban", "add", address)
    pair.other.stop()
    pair.other.start()
    until(lambda: is_banned(pair.other, address), "the ban is known again")


@pytest.mark.parametrize(
    "tool",
    [
        pytest.param("hydra", marks=needs("hydra")),
        pytest.param("ncrack", marks=needs("ncrack")),
    ],
)
def test_tools_that_guess_passwords_are_banned(tmp_path: Path, tool: str) -> None:
    """They learn on a connection or two that no password is taken; being run again is what counts."""
    server = Fairlead(tmp_path / "own")
    server.extra_env = {
        "FAIRLEAD_PROTECTION__ALLOW": "[]",
        "FAIRLEAD_PROTECTION__BANS": json.dumps({**BANS, "failures": 4}),
    }
    server.prepare()
    words = tmp_path / "words"
    words.write_text("".join(f"password{number}\n" for number in range(50)))
    commands = {
        "hydra": [
            "hydra",
            "-l",
            "alice",
            "-P",
            str(words),
            "-t",
            "4",
            "-I",
            f"ssh://127.0.0.1:{server.port}",
        ],
        "ncrack": ["ncrack", "--user", "alice", "-P", str(words), "-T5", f"ssh://127.0.0.1:{server.port}"],
    }
    try:
        server.start()

        def is_kept_out() -> bool:
            subprocess.run(commands[tool], cwd=tmp_path, capture_output=True, timeout=60)
            return is_banned(server, "127.0.0.1")

        until(is_kept_out, "the tool's address is banned")
        assert "127.0.0.1" in server.cli("ban", "list")
    finally:
        server.close()


def test_ten_known_users_behind_the_address_of_an_attacker_get_in(pair: Pair) -> None:
    for user in range(10):
        assert log_in(pair.one, pair, user, SHARED).stdout == b"in\n"
    command = [sys.executable, "-m", "tests.wire.attacker", str(pair.one.port), SHARED, "2000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as attacker:
        until(lambda: SHARED in pair.banned(pair.one), "the shared address is banned")
        try:
            for user in range(10):
                done = log_in(pair.one, pair, user, SHARED)
                assert done.stdout == b"in\n", done.stderr.decode()
                assert b"banned until" in done.stderr
        finally:
            attacker.kill()
    assert is_banned(pair.other, SHARED)  # where none of them has credit
    pair.one.cli("ban", "remove", SHARED)
    until(lambda: not is_banned(pair.other, SHARED), "the address is let in again")


@pytest.mark.parametrize(
    ("connections", "hold_s"), [(400, 5), pytest.param(2_000, 20, marks=pytest.mark.slow)]
)
def test_a_flood_of_half_open_and_mute_clients(
    tmp_path: Path, record_property: Callable[[str, object], None], connections: int, hold_s: int
) -> None:
    """How much slower a known user gets is printed, and judged by whoever reads it on a quiet machine."""
    server = Fairlead(tmp_path / "flooded")
    server.extra_env = {
        "FAIRLEAD_PROTECTION__ALLOW": "[]",
        "FAIRLEAD_PROTECTION__STARTUPS_BEGIN": "1000",
        "FAIRLEAD_PROTECTION__STARTUPS_FULL": "4000",
    }
    server.prepare()
    try:
        server.start()
        assert server.process is not None
        memory = psutil.Process(server.process.pid).memory_info
        calm = [took for _, took in login_times_ms(server, lambda done: done < 40)]
        before = memory().rss
        command = [sys.executable, "-m", "tests.wire.mute", *map(str, (server.port, connections, hold_s))]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as flood:
            try:
                flooded = login_times_ms(server, lambda done: flood.poll() is None or done < 10)
                out, _ = flood.communicate(timeout=100)
            finally:
                flood.kill()
        grown = (memory().rss - before) / MIB
        figures: dict[str, Any] = {
            "became": json.loads(out),
            "grown by MiB": round(grown, 1),
            "calm, p95": round(statistics.quantiles(calm, n=20)[-1]),
            "flooded, p95": round(statistics.quantiles([took for _, took in flooded], n=20)[-1]),
            "flooded, p99": p99([took for _, took in flooded]),
            "logins": len(flooded),
        }
        record_property("flood", json.dumps(figures))
        print(json.dumps(figures))
        assert grown < 200
        assert server.ssh("echo in").stdout == b"in\n"
    finally:
        server.close()
