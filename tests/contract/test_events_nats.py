"""What only NATS can do to a bus: die, fall silent, refuse, and forget."""

import asyncio
import json
import logging
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import nats
import pytest
import structlog
from nats.js.api import StreamConfig

from proxy.events import cloudevents, schema, subjects
from proxy.events.natsbus import NatsBus
from proxy.events.publisher import Bus, Gap, Message
from proxy.nats.probe import probe
from proxy.settings.events import EventsSettings
from tests.contract.natsauth import write_certificates, write_creds
from tests.contract.natsserver import NatsServer, free_port

PATIENCE_S = 60
SECRET = "hunter2-never-in-a-log"

MakeServer = Callable[..., NatsServer]
MakeBus = Callable[..., NatsBus]
Logs = list[dict[str, Any]]


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[MakeServer]:
    servers: list[NatsServer] = []

    def make(**options: Any) -> NatsServer:
        servers.append(NatsServer(tmp_path / f"nats-{len(servers)}", **options))
        servers[-1].start()
        return servers[-1]

    yield make
    for server in servers:
        server.kill()


@pytest.fixture
async def make_bus() -> AsyncIterator[MakeBus]:
    buses: list[NatsBus] = []

    def make(url: str, **settings: Any) -> NatsBus:
        values = {"reconnect_wait_s": 0.02, "reconnect_wait_max_s": 0.2} | settings
        buses.append(NatsBus(EventsSettings(urls=(url,), **values), proxy_id=f"p{len(buses)}"))
        buses[-1].start()
        return buses[-1]

    yield make
    for bus in buses:
        await bus.close(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.fixture(autouse=True)
def logs(caplog: pytest.LogCaptureFixture) -> Iterator[Logs]:
    """Everything logged, by us and by libraries: no secret, and no cry of the event loop."""
    caplog.set_level(logging.DEBUG)
    with structlog.testing.capture_logs() as entries:
        yield entries
    assert SECRET not in repr(entries)
    assert SECRET not in caplog.text
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)


def names_of(logs: Logs, *, event: str) -> list[str]:
    return [str(entry.get("reason")) for entry in logs if entry["event"] == event]


async def stored(url: str, stream: str = "fairlead") -> list[Any]:
    """Read every event of a stream, in its order."""
    client = await nats.connect(url)
    jetstream = client.jetstream()
    total = (await jetstream.stream_info(stream)).state.messages
    reader = await jetstream.pull_subscribe("", stream=stream)
    events: list[Any] = []
    while len(events) < total:
        for msg in await reader.fetch(min(500, total - len(events)), timeout=PATIENCE_S):
            events.append(json.loads(msg.data))
            await msg.ack()
    await client.close()
    return events


