"""Where the development provider may start: it lets anyone who reaches its page become any user."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.errors import SettingsError
from proxy.settings import Settings, load
from proxy.settings.onboarding import DevSettings

FLAG = "dev_anyone_may_be_any_user"
DEV = {"kind": "dev"}
TRUSTED = {"trusted": ["127.0.0.1"]}


def settings(listen: str = "127.0.0.1:2222", trusted: bool = False, **front_door: Any) -> Settings:
    protocol = TRUSTED if trusted else {}
    return load({}, overrides={"listen": listen, "front_door": front_door, "proxy_protocol": protocol})


def kinds(chosen: Settings) -> list[str]:
    return [provider.kind for provider in chosen.front_door_in_effect.providers]


@pytest.mark.parametrize("listen", ["127.0.0.1:22", "[::1]:22", "localhost:22"])
def test_it_stands_in_on_loopback(listen: str) -> None:
    assert kinds(settings(listen)) == ["dev"]
    assert kinds(settings(listen, providers=[DEV])) == ["dev"]


@pytest.mark.parametrize("listen", ["*:22", "192.0.2.1:22", "example.com:22", "login.localhost:22"])
def test_it_stands_in_beyond_loopback_only_with_the_flag(listen: str) -> None:
    assert kinds(settings(listen)) == []
    assert kinds(settings(listen, **{FLAG: True})) == ["dev"]


@pytest.mark.parametrize("listen", ["127.0.0.1:22", "*:22"])
def test_it_never_stands_in_behind_a_load_balancer(listen: str) -> None:
    """A load balancer on the same host reaches a proxy that listens on loopback."""
    chosen = settings(listen, trusted=True)
    assert kinds(chosen) == []
    assert chosen.front_door_in_effect.onboarding.otherwise == "refuse"
    assert chosen.is_dev_provider_held_back == listen.startswith("127.")
    assert not settings(listen).is_dev_provider_held_back


@pytest.mark.parametrize(
    ("listen", "trusted", "front_door", "named"),
    [
        ("127.0.0.1:22", True, {"providers": [DEV]}, "front_door.providers: "),
        ("127.0.0.1:22", True, {"providers": [DEV], FLAG: True}, "front_door.providers: "),
        ("*:22", True, {FLAG: True}, f"front_door.{FLAG}: "),
        ("*:22", False, {"providers": [DEV]}, "listen: "),
        (
            "127.0.0.1:22",
            False,
            {"providers": [{**DEV, "host": "0.0.0.0"}]},
            "front_door.providers.0.host: ",
        ),
        ("127.0.0.1:22", False, {"providers": [{**DEV, "host": "::"}]}, "front_door.providers.0.host: "),
        (
            "127.0.0.1:22",
            False,
            {"providers": [{**DEV, "public_url": "https://dev.example.com"}]},
            "front_door.providers.0.public_url: ",
        ),
    ],
)
def test_what_would_let_others_become_any_user_is_refused_by_name(
    listen: str, trusted: bool, front_door: dict[str, Any], named: str
) -> None:
    chosen = settings(listen, trusted, **front_door)
    with pytest.raises(SettingsError) as caught:
        chosen.check_dev_provider()
    said = str(caught.value)
    assert said.startswith(named)
    assert said.endswith("it asks for no password, and anyone may become any user")
    if trusted:
        assert "never starts while proxy_protocol.trusted is set" in said
    else:
        assert f"only with front_door.{FLAG} (--dev-anyone-may-be-any-user)" in said
    with pytest.raises(SettingsError):
        _ = chosen.front_door_in_effect


@pytest.mark.parametrize(
    "provider",
    [DEV, {**DEV, "host": "0.0.0.0"}, {**DEV, "public_url": "https://dev.example.com"}],
)
def test_with_the_flag_it_may_be_reached_by_others(provider: dict[str, Any]) -> None:
    assert kinds(settings("*:22", providers=[provider], **{FLAG: True})) == ["dev"]


def test_a_public_url_of_this_machine_needs_no_flag() -> None:
    provider = {**DEV, "public_url": "http://login.localhost:8180"}
    assert kinds(settings(providers=[provider])) == ["dev"]


@pytest.mark.parametrize(
    ("front_door", "said"),
    [
        (
            {"confirm": {"public_url": "http://127.0.0.1:8022"}},
            "front_door.confirm.public_url: 'http://127.0.0.1:8022' shares its cookies with every port",
        ),
        ({"confirm": {"public_url": "https://localhost"}}, "such as login.localhost"),
        ({"confirm": {"public_url": "http://LOCALHOST.:8022"}}, "such as login.localhost"),
        ({"confirm": {"public_url": "http://ssh.example.com"}}, "must be https"),
        ({"providers": [{**DEV, "public_url": "http://[::1]:1"}]}, "shares its cookies with every port"),
        ({"providers": [{**DEV, "host": "192.0.2.1"}]}, "'192.0.2.1' is not one of 127.0.0.1, ::1"),
    ],
)
def test_a_page_is_never_on_a_host_name_that_every_port_shares(front_door: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings(**front_door)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://login.localhost:8022", "https://ssh.example.com/", "http://a.localhost"]
)
def test_a_host_name_of_its_own_is_taken(url: str) -> None:
    assert settings(confirm={"public_url": url}).front_door.confirm.page_url == url.rstrip("/")


def test_the_compose_file_says_what_it_needs_to_start() -> None:
    """Its proxy listens on every address of a container, whose ports are published on loopback only."""
    compose = yaml.safe_load((Path(__file__).parents[3] / "docker-compose.yml").read_text())
    proxy = compose["services"]["proxy"]
    environment = {
        name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value) for name, value in proxy["environment"].items()
    }
    environment.pop("FAIRLEAD_CONFIG")  # what the first start makes: passwords of the other services
    chosen = load({**environment, "FAIRLEAD_LISTEN": "*:2222"})
    (provider,) = chosen.front_door_in_effect.providers
    assert isinstance(provider, DevSettings)
    assert provider.public_url == "http://login.localhost:8180"
    assert all(port.startswith("127.0.0.1:") for port in proxy["ports"])
