"""The first login of somebody nobody has registered: OpenSSH's own client, a real page, one connection."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.wire.browser import Shown, decide
from tests.wire.newcomer import Attempt, House, Newcomer, fingerprint, open_house
from tests.wire.peers import until
from tests.wire.terminal import Terminal

STARTED = "fairlead.user.onboarding_started"
ONBOARDED = "fairlead.user.onboarded"
SUCCEEDED = "fairlead.auth.succeeded"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """The front door as `make run` opens it, and nothing configured."""
    with open_house(tmp_path_factory.mktemp("house"), None) as opened:
        yield opened


def test_a_first_login_in_a_terminal(house: House, tmp_path: Path) -> None:
    """Code, link and QR code appear, the page approves, the shell opens with nothing typed; then silence."""
    person = Newcomer(house, "somebody", tmp_path)
    environment = {"LC_ALL": "C.UTF-8"}
    with Terminal(person.command(options=["-tt"]), columns=100, rows=60, env=environment) as terminal:
        terminal.expect(r"the user somebody is not known here yet")
        terminal.expect("[▀▄█]{10,}")
        code = terminal.expect(r"open +(http\S+)(?s:.*?)enter the code +(\S+)(?s:.*?)nothing to type")
        shown = Shown(code.group(1), code.group(2))
        assert "██" in terminal.text
        assert decide(shown).text.count("Go back to the terminal") == 1
        terminal.ready()
        assert terminal.run("echo in").strip() == "in"
        terminal.send("exit\r")
        assert terminal.wait() == 0
    key = fingerprint(person.keys[0])
    started, onboarded, succeeded = house.ears.wait("somebody", STARTED, ONBOARDED, SUCCEEDED)
    assert started["fingerprint"] == onboarded["fingerprint"] == succeeded["fingerprint"] == key
    assert onboarded["account"] == "somebody"
    assert onboarded["provider"] == "dev"
    assert succeeded["methods"] == ["publickey", "keyboard-interactive"]
    assert len({event["connection_id"] for event in (started, onboarded, succeeded)}) == 1

    again = person.silently()
    assert (again.stdout, again.stderr) == (b"in\n", b"")
    assert house.ears.wait("somebody", STARTED, ONBOARDED, SUCCEEDED, SUCCEEDED)[-1]["methods"] == [
        "publickey"
    ]


def test_without_utf_8_code_and_link_are_readable_still(house: House, tmp_path: Path) -> None:
    """OpenSSH writes the QR code as octal escapes then; what matters must be readable all the same."""
    person = Newcomer(house, "ascii", tmp_path)
    with Terminal(
        person.command("echo in", options=["-tt"]), columns=80, rows=24, env={"LC_ALL": "C"}
    ) as terminal:
        code = terminal.expect(r"open +(http\S+)(?s:.*?)enter the code +(\S+)(?s:.*?)nothing to type")
        assert code.group(2) in terminal.text
        decide(Shown(code.group(1), code.group(2)))
        terminal.expect(r"in\r\n")
        assert terminal.wait() == 0


def test_a_command_waits_for_the_approval(house: House, tmp_path: Path) -> None:
    person = Newcomer(house, "exec", tmp_path)
    with person.log_in("cat; echo in") as attempt:
        shown = attempt.shown()
        assert attempt.out == b""
        decide(shown)
        attempt.entered()
    assert person.silently().stdout == b"in\n"


def test_sftp_waits_for_the_approval(house: House, tmp_path: Path) -> None:
    person = Newcomer(house, "files", tmp_path)
    source = tmp_path / "something"
    source.write_text("kept")
    with Attempt(
        person.command(program="sftp"), data=f"put {source} copy\nget copy {tmp_path}/back\n".encode()
    ) as attempt:
        decide(attempt.shown())
        assert attempt.wait() == 0, attempt.err
    assert (tmp_path / "back").read_text() == "kept"


def test_one_approval_opens_a_shared_connection(house: House, tmp_path: Path, short_dir: Path) -> None:
    """ControlMaster: the first opens it, and the others neither wait nor ask."""
    person = Newcomer(house, "shared", tmp_path)
    control = f"ControlPath={short_dir}/c"
    with person.log_in(options=["-N", "-M", "-o", control]) as master:
        decide(master.shown())
        until((short_dir / "c").exists, "the connection is open to share")
        for _ in range(2):
            done = subprocess.run(
                [
                    "ssh",
                    "-F",
                    "none",
                    "-o",
                    control,
                    "-o",
                    "ControlMaster=no",
                    "-o",
                    "BatchMode=yes",
                    "fl",
                    "echo in",
                ],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=60,
            )
            assert done.stdout == b"in\n"
    assert [subject for subject, _ in house.ears.of("shared")].count(SUCCEEDED) == 1
