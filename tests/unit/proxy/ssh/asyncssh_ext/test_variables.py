"""Which `env` requests wait, for what, and how they are judged."""

import asyncio

import pytest
from asyncssh.packet import Boolean, SSHPacket, String

from proxy.ssh.asyncssh_ext.variables import AcceptedNames, wants_answer


async def test_who_asks_early_waits_until_the_names_are_known() -> None:
    names = AcceptedNames(60)
    waiting = asyncio.create_task(names.known())
    await asyncio.sleep(0)
    assert not names.is_settled
    assert not waiting.done()
    names.settle(["LC_*"])
    await waiting
    assert (names.take("LC_ALL"), names.take("EDITOR")) == (True, False)


async def test_nobody_waits_for_ever_and_nobody_waits_again() -> None:
    names = AcceptedNames(0.01)
    await names.known()
    assert names.is_settled
    assert names.take("EDITOR"), "the workspace decides"


def test_names_that_cannot_be_known_are_taken() -> None:
    names = AcceptedNames(1)
    names.settle(None)
    assert names.is_settled
    assert names.take("EDITOR")


@pytest.mark.parametrize(
    ("request_", "wants"),
    [
        (String("env") + Boolean(True) + String("A") + String("b"), True),
        (String("env") + Boolean(False) + String("A") + String("b"), False),
        (String("environ") + Boolean(True), False),
        (String("env"), False),
        (b"", False),
    ],
)
def test_only_an_env_request_that_wants_an_answer_waits(request_: bytes, wants: bool) -> None:
    packet = SSHPacket(request_)
    assert wants_answer(packet) is wants
    assert packet.get_remaining_payload() == request_
