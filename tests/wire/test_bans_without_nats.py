"""Bans while a real NATS server is dead: commands answer, bans hold at this proxy and are shared later."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.natsserver import NatsServer
from tests.wire import forked
from tests.wire.conftest import MakeFairlead
from tests.wire.harness import Fairlead
from tests.wire.peers import until
from tests.wire.test_protection import is_banned

KNOWN, STRANGER = "127.9.9.8", "127.9.9.9"


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path / "nats")
    server.start()
    try:
        yield server
    finally:
        server.kill()


def command(server: Fairlead, *words: str, wait_s: float = 0.1) -> tuple[int, str, str]:
    """Run a command that waits for NATS for `wait_s`."""
    env = {**server.env(), "FAIRLEAD_EVENTS__COMMAND_WAIT_S": str(wait_s)}
    done = forked.fairlead(*words, env=env, timeout_s=120)
    return done.returncode, done.stdout, done.stderr


def banned(server: Fairlead) -> list[str]:
    code, stdout, _ = command(server, "ban", "list", "--json")
    assert code == 0
    return sorted(row["address"] for row in json.loads(stdout))


@pytest.mark.timeout(600)  # a dozen commands, each a process of its own
def test_bans_hold_here_while_nats_is_away_and_are_shared_when_it_is_back(
    make_fairlead: MakeFairlead, nats: NatsServer
) -> None:
    settings = {
        "FAIRLEAD_EVENTS__URLS": nats.url,
        "FAIRLEAD_PROTECTION__ALLOW": "[]",
        "FAIRLEAD_PROTECTION__BANS": json.dumps({"probes_per_minute": 0}),
        "FAIRLEAD_EVENTS__RECONNECT_WAIT_MAX_S": "1",
    }
    fairlead = make_fairlead(settings)
    code, _, stderr = command(fairlead, "ban", "add", KNOWN, "--reason", "scans", wait_s=60)
    assert (code, "NATS" in stderr) == (0, False)
    nats.kill()

    assert banned(fairlead) == [KNOWN], "whether NATS told the proxy or not"
    until(lambda: is_banned(fairlead, KNOWN), "the ban holds here")
    code, stdout, stderr = command(fairlead, "ban", "why", KNOWN)
    assert (code, "scans" in stdout) == (0, True)
    assert stderr.startswith(
        f"fairlead: NATS ({nats.url}) gives no bans within 0.1 s: this is what the proxy of"
    )
    assert command(fairlead, "ban", "why", STRANGER)[0] == 1

    code, _, stderr = command(fairlead, "ban", "add", STRANGER, "--reason", "by hand")
    assert code == 0, stderr
    assert "takes this up within a second, or at its start, and shares it when NATS is back" in stderr
    until(lambda: is_banned(fairlead, STRANGER), "the ban holds here")
    assert banned(fairlead) == sorted([KNOWN, STRANGER])

    assert command(fairlead, "ban", "remove", KNOWN)[0] == 0
    assert command(fairlead, "ban", "remove", STRANGER)[0] == 0
    until(lambda: not is_banned(fairlead, STRANGER), "the address is let in again here")
    assert banned(fairlead) == []
    assert command(fairlead, "ban", "add", STRANGER)[0] == 0
    until(lambda: is_banned(fairlead, STRANGER), "the ban holds here")

    nats.start()

    def shared() -> bool:
        code, stdout, stderr = command(fairlead, "ban", "list", "--json", wait_s=60)
        return not stderr and code == 0 and [row["address"] for row in json.loads(stdout)] == [STRANGER]

    until(shared, "NATS has the new ban and no longer the lifted one", 300)
