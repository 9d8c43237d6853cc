"""`python -m tests.e2e.measure`: how long a person waits for a workspace of a cluster, and what it costs.

Prints one JSON object. Nothing of it is judged here: docs/performance.md says what is wanted.

    cold      a person's ssh with a workspace that was stopped, image present: from its start to the prompt,
              in seconds; and from the moment when the cluster called the pod ready to the prompt, which is
              negative when shelld was asked before the kubelet asked it
    stop      `fairlead workspace stop`, which waits until the pod is gone, in seconds
    warm      `ssh host true` in a running workspace, in turn with one of the local backend, in milliseconds
    memory    resident MiB of an idle shelld, and of its launcher, forked from it, which shares pages with it
    bundle    MiB of what every workspace gets, unpacked
"""

import json
import statistics
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from kubernetes import watch

from tests.e2e.cluster import Cluster, ClusterFairlead, missing, workspace
from tests.wire.harness import Fairlead
from tests.wire.terminal import Terminal

COLD, WARM = 8, 30


def main() -> int:
    """Measure; 1 without a cluster."""
    warnings.simplefilter("ignore")  # the kubeconfig of a test cluster may not name its authority
    if reason := missing():
        print(reason, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder, Cluster().opened() as cluster:
        there = ClusterFairlead(Path(folder, "cluster"), cluster=cluster)
        here = Fairlead(Path(folder, "local"))
        try:
            for proxy in (there, here):
                proxy.prepare({"dev": "stop_hold_s: 0\n"})
                proxy.start()
            figures = {
                "cold s": _cold(there, cluster),
                "warm ms": _warm(there, here),
                "memory MiB": _memory(there),
                "bundle MiB": int(there.ssh("du -sm /opt/fairlead").stdout.split()[0]),
            }
        finally:
            there.close()
            here.close()
    print(json.dumps(figures, indent=1))
    return 0


def _cold(proxy: ClusterFairlead, cluster: Cluster) -> dict[str, object]:
    whole, after_ready, stops = [], [], []
    name = workspace("alice+dev")
    _run_true(proxy)
    for _ in range(COLD):
        stops.append(_timed(lambda: proxy.cli("workspace", "stop", name)))
        ready = _Ready(cluster, f"{name}-0")
        begun = time.monotonic()
        with Terminal(proxy.command("ssh", "-tt", "fl")) as person:
            person.expect(r"[#$] $", timeout_s=180)
            done = time.monotonic()
            person.send("exit\r")
            person.wait()
        whole.append(done - begun)
        after_ready.append(done - ready.at())
    return {"whole": _summary(whole), "after ready": _summary(after_ready), "stop": _summary(stops)}


class _Ready:
    """Notes when a pod became ready, as soon as the cluster tells."""

    def __init__(self, cluster: Cluster, pod: str) -> None:
        self._cluster = cluster
        self._pod = pod
        self._moment = 0.0
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def at(self) -> float:
        self._thread.join(30)
        return self._moment

    def _look(self) -> None:
        core, stream = self._cluster.core, watch.Watch()
        selector = f"metadata.name={self._pod}"
        for event in stream.stream(
            core.list_namespaced_pod, self._cluster.namespace, field_selector=selector, timeout_seconds=120
        ):
            conditions = {one.type: one.status for one in event["object"].status.conditions or []}
            if conditions.get("Ready") == "True":
                self._moment = time.monotonic()
                stream.stop()


def _warm(there: Fairlead, here: Fairlead) -> dict[str, object]:
    took: dict[str, list[float]] = {"cluster": [], "local": []}
    _run_true(here)
    for _ in range(WARM):
        for label, proxy in (("cluster", there), ("local", here)):
            took[label].append(1000 * _timed(lambda proxy=proxy: _run_true(proxy)))  # type: ignore[misc]
    pairs = [one / other for one, other in zip(took["cluster"], took["local"], strict=True)]
    return {**{label: _summary(times) for label, times in took.items()}, "ratio": _summary(pairs)}


def _run_true(proxy: Fairlead) -> None:
    run = proxy.ssh("true", timeout_s=180)
    assert run.returncode == 0, run.stderr


def _timed(act: Callable[[], object]) -> float:
    begun = time.monotonic()
    act()
    return time.monotonic() - begun


def _memory(proxy: Fairlead) -> dict[str, float]:
    time.sleep(5)
    of_the_bundle = "grep -lzx /opt/fairlead/app /proc/[0-9]*/cmdline | xargs -n 1 dirname"
    command = f"for p in $({of_the_bundle}); do grep VmRSS $p/status; done"
    lines = proxy.ssh(command).stdout.decode().splitlines()
    shelld, launcher = (round(int(line.split()[1]) / 1024, 1) for line in lines)
    return {"shelld": shelld, "launcher": launcher}


def _summary(values: list[float]) -> dict[str, float]:
    return {
        "min": round(min(values), 3),
        "median": round(statistics.median(values), 3),
        "max": round(max(values), 3),
    }


if __name__ == "__main__":
    sys.exit(main())
