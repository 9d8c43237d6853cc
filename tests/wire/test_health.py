"""What probes and Prometheus see of a proxy that serves real clients."""

import signal
import socket
import time
import urllib.error
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from tests.wire.conftest import MakeFairlead
from tests.wire.harness import START_DEADLINE_S, Fairlead, free_port
from tests.wire.peers import until


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as exc:
        return exc.code, exc.read().decode()


def samples(port: int) -> dict[tuple[str, str], float]:
    """Every sample by its name and its labels' values."""
    _, text = get(port, "/metrics")
    return {
        (sample.name, ",".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def serving(make: MakeFairlead, **settings: str) -> tuple[Fairlead, int]:
    """Start a proxy and wait for its health page, which is opened after the SSH listener."""
    port = free_port()
    fairlead = make({"FAIRLEAD_HEALTH__LISTEN": f"127.0.0.1:{port}", **settings})
    until(lambda: is_open(port), "the health page")
    return fairlead, port


def is_open(port: int) -> bool:
    try:
        return get(port, "/readyz")[0] == 200
    except urllib.error.URLError:
        return False


def test_what_was_done_is_counted(make_fairlead: MakeFairlead) -> None:
    fairlead, port = serving(make_fairlead)
    assert get(port, "/livez") == get(port, "/readyz") == (200, "ok\n")
    assert fairlead.ssh("true").returncode == 0
    assert fairlead.ssh("true", "-l", "alice+nope").returncode == 254
    assert fairlead.ssh("true", "-l", "mallory").returncode == 255
    seen = samples(port)
    assert seen["fairlead_logins_total", "succeeded,"] == 2
    assert seen["fairlead_logins_total", "failed,key_unknown"] == 1
    assert seen["fairlead_programs_total", "exec,started"] == 1
    assert seen["fairlead_programs_total", "exec,blueprint.not_found"] == 1
    assert seen["fairlead_workspace_start_seconds_count", "ready"] == 1
    assert seen["fairlead_links", ""] == 1
    assert seen["fairlead_connections", ""] == 0
    assert seen["fairlead_events_total", "published"] >= 3
    assert seen["process_resident_memory_bytes", ""] > 0
    with socket.create_connection(("127.0.0.1", fairlead.port), timeout=10) as idle:
        idle.recv(100)
        assert samples(port)["fairlead_connections", ""] == 1


def test_no_name_and_no_address_is_told(make_fairlead: MakeFairlead) -> None:
    fairlead, port = serving(make_fairlead)
    fairlead.ssh("true")
    fairlead.ssh("true", "-l", "mallory-was-here")
    _, text = get(port, "/metrics")
    assert [word for word in ("alice", "mallory", "127.0.0.1", "SHA256") if word in text] == []


def test_a_proxy_that_drains_says_so_and_still_serves(make_fairlead: MakeFairlead) -> None:
    fairlead, port = serving(make_fairlead, FAIRLEAD_HEALTH__DRAIN_S="30")
    assert fairlead.process is not None
    fairlead.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + START_DEADLINE_S
    while get(port, "/readyz")[0] != 503:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert get(port, "/livez") == (200, "ok\n")
    assert fairlead.ssh("echo in").stdout == b"in\n"
    fairlead.stop(signal.SIGKILL)
