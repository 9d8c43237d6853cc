"""A serving proxy tries what its settings name, and says in its log and at `/readyz` what does not work."""

import json
from pathlib import Path

from tests.wire.conftest import MakeFairlead
from tests.wire.harness import free_port
from tests.wire.peers import until
from tests.wire.test_health import get, samples, serving


def test_what_does_not_work_is_told_at_start_and_the_proxy_serves(
    make_fairlead: MakeFairlead, tmp_path: Path
) -> None:
    missing, nats = tmp_path / "missing", f"nats://127.0.0.1:{free_port()}"
    fairlead, port = serving(
        make_fairlead,
        FAIRLEAD_BLUEPRINT__DIRECTORY=str(missing),
        FAIRLEAD_EVENTS__URLS=nats,
        FAIRLEAD_CHECKS__REPEAT_S="0.2",
    )
    expected = f"error: blueprints: blueprint.directory: {missing}: there is no such directory"
    until(lambda: expected in get(port, "/readyz")[1].splitlines(), "the finding")
    status, text = get(port, "/readyz")
    assert (status, text.splitlines()[0]) == (200, "ok")
    assert any(line.startswith(f"error: nats {nats}: events.urls: {nats}: ") for line in text.splitlines())
    assert samples(port)["fairlead_checks_failed", ""] == 1
    told = [entry for entry in map(json.loads, fairlead.log.splitlines()) if entry["event"] == "check failed"]
    assert sorted(entry["check"] for entry in told) == ["blueprints", f"nats {nats}"]
    assert fairlead.ssh("true").returncode == 254
    missing.mkdir()
    (missing / "dev.yaml").write_text("{}")
    until(lambda: "blueprints" not in get(port, "/readyz")[1], "the end of the finding")
    assert fairlead.ssh("true").returncode == 0
