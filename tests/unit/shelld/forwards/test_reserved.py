import os
import socket
from pathlib import Path

import pytest

from shelld.forwards.reserved import Reserved

PORTS = Reserved(frozenset({2222}))


@pytest.mark.parametrize(
    ("family", "address"),
    [
        (socket.AF_INET, ("127.0.0.1", 2222)),
        (socket.AF_INET, ("127.255.0.9", 2222)),
        (socket.AF_INET, ("0.0.0.0", 2222)),
        (socket.AF_INET6, ("::1", 2222, 0, 0)),
        (socket.AF_INET6, ("::", 2222, 0, 0)),
        (socket.AF_INET6, ("::ffff:127.0.0.1", 2222, 0, 0)),
        (socket.AF_INET6, ("::ffff:0.0.0.0", 2222, 0, 0)),
        (socket.AF_INET, ("no address", 2222)),
    ],
)
def test_every_address_of_this_machine_is_held(family: int, address: tuple[str, int]) -> None:
    assert PORTS.holds_address(family, address)
    assert not PORTS.holds_address(family, (address[0], 2223, *address[2:]))


def test_an_address_of_an_interface_is_held() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no address besides loopback")
        own = probe.getsockname()[0]
    assert PORTS.holds_address(socket.AF_INET, (own, 2222))
    assert PORTS.holds_address(socket.AF_INET6, (f"::ffff:{own}", 2222, 0, 0))


@pytest.mark.parametrize(
    ("family", "address"),
    [(socket.AF_INET, ("192.0.2.1", 2222)), (socket.AF_INET6, ("2001:db8::1", 2222, 0, 0))],
)
def test_an_address_of_another_machine_is_not_held(family: int, address: tuple[str, int]) -> None:
    assert not PORTS.holds_address(family, address)


def bound(path: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))
    return path


def test_sockets_below_a_directory_are_held_but_not_those_of_the_home(tmp_path: Path) -> None:
    state, home = tmp_path / "state", tmp_path / "state" / "a" / "home"
    home.mkdir(parents=True)
    (home / "deep").mkdir()
    reserved = Reserved(directories=(str(state),))
    ours, theirs, outside = (bound(folder / "s") for folder in (state, home / "deep", tmp_path))
    (home / "link").symlink_to(ours)
    (tmp_path / "alias").symlink_to(state)
    for held in (ours, home / "link", tmp_path / "alias" / "s", home / ".." / ".." / "s", state / "absent"):
        assert reserved.holds_path(str(held), str(home)), held
    for free in (theirs, outside, tmp_path / "alias" / "a" / "home" / "deep" / "s", home / "absent"):
        assert not reserved.holds_path(str(free), str(home)), free
    os.link(ours, home / "hard")
    assert reserved.holds_path(str(home / "hard"), str(home))


def test_nothing_reserved_holds_nothing(tmp_path: Path) -> None:
    assert not Reserved().holds_path(str(bound(tmp_path / "s")), "/")
    assert not Reserved().holds_address(socket.AF_INET, ("127.0.0.1", 2222))
