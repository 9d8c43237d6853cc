"""What clients send against the rules costs no more than `sshd` lets it cost: message x oddity on both.

The table is checked row by row on the proxy and on the real `sshd` of this machine. What another `sshd` than
that of the table does may differ; that we survive what it survives holds for each.
"""

import asyncio
import subprocess
from collections.abc import Iterator

import pytest
from asyncssh.packet import String, UInt32

from bench.sshd import find_sshd
from tests.wire.direct import Place, fairlead_place, sshd_place
from tests.wire.flooder import PATIENCE_S
from tests.wire.harness import Fairlead
from tests.wire.messages import CHANNEL_DATA, Handler, handlers
from tests.wire.oddities import ENDS, EOF, odd_client, oddities, outcomes, rows_of

SSHD_OF_THE_TABLE = "OpenSSH_9.2"
EITHER = "either"
"""`sshd` ends the connection if the channel is gone, which it is when the program was waited for."""
SERVICE_REQUEST, OPEN_CONFIRMATION, OPEN_FAILURE = 5, 91, 92

# Message | oddity | what `sshd` does | what we do: the first answer, `nothing`, or `ends` for the connection.
TABLE = """
1 | as it is | ends | ends
1 | cut short | ends | ends
1 | a byte more | ends | ends
2 | as it is | nothing | nothing
2 | cut short | nothing | nothing
2 | a byte more | nothing | nothing
2 | empty | nothing | nothing
2 | bytes without a length | nothing | nothing
2 | not UTF-8 | nothing | nothing
3 | as it is | nothing | nothing
3 | cut short | ends | nothing
3 | a byte more | nothing | nothing
3 | empty | ends | nothing
4 | as it is | nothing | nothing
4 | cut short | ends | nothing
4 | a byte more | nothing | nothing
4 | empty | ends | nothing
4 | not UTF-8 | nothing | nothing
5 | as it is | unimplemented | unimplemented
5 | cut short | unimplemented | unimplemented
5 | a byte more | unimplemented | unimplemented
6 | as it is | unimplemented | unimplemented
6 | cut short | unimplemented | unimplemented
6 | a byte more | unimplemented | unimplemented
7 | as it is | unimplemented | unimplemented
7 | cut short | unimplemented | unimplemented
7 | a byte more | unimplemented | unimplemented
7 | empty | unimplemented | unimplemented
20 | as it is | ends | ends
20 | cut short | ends | ends
20 | a byte more | ends | ends
21 | as it is | unimplemented | unimplemented
21 | cut short | unimplemented | unimplemented
21 | a byte more | unimplemented | unimplemented
30 | as it is | unimplemented | unimplemented
30 | cut short | unimplemented | unimplemented
30 | a byte more | unimplemented | unimplemented
31 | as it is | unimplemented | unimplemented
31 | cut short | unimplemented | unimplemented
31 | a byte more | unimplemented | unimplemented
50 | as it is | unimplemented | unimplemented
50 | cut short | unimplemented | unimplemented
50 | a byte more | unimplemented | unimplemented
51 | as it is | unimplemented | unimplemented
51 | cut short | unimplemented | unimplemented
51 | a byte more | unimplemented | unimplemented
52 | as it is | unimplemented | unimplemented
52 | cut short | unimplemented | unimplemented
52 | a byte more | unimplemented | unimplemented
53 | as it is | unimplemented | unimplemented
53 | cut short | unimplemented | unimplemented
53 | a byte more | unimplemented | unimplemented
61 | as it is | unimplemented | unimplemented
61 | cut short | unimplemented | unimplemented
61 | a byte more | unimplemented | unimplemented
63 | as it is | unimplemented | unimplemented
63 | cut short | unimplemented | unimplemented
63 | a byte more | unimplemented | unimplemented
65 | as it is | unimplemented | unimplemented
65 | cut short | unimplemented | unimplemented
65 | a byte more | unimplemented | unimplemented
66 | as it is | unimplemented | unimplemented
66 | cut short | unimplemented | unimplemented
66 | a byte more | unimplemented | unimplemented
80 | as it is | failure | failure
80 | cut short | ends | unimplemented
80 | a byte more | failure | failure
80 | empty | ends | unimplemented
80 | not UTF-8 | failure | failure
80 cancel-streamlocal-forward@openssh.com | as it is | failure | failure
80 cancel-streamlocal-forward@openssh.com | cut short | ends | failure
80 cancel-streamlocal-forward@openssh.com | a byte more | failure | failure
80 cancel-streamlocal-forward@openssh.com | not UTF-8 | failure | failure
80 cancel-tcpip-forward | as it is | failure | failure
80 cancel-tcpip-forward | cut short | ends | failure
80 cancel-tcpip-forward | a byte more | failure | failure
80 cancel-tcpip-forward | not UTF-8 | failure | failure
80 hostkeys-prove-00@openssh.com | as it is | failure | failure
80 hostkeys-prove-00@openssh.com | cut short | failure | failure
80 hostkeys-prove-00@openssh.com | a byte more | failure | failure
80 keepalive@openssh.com | as it is | failure | success
80 keepalive@openssh.com | cut short | ends | unimplemented
80 keepalive@openssh.com | a byte more | failure | failure
80 streamlocal-forward@openssh.com | as it is | failure | failure
80 streamlocal-forward@openssh.com | cut short | ends | failure
80 streamlocal-forward@openssh.com | a byte more | failure | failure
80 streamlocal-forward@openssh.com | not UTF-8 | failure | failure
80 tcpip-forward | as it is | success | success
80 tcpip-forward | cut short | ends | failure
80 tcpip-forward | a byte more | success | failure
80 tcpip-forward | not UTF-8 | success | failure
81 | as it is | nothing | nothing
81 | cut short | nothing | nothing
81 | a byte more | nothing | nothing
81 | empty | nothing | nothing
82 | as it is | nothing | nothing
82 | cut short | nothing | nothing
82 | a byte more | nothing | nothing
82 | empty | nothing | nothing
90 | as it is | refused | refused
90 | cut short | ends | unimplemented
90 | a byte more | refused | refused
90 | empty | ends | unimplemented
90 | not UTF-8 | refused | refused
90 | maximum packet of 0 | refused | refused
90 | type 'channel' | refused | refused
90 direct-streamlocal@openssh.com | as it is | refused | refused
90 direct-streamlocal@openssh.com | cut short | ends | refused
90 direct-streamlocal@openssh.com | a byte more | ends | refused
90 direct-streamlocal@openssh.com | not UTF-8 | refused | refused
90 direct-streamlocal@openssh.com | maximum packet of 0 | refused | refused
90 direct-tcpip | as it is | refused | refused
90 direct-tcpip | cut short | ends | refused
90 direct-tcpip | a byte more | ends | refused
90 direct-tcpip | not UTF-8 | refused | refused
90 direct-tcpip | maximum packet of 0 | refused | refused
90 session | as it is | confirmed | confirmed
90 session | cut short | ends | unimplemented
90 session | a byte more | ends | refused
90 session | maximum packet of 0 | confirmed | refused
90 tun@openssh.com | as it is | refused | refused
90 tun@openssh.com | cut short | refused | refused
90 tun@openssh.com | a byte more | refused | refused
90 tun@openssh.com | maximum packet of 0 | refused | refused
91 | as it is | ends | unimplemented
91 | cut short | ends | unimplemented
91 | a byte more | ends | unimplemented
92 | as it is | ends | unimplemented
92 | cut short | ends | unimplemented
92 | a byte more | ends | unimplemented
93 | as it is | nothing | nothing
93 | cut short | ends | closed
93 | a byte more | ends | closed
93 | twice | nothing | nothing
93 | after EOF | closed | closed
93 | after CLOSE | closed | closed
93 | after both CLOSE | either | nothing
93 | for a channel that never was | nothing | nothing
94 | as it is | nothing | nothing
94 | cut short | ends | closed
94 | a byte more | ends | closed
94 | twice | nothing | nothing
94 | after EOF | closed | closed
94 | after CLOSE | closed | closed
94 | after both CLOSE | either | nothing
94 | for a channel that never was | ends | nothing
94 | far beyond the window | nothing | closed
95 | as it is | nothing | nothing
95 | cut short | nothing | nothing
95 | a byte more | nothing | nothing
95 | twice | nothing | nothing
95 | after EOF | ends | closed
95 | after CLOSE | closed | closed
95 | after both CLOSE | either | nothing
95 | for a channel that never was | ends | nothing
96 | as it is | closed | closed
96 | cut short | ends | unimplemented
96 | a byte more | ends | closed
96 | twice | closed | closed
96 | after EOF | closed | closed
96 | after CLOSE | closed | closed
96 | after both CLOSE | either | nothing
96 | for a channel that never was | ends | nothing
97 | as it is | closed | closed
97 | cut short | ends | unimplemented
97 | a byte more | ends | closed
97 | twice | closed | closed
97 | after EOF | closed | closed
97 | after CLOSE | closed | closed
97 | after both CLOSE | either | nothing
97 | for a channel that never was | ends | nothing
98 | as it is | failure | failure
98 | cut short | ends | closed
98 | a byte more | failure | failure
98 | not UTF-8 | failure | failure
98 | twice | failure | failure
98 | after EOF | failure | failure
98 | after CLOSE | failure | closed
98 | after both CLOSE | either | nothing
98 | for a channel that never was | ends | nothing
98 auth-agent-req@openssh.com | as it is | success | success
98 auth-agent-req@openssh.com | cut short | ends | closed
98 auth-agent-req@openssh.com | a byte more | ends | failure
98 break | as it is | failure | failure
98 break | cut short | ends | failure
98 break | a byte more | ends | failure
98 env | as it is | failure | success
98 env | cut short | ends | failure
98 env | a byte more | ends | failure
98 env | not UTF-8 | failure | failure
98 exec | as it is | success | success
98 exec | cut short | ends | failure
98 exec | a byte more | ends | failure
98 exec | not UTF-8 | success | success
98 keepalive@openssh.com | as it is | failure | failure
98 keepalive@openssh.com | cut short | ends | closed
98 keepalive@openssh.com | a byte more | failure | failure
98 pty-req | as it is | success | success
98 pty-req | cut short | ends | failure
98 pty-req | a byte more | ends | failure
98 pty-req | not UTF-8 | success | success
98 shell | as it is | success | success
98 shell | cut short | ends | closed
98 shell | a byte more | ends | failure
98 signal | as it is | failure | success
98 signal | cut short | failure | failure
98 signal | a byte more | failure | failure
98 signal | not UTF-8 | failure | failure
98 subsystem | as it is | success | success
98 subsystem | cut short | ends | failure
98 subsystem | a byte more | ends | failure
98 subsystem | not UTF-8 | failure | failure
98 window-change | as it is | success | success
98 window-change | cut short | ends | failure
98 window-change | a byte more | ends | failure
98 x11-req | as it is | failure | failure
98 x11-req | cut short | ends | failure
98 x11-req | a byte more | ends | failure
99 | as it is | nothing | nothing
99 | cut short | nothing | unimplemented
99 | a byte more | nothing | nothing
99 | twice | nothing | nothing
99 | after EOF | closed | closed
99 | after CLOSE | closed | closed
99 | after both CLOSE | either | nothing
99 | for a channel that never was | nothing | nothing
100 | as it is | nothing | nothing
100 | cut short | nothing | unimplemented
100 | a byte more | nothing | nothing
100 | twice | nothing | nothing
100 | after EOF | closed | closed
100 | after CLOSE | closed | closed
100 | after both CLOSE | either | nothing
100 | for a channel that never was | nothing | nothing
"""

