"""`env` requests are answered as `sshd` answers them: with failure for a name that is not taken."""

from collections.abc import Iterator

import pytest
from asyncssh.packet import Boolean, String, UInt32

from bench.sshd import find_sshd
from tests.wire.direct import Place, fairlead_place
from tests.wire.harness import Fairlead
from tests.wire.messages import CHANNEL_REQUEST
from tests.wire.oddities import Odd, Opened, odd_client
from tests.wire.sshd import Sshd

BLUEPRINTS = {"dev": "name: dev\naccept_env: [GIT_*]\n"}
TAKEN = (b"LANG", b"LC_ALL", b"LC_", b"GIT_AUTHOR_NAME")
NOT_TAKEN = (b"EDITOR", b"LD_PRELOAD", b"PATH", b"lang", b"", b"XLC_ALL", b"EDITOR\xff")


@pytest.fixture(scope="module", params=["fairlead", "sshd"])
def place(
    request: pytest.FixtureRequest, fairlead: Fairlead, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """A proxy, and a real `sshd` that takes the same names."""
    if request.param == "fairlead":
        yield fairlead_place(fairlead)
        return
    if find_sshd() is None:
        pytest.skip("optional, not found here: sshd")
    sshd = Sshd(tmp_path_factory.mktemp("sshd"))
    with sshd.running(["AcceptEnv LANG LC_* GIT_*"]):
        yield Place(sshd.port, sshd.login, sshd.key, is_ours=False)


def env(channel: Opened, name: bytes, value: bytes = b"x", *, answer: bool = True) -> tuple[int, bytes]:
    return CHANNEL_REQUEST, UInt32(channel.number) + String("env") + Boolean(answer) + String(name) + String(
        value
    )


async def outcome(client: Odd, channel: Opened, name: bytes) -> str:
    return await client.outcome([env(channel, name)], "success")


async def test_a_name_is_answered_with_success_if_it_is_taken(place: Place) -> None:
    async with odd_client(place) as (client, neighbour):
        channel = await client.start_next("")
        assert {name: await outcome(client, channel, name) for name in TAKEN} == dict.fromkeys(
            TAKEN, "success"
        )
        found = {name: await outcome(client, channel, name) for name in NOT_TAKEN}
        assert found == dict.fromkeys(NOT_TAKEN, "failure")
        assert await client.echoes(neighbour)


async def test_the_first_request_of_a_connection_is_answered_so_too(place: Place) -> None:
    """The names may not be known yet when it comes."""
    for _ in range(5):
        async with place.login() as connection:
            client = Odd.of(connection)
            assert isinstance(client, Odd)
            channel = await client.start_next("")
            assert await outcome(client, channel, b"EDITOR") == "failure"
            client.abort()


async def test_what_is_taken_reaches_the_program_and_nothing_else_does(place: Place) -> None:
    env = {"LC_TEST": "one", "GIT_TEST": "two", "EDITOR": "three"}
    async with place.login() as connection:
        done = await connection.run("echo [$LC_TEST] [$GIT_TEST] [$EDITOR]", env=env)
    assert done.stdout == "[one] [two] []\n"
