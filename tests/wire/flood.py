"""What mute and half-open clients cost a known user: `python -m tests.wire.flood [CONNECTIONS [ROUNDS]]`.

As `tests.wire.storm`, with clients that never get anywhere and are all held, which is the dearer case.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil

from tests.wire.harness import Fairlead
from tests.wire.storm import MIB, login_times_ms, p99

_HOLD_S = 15


def _summary(times: list[float]) -> dict[str, int]:
    p95 = statistics.quantiles(times, n=20)[-1]
    return {"n": len(times), "p50": round(statistics.median(times)), "p95": round(p95), "p99": p99(times)}


def _round(server: Fairlead, connections: int) -> dict[str, Any]:
    assert server.process is not None
    memory = psutil.Process(server.process.pid).memory_info
    calm = [took for _, took in login_times_ms(server, lambda done: done < 100)]
    before = memory().rss
    command = [sys.executable, "-m", "tests.wire.mute", *map(str, (server.port, connections, _HOLD_S))]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as clients:
        if os.sched_getscheduler(0) == os.SCHED_RR:
            os.sched_setscheduler(clients.pid, os.SCHED_RR, os.sched_param(1))
        flooded = [took for _, took in login_times_ms(server, lambda _: clients.poll() is None)]
        out, _ = clients.communicate()
    return {
        "became": json.loads(out),
        "grown by MiB": round((memory().rss - before) / MIB, 1),
        "calm": _summary(calm),
        "flooded": _summary(flooded),
    }


def main() -> None:
    connections = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 2
    if os.geteuid() == 0:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(2))
    with tempfile.TemporaryDirectory() as name:
        server = Fairlead(Path(name) / "flooded")
        server.extra_env = {
            "FAIRLEAD_PROTECTION__ALLOW": "[]",
            "FAIRLEAD_PROTECTION__STARTUPS_BEGIN": str(2 * connections),
            "FAIRLEAD_PROTECTION__STARTUPS_FULL": str(2 * connections),
        }
        server.prepare()
        try:
            server.start()
            login_times_ms(server, lambda done: done < 20)
            for _ in range(rounds):
                sys.stdout.write(json.dumps(_round(server, connections)) + "\n")
        finally:
            server.close()


if __name__ == "__main__":
    main()
