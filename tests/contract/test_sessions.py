"""Records of sessions, on each store there is: what is written is read, and who may close what."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

from proxy.events.cloudevents import decode
from proxy.events.inprocess import InProcessBus
from proxy.events.publisher import Gap, Message
from proxy.events.schema import SessionKillOrdered
from proxy.model import ConnId, Peer, User, Visit
from proxy.sessions.janitor import Janitor
from proxy.sessions.kills import KillExecutor
from proxy.sessions.live import LiveConnection, NoTraffic
from proxy.sessions.records import ConnectionRecord, End, EndReason, Kind, ProgramRecord
from proxy.sessions.store import ProxyProcess, SessionQuery, SessionStore
from proxy.sessions.tracker import Tracker
from proxy.settings.sessions import SessionSettings
from proxy.storage.database import Database
from tests.contract.directories import DEADLINE_S
from tests.contract.postgres import Cluster
from tests.fakes.visits import visit_of

NOW = datetime(2026, 3, 4, 5, 6, 7, 891_000, tzinfo=UTC)
HUGE = 2**62
_numbers = count(1)


def process(name: str = "p1") -> ProxyProcess:
    return ProxyProcess(f"token-{name}", name, 4_711, "host", NOW)


def connection_record(id_: str = "c1", **changes: object) -> ConnectionRecord:
    record = ConnectionRecord(
        id=id_,
        started_at=NOW,
        updated_at=NOW,
        proxy="token-p1",
        proxy_id="p1",
        pid=4_711,
        user="alice",
        workspace="alice-0123456789",
        blueprint="dev",
        account="",
        client_address="2001:db8::7",
        client_port=50_022,
        client_version="OpenSSH_9.2p1 Debian-2+deb12u3",
        client_type="OpenSSH",
        fingerprint="SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
        certificate="",
    )
    return replace(record, **changes)  # type: ignore[arg-type]


def program_record(id_: str = "c1-1", **changes: object) -> ProgramRecord:
    record = ProgramRecord(
        id=id_,
        started_at=NOW,
        updated_at=NOW,
        connection=id_.partition("-")[0],
        kind="exec",
        command="make -C 'ü' \n test",
        target="",
        pty=False,
    )
    return replace(record, **changes)  # type: ignore[arg-type]


def visit(user: str = "alice") -> Visit:
    peer = Peer(ConnId(f"{next(_numbers):016x}"), "192.0.2.7", 50_022, "192.0.2.1", 22)
    return visit_of(f"{user}+dev", User(user), peer)


class Bytes:
    """A channel's counts, which the test moves."""

    def __init__(self) -> None:
        self.from_client = 0
        self.to_client = 0


