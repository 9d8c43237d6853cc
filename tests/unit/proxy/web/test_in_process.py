"""Connections with apps of this process: order, pauses and ends are those of a socket."""

import asyncio
from typing import Any

import pytest

from proxy.model import TcpTarget
from proxy.userstring import UserString
from proxy.web.in_process import ADDRESS, WithOwnApps
from proxy.web.road import Address, OwnApp, Receiver, Wire

HIGH = 1_000
ADDRESS_OF_APP = Address("alice", UserString("alice", "dev"), OwnApp("terminal"))


class App(asyncio.Protocol):
    """An app that notes what comes."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.events: list[Any] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.events.append(data)

    def eof_received(self) -> None:
        self.events.append("eof")

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append("lost" if exc is None else exc)

    def pause_writing(self) -> None:
        self.events.append("paused")

    def resume_writing(self) -> None:
        self.events.append("resumed")


class Front(App):
    """The front's receiver, which is an asyncio protocol but for the transport."""


class Elsewhere:
    """The road to all other apps."""

    asked: Address | None = None

    async def open(self, address: Address, receiver: Receiver) -> Wire:
        del receiver
        self.asked = address
        raise ConnectionError


@pytest.fixture
async def pair() -> tuple[App, Front, Wire]:
    app, front = App(), Front()
    road = WithOwnApps(Elsewhere(), {"terminal": lambda: app}, HIGH)
    return app, front, await road.open(ADDRESS_OF_APP, front)


async def test_an_app_learns_whose_connection_it_is_and_other_apps_are_found_elsewhere() -> None:
    app, elsewhere = App(), Elsewhere()
    road = WithOwnApps(elsewhere, {"terminal": lambda: app}, HIGH)
    await road.open(ADDRESS_OF_APP, Front())
    assert app.transport.get_extra_info(ADDRESS) is ADDRESS_OF_APP
    other = Address("alice", UserString("alice", "dev"), TcpTarget("localhost", 80))
    with pytest.raises(ConnectionError):
        await road.open(other, Front())
    assert elsewhere.asked is other


async def test_bytes_come_in_order_and_never_from_within_a_write(pair: tuple[App, Front, Wire]) -> None:
    app, front, wire = pair
    wire.writelines([b"one", memoryview(b"two")])
    assert app.events == [b"one", b"two"]
    app.transport.writelines([b"three", b"", b"four"])
    assert front.events == []
    await asyncio.sleep(0)
    assert front.events == [b"three", b"four"]


async def test_an_app_is_paused_while_the_front_takes_nothing(pair: tuple[App, Front, Wire]) -> None:
    app, front, wire = pair
    wire.pause_reading()
    app.transport.write(bytes(HIGH + 1))
    await asyncio.sleep(0)
    assert [app.events, front.events] == [["paused"], []]
    assert app.transport.get_write_buffer_size() == HIGH + 1
    wire.resume_reading()
    await asyncio.sleep(0)
    assert [app.events, front.events] == [["paused", "resumed"], [bytes(HIGH + 1)]]


async def test_the_front_stops_its_client_while_the_app_reads_nothing(pair: tuple[App, Front, Wire]) -> None:
    app, front, _ = pair
    app.transport.pause_reading()
    app.transport.pause_reading()
    assert not app.transport.is_reading()
    app.transport.resume_reading()
    app.transport.resume_reading()
    assert front.events == ["paused", "resumed"]


async def test_an_app_that_closes_has_said_all_first(pair: tuple[App, Front, Wire]) -> None:
    app, front, wire = pair
    wire.pause_reading()
    app.transport.write(b"last")
    app.transport.close()
    app.transport.write(b"too late")
    await asyncio.sleep(0)
    assert front.events == []
    wire.resume_reading()
    await asyncio.sleep(0)
    assert front.events == [b"last", "eof", "lost"]
    assert app.events == ["lost"]
    wire.write(b"too late")
    wire.write_eof()
    wire.abort()
    await asyncio.sleep(0)
    assert app.events == ["lost"]


async def test_a_client_that_ends_its_direction_ends_the_connection(pair: tuple[App, Front, Wire]) -> None:
    app, front, wire = pair
    app.transport.write(b"answer")
    wire.write_eof()
    await asyncio.sleep(0)
    assert app.events == ["eof", "lost"]
    assert front.events == [b"answer", "eof", "lost"]


async def test_a_connection_that_is_broken_off_ends_at_once_for_both(pair: tuple[App, Front, Wire]) -> None:
    app, front, wire = pair
    wire.pause_reading()
    app.transport.write(bytes(HIGH + 1))
    wire.abort()
    await asyncio.sleep(0)
    assert front.events == ["eof", "lost"]
    assert app.events[-1] == "lost"
