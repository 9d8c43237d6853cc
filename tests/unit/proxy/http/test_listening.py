"""Every address that a browser may take our host name for is ours, at one port."""

import socket

import pytest

from proxy.http.listening import open_sockets


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


ipv6 = pytest.mark.skipif(not has_ipv6(), reason="optional, not found here: IPv6 on loopback")


def places(sockets: list[socket.socket]) -> list[tuple[str, int]]:
    return [listener.getsockname()[:2] for listener in sockets]


@ipv6
@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        ("127.0.0.1", ["127.0.0.1", "::1"]),
        ("localhost", ["127.0.0.1", "::1"]),
        ("::1", ["::1", "127.0.0.1"]),
        ("0.0.0.0", ["0.0.0.0", "::1"]),
        ("", ["0.0.0.0", "::"]),
        ("127.0.0.2", ["127.0.0.2"]),
    ],
)
async def test_loopback_is_taken_in_both_families(host: str, addresses: list[str]) -> None:
    sockets = await open_sockets(host, 0)
    assert [address for address, _ in places(sockets)] == addresses
    assert len({port for _, port in places(sockets)}) == 1
    for listener in sockets:
        listener.close()


@ipv6
async def test_a_port_that_another_program_has_at_the_other_address_is_refused() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as other:
        port = other.getsockname()[1]
        with pytest.raises(OSError, match="in use") as caught:
            await open_sockets("127.0.0.1", port)
    assert caught.value.strerror == f"[::1]:{port}: Address already in use"
    socket.create_server(("127.0.0.1", port)).close()  # nothing was left open


@ipv6
async def test_any_port_is_one_that_is_free_at_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first port that the kernel gives is taken at the other address."""
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as other:
        taken = other.getsockname()[1]
        create, asked = socket.create_server, []

        def first_the_taken_one(address: tuple[str, int], **options: object) -> socket.socket:
            asked.append(address)
            return create((address[0], taken) if len(asked) == 1 else address, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(socket, "create_server", first_the_taken_one)
        sockets = await open_sockets("127.0.0.1", 0)
        assert len(sockets) == 2
        assert taken not in {port for _, port in places(sockets)}
        for listener in sockets:
            listener.close()


async def test_an_address_family_that_is_not_there_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    create = socket.create_server

    def without_ipv6(address: tuple[str, int], **options: object) -> socket.socket:
        if ":" in address[0]:
            raise OSError(99, "Cannot assign requested address")
        return create(address, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "create_server", without_ipv6)
    (listener,) = await open_sockets("127.0.0.1", 0)
    listener.close()
    with pytest.raises(OSError, match="Cannot assign"):
        await open_sockets("::1", 0)


async def test_a_name_that_is_not_known_is_said() -> None:
    with pytest.raises(OSError, match=r"no-such-host\.invalid: "):
        await open_sockets("no-such-host.invalid", 0)