async def publish_through_a_kill(bus: Bus, server: NatsServer, *, count: int) -> list[str]:
    """Publish `count` events; the server is killed after a third and started after two thirds."""
    ids = []
    for number in range(count):
        event = schema.AuthFailed(user=f"user-{number}", client_address="192.0.2.1", reasons=("key_unknown",))
        bus.publish(event)
        ids.append(event.id)
        if number == count // 3:
            await until(lambda: bus.counters.published > count // 10)
            server.kill()
        if number == count * 2 // 3:
            await until(lambda: not bus.connected)
            server.start()
        if number % 50 == 0:
            await asyncio.sleep(0)
    await until(lambda: bus.pending == 0)
    return ids


async def test_a_kill_of_the_server_loses_nothing_within_the_bound(
    make_server: MakeServer, make_bus: MakeBus
) -> None:
    server = make_server()
    bus = make_bus(server.url)
    ids = await publish_through_a_kill(bus, server, count=5_000)
    assert (bus.counters.published, bus.counters.dropped, bus.counters.failed) == (5_000, 0, 0)
    arrived = [event["id"] for event in await stored(server.url)]
    assert set(arrived) == set(ids)
    assert len(arrived) == 5_000  # JetStream removed what was sent twice


async def test_a_kill_of_the_server_loses_what_exceeds_the_bound_and_counts_it(
    make_server: MakeServer, make_bus: MakeBus
) -> None:
    server = make_server()
    bus = make_bus(server.url, queue_size=700, batch_size=100)
    ids = await publish_through_a_kill(bus, server, count=5_000)
    counters = bus.counters
    assert counters.published + counters.dropped == 5_000
    assert counters.dropped > 0
    arrived = {event["id"] for event in await stored(server.url)}
    assert len(arrived) >= counters.published
    assert len(set(ids) - arrived) <= counters.dropped
    assert set(ids[-700:]) <= arrived


async def test_without_jetstream_every_event_is_counted_and_the_last_arrive(
    make_server: MakeServer, make_bus: MakeBus
) -> None:
    server = make_server(jetstream=False)
    bus = make_bus(server.url)
    await publish_through_a_kill(bus, server, count=5_000)
    assert (bus.counters.published, bus.counters.dropped, bus.counters.failed) == (5_000, 0, 0)
    reader = make_bus(server.url).subscribe(subjects.ALL)
    await reader.live()
    assert await anext(reader) == Gap(None)
    bus.publish(schema.UserLocked(user="last"))
    async with asyncio.timeout(PATIENCE_S):
        assert isinstance(item := await anext(reader), Message)
    assert json.loads(item.data)["subject"] == "last"


async def test_a_full_queue_keeps_the_newest_until_the_server_comes(
    make_server: MakeServer, make_bus: MakeBus, logs: Logs, tmp_path: Path
) -> None:
    server = NatsServer(tmp_path / "late")
    bus = make_bus(server.url, queue_size=100)
    for number in range(250):
        bus.publish(schema.UserLocked(user=f"user-{number}"))
    await until(lambda: len(names_of(logs, event="nats disconnected")) > 0)
    assert (bus.pending, bus.counters.dropped, bus.connected) == (100, 150, False)
    server.start()
    try:
        await until(lambda: bus.pending == 0)
        assert (bus.counters.published, bus.counters.dropped) == (100, 150)
        arrived = [event["subject"] for event in await stored(server.url)]
        assert arrived == [f"user-{number}" for number in range(150, 250)]
    finally:
        server.kill()
    assert [entry["event"] for entry in logs].count("event queue full: dropping the oldest") == 1


async def test_a_failure_is_logged_once_however_often_it_is_tried(make_bus: MakeBus, logs: Logs) -> None:
    bus = make_bus(f"nats://127.0.0.1:{free_port()}", reconnect_wait_s=0.001, reconnect_wait_max_s=0.001)
    attempts = 0
    seen = None
    async with asyncio.timeout(PATIENCE_S):
        while attempts < 10:
            await asyncio.sleep(0.001)
            if bus._link is not seen:
                seen, attempts = bus._link, attempts + 1
    assert len(names_of(logs, event="nats disconnected")) == 1


@pytest.mark.parametrize("how", ["dead", "silent", "never there"])
async def test_closing_ends_within_its_deadline_without_a_server(
    make_server: MakeServer, make_bus: MakeBus, logs: Logs, how: str
) -> None:
    server = make_server()
    bus = make_bus(server.url if how != "never there" else f"nats://127.0.0.1:{free_port()}")
    subscription = bus.subscribe(subjects.ALL)
    if how != "never there":
        await until(lambda: bus.connected)
    if how == "dead":
        server.kill()
    if how == "silent":
        server.send_signal(signal.SIGSTOP)
    for _ in range(3_000):
        bus.publish(schema.UserLocked(user="alice"))
    async with asyncio.timeout(PATIENCE_S):  # the default of nats-py would be to wait for ever
        await bus.close(0.1)
        await subscription.live()
    assert [item async for item in subscription] == []
    assert bus.counters.published + bus.counters.dropped == 3_000
    assert logs[-1]["event"] == "events not delivered before shutdown"
    assert logs[-1]["dropped"] == bus.counters.dropped
    if how == "silent":
        server.send_signal(signal.SIGCONT)


async def test_a_server_that_falls_silent_is_given_up_and_found_again(
    make_server: MakeServer, make_bus: MakeBus, logs: Logs
) -> None:
    server = make_server()
    bus = make_bus(server.url, ack_timeout_s=0.2, connect_timeout_s=0.2)
    subscription = bus.subscribe(subjects.ALL)
    async with asyncio.timeout(PATIENCE_S):
        assert await anext(subscription) == Gap(None)
    server.send_signal(signal.SIGSTOP)
    ids = []
    for number in range(3_000):  # more than the sockets hold
        event = schema.AuthFailed(user=f"user-{number}", reasons=("key_unknown",) * 64)
        bus.publish(event)
        ids.append(event.id)
    await until(lambda: any("no acknowledgement" in one for one in names_of(logs, event="nats disconnected")))
    server.send_signal(signal.SIGCONT)
    await until(lambda: bus.pending == 0)
    assert {event["id"] for event in await stored(server.url)} == set(ids)
    async with asyncio.timeout(PATIENCE_S):
        while await anext(subscription) != Gap(None):
            pass  # the reader is told that it was away


async def test_an_idle_connection_notices_a_silent_server(
    make_server: MakeServer, make_bus: MakeBus, logs: Logs
) -> None:
    server = make_server()
    bus = make_bus(server.url, keepalive_interval_s=0.05, ack_timeout_s=0.2, connect_timeout_s=0.2)
    await until(lambda: bus.connected)
    server.send_signal(signal.SIGSTOP)
    await until(lambda: "no answer" in names_of(logs, event="nats disconnected"))
    server.send_signal(signal.SIGCONT)
    await until(lambda: bus.connected)


async def test_a_lock_reaches_every_replica(make_server: MakeServer, make_bus: MakeBus) -> None:
    server = make_server()
    replicas = [make_bus(server.url) for _ in range(3)]
    readers = [bus.subscribe(subjects.USER_LOCKED) for bus in replicas]
    async with asyncio.timeout(PATIENCE_S):
        for reader in readers:
            assert await anext(reader) == Gap(None)
        replicas[0].publish(schema.UserLocked(user="mallory", actor="cli:root"))
        for reader in readers:
            item = await anext(reader)
            assert isinstance(item, Message)
            event = cloudevents.decode(item.data)
            assert event is not None
            assert (event.type, event.subject, event.data["actor"]) == (
                "fairlead.user.locked",
                "mallory",
                "cli:root",
            )


# ------------------------------------------------------------------------------------------ refusals


async def test_credentials_are_read_anew_and_never_logged(
    make_server: MakeServer, make_bus: MakeBus, logs: Logs, tmp_path: Path
) -> None:
    server = make_server(config={"authorization": {"user": "proxy", "password": SECRET}})
    password = tmp_path / "password"
    bus = make_bus(server.url, user="proxy", password_file=password)
    bus.publish(schema.UserLocked(user="alice"))
    await until(lambda: any("No such file" in one for one in names_of(logs, event="nats disconnected")))
    password.write_text("wrong-" + SECRET)
    await until(lambda: any("uthorization" in one for one in names_of(logs, event="nats disconnected")))
    password.write_text(SECRET + "\n")
    await until(lambda: bus.pending == 0)
    assert bus.counters.published == 1


async def test_a_token_opens_the_door(make_server: MakeServer, make_bus: MakeBus, tmp_path: Path) -> None:
    server = make_server(config={"authorization": {"token": SECRET}})
    (tmp_path / "token").write_text(SECRET)
    bus = make_bus(server.url, token_file=tmp_path / "token")
    await until(lambda: bus.connected)


async def test_a_creds_file_opens_the_door(
    make_server: MakeServer, make_bus: MakeBus, logs: Logs, tmp_path: Path
) -> None:
    creds = tmp_path / "proxy.creds"
    server = make_server(jetstream=False, config=write_creds(creds))
    bus = make_bus(server.url, creds_file=creds)
    await until(lambda: bus.connected)
    creds.write_text(f"-----BEGIN NATS USER JWT-----\n{SECRET}\n", encoding="ascii")
    other = make_bus(server.url, creds_file=creds)
    await until(lambda: any("no .creds file" in one for one in names_of(logs, event="nats disconnected")))
    assert not other.connected


async def test_tls_both_ways(make_server: MakeServer, make_bus: MakeBus, logs: Logs, tmp_path: Path) -> None:
    write_certificates(tmp_path)
    tls = {
        "cert_file": str(tmp_path / "server.pem"),
        "key_file": str(tmp_path / "server.key"),
        "ca_file": str(tmp_path / "ca.pem"),
        "verify": True,
    }
    server = make_server(config={"tls": tls})
    url = server.url.replace("nats://", "tls://")
    ca, cert, key = (tmp_path / name for name in ("ca.pem", "client.pem", "client.key"))
    bus = make_bus(url, tls_ca_file=ca, tls_cert_file=cert, tls_key_file=key)
    await until(lambda: bus.connected)
    assert not make_bus(url).connected  # an authority that this machine does not know
    await until(
        lambda: any("CERTIFICATE_VERIFY" in one.upper() for one in names_of(logs, event="nats disconnected"))
    )


async def test_a_tls_connection_ends_quietly_on_older_pythons(
    make_server: MakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of CPython 3.11.2, which Debian 12 has: `fairlead check` ended with its AttributeError."""

    def close(self: Any) -> None:
        if self._closed:
            self._ssl_protocol = None
        else:
            self._closed = True
            self._ssl_protocol._start_shutdown()

    def abort(self: Any) -> None:
        if self._ssl_protocol is None:
            raise AttributeError("'NoneType' object has no attribute '_abort'")
        real(self)

    transport = asyncio.sslproto._SSLProtocolTransport  # type: ignore[attr-defined]
    real = transport.abort
    monkeypatch.setattr(transport, "close", close)
    monkeypatch.setattr(transport, "abort", abort)
    write_certificates(tmp_path)
    tls = {"cert_file": str(tmp_path / "server.pem"), "key_file": str(tmp_path / "server.key")}
    server = make_server(config={"tls": tls})
    url = server.url.replace("nats://", "tls://")
    settings = EventsSettings(urls=(url,), tls_ca_file=tmp_path / "ca.pem")
    answer = await probe(settings, url)
    assert answer.says.startswith("answers")


async def test_tls_cannot_be_stripped(make_bus: MakeBus, logs: Logs, tmp_path: Path) -> None:
    said: list[bytes] = []

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b'INFO {"server_id":"x","version":"2.11.0","max_payload":1048576,"auth_required":true}\r\n'
        )
        said.append(await reader.read())
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        (tmp_path / "password").write_text(SECRET)
        bus = make_bus(f"tls://127.0.0.1:{port}", user="proxy", password_file=tmp_path / "password")
        await until(lambda: len(said) > 1)
        await bus.close(0)
    assert set(said) == {b""}
    assert names_of(logs, event="nats disconnected") == ["the server offers no TLS"]


async def test_an_event_too_large_for_the_server_fails_alone(
    make_server: MakeServer, make_bus: MakeBus, logs: Logs
) -> None:
    server = make_server(config={"max_payload": 4_096})
    bus = make_bus(server.url)
    bus.publish(schema.AuthFailed(user="first"))
    bus.publish(schema.AuthFailed(user="large", fingerprints=("SHA256:" + "a" * 100,) * 64))
    bus.publish(schema.AuthFailed(user="last"))
    await until(lambda: bus.pending == 0)
    assert (bus.counters.published, bus.counters.failed) == (2, 1)
    assert [event["subject"] for event in await stored(server.url)] == ["first", "last"]
    assert "more than the server takes" in names_of(logs, event="event refused")[0]


@pytest.mark.parametrize("jetstream", [False, True])
async def test_a_subject_that_is_not_permitted_fails_alone(
    make_server: MakeServer, make_bus: MakeBus, logs: Logs, tmp_path: Path, jetstream: bool
) -> None:
    user = {
        "user": "proxy",
        "password": SECRET,
        "permissions": {"publish": {"deny": ["fairlead.auth.failed"]}, "subscribe": [">"]},
    }
    server = make_server(jetstream=jetstream, config={"authorization": {"users": [user]}})
    (tmp_path / "password").write_text(SECRET)
    bus = make_bus(server.url, user="proxy", password_file=tmp_path / "password")
    for _ in range(3):
        bus.publish(schema.AuthFailed(user="alice"))
        bus.publish(schema.AuthSucceeded(user="alice"))
    await until(lambda: bus.pending == 0)
    assert (bus.counters.published, bus.counters.failed) == (3, 3)
    assert [entry.get("subject") for entry in logs if entry["event"] == "nats permits not"] == [
        "fairlead.auth.failed"
    ]


async def test_an_acknowledgement_covers_what_was_sent_before_it(make_bus: MakeBus) -> None:
    """nats-py writes a PING ahead of publications that it still buffers; its PONG would be worth nothing."""
    said = bytearray()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.11.0","max_payload":1048576}\r\n')
        await reader.readuntil(b"PING\r\n")
        writer.write(b"PONG\r\n")  # the only one: of the login
        while piece := await reader.read(65_536):
            said.extend(piece)
        writer.close()

    async with await asyncio.start_server(deaf, "127.0.0.1", 0) as server:
        bus = make_bus(f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}", delivery="core")
        await until(lambda: bus.connected)
        for number in range(50):
            bus.publish(schema.UserLocked(user=f"user-{number}"))
        await until(lambda: b"PING\r\n" in said)
        assert bytes(said).partition(b"PING\r\n")[0].count(b"PUB fairlead.user.locked") == 50
        assert (bus.counters.published, bus.pending) == (0, 50)
        await bus.close(0)
    assert bus.counters.dropped == 50


async def test_a_server_that_talks_nonsense_costs_nothing(make_bus: MakeBus, logs: Logs) -> None:
    answers = [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"INFO {}\r\n-ERR 'no'\r\n",
        b"INFO []\r\n",
        b"\0" * 70_000,
    ]
    given = []

    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answers[len(given) % len(answers)])
        given.append(1)
        writer.close()

    async with await asyncio.start_server(nonsense, "127.0.0.1", 0) as server:
        bus = make_bus(f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        bus.publish(schema.UserLocked(user="alice"))
        await until(lambda: len(given) > 3 * len(answers))
        await bus.close(0)
    assert bus.counters.dropped == 1
    assert [entry for entry in logs if entry["log_level"] == "error"] == []


# --------------------------------------------------------------------------------------- the stream


async def test_the_stream_is_made_once_and_one_that_exists_is_left_alone(
    make_server: MakeServer, make_bus: MakeBus
) -> None:
    server = make_server()
    client = await nats.connect(server.url)
    own = StreamConfig(name="audit", subjects=["acme.>"], max_msgs=7, max_age=60.0)
    await client.jetstream().add_stream(own)
    bus = make_bus(server.url, prefix="acme", stream="audit")
    others = [make_bus(server.url) for _ in range(3)]
    for one in (bus, *others):
        one.publish(schema.UserLocked(user="alice"))
    await until(lambda: not any(one.pending for one in (bus, *others)))
    audit, made = [(await client.jetstream().stream_info(name)) for name in ("audit", "fairlead")]
    await client.close()
    assert (audit.config.max_msgs, audit.config.max_age, audit.state.messages) == (7, 60.0, 1)
    assert (made.config.subjects, made.state.messages) == (["fairlead.>"], 3)


async def test_the_prefix_stands_on_the_wire_and_only_there(
    make_server: MakeServer, make_bus: MakeBus
) -> None:
    server = make_server(jetstream=False)
    bus = make_bus(server.url, prefix="acme.bastion")
    reader = bus.subscribe(subjects.ALL_USER)
    client = await nats.connect(server.url)
    raw = await client.subscribe("acme.bastion.user.locked")
    await client.flush()
    async with asyncio.timeout(PATIENCE_S):
        assert await anext(reader) == Gap(None)
        bus.publish(schema.UserLocked(user="alice"))
        item = await anext(reader)
        seen = await raw.next_msg(timeout=PATIENCE_S)
    await client.close()
    assert isinstance(item, Message)
    assert item == Message("fairlead.user.locked", seen.data)
    assert json.loads(seen.data)["type"] == "fairlead.user.locked"


async def test_a_stream_deleted_meanwhile_is_made_again(make_server: MakeServer, make_bus: MakeBus) -> None:
    server = make_server()
    bus = make_bus(server.url, ack_timeout_s=1)
    await until(lambda: bus.connected)
    client = await nats.connect(server.url)
    await client.jetstream().delete_stream("fairlead")
    await client.close()
    bus.publish(schema.UserLocked(user="alice"))
    await until(lambda: bus.pending == 0)
    assert [event["subject"] for event in await stored(server.url)] == ["alice"]


async def test_a_stream_that_is_demanded_and_cannot_be_had_is_told(
    make_server: MakeServer, make_bus: MakeBus, logs: Logs
) -> None:
    server = make_server(jetstream=False)
    bus = make_bus(server.url, delivery="stream")
    bus.publish(schema.UserLocked(user="alice"))
    await until(lambda: any("has no JetStream" in one for one in names_of(logs, event="nats disconnected")))
    assert (bus.pending, bus.connected) == (1, False)


async def test_a_reader_who_says_nothing_hears_again_at_once(
    make_server: MakeServer, make_bus: MakeBus
) -> None:
    server = make_server()
    bus = make_bus(server.url, keepalive_interval_s=3_600)
    subscription = bus.subscribe(subjects.ALL)
    await until(lambda: bus.connected)
    async with asyncio.timeout(PATIENCE_S):
        assert await anext(subscription) == Gap(None)
        server.kill()
        server.start()
        assert await anext(subscription) == Gap(None)
