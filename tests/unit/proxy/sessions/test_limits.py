"""The rule of a connection, durations in words, and the times of a warning and of the end."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from proxy.errors import SettingsError
from proxy.events.inprocess import InProcessBus
from proxy.model import ConnId, Peer
from proxy.sessions.limits import ConnectionLimits, humanize
from proxy.sessions.live import LiveConnection
from proxy.sessions.records import End, Kind
from proxy.sessions.tracker import Tracker
from proxy.settings import load
from proxy.settings.sessions import LimitRule, SessionSettings
from tests.fakes.visits import visit_of


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "1 s"), (45.4, "45 s"), (119, "119 s"), (120, "2 min"), (3_600, "1 h"), (5_400, "1 h 30 min")],
)
def test_durations(seconds: float, words: str) -> None:
    assert humanize(seconds) == words


def test_the_first_rule_that_fits_holds() -> None:
    rules = [
        {"users": ["ci-*"], "idle_s": 1},
        {"groups": ["staff"], "blueprints": ["gpu-*"], "idle_s": 2},
        {"groups": ["staff"], "idle_s": 3},
        {"blueprints": ["gpu-?"], "idle_s": 4},
    ]
    settings = SessionSettings.model_validate({"limits": rules})

    def idle_s(user: str, groups: tuple[str, ...], blueprint: str) -> float | None:
        rule = settings.limit_of(user, groups, blueprint)
        return None if rule is None else rule.idle_s

    assert idle_s("ci-7", ("staff",), "gpu-1") == 1
    assert idle_s("alice", ("staff", "x"), "gpu-1") == 2
    assert idle_s("alice", ("staff",), "dev") == 3
    assert idle_s("alice", (), "gpu-1") == 4
    assert idle_s("alice", (), "gpu-10") is None
    assert idle_s("alice", (), "") is None


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"limits": [{"idle": 3}]}, "sessions.limits.0.idle: there is no such setting"),
        ({"limits": [{"idle_s": -1}]}, "sessions.limits.0.idle_s"),
        ({"write_every_s": 20, "lost_after_s": 30}, "three times write_every_s"),
    ],
)
def test_settings_that_cannot_be(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        load({}, overrides={"sessions": given})


@dataclass
class Person:
    """Hears what a connection is told."""

    said: list[str] = field(default_factory=list)
    struck: asyncio.Event = field(default_factory=asyncio.Event)
    live: LiveConnection | None = None

    def warn(self, sentence: str) -> None:
        self.said.append(sentence)

    def end(self, sentence: str, end: End) -> None:
        self.said.append(f"{end.reason.value}: {sentence}")
        assert self.live is not None
        self.live.ended(end)
        self.struck.set()


class Traffic:
    from_client = 0
    to_client = 0


def connected() -> tuple[LiveConnection, Person]:
    person = Person()
    store: Any = None  # nothing is written
    process: Any = type("Process", (), {"token": "t", "proxy_id": "p", "pid": 1})
    tracker = Tracker(store, InProcessBus(proxy_id="p"), SessionSettings(), process)
    peer = Peer(ConnId("c1"), "192.0.2.7", 1, "192.0.2.1", 22)
    person.live = tracker.open(visit_of("alice+dev", peer=peer), "OpenSSH_9.2", person)
    return person.live, person


async def test_it_warns_once_and_strikes_once() -> None:
    live, person = connected()
    time_limits = ConnectionLimits(live)
    time_limits.apply(LimitRule(idle_s=0.6, warn_s=0.4))
    await asyncio.wait_for(person.struck.wait(), 30)
    warning, strike = person.said
    assert warning.startswith("idle: this ends in 1 s")
    assert strike == "idle: nothing was sent or received for 1 s, which is the limit"


async def test_a_warning_in_vain_comes_again() -> None:
    live, person = connected()
    traffic = Traffic()
    live.begin(Kind.SHELL, traffic, person)
    time_limits = ConnectionLimits(live)
    time_limits.apply(LimitRule(idle_s=1, warn_s=0.7))
    while not person.said:
        await asyncio.sleep(0.01)
    traffic.from_client = 1
    await asyncio.wait_for(person.struck.wait(), 30)
    assert len(person.said) == 3


async def test_no_rule_and_a_release_leave_everybody_alone() -> None:
    live, person = connected()
    time_limits = ConnectionLimits(live)
    time_limits.apply(None)
    time_limits.apply(LimitRule(max_length_s=0.3, warn_s=0))
    time_limits.stop()
    await asyncio.sleep(0.5)
    assert person.said == []