class Handle:
    """What a connection or a program is told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.live: LiveConnection | None = None

    def warn(self, sentence: str) -> None:
        self.said.append(sentence)

    def end(self, sentence: str, end: End) -> None:
        self.said.append(sentence)
        if self.live is not None:
            self.live.ended(end)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = await Database.open(database_url, query_timeout_s=DEADLINE_S)
    yield opened
    await opened.close()


@pytest.fixture
def store(database: Database) -> SessionStore:
    return SessionStore(database)


def begin(tracker: Tracker, user: str = "alice") -> tuple[LiveConnection, Handle]:
    handle = Handle()
    handle.live = tracker.open(visit(user), "OpenSSH_9.2p1", handle)
    return handle.live, handle


# ----------------------------------------------------------------------------------------- the store


async def test_what_was_written_is_read(store: SessionStore) -> None:
    connection = connection_record(bytes_from_client=HUGE, bytes_to_client=1)
    program = program_record(bytes_to_client=HUGE, exit_status=None, pty=True)
    assert await store.write(process(), NOW, [connection], [program]) is False
    assert await store.write(process(), NOW, [], []) is True
    assert await store.select(SessionQuery()) == [connection]
    assert await store.programs_of(["c1"]) == [program]
    assert await store.find(["c1", "c1-1", "nobody"]) == [connection, program]
    ended = replace(
        connection, ended_at=NOW + timedelta(hours=1), end_reason="left", end_detail="ä", ended_by="cli:root"
    )
    exited = replace(program, ended_at=NOW, end_reason="exited", exit_status=3, exit_signal="TERM")
    await store.write(process(), NOW, [ended], [exited])
    assert await store.select(SessionQuery()) == []
    assert await store.select(SessionQuery(live_only=False)) == [ended]
    assert await store.programs_of(["c1"]) == [exited]


async def test_whom_one_asks_for(store: SessionStore) -> None:
    records = [
        connection_record("c1", user="alice", started_at=NOW),
        connection_record("c2", user="bob", workspace="bob-1", started_at=NOW + timedelta(minutes=1)),
        connection_record("c3", user="bob", workspace="bob-2", started_at=NOW + timedelta(minutes=2)),
        connection_record("c4", user="bob", ended_at=NOW + timedelta(minutes=9), end_reason="left"),
    ]
    await store.write(process(), NOW, records, [])

    async def ids(**asked: object) -> list[str]:
        return [record.id for record in await store.select(SessionQuery(**asked))]  # type: ignore[arg-type]

    assert await ids() == ["c3", "c2", "c1"]
    assert await ids(user="bob") == ["c3", "c2"]
    assert await ids(workspace="bob-1") == ["c2"]
    assert await ids(limit=1) == ["c3"]
    assert await ids(live_only=False, user="bob") == ["c3", "c2", "c4"]
    assert await ids(live_only=False, since=NOW + timedelta(minutes=10)) == ["c3", "c2", "c1"]
    assert await ids(live_only=False, since=NOW + timedelta(minutes=8)) == ["c3", "c2", "c1", "c4"]


async def test_old_records_go_in_bounded_parts(store: SessionStore) -> None:
    ended = [
        connection_record(f"c{number}", ended_at=NOW, updated_at=NOW, end_reason="left")
        for number in range(25)
    ]
    live = connection_record("live", started_at=NOW - timedelta(days=900))
    await store.write(
        process(), NOW, [*ended, live], [program_record(f"c{number}-1") for number in range(25)]
    )
    assert await store.expire(NOW, 10) == 0
    later = NOW + timedelta(seconds=1)
    assert [await store.expire(later, 10) for _ in range(4)] == [10, 10, 5, 0]
    assert await store.select(SessionQuery(live_only=False)) == [live]
    assert await store.programs_of([record.id for record in ended]) == []


async def test_the_records_of_a_lost_proxy_are_closed_once_at_its_last_sign(store: SessionStore) -> None:
    last = NOW + timedelta(minutes=3)
    mine = connection_record("c1", updated_at=NOW, bytes_to_client=7)
    done = connection_record("c2", ended_at=NOW, end_reason="left")
    others = connection_record("c3", proxy="token-p2", proxy_id="p2")
    exited = program_record("c1-1", ended_at=NOW, end_reason="exited", exit_status=0)
    await store.write(process("p2"), NOW, [others], [program_record("c3-1")])
    await store.write(process(), last, [mine, done], [exited, program_record("c1-2")])
    assert await store.close_lost("token-p1", NOW) == []  # it has shown a sign since
    both = await asyncio.gather(store.close_lost("token-p1", last), store.close_lost("token-p1", last))
    assert min(both, key=len) == []
    closed = replace(mine, ended_at=last, updated_at=last, end_reason="proxy_lost")
    assert sorted(both, key=len)[1] == [closed]
    assert await store.select(SessionQuery()) == [others]
    assert {record.id: record.end_reason for record in await store.programs_of(["c1", "c3"])} == {
        "c1-1": "exited",
        "c1-2": "proxy_lost",
        "c3-1": "",
    }
    assert await store.signs_of_life() == {"token-p2": NOW}


async def test_text_that_no_database_takes_is_made_to_fit(store: SessionStore) -> None:
    tracker = Tracker(store, InProcessBus(proxy_id="p1"), SessionSettings(), process())
    connection = tracker.open(visit(), "Odd\0Client\ud800", Handle())
    connection.begin(Kind.EXEC, NoTraffic(), Handle(), command="echo \0 \udcff", target="\0")
    assert await tracker.write()
    (record,) = await store.select(SessionQuery())
    assert (record.client_version, record.client_type) == ("Odd\ufffdClient?", "other")
    (program,) = await store.programs_of([record.id])
    assert program.command == "echo \ufffd \\xff"


# --------------------------------------------------------------------------------------- the tracker


async def test_counts_are_those_of_the_channels(store: SessionStore) -> None:
    tracker = Tracker(store, InProcessBus(proxy_id="p1"), SessionSettings(), process())
    connection, _ = begin(tracker)
    first, second = Bytes(), Bytes()
    shell = connection.begin(Kind.SHELL, first, Handle(), pty=True)
    forward = connection.begin(Kind.FORWARD, second, Handle(), target="db:5432")
    first.from_client, second.to_client = 10, 10**12
    assert await tracker.write()
    (stored,) = await store.select(SessionQuery())
    assert (stored.bytes_from_client, stored.bytes_to_client) == (10, 10**12)
    forward.ended(End(EndReason.CLOSED))
    first.from_client = 11
    shell.ended(End(EndReason.EXITED, exit_status=0))
    shell.ended(End(EndReason.LOST))  # only the first counts
    connection.ended(End(EndReason.LEFT))
    connection.ended(End(EndReason.LOST))
    assert await tracker.write()
    (stored,) = await store.select(SessionQuery(live_only=False))
    assert (stored.bytes_from_client, stored.bytes_to_client, stored.end_reason) == (11, 10**12, "left")
    assert [
        (program.kind, program.target, program.bytes_from_client, program.end_reason, program.exit_status)
        for program in await store.programs_of([stored.id])
    ] == [("shell", "", 11, "exited", 0), ("forward", "db:5432", 0, "closed", None)]
    assert not tracker.live


async def test_a_store_that_is_away_costs_the_oldest_records_and_no_more(
    cluster: Cluster, tmp_path: Path
) -> None:
    own = Cluster()
    try:
        own.start()
        database = await Database.open(own.url("postgres"), query_timeout_s=DEADLINE_S, upgrade=True)
        store = SessionStore(database)
        tracker = Tracker(store, InProcessBus(proxy_id="p1"), SessionSettings(queue_size=5), process())
        live, _ = begin(tracker, "live")
        assert await tracker.write()
        await asyncio.to_thread(own.halt)
        for number in range(8):
            connection, _ = begin(tracker, f"user{number}")
            connection.ended(End(EndReason.LEFT))
        assert not await tracker.write()
        assert tracker.dropped == 3
        await asyncio.to_thread(own.resume)
        assert await tracker.write()
        users = {record.user for record in await store.select(SessionQuery(live_only=False))}
        assert users == {"live", "user3", "user4", "user5", "user6", "user7"}
        live.ended(End(EndReason.LEFT))
        await tracker.close()
        assert await store.select(SessionQuery()) == []
        assert await store.signs_of_life() == {}
        await database.close()
    finally:
        own.close()


async def test_who_was_taken_for_lost_and_is_not_has_its_records_again(store: SessionStore) -> None:
    tracker = Tracker(store, InProcessBus(proxy_id="p1"), SessionSettings(), process())
    connection, _ = begin(tracker)
    connection.begin(Kind.SHELL, NoTraffic(), Handle())
    await tracker.write()
    ((token, sign),) = (await store.signs_of_life()).items()
    assert await store.close_lost(token, sign)
    assert await store.select(SessionQuery()) == []
    await tracker.write()
    await tracker.write()
    (record,) = await store.select(SessionQuery())
    assert (record.id, record.ended_at, record.end_reason) == (connection.id, None, "")
    (program,) = await store.programs_of([record.id])
    assert program.ended_at is None


# --------------------------------------------------------------------------- the janitor and the kills


async def test_the_janitor_closes_what_shows_no_sign_for_long_enough(store: SessionStore) -> None:
    bus = InProcessBus(proxy_id="p2")
    heard = bus.subscribe("fairlead.session.*")
    assert isinstance(await anext(heard), Gap)
    janitor = Janitor(store, bus, SessionSettings(lost_after_s=30, write_every_s=5), "token-p2")
    await store.write(process("p2"), NOW, [connection_record("c9", proxy="token-p2")], [])
    await store.write(process(), NOW, [connection_record()], [])
    await janitor.look(1_000)
    await janitor.look(1_029)
    assert len(await store.select(SessionQuery())) == 2
    await store.write(process(), NOW + timedelta(seconds=1), [], [])
    await janitor.look(1_031)
    await janitor.look(1_060)
    assert len(await store.select(SessionQuery())) == 2
    await janitor.look(1_062)
    assert [record.id for record in await store.select(SessionQuery())] == ["c9"]  # its own is never lost
    (closed,) = await store.find(["c1"])
    assert closed.ended_at == NOW + timedelta(seconds=1)
    message = await anext(heard)
    assert isinstance(message, Message)
    event = decode(message.data)
    assert event is not None
    assert (event.type, event.data["connection_id"]) == ("fairlead.session.closed", "c1")
    assert event.data["reasons"] == ["proxy_lost"]


async def test_the_janitor_deletes_what_is_old(store: SessionStore) -> None:
    old = connection_record("c1", ended_at=NOW, end_reason="left")
    await store.write(process(), NOW, [old], [])
    keeping = Janitor(store, InProcessBus(proxy_id="p"), SessionSettings(keep_days=0), "")
    assert await keeping.expire(NOW + timedelta(days=10_000)) == 0
    janitor = Janitor(store, InProcessBus(proxy_id="p"), SessionSettings(keep_days=10), "")
    assert await janitor.expire(NOW + timedelta(days=9)) == 0
    assert await janitor.expire(NOW + timedelta(days=11)) == 1


async def test_an_order_ends_what_it_names_wherever_that_is_and_nothing_else(store: SessionStore) -> None:
    bus = InProcessBus(proxy_id="p1")
    here = Tracker(store, bus, SessionSettings(), process("p1"))
    there = Tracker(store, bus, SessionSettings(), process("p2"))
    one, handle = begin(here)
    other, bystander = begin(there)
    told = Handle()
    program = other.begin(Kind.SHELL, NoTraffic(), told)
    kills = [KillExecutor(store, bus, tracker, 3_600) for tracker in (here, there)]
    await store.order_kills([one.id, program.id], "cli:root", "maintenance", NOW)
    for each in kills:
        await each.carry_out_orders()
    assert handle.said == ["ended by an operator: maintenance"]
    assert told.said == ["ended by an operator: maintenance"]
    assert bystander.said == []
    assert await store.kill_orders() == []
    await here.write()
    (record,) = await store.find([one.id])
    assert (record.end_reason, record.ended_by, record.end_detail) == ("killed", "cli:root", "maintenance")


async def test_an_order_is_heard_at_once_and_an_event_alone_ends_nobody(store: SessionStore) -> None:
    bus = InProcessBus(proxy_id="p1")
    tracker = Tracker(store, bus, SessionSettings(), process())
    one, handle = begin(tracker)
    kills = KillExecutor(store, bus, tracker, 3_600)
    await store.order_kills(["elsewhere"], "cli:root", "", NOW)
    kills.start()
    bus.publish(SessionKillOrdered(session_id=one.id, actor="stranger"))
    await asyncio.sleep(0.2)
    assert handle.said == []
    await store.order_kills([one.id], "cli:root", "", NOW)
    bus.publish(SessionKillOrdered(session_id=one.id, actor="cli:root"))
    async with asyncio.timeout(DEADLINE_S):
        while not handle.said or len(await store.kill_orders()) > 1:
            await asyncio.sleep(0.01)
    await kills.close()
    assert [order.session for order in await store.kill_orders()] == ["elsewhere"]
