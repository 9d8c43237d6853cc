"""The lobby: `alice+lobby` is a place of commands and no workspace; `ssh alice+lobby@host COMMAND`.

Words are split as a POSIX shell does. Answers have the sentences, shapes and exit statuses of the `fairlead`
command: 0, 1 for a failure, 2 for a command that is none. Other rooms register commands of their own.
"""

import argparse
import shlex
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

import structlog

from proxy.errors import FairleadError
from proxy.errors.programs import Refused
from proxy.model import Exec, Principal, Shell, Subsystem, Visit
from proxy.printable import printable, printable_json
from proxy.userstring import LOBBY, Form

_log = structlog.get_logger("lobby")

_FAILURE, _USAGE = 1, 2
_JSON = "--json"


@dataclass(frozen=True, slots=True)
class Link:
    """A link that signs a browser in once."""

    url: str
    code: str
    """Shown by the page as well, to be compared."""
    life_s: int


@dataclass(frozen=True, slots=True)
class Said:
    """The answer of a command of the lobby."""

    out: str = ""
    err: str = ""
    status: int = 0


def is_lobby(visit: Visit) -> bool:
    """Tell whether a user string means the lobby."""
    value = visit.address
    return value.form is Form.EXPLICIT and value.blueprint == LOBBY


MakeLink = Callable[[Principal], Awaitable[Link]]


class Answer(NamedTuple):
    """The answer of a command that succeeded."""

    document: Mapping[str, object]
    """Printed for `--json`."""
    text: str
    """Printed otherwise; lines end with a line feed."""


class UsageError(Exception):
    """Words that a command does not take; the text is a sentence that names them. Exit status 2."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command of the lobby."""

    name: str
    help: str
    """One sentence for the list of commands."""
    run: Callable[[Visit, Sequence[str]], Awaitable[Answer]]
    """Gets the words behind the name, without `--json`. Raises: UsageError; FairleadError for exit status 1,
    with its `user_message`."""
    usage: str = ""
    """The words that may follow the name, as a synopsis; empty: none."""


class Words(argparse.ArgumentParser):
    """A parser of a command's words that raises UsageError, and prints and exits nothing itself."""

    def __init__(self, name: str) -> None:
        super().__init__(prog=name, add_help=False, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """See ArgumentParser. Raises: UsageError."""
        raise UsageError(f"{self.prog}: {message}")


class Lobby:
    """One per process; `make_link` is None where there is no web half that browsers can sign in to."""

    def __init__(self, make_link: MakeLink | None = None) -> None:
        self._make_link = make_link
        self._commands: dict[str, Command] = {}
        self.register(
            Command("help", "List these commands.", self._help, "[COMMAND]"),
            Command("whoami", "Say who you are here, and by which key.", self._whoami),
            Command("web", "Print a link that signs a browser in as you, once, within a minute.", self._web),
        )

    def register(self, *commands: Command) -> None:
        """Answer further commands from now on. Raises: ValueError for a name that is taken."""
        for command in commands:
            if command.name in self._commands:
                raise ValueError(f"the lobby has a command {command.name} already")
            self._commands[command.name] = command

    def serve_web(self, make_link: MakeLink) -> None:
        """Have `web` print links from now on."""
        self._make_link = make_link

    async def run(self, visit: Visit, kind: Shell | Exec | Subsystem) -> Said:
        """Carry out one command line; a shell prints the help. Raises: Refused for a subsystem."""
        if isinstance(kind, Subsystem):
            raise Refused(f"the lobby is no workspace: it has no subsystem {kind.name}")
        command = kind.command if isinstance(kind, Exec) else ""
        try:
            words = shlex.split(command)
        except ValueError as exc:
            return Said(err=f"fairlead: the command cannot be read: {str(exc).lower()}\n", status=_USAGE)
        as_json = _JSON in words
        rest = [word for word in words if word != _JSON]
        name = rest[0] if rest else "help"
        if problem := self._problem(name, rest):
            return Said(err=f"fairlead: {problem}; see `help`\n", status=_USAGE)
        try:
            answer = await self._commands[name].run(visit, rest[1:])
        except UsageError as exc:
            return Said(err=f"fairlead: {printable(str(exc))}; see `help {name}`\n", status=_USAGE)
        except FairleadError as exc:
            _log.info("lobby command failed", command=name, code=exc.code, reason=str(exc))
            return Said(err=f"fairlead: {exc.user_message}\n", status=_FAILURE)
        return Said(printable_json(answer.document, 2) + "\n" if as_json else printable(answer.text, "\n"))

    def _problem(self, name: str, rest: Sequence[str]) -> str:
        """Return the fault of a command line; empty for none."""
        if name not in self._commands:
            return f"there is no command {name[:40]!r} in the lobby"
        takes_none = not self._commands[name].usage
        return f"{name} takes no arguments but {_JSON}" if takes_none and len(rest) > 1 else ""

    async def _help(self, visit: Visit, words: Sequence[str]) -> Answer:
        if len(words) > 1:
            raise UsageError(f"help: unexpected {words[1][:40]!r}")
        if words:
            return self._help_on(visit, words[0])
        texts = {command.name: command.help for command in self._commands.values()}
        width = max(map(len, texts))
        lines = [f"  {name:{width}}  {text}" for name, text in texts.items()]
        place = f"{visit.actor.name}+{LOBBY}"
        head = f"Commands of the lobby: ssh {place}@HOST COMMAND [{_JSON}]"
        return Answer({"commands": texts}, "\n".join([head, "", *lines, ""]))

    def _help_on(self, visit: Visit, name: str) -> Answer:
        """Return the synopsis of one command. Raises: UsageError."""
        command = self._commands.get(name)
        if command is None:
            raise UsageError(f"there is no command {name[:40]!r} in the lobby")
        words = " ".join(part for part in (name, command.usage, f"[{_JSON}]") if part)
        document = {"command": name, "help": command.help, "usage": command.usage}
        return Answer(document, f"ssh {visit.actor.name}+{LOBBY}@HOST {words}\n\n  {command.help}\n")

    async def _whoami(self, visit: Visit, _: Sequence[str]) -> Answer:
        principal = visit.principal
        facts: dict[str, object] = {
            "user": visit.actor.name,
            "full_name": visit.actor.full_name,
            "groups": list(visit.actor.groups),
            "fingerprint": principal.fingerprint,
            "certificate": principal.certificate,
            "client_address": principal.client.host,
        }
        shown = {
            name: ", ".join(value) if isinstance(value, list) else str(value) for name, value in facts.items()
        }
        width = max(map(len, shown))
        lines = [f"{name.replace('_', ' '):{width}}  {value}" for name, value in shown.items() if value]
        return Answer(facts, "\n".join([*lines, ""]))

    async def _web(self, visit: Visit, _: Sequence[str]) -> Answer:
        if self._make_link is None:
            raise Refused("browsers cannot sign in here: the web half is not served")
        link = await self._make_link(visit.principal)
        text = (
            f"Open this link within {link.life_s} s. It signs one browser in as {visit.actor.name}, once:\n\n"
            f"  {link.url}\n\nThe page has to show this code: {link.code}\n"
        )
        return Answer({"url": link.url, "code": link.code, "expires_in_s": link.life_s}, text)
