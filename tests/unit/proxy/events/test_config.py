"""Settings of events: what is refused, and that no secret is echoed."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from proxy.settings.events import EventsSettings


def test_without_settings_there_is_no_nats() -> None:
    assert EventsSettings().urls == ()
    assert not EventsSettings().encrypted


def test_urls_may_be_one_text() -> None:
    assert EventsSettings.model_validate({"urls": "nats://a:4222, nats://[::1]:4222"}).urls == (
        "nats://a:4222",
        "nats://[::1]:4222",
    )


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"urls": ["nats://me:hunter2@host"]}, "must not carry credentials"),
        ({"urls": ["http://host"]}, "nats://host:port"),
        ({"urls": ["nats://host/hunter2"]}, "nats://host:port"),
        ({"urls": ["nats://"]}, "nats://host:port"),
        ({"urls": ["nats://host:hunter2"]}, "nats://host:port"),
        ({"urls": ["nats://a", "tls://b"]}, "either all"),
        ({"user": "me"}, "go together"),
        ({"token_file": "a", "creds_file": "b"}, "only one"),
        ({"tls_cert_file": "a"}, "go together"),
        ({"reconnect_wait_s": 20, "reconnect_wait_max_s": 10}, "must not exceed"),
        ({"password": "hunter2"}, "Extra inputs"),
        ({"prefix": "a.>"}, "match pattern"),
        ({"prefix": "a b"}, "match pattern"),
        ({"queue_size": 0}, "greater than"),
    ],
)
def test_what_cannot_work_is_refused_without_echoing_it(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says) as caught:
        EventsSettings.model_validate(settings)
    assert "hunter2" not in str(caught.value)


def test_tls_is_demanded_by_url_or_files() -> None:
    assert EventsSettings(urls=("tls://host",)).encrypted
    assert EventsSettings(urls=("nats://host",), tls_ca_file=Path("ca.pem")).encrypted
    assert not EventsSettings(urls=("nats://host",)).encrypted