pytestmark = pytest.mark.usefixtures("warm")


def _table() -> dict[str, dict[str, tuple[str, str]]]:
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for line in TABLE.strip().splitlines():
        message, oddity, by_sshd, by_us = line.split(" | ")
        found.setdefault(message, {})[oddity] = (by_sshd, by_us)
    return found


@pytest.fixture(scope="module")
def sshd(fairlead: Fairlead, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place | None]:
    """A real `sshd`, or None where there is none."""
    if find_sshd() is None:
        yield None
        return
    with sshd_place(tmp_path_factory.mktemp("direct"), fairlead.key) as direct:
        yield direct


OF_OTHER_TESTS = {
    "80 no-more-sessions@openssh.com": "test_reader_goes_away.py: what it does ends the row's own sessions",
    "98 eow@openssh.com": "test_reader_goes_away.py",
    "192": "test_ping.py",
}


def test_every_handler_has_rows() -> None:
    known = _table().keys() | OF_OTHER_TESTS.keys()
    assert {str(handler) for handler in handlers()} - known == set()


@pytest.mark.parametrize("message", _table())
async def test_what_sshd_survives_we_survive(fairlead: Fairlead, sshd: Place | None, message: str) -> None:
    rows = _table()[message]
    odd = list(oddities(rows_of(_handler(message))))
    assert [oddity.name for oddity in odd] == list(rows)
    ours = await outcomes(fairlead_place(fairlead), [(oddity, rows[oddity.name][1]) for oddity in odd])
    assert ours == {name: by_us for name, (_, by_us) in rows.items()}
    if sshd is None:
        pytest.skip("optional, not found here: sshd; only what we do was tried")
    theirs = await outcomes(sshd, [(oddity, _sure(rows[oddity.name][0])) for oddity in odd])
    assert {name for name in rows if theirs[name] != ENDS and ours[name] == ENDS} == set()
    if _version().startswith(SSHD_OF_THE_TABLE):
        sure = {name: by_sshd for name, (by_sshd, _) in rows.items() if by_sshd != EITHER}
        assert {name: theirs[name] for name in sure} == sure


