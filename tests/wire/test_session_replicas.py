"""Sessions of two proxies with a real NATS: one view, one order, an event for every beginning and end."""

import asyncio
import json
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import nats
import pytest

from tests.wire.harness import Fairlead
from tests.wire.listener import Ears
from tests.wire.peers import until
from tests.wire.replicas import REPLICA, Replicas, two_proxies

AT_ONCE = 10
KILLS = 3


@pytest.fixture
def replicas(tmp_path: Path) -> Iterator[Replicas]:
    """Both, warm; an order to kill would be found without NATS only after an hour."""
    settings = {
        "FAIRLEAD_SESSIONS__KILL_POLL_S": "3600",
        "FAIRLEAD_SESSIONS__WRITE_SOON_S": "0.1",
        "FAIRLEAD_SESSIONS__WRITE_EVERY_S": "1",
        "FAIRLEAD_SESSIONS__LOST_AFTER_S": "6",
    }
    with two_proxies(tmp_path, settings, nats=True) as both:
        assert both.first.ssh("true").returncode == 0
        yield both


def listed(server: Fairlead) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(server.cli("session", "list", "--json"))
    return rows


def hold(server: Fairlead) -> "subprocess.Popen[bytes]":
    """Begin a session that goes on for ever, and wait until it runs."""
    client = subprocess.Popen(
        [*server.command("ssh", "-o", "LogLevel=INFO"), "fl", "echo in; exec sleep 1000"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert client.stdout is not None
    assert client.stdout.readline() == b"in\n"
    return client


def test_everybody_sees_and_ends_everything(replicas: Replicas) -> None:
    here, there = hold(replicas.first), hold(replicas.second)
    try:
        until(lambda: len(listed(replicas.first)) == 2, "both are shown")
        rows = {row["proxy_id"]: row for row in listed(replicas.second)}
        assert {row["doing"] for row in rows.values()} == {"exec"}
        assert rows.keys() == {"first", "second"}
        assert {row["workspace"] for row in rows.values()} == {replicas.first.workspace().name}
        replicas.first.cli("session", "kill", rows["second"]["id"], "--reason", "because")
        _, err = there.communicate(timeout=30)
        assert b"ended by an operator: because" in err
        assert here.poll() is None
        until(lambda: [row["proxy_id"] for row in listed(replicas.second)] == ["first"], "one is left")
        replicas.first.stop(signal.SIGKILL)  # it cannot say that its session is over; the other one does
        until(lambda: listed(replicas.second) == [], "nobody is left")
    finally:
        for client in (here, there):
            client.kill()
            client.communicate()


@pytest.mark.timeout(300)
def test_how_soon_an_order_is_carried_out(
    replicas: Replicas, record_property: Callable[[str, object], None]
) -> None:
    """Milliseconds are printed, and judged by whoever reads them on a quiet machine."""
    assert replicas.nats is not None
    with Ears(replicas.nats.port) as ears:
        figures = {
            server.env()[REPLICA]: [kill_ms(replicas.first, server, ears) for _ in range(KILLS)]
            for server in (replicas.first, replicas.second)
        }
    record_property("session kill", json.dumps(figures))
    print(json.dumps(figures))


def kill_ms(operator: Fairlead, server: Fairlead, ears: Ears) -> dict[str, int]:
    """End a session; gives how long after the order, and after its command returned, the client ended."""
    since = len(ears.heard)

    def told(subject: str) -> list[dict[str, Any]]:
        return [event for of, event in ears.heard[since:] if of == f"fairlead.session.{subject}"]

    client = hold(server)
    try:
        (opened,) = until(lambda: told("opened"), "it is told of")
        id_ = opened["data"]["connection_id"]
        # An event may be faster than the record, and an order needs the record.
        until(lambda: operator.run("session", "show", id_).returncode == 0, "it is on record")
        with ThreadPoolExecutor() as pool:
            end = pool.submit(_end_of, client)
            operator.run("session", "kill", id_, "--wait", "0")
            returned = time.time()
            try:
                ended = end.result(30)
            finally:
                client.kill()
        assert client.stderr is not None
        assert b"ended by an operator" in client.stderr.read()
        (order,) = until(lambda: told("kill_ordered"), "the order is told of")
        ordered = datetime.fromisoformat(order["time"]).timestamp()
        return {"order": round((ended - ordered) * 1_000), "command": round((ended - returned) * 1_000)}
    finally:
        client.kill()
        client.communicate()


def _end_of(client: "subprocess.Popen[bytes]") -> float:
    client.wait()  # without a timeout, which would look only now and then
    return time.time()


def test_without_nats_the_database_tells(replicas: Replicas) -> None:
    client = hold(replicas.second)
    try:
        assert replicas.nats is not None
        replicas.nats.kill()
        done = replicas.first.run("session", "list", "--json")
        assert [row["proxy_id"] for row in json.loads(done.stdout)] == ["second"]
        assert "NATS does not answer" in done.stderr
    finally:
        client.kill()
        client.communicate()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("sessions", [60, pytest.param(1_000, marks=pytest.mark.slow)])
async def test_as_many_events_as_sessions(replicas: Replicas, sessions: int) -> None:
    async def one(gate: asyncio.Semaphore, server: Fairlead, number: int) -> int:
        async with gate:
            command = [*server.command("ssh"), "fl", f"exit {number % 3}"]
            client = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
            )
            return await client.wait()

    gate = asyncio.Semaphore(AT_ONCE)
    servers = (replicas.first, replicas.second)
    ends = await asyncio.gather(*(one(gate, servers[number % 2], number) for number in range(sessions)))
    assert Counter(ends) == Counter(number % 3 for number in range(sessions))
    for server in servers:
        await asyncio.to_thread(server.stop)
    assert replicas.nats is not None
    events = await read_all(replicas.nats.url)
    # The one that warmed the workspace is among them.
    for type_, key in (
        ("fairlead.session.opened", "connection_id"),
        ("fairlead.session.closed", "connection_id"),
        ("fairlead.session.program_started", "program_id"),
        ("fairlead.session.program_ended", "program_id"),
    ):
        of_type = [event["data"] for event in events if event["type"] == type_]
        assert len(of_type) == sessions + 1, type_
        assert len({data[key] for data in of_type}) == sessions + 1, type_
    closed = [event["data"] for event in events if event["type"] == "fairlead.session.closed"]
    assert {data["reasons"][0] for data in closed} == {"left"}
    rows = json.loads(replicas.first.cli("session", "list", "--all", "--limit", "2000", "--json"))
    assert {row["id"] for row in rows} == {data["connection_id"] for data in closed}
    assert all(row["ended_at"] for row in rows)


async def read_all(url: str) -> list[dict[str, Any]]:
    """Give every event that the stream holds."""
    client = await nats.connect(url)
    try:
        jetstream = client.jetstream()
        count = (await jetstream.stream_info("fairlead")).state.messages
        reader = await jetstream.subscribe("fairlead.>", ordered_consumer=True)
        return [json.loads((await reader.next_msg(timeout=30)).data) for _ in range(count)]
    finally:
        await client.close()
