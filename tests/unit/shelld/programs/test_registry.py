"""The clock of activity: what sets it back, and what does not."""

import pytest

from shelld.programs import registry as module
from shelld.programs.registry import KEEPALIVE_BYTES, Registry
from shelld.settings import Limits


class Time:
    now = 1_000.0

    @classmethod
    def monotonic(cls) -> float:
        return cls.now


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setattr(module, "time", Time)
    Time.now = 1_000.0
    return Registry(Limits())


@pytest.mark.parametrize("quiet", [True, False])
def test_a_quiet_connection_and_its_payload_are_no_activity(registry: Registry, quiet: bool) -> None:
    Time.now += 60
    with registry.connection(quiet=quiet) as keepalives:
        assert registry.connections == 1
        assert registry.idle_s == (60 if quiet else 0)
        Time.now += 60
        keepalives.carried(2 * KEEPALIVE_BYTES)
        assert registry.idle_s == (120 if quiet else 0)
        Time.now += 60
    assert registry.idle_s == (180 if quiet else 0)