async def test_after_eof_twice_the_output_arrives(place: Place) -> None:
    """Go's `StdinPipe().Close()` says it once more when the program has ended."""
    async with odd_client(place) as (client, neighbour):
        channel = await client.start_next("cat; echo rest")
        await client.send([(EOF, UInt32(channel.number))] * 2)
        said = await client.hear(CHANNEL_DATA, lambda packet: packet.get_full_payload())
        assert said.endswith(b"rest\n")
        assert await client.has_closed()
        assert await client.echoes(neighbour)


@pytest.mark.parametrize("text", [b"\xff", b"no"])
async def test_a_refusal_of_a_forwarded_connection_need_not_be_utf8(place: Place, text: bytes) -> None:
    async with odd_client(place) as (client, neighbour):
        reader, writer = await asyncio.open_connection("127.0.0.1", await client.listen())
        number = await client.asked_to_open()
        await client.send([(OPEN_FAILURE, UInt32(number) + UInt32(1) + String(text) + String(""))])
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.read() == b""
        writer.close()
        assert await client.echoes(neighbour)


@pytest.mark.parametrize("number", [OPEN_CONFIRMATION, OPEN_FAILURE])
async def test_an_unreadable_answer_to_a_forwarded_connection_ends_it(
    fairlead: Fairlead, number: int
) -> None:
    """`sshd` ends the whole connection."""
    async with odd_client(fairlead_place(fairlead)) as (client, neighbour):
        reader, writer = await asyncio.open_connection("127.0.0.1", await client.listen())
        await client.send([(number, UInt32(await client.asked_to_open()))])
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.read() == b""
        writer.close()
        assert await client.echoes(neighbour)


