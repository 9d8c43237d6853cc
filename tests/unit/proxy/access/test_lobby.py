"""Commands that other rooms register with the lobby: their words, answers and exit statuses."""

import json
from collections.abc import Sequence

import pytest

from proxy.access.lobby import Answer, Command, Lobby, Words
from proxy.errors.programs import Refused
from proxy.model import Exec, Visit
from tests.fakes.visits import visit_of


async def _greet(visit: Visit, words: Sequence[str]) -> Answer:
    parser = Words("greet")
    parser.add_argument("who")
    parser.add_argument("--loud", action="store_true")
    given = parser.parse_args(words)
    if given.who == "mallory":
        raise Refused("mallory is not greeted")
    text = f"{visit.actor.name} greets {given.who}{'!' if given.loud else '.'}"
    return Answer({"greeted": given.who}, f"{text}\n")


GREET = Command("greet", "Greet a user.", _greet, "WHO [--loud]")


async def said(command: str) -> tuple[int, str, str]:
    lobby = Lobby()
    lobby.register(GREET)
    one = await lobby.run(visit_of("alice+lobby"), Exec(command))
    return one.status, one.out, one.err


async def test_a_registered_command_gets_its_words_as_a_shell_splits_them() -> None:
    assert await said("greet 'bob b'") == (0, "alice greets bob b.\n", "")
    assert await said("greet --loud bob") == (0, "alice greets bob!\n", "")


async def test_json_may_stand_anywhere_and_never_reaches_the_command() -> None:
    for command in ("--json greet bob", "greet --json bob", "greet bob --json"):
        status, out, _ = await said(command)
        assert (status, json.loads(out)) == (0, {"greeted": "bob"})


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("greet", "greet: the following arguments are required: who"),
        ("greet bob carol", "greet: unrecognized arguments: carol"),
        ("greet bob --lou", "greet: unrecognized arguments: --lou"),
        ("greet bob --help", "greet: unrecognized arguments: --help"),
        ("greet bob '\x1b[2J'", "greet: unrecognized arguments: \\x1b[2J"),
        ("help nothing", "there is no command 'nothing' in the lobby"),
        ("help greet greet", "help: unexpected 'greet'"),
    ],
)
async def test_words_that_a_command_does_not_take_are_named_with_exit_status_2(
    command: str, sentence: str
) -> None:
    status, out, err = await said(command)
    assert (status, out) == (2, "")
    assert err == f"fairlead: {sentence}; see `help {command.split()[0]}`\n"


async def test_a_failure_of_a_registered_command_has_exit_status_1_and_its_sentence() -> None:
    assert await said("greet mallory") == (1, "", "fairlead: mallory is not greeted\n")


async def test_help_lists_registered_commands_and_prints_the_synopsis_of_one() -> None:
    assert "greet   Greet a user." in (await said("help"))[1]
    text = (await said("help greet"))[1]
    assert text == "ssh alice+lobby@HOST greet WHO [--loud] [--json]\n\n  Greet a user.\n"


def test_a_name_is_taken_once() -> None:
    lobby = Lobby()
    lobby.register(GREET)
    with pytest.raises(ValueError, match="the lobby has a command greet already"):
        lobby.register(GREET)
