"""What hundreds of strangers at once cost a known user: `python -m tests.wire.storm [CONNECTIONS [ROUNDS]]`.

Each round times logins of a known user while all is calm, then while a swarm of strangers comes and waits for
approvals. The proxy, the provider, the swarm and the known user are a process each. Prints JSON. As root they
are scheduled in real time, so that a busy machine shows what a quiet one would: the proxy and the known user
before the swarm, which is hundreds of other machines.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paramiko
import psutil

from tests.contract.natsserver import NatsServer
from tests.wire.harness import Fairlead
from tests.wire.raw import RawClient

MAX_PENDING = 40
INTERVAL_S = 5
MIB = 1024 * 1024
CALM_LOGINS = 150


@dataclass
class Scene:
    """A proxy with limits as they are by default but for the total, which would be 200; and a provider."""

    fairlead: Fairlead
    forge_url: str

    def asked(self) -> dict[str, int]:
        """Say how often the provider was asked for a code, and polled."""
        with urllib.request.urlopen(f"{self.forge_url}/asked") as reply:
            return json.loads(reply.read())


@contextmanager
def open_scene(directory: Path, **onboarding: Any) -> Iterator[Scene]:
    """Start everything; `onboarding` adds to what is said above."""
    command = [sys.executable, "-m", "tests.wire.forge", str(INTERVAL_S)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forge:
        try:
            assert forge.stdout is not None
            with _open_proxy(directory, forge.stdout.readline().strip(), onboarding) as scene:
                yield scene
        finally:
            forge.terminate()


@contextmanager
def _open_proxy(directory: Path, url: str, onboarding: dict[str, Any]) -> Iterator[Scene]:
    server = NatsServer(directory / "nats")
    fairlead = Fairlead(directory / "fairlead")
    try:
        server.start()
        limits = {"max_pending": MAX_PENDING, "otherwise": "allow", **onboarding}
        fairlead.extra_env = {
            "FAIRLEAD_EVENTS__URLS": server.url,
            "FAIRLEAD_FRONT_DOOR__PROVIDERS": json.dumps(
                [{"kind": "gitlab", "url": url, "client_id": "fairlead"}]
            ),
            "FAIRLEAD_FRONT_DOOR__ONBOARDING": json.dumps(limits),
        }
        fairlead.prepare()
        fairlead.start()
        yield Scene(fairlead, url)
    finally:
        fairlead.close()
        server.kill()


def login_times_ms(fairlead: Fairlead, more: Callable[[int], bool]) -> list[tuple[float, float]]:
    """Log a known user in over and over: when it was, and milliseconds from TCP to success."""
    key = paramiko.Ed25519Key.from_private_key_file(str(fairlead.key))
    took: list[tuple[float, float]] = []
    while more(len(took)):
        begun = time.monotonic()
        with RawClient(fairlead.port) as client:
            client.prove("alice+dev", key)
            assert client.hear() == ("success",)
        took.append((begun, (time.monotonic() - begun) * 1000))
    return took


@dataclass
class Storm:
    """What one storm was like."""

    became: dict[str, int] = field(default_factory=dict)
    coming: list[float] = field(default_factory=list)
    waiting: list[float] = field(default_factory=list)
    grown_mib: float = 0.0


def storm(scene: Scene, connections: int, hold_s: float) -> Storm:
    """Let a swarm come and wait for `hold_s` seconds, and log the known user in meanwhile."""
    fairlead, found = scene.fairlead, Storm()
    assert fairlead.process is not None
    memory = psutil.Process(fairlead.process.pid).memory_info
    before, most = memory().rss, 0
    words = map(str, (fairlead.port, connections, connections, hold_s))
    swarm = subprocess.Popen(
        [sys.executable, "-m", "tests.wire.swarm", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    if os.sched_getscheduler(0) == os.SCHED_RR:
        os.sched_setscheduler(swarm.pid, os.SCHED_RR, os.sched_param(1))
    begun = time.monotonic()

    def more(done: int) -> bool:
        nonlocal most
        most = max(most, memory().rss)
        return swarm.poll() is None or done < 10

    try:
        timed = login_times_ms(fairlead, more)
        out, err = swarm.communicate(timeout=hold_s + 60)
    finally:
        swarm.kill()
        swarm.wait()
    assert swarm.returncode == 0, err.decode()
    found.became = json.loads(out)
    found.coming = [took for moment, took in timed if moment < begun + hold_s / 2]
    found.waiting = [took for moment, took in timed if moment >= begun + hold_s / 2]
    found.grown_mib = (most - before) / MIB
    return found


def p99(times: list[float]) -> int:
    return round(sorted(times)[int(len(times) * 0.99)])


def summary(times: list[float]) -> dict[str, int]:
    return {"n": len(times), "p50": round(statistics.median(times)), "p99": p99(times)} if times else {}


def measure(connections: int, rounds: int, hold_s: float) -> dict[str, Any]:
    """Take calm and storm in turn."""
    calm: list[float] = []
    storms: list[Storm] = []
    with (
        tempfile.TemporaryDirectory() as name,
        open_scene(Path(name), linger_s=3, starts_per_minute=100_000) as scene,
    ):
        login_times_ms(scene.fairlead, lambda done: done < 30)
        for _ in range(rounds):
            calm += [took for _, took in login_times_ms(scene.fairlead, lambda done: done < CALM_LOGINS)]
            storms.append(storm(scene, connections, hold_s))
            time.sleep(5)  # until nobody waits any more
        asked = scene.asked()
    return {
        "became": storms[-1].became,
        "asked": asked,
        "grown by MiB": [round(one.grown_mib, 1) for one in storms],
        "calm": summary(calm),
        "while they come": summary([took for one in storms for took in one.coming]),
        "while they wait": summary([took for one in storms for took in one.waiting]),
        "each round, p99": [(p99(one.coming), p99(one.waiting)) for one in storms],
        "load average": os.getloadavg(),
    }


if __name__ == "__main__":
    if os.geteuid() == 0:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(2))
    figures = measure(
        int(sys.argv[1]) if len(sys.argv) > 1 else 500,
        int(sys.argv[2]) if len(sys.argv) > 2 else 3,
        float(sys.argv[3]) if len(sys.argv) > 3 else 24,
    )
    sys.stdout.write(json.dumps(figures, indent=1) + "\n")