async def test_a_forwarded_connection_with_a_maximum_packet_of_0_gets_bytes_one_by_one(
    fairlead: Fairlead,
) -> None:
    """`sshd` never sends any."""
    async with odd_client(fairlead_place(fairlead)) as (client, neighbour):
        _, writer = await asyncio.open_connection("127.0.0.1", await client.listen())
        number = await client.asked_to_open()
        await client.send([(OPEN_CONFIRMATION, UInt32(number) + UInt32(8) + UInt32(65_536) + UInt32(0))])
        writer.write(b"abc")
        heard = [await client.hear(CHANNEL_DATA, lambda packet: packet.get_string()) for _ in range(3)]
        assert heard == [b"a", b"b", b"c"]
        writer.close()
        assert await client.echoes(neighbour)


async def test_a_hundred_violations_are_one_log_line(fairlead: Fairlead) -> None:
    before = _lines(fairlead)
    async with odd_client(fairlead_place(fairlead)) as (client, neighbour):
        await client.send([(SERVICE_REQUEST, b"")] * 100)
        assert await client.echoes(neighbour)
        assert _lines(fairlead) - before == 1


def _lines(fairlead: Fairlead) -> int:
    return fairlead.log.count("client broke the protocol")


def _handler(message: str) -> Handler:
    number, _, name = message.partition(" ")
    return Handler(int(number), name)


def _sure(by_sshd: str) -> str:
    return "nothing" if by_sshd == EITHER else by_sshd


def _version() -> str:
    return subprocess.run(["ssh", "-V"], capture_output=True, text=True).stderr
