"""The rules at the door, with bans in memory."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from proxy.errors.login import AddressBanned, TooManySessions
from proxy.errors.stores import StateUnavailable
from proxy.events import schema
from proxy.protection import bans as bans_module
from proxy.protection.bans import Ban, Bans, order
from proxy.protection.guard import Guard, PendingConnection
from proxy.settings.protection import ProtectionSettings
from proxy.shared.memory import MemoryBuckets

ATTACKER, OTHER, V6, V6_TOO = "203.0.113.9", "203.0.113.10", "2001:db8::1", "2001:db8::ffff:2"
WRONG = ("key_unknown",)


class Told:
    def __init__(self) -> None:
        self.events: list[schema.Event] = []

    def publish(self, event: schema.Event) -> None:
        self.events.append(event)


class House:
    def __init__(self, buckets: MemoryBuckets, **settings: Any) -> None:
        rules = {"failures": 4, "lengths_s": (60, 600), "probes_per_minute": 6, **settings.pop("bans", {})}
        self.settings = ProtectionSettings.model_validate({"bans": rules, **settings})
        self.bans = Bans(buckets, max_sources=100, memory_s=3_600)
        self.told = Told()
        self.guard = Guard(self.settings, self.bans, self.told)

    def fail(self, address: str, times: int = 1, reasons: tuple[str, ...] = WRONG) -> None:
        for _ in range(times):
            visitor = self.guard.accept(address)
            if isinstance(visitor, PendingConnection):
                visitor.leave()
                self.guard.failed(visitor, reasons)

    def succeed(self, address: str) -> None:
        visitor = self.guard.accept(address)
        assert isinstance(visitor, PendingConnection)
        self.guard.succeeded(visitor)

    async def shared(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., House]]:
    buckets, houses = MemoryBuckets(), list[House]()

    def build(**settings: Any) -> House:
        houses.append(House(buckets, **settings))
        return houses[-1]

    yield build
    for house in houses:
        await house.bans.close()
    await buckets.close()


Make = Callable[..., House]


def heard(house: House, address: str) -> bool:
    visitor = house.guard.accept(address)
    if isinstance(visitor, PendingConnection):
        visitor.leave()
    return isinstance(visitor, PendingConnection)


async def test_enough_failures_ban_an_address_on_every_replica(make: Make) -> None:
    house, replica = make(), make(bans={"probes_per_minute": 0.000_001})
    house.fail(ATTACKER, 3)
    assert house.bans.find(ATTACKER) is None
    house.fail(ATTACKER)
    assert house.bans.find(ATTACKER) is not None
    await house.shared()
    assert heard(replica, ATTACKER)  # the probe
    assert replica.guard.accept(ATTACKER) == "banned"
    assert heard(replica, OTHER)
    (event,) = house.told.events
    assert isinstance(event, schema.AddressBannedEvent)
    assert (event.address, event.offences, event.reasons) == (ATTACKER, 1, WRONG)
    assert replica.guard.refused["banned"] == 1


async def test_a_subscriber_of_ipv6_is_one_address(make: Make) -> None:
    house = make()
    house.fail(V6, 2)
    house.fail(V6_TOO, 2)
    assert house.bans.find("2001:db8::/64") is not None


async def test_each_ban_is_longer_and_comes_sooner(make: Make) -> None:
    house = make()
    house.fail(ATTACKER, 4)
    await house.shared()
    first = house.bans.find(ATTACKER)
    assert first is not None
    assert round((first.until - first.since).total_seconds()) == 60
    await house.bans._bans.delete(bans_module.key_of(ATTACKER))  # its time is over
    house.fail(ATTACKER, 2)
    await house.shared()
    second = house.bans.find(ATTACKER)
    assert second is not None
    assert second.offences == 1
    assert round((second.until - second.since).total_seconds()) == 600


async def test_an_address_with_known_users_is_heard_all_the_same(make: Make) -> None:
    house = make()
    house.succeed(ATTACKER)
    house.fail(ATTACKER, 50)
    assert house.bans.find(ATTACKER) is not None
    for _ in range(50):
        visitor = house.guard.accept(ATTACKER)
        assert isinstance(visitor, PendingConnection)
        assert visitor.ban is not None
        house.guard.check(visitor, "alice", 0)
        house.guard.succeeded(visitor)


async def test_an_order_knows_no_credit_and_says_so_to_whoever_proves_a_key(make: Make) -> None:
    house = make()
    house.succeed(ATTACKER)
    await house.bans.add(order(ATTACKER, 600, "abuse", "cli:root"))
    visitor = house.guard.accept(ATTACKER)
    assert isinstance(visitor, PendingConnection)
    with pytest.raises(AddressBanned) as caught:
        house.guard.check(visitor, "alice", 0)
    assert "your address 203.0.113.9 is banned until" in caught.value.user_message
    assert not heard(house, ATTACKER)
    await house.bans.remove(ATTACKER)
    assert heard(house, ATTACKER)


@pytest.mark.parametrize(
    "reasons",
    [("onboarding.too_many_pending",), ("store",), ("approval_not_shown",), ("revocation_unknown",)],
)
async def test_what_is_nobodys_fault_does_not_count(make: Make, reasons: tuple[str, ...]) -> None:
    house = make()
    house.fail(ATTACKER, 20, reasons)
    assert house.bans.find(ATTACKER) is None
    house.fail(ATTACKER, 4, (*reasons, "key_unknown"))
    assert house.bans.find(ATTACKER) is not None


async def test_whoever_is_allowed_is_never_banned(make: Make) -> None:
    house = make(allow=("203.0.113.0/24",), max_unauthenticated_per_source=1)
    house.fail(ATTACKER, 100)
    assert house.bans.all() == []
    await house.bans.add(order(ATTACKER, 600, "", "cli:root"))
    visitors = [house.guard.accept(ATTACKER) for _ in range(10)]
    assert all(isinstance(visitor, PendingConnection) for visitor in visitors)


async def test_limits_of_one_address(make: Make) -> None:
    house = make(max_unauthenticated_per_source=2, connections_per_minute=5)
    visitors = [house.guard.accept(ATTACKER) for _ in range(3)]
    assert visitors[2] == "source_full"
    for visitor in visitors[:2]:
        assert isinstance(visitor, PendingConnection)
        visitor.leave()
        visitor.leave()
    assert house.guard.unauthenticated == 0
    assert [heard(house, ATTACKER) for _ in range(4)] == [True, True, False, False]
    assert house.guard.accept(ATTACKER) == "too_fast"


async def test_a_user_has_so_many_sessions(make: Make) -> None:
    house = make(max_sessions_per_user=2)
    visitor = house.guard.accept(OTHER)
    assert isinstance(visitor, PendingConnection)
    house.guard.check(visitor, "alice", 1)
    with pytest.raises(TooManySessions):
        house.guard.check(visitor, "alice", 2)


async def test_a_ban_that_cannot_be_shared_holds_here_and_is_shared_later(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bans_module, "RETRY_S", 0.01)
    house, away = make(), True
    put = house.bans._bans.put

    async def fail(*args: Any, **kwargs: Any) -> int:
        if away:
            raise StateUnavailable("away")
        return await put(*args, **kwargs)

    monkeypatch.setattr(house.bans._bans, "put", fail)
    house.fail(ATTACKER, 4)
    await asyncio.sleep(0.05)
    assert house.bans.find(ATTACKER) is not None
    assert house.bans._bans.entries() == []
    away = False
    async with asyncio.timeout(10):
        while not house.bans._bans.entries():
            await asyncio.sleep(0.01)
    assert [ban.source for ban in house.bans.all()] == [ATTACKER]


async def test_what_is_no_ban_bans_nobody(make: Make) -> None:
    house = make()
    for value in (b"", b"{}", b"[]", b'{"source": 1}', b"\xff", b'{"until": "x"}', b"9" * 1_000):
        await house.bans._bans.put(bans_module.key_of(ATTACKER), value)
        assert heard(house, ATTACKER)
        assert house.bans.all() == []


@pytest.mark.parametrize("text", ["", "nobody", "300.1.2.3", "10.0.0.0/8", "1.2.3"])
def test_only_an_address_can_be_banned(text: str) -> None:
    with pytest.raises(ValueError, match="is not an IPv4 or IPv6 address"):
        order(text, 60, "", "cli:root")


def test_a_ban_is_read_as_it_was_written() -> None:
    ban = order(V6, 60, "abuse", "cli:root")
    assert ban.source == "2001:db8::/64"
    assert Ban.from_json(ban.to_json()) == ban
