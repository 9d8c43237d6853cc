"""Tables of listening sockets, as proc_net_tcp(5) has them, and the accounts and addresses that they name."""

import os
import socket
import sys
from collections.abc import Sequence
from ipaddress import ip_address

import pytest

from shelld.apps.listeners import Listening, of_port, parse
from shelld.apps.reach import Address, Reach
from shelld.errors import OpenCode, OpenError
from shelld.forwards.dial import Dialer
from shelld.forwards.reserved import Reserved
from shelld.launch.account import Account
from shelld.settings import ForwardSettings

HEADING = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
TABLE = f"""{HEADING}
   0: 0100007F:22B8 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 41 1 0 100 0 0 10 0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 42 1 0 100 0 0 10 0
   2: 0100007F:22B9 0100007F:8000 01 00000000:00000000 00:00000000 00000000  1000        0 43 1 0 20 4 30
   3: 0100007F:22B7 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 44 1 0 100 0 0 10 0
"""
ME = Account("me", 1000, 1000, (), "/", "/bin/sh")


def listening(address: str, uid: int = 1000, port: int = 80) -> Listening:
    return Listening(ip_address(address), port, uid, 1)


@pytest.mark.skipif(sys.byteorder != "little", reason="the table is of a little-endian machine")
def test_a_table_is_read_up_to_the_first_socket_that_does_not_listen() -> None:
    assert list(parse(TABLE.splitlines())) == [
        Listening(ip_address("127.0.0.1"), 8888, 1000, 41),
        Listening(ip_address("0.0.0.0"), 22, 0, 42),
    ]


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_socket_of_this_process_is_found_with_its_owner(family: socket.AddressFamily) -> None:
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    try:
        made = socket.create_server((host, 0), family=family)
    except OSError:
        pytest.skip("optional, not found here: IPv6 on loopback")
    with made:
        found = of_port(made.getsockname()[1])
        assert [(str(one.address), one.uid, one.inode) for one in found] == [
            (host, os.geteuid(), os.fstat(made.fileno()).st_ino)
        ]


@pytest.mark.parametrize(
    ("address", "v4", "v6"),
    [
        ("127.0.0.1", True, False),
        ("0.0.0.0", True, False),
        ("::", True, True),
        ("::1", False, True),
        ("::ffff:127.0.0.1", True, False),
        ("10.0.0.5", False, False),
        ("fe80::1", False, False),
    ],
)
def test_loopback_reaches_what_listens_there(address: str, v4: bool, v6: bool) -> None:
    found = listening(address)
    assert (found.takes_v4_loopback, found.takes_v6_loopback) == (v4, v6)


async def reached(found: Sequence[Listening], port: int) -> OpenError:
    reach = Reach(Dialer(ForwardSettings(), 1.0, None), lambda _: found)  # type: ignore[arg-type]
    with pytest.raises(OpenError) as refused:
        (await reach.connect(Address(port=port), ME, Reserved())).close()
    return refused.value


async def test_each_reason_not_to_connect_is_told_in_words() -> None:
    assert (await reached([], 80)).reason == "nothing listens on port 80"
    elsewhere = await reached([listening("10.0.0.5")], 80)
    assert elsewhere.reason == "port 80 is listened on at 10.0.0.5 only, and not at 127.0.0.1"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        # Both may take the connection (SO_REUSEPORT), so both have to be the account's.
        shared = await reached([listening("127.0.0.1"), listening("0.0.0.0", uid=77_777)], port)
    assert shared.code is OpenCode.PERMISSION
    assert shared.reason == f"port {port} is listened on by another account (uid 77777), not by me"


async def test_a_port_of_the_proxy_is_no_app() -> None:
    reach = Reach(Dialer(ForwardSettings(), 1.0, None), lambda _: [listening("127.0.0.1")])  # type: ignore[arg-type]
    with pytest.raises(OpenError, match="belongs to the proxy"):
        await reach.connect(Address(port=80), ME, Reserved(ports=frozenset({80})))


async def test_a_table_that_cannot_be_read_refuses() -> None:
    def unreadable(_: int) -> Sequence[Listening]:
        raise PermissionError(13, "Permission denied")

    reach = Reach(Dialer(ForwardSettings(), 1.0, None), unreadable)  # type: ignore[arg-type]
    with pytest.raises(OpenError, match="the owner of port 80 cannot be read") as refused:
        await reach.connect(Address(port=80), ME, Reserved())
    assert refused.value.code is OpenCode.PERMISSION
