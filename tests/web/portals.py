"""A Fairlead whose portal is tried: an operator, users, recordings, and one key that signs all of them in."""

import asyncio
import itertools
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fakes.remote import DEADLINE_S, Person
from tests.web.logins import Place, place

OPERATOR = "olga"
AUDITOR = "vera"


class House:
    """The running Fairlead."""

    def __init__(self, here: Place) -> None:
        self.here = here
        self._numbers = itertools.count(1)

    @property
    def login(self) -> str:
        return self.here.login

    def add_user(self, name: str = "") -> str:
        """Add a user with the key of all; gives the name."""
        name = name or f"user{next(self._numbers)}"
        self.here.fairlead.cli("user", "add", name, "--key", f"{self.here.fairlead.key}.pub")
        return name

    def run(self, user: str, command: str = "true") -> bytes:
        """Run a command in the workspace of a user, which starts it."""
        done = self.here.fairlead.ssh(command, "-l", f"{user}+dev", timeout_s=DEADLINE_S * 2)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def connected(self, user: str) -> Iterator["subprocess.Popen[bytes]"]:
        """Hold an SSH session of a user, whose program runs until it is ended."""
        command = [
            *self.here.fairlead.command("ssh", "-l", f"{user}+dev"),
            "fl",
            "echo ready; exec sleep 600",
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            try:
                yield process
            finally:
                process.kill()


@contextmanager
def house(directory: Path, module: str = "proxy", **env: str) -> Iterator[House]:
    """Start a Fairlead with a portal; end it."""
    settings = {
        "FAIRLEAD_WEB__OPERATORS": f'{{"users": ["{OPERATOR}"]}}',
        "FAIRLEAD_WEB__PORTAL__LOOK_S": "0.3",
        "FAIRLEAD_WEB__SESSION__ATTEMPTS_PER_MINUTE": "100000",
        "FAIRLEAD_RECORDING__VIEWERS": f'{{"users": ["{AUDITOR}"]}}',
        "FAIRLEAD_RECORDING__OWNER_MAY_VIEW": "true",
        "FAIRLEAD_RECORDING__RULES": '[{"users": ["*"], "record": ["exec", "shell"]}]',
        **env,
    }
    with place(directory, module, program="", **settings) as here:
        found = House(here)
        for name in (OPERATOR, AUDITOR):
            found.add_user(name)
        yield found


async def sign_in(here: House, person: Person, user: str) -> None:
    """Sign a browser in by the SSH key."""
    link = await asyncio.to_thread(here.here.link, user)
    assert link["code"] in await person.open(link["url"])
    assert f"You are {user}" in " ".join((await person.press("sign-in")).split())
