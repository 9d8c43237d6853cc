"""Limits per rule: told before they strike, on the terminal or on stderr, and why in the end."""

import json
import subprocess
from typing import Any

import pytest

from tests.wire.conftest import MakeFairlead
from tests.wire.harness import Fairlead
from tests.wire.terminal import Terminal

KEEPALIVE = ("-o", "ServerAliveInterval=1", "-o", "LogLevel=INFO")


def limited(make_fairlead: MakeFairlead, **rule: Any) -> Fairlead:
    """A proxy with one rule for alice, whose workspace runs."""
    rules = json.dumps([{"users": ["nobody"], "max_length_s": 1}, {"users": ["al*"], **rule}])
    server = make_fairlead(
        {
            "FAIRLEAD_SESSIONS__LIMITS": rules,
            "FAIRLEAD_SESSIONS__WRITE_SOON_S": "0.05",
            "FAIRLEAD_CONNECTION__KEEPALIVE_INTERVAL_S": "1",
        }
    )
    assert server.ssh("true").returncode == 0
    return server


def last(server: Fairlead) -> dict[str, Any]:
    """Stop the proxy and give what is on record of the session that came last."""
    server.stop()
    rows = json.loads(server.cli("session", "list", "--all", "--json"))
    shown: dict[str, Any] = json.loads(server.cli("session", "show", rows[0]["id"], "--json"))
    return shown


def test_an_idle_command_is_warned_and_then_its_connection_ends(make_fairlead: MakeFairlead) -> None:
    server = limited(make_fairlead, idle_s=4, warn_s=2)
    done = server.ssh("echo out; sleep 60", *KEEPALIVE)
    assert done.returncode == 255
    assert done.stdout == b"out\n"
    warning, sentence = done.stderr.decode().splitlines()[:2]
    assert warning.startswith("fairlead: idle: this ends in ")
    assert warning.endswith(" unless something is sent or received")
    assert "nothing was sent or received for 4 s, which is the limit" in sentence
    session = last(server)
    assert (session["end_reason"], session["end_detail"]) == ("idle", "nothing for 4 s")
    assert session["programs"][0]["end_reason"] == "idle"
    assert session["bytes_to_client"] == len(b"out\n")  # the warning is not payload


def test_who_does_something_is_not_idle(make_fairlead: MakeFairlead) -> None:
    server = limited(make_fairlead, idle_s=3, warn_s=0)
    done = server.ssh("for i in 1 2 3 4 5 6; do sleep 1; echo $i; done")
    assert (done.returncode, done.stdout.split()) == (0, b"1 2 3 4 5 6".split())


def test_an_idle_program_ends_and_its_connection_goes_on(make_fairlead: MakeFairlead) -> None:
    server = limited(make_fairlead, program_idle_s=2, warn_s=1)
    with Terminal(server.command("ssh", "-tt", "fl")) as terminal:
        terminal.ready()
        terminal.expect("idle: this ends in")
        terminal.expect("nothing was sent or received for 2 s, which is the limit")
        assert terminal.wait() == 254
    session = last(server)
    assert (session["end_reason"], session["programs"][0]["end_reason"]) == ("left", "idle")


def test_the_length_of_a_connection_whatever_happens_on_it(make_fairlead: MakeFairlead) -> None:
    server = limited(make_fairlead, max_length_s=4, warn_s=2)
    done = server.ssh("while :; do sleep 0.2; echo busy; done", *KEEPALIVE)
    assert done.returncode == 255
    words = done.stderr.decode()
    assert "this connection ends in 2 s, after 4 s, which is the limit" in words
    assert "this connection has lasted for 4 s, which is the limit" in words
    assert last(server)["end_reason"] == "length"


def test_a_file_transfer_is_told_nothing_in_its_stream(make_fairlead: MakeFairlead) -> None:
    server = limited(make_fairlead, max_length_s=4, warn_s=2)
    done = _sftp(server)
    assert done.returncode == 255
    assert done.stdout == b""
    assert b"ends in" not in done.stderr
    assert b"this connection has lasted for 4 s, which is the limit" in done.stderr


def _sftp(server: Fairlead) -> "subprocess.CompletedProcess[bytes]":
    arguments = [*server.command("ssh", *KEEPALIVE), "-s", "fl", "sftp"]
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as client:
        assert client.stdout is not None
        assert client.stderr is not None
        out, err = client.stdout.read(), client.stderr.read()
        return subprocess.CompletedProcess(arguments, client.wait(30), out, err)


@pytest.mark.parametrize("rule", [{"blueprints": ["other"]}, {"groups": ["staff"]}])
def test_a_rule_for_others_is_not_for_alice(make_fairlead: MakeFairlead, rule: dict[str, Any]) -> None:
    server = limited(make_fairlead, max_length_s=1, warn_s=0, **rule)
    assert server.ssh("sleep 3; echo done").stdout == b"done\n"
