"""Names below `localhost` as the HTTP client takes them: this machine, with no word from its resolver."""

import socket
from collections.abc import AsyncIterator
from typing import Any, NoReturn

import pytest

from proxy.http.client import HttpClient, HttpFailed, LocalhostResolver, Request
from proxy.settings.onboarding import HttpSettings
from tests.contract.door import open_house
from tests.contract.neighbours import Neighbour, open_neighbour
from tests.fakes.browser import Browser


@pytest.fixture
async def neighbour() -> AsyncIterator[Neighbour]:
    async with open_neighbour() as made:
        yield made


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose resolver knows no names, as glibc's knows none below `localhost`."""
    real = socket.getaddrinfo

    def addresses_only(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        flags = more.pop("flags", 0) | socket.AI_NUMERICHOST
        return real(host, port, *rest[:3], flags=flags, **more) if len(rest) < 4 else _unknown()

    def _unknown() -> NoReturn:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", addresses_only)


@pytest.mark.usefixtures("deaf")
async def test_a_name_below_localhost_needs_no_resolver(neighbour: Neighbour) -> None:
    client = HttpClient(HttpSettings())
    for host in ("login.localhost", "LOGIN.localhost", "localhost", "a.b.localhost"):
        reply = await client.send(Request(f"http://{host}:{neighbour.port}/"))
        assert reply.status == 200
    with pytest.raises(HttpFailed, match="its name cannot be resolved"):
        await client.send(Request("https://localhost.example/"))
    await client.close()
    assert len(neighbour.heads) == 4


@pytest.mark.usefixtures("deaf")
async def test_a_stranger_comes_in_on_a_machine_whose_resolver_knows_no_names() -> None:
    """Discovery, device code, polling, profile and keys: all of it is between us and ourselves."""
    house = await open_house()
    pending = await house.begin()
    async with Browser() as browser:
        await browser.submit(await browser.get(pending.shown.verification_uri_complete), "approve")
    assert (await pending.outcome()).profile.login == "alice"
    await house.door.close()


async def test_a_forward_proxy_is_not_asked_for_this_machine(neighbour: Neighbour) -> None:
    async with open_neighbour() as forward_proxy:
        client = HttpClient(HttpSettings(proxy_url=f"http://127.0.0.1:{forward_proxy.port}"))
        for host in ("login.localhost", "127.0.0.1", "localhost"):
            await client.send(Request(f"http://{host}:{neighbour.port}/here"))
        with pytest.raises(HttpFailed):
            await client.send(Request("https://id.example.test/there"))
        await client.close()
        assert [head.split(b"\r\n")[0] for head in forward_proxy.heads] == [
            b"CONNECT id.example.test:443 HTTP/1.1"
        ]
    assert [head.split(b" ")[1] for head in neighbour.heads] == [b"/here"] * 3


@pytest.mark.parametrize(
    ("family", "addresses"),
    [
        (socket.AF_UNSPEC, ["127.0.0.1", "::1"]),
        (socket.AF_INET, ["127.0.0.1"]),
        (socket.AF_INET6, ["::1"]),
    ],
)
async def test_the_addresses_are_those_of_loopback(
    family: socket.AddressFamily, addresses: list[str]
) -> None:
    resolver = LocalhostResolver()
    found = await resolver.resolve("login.localhost", 80, family)
    assert [entry["host"] for entry in found] == addresses
    await resolver.close()


@pytest.mark.parametrize(
    "url", ["http://localhost.evil.example/", "http://xlocalhost/", "http://.localhost.x/"]
)
async def test_a_name_that_only_resembles_it_gets_no_plain_http(url: str) -> None:
    client = HttpClient(HttpSettings())
    with pytest.raises(HttpFailed, match="must be https"):
        await client.send(Request(url))
    await client.close()
