"""Hundreds of strangers at once: what they may hold, what they may cost, and who must not notice."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
import psutil
import pytest

from tests.wire.forge import Forge, open_forge
from tests.wire.newcomer import House, Newcomer, open_house
from tests.wire.raw import RawClient

MAX_PENDING = 40
MIB = 1024 * 1024


@pytest.fixture
def forge() -> Iterator[Forge]:
    with open_forge([]) as opened:
        opened.interval_s = 5
        yield opened


@pytest.fixture
def house(forge: Forge, tmp_path: Path) -> Iterator[House]:
    """Limits as they are by default, but for the total, which would be 200."""
    front_door = {
        "providers": [forge.provider],
        "onboarding": {"max_pending": MAX_PENDING, "otherwise": "allow"},
    }
    with open_house(tmp_path / "house", front_door) as opened:
        yield opened


def login_times_ms(port: int, key: paramiko.PKey, more: Callable[[int], bool]) -> list[tuple[float, float]]:
    """Log a known user in over and over: when it was, and milliseconds from TCP to success."""
    took: list[tuple[float, float]] = []
    while more(len(took)):
        begun = time.monotonic()
        with RawClient(port) as client:
            client.prove("known+dev", key)
            assert client.hear() == ("success",)
        took.append((begun, (time.monotonic() - begun) * 1000))
    return took


def p99(times: list[float]) -> int:
    return round(sorted(times)[int(len(times) * 0.99)])


@pytest.mark.parametrize(
    ("connections", "hold_s"), [(100, 10), pytest.param(500, 45, marks=pytest.mark.slow)]
)
def test_a_storm_of_strangers(
    house: House,
    forge: Forge,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
    connections: int,
    hold_s: int,
) -> None:
    """How much slower known users get is recorded, and judged by whoever reads it on a quiet machine."""
    port, process = house.fairlead.port, house.fairlead.process
    assert process is not None
    known = Newcomer(house, "known", tmp_path)
    house.fairlead.cli("user", "add", "known", "--key", f"{known.keys[0]}.pub")
    key = paramiko.Ed25519Key.from_private_key_file(str(known.keys[0]))
    calm = [took for _, took in login_times_ms(port, key, lambda done: done < 50)]
    memory = psutil.Process(process.pid).memory_info
    before, most = memory().rss, 0
    command = [sys.executable, "-m", "tests.wire.swarm", *map(str, (port, connections, connections, hold_s))]
    swarm = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    begun = time.monotonic()

    def more(done: int) -> bool:
        nonlocal most
        most = max(most, memory().rss)
        return swarm.poll() is None or done < 10

    try:
        timed = login_times_ms(port, key, more)
        out, err = swarm.communicate(timeout=hold_s + 60)
    finally:
        swarm.kill()
        swarm.wait()
    assert swarm.returncode == 0, err.decode()
    became = json.loads(out)
    burst = [took for moment, took in timed if moment < begun + hold_s / 2]
    held = [took for moment, took in timed if moment >= begun + hold_s / 2]
    figures = {
        "became": became,
        "codes asked for": forge.starts,
        "polls": forge.polls,
        "grown by MiB": round((most - before) / MIB, 1),
        "known user's login, ms": {
            name: {"n": len(times), "p50": round(statistics.median(times)), "p99": p99(times)}
            for name, times in (("calm", calm), ("while they come", burst), ("while they wait", held))
            if times
        },
    }
    record_property("storm", json.dumps(figures))
    print(json.dumps(figures, indent=1))
    waited = became["waited until the end"]
    assert waited <= MAX_PENDING
    assert became["shown a code"] <= MAX_PENDING
    assert became["refused: too many people wait for approval at the moment"] == connections - waited
    assert forge.starts <= MAX_PENDING
    assert forge.polls <= MAX_PENDING * (hold_s / forge.interval_s + 2)
    assert most - before < 200 * MIB
    assert known.silently().stdout == b"in\n"
