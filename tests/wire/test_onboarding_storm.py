"""Hundreds of strangers at once: what they may hold, what they may cost, and who must not notice."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.wire.storm import INTERVAL_S, MAX_PENDING, Scene, login_times_ms, open_scene, storm, summary


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with open_scene(tmp_path) as opened:
        yield opened


@pytest.mark.parametrize(
    ("connections", "hold_s"), [(100, 20), pytest.param(500, 45, marks=pytest.mark.slow)]
)
def test_a_storm_of_strangers(
    scene: Scene, record_property: Callable[[str, object], None], connections: int, hold_s: int
) -> None:
    """How much slower known users get is told by `python -m tests.wire.storm`, and asserted nowhere."""
    calm = login_times_ms(scene.fairlead, lambda done: done < 50)
    found = storm(scene, connections, hold_s)
    asked = scene.asked()
    figures = {
        "became": found.became,
        "asked": asked,
        "grown by MiB": round(found.grown_mib, 1),
        "calm": summary([took for _, took in calm]),
        "while they come": summary(found.coming),
        "while they wait": summary(found.waiting),
    }
    record_property("storm", json.dumps(figures))
    print(json.dumps(figures, indent=1))
    waited = found.became["waited until the end"]
    assert waited <= MAX_PENDING
    assert found.became["shown a code"] <= MAX_PENDING
    assert found.became["refused: too many people wait for approval at the moment"] == connections - waited
    assert asked["starts"] <= MAX_PENDING
    assert asked["polls"] <= MAX_PENDING * (hold_s / INTERVAL_S + 2)
    assert found.grown_mib < 200
    assert scene.fairlead.ssh("echo in").stdout == b"in\n"
