"""Further users of a running Fairlead, each with an SSH key of their own, and what they share."""

import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.browser import Browser, Page
from tests.web.logins import ACCEPT, DEADLINE_S, Place
from tests.wire.harness import Fairlead


@dataclass(frozen=True)
class Guest:
    """A user with a key."""

    fairlead: Fairlead
    name: str
    key: Path

    @classmethod
    def added(cls, fairlead: Fairlead, name: str) -> "Guest":
        """Add the user as an operator does."""
        key = fairlead.directory / f"key-{name}"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        fairlead.cli("user", "add", name, "--key", f"{key}.pub")
        return cls(fairlead, name, key)

    def options(self, fairlead: Fairlead | None = None) -> list[str]:
        """Return the options of ssh by which this user comes, with no key of another user."""
        at = fairlead or self.fairlead
        own = {
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "BatchMode": "yes",
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": f"{at.directory}/known_hosts_{self.name}",
            "LogLevel": "ERROR",
        }
        pairs = [word for name, value in own.items() for word in ("-o", f"{name}={value}")]
        return ["-F", "none", "-p", str(at.port), "-i", str(self.key), *pairs]

    def ssh(
        self, login: str, command: str, *options: str, data: bytes = b""
    ) -> "subprocess.CompletedProcess[bytes]":
        """Run a command as the user string `login`."""
        words = ["ssh", *self.options(), *options, "-l", login, "127.0.0.1", command]
        return subprocess.run(words, input=data, capture_output=True, timeout=DEADLINE_S)

    def lobby(self, command: str) -> tuple[int, str, str]:
        """Run a command of the lobby; return exit status, output and error output."""
        done = self.ssh(f"{self.name}+lobby", command)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    @asynccontextmanager
    async def browser(self) -> AsyncIterator[Browser]:
        """Hold a browser that is signed in as this user."""
        status, out, err = self.lobby("web --json")
        assert status == 0, err
        url = next(word for word in out.replace('"', " ").split() if word.startswith("http"))
        async with Browser(**ACCEPT) as browser:
            await browser.submit(await browser.get(url), "sign-in")
            yield browser


def owner(here: Place) -> Guest:
    """Return alice, whom the harness added, as a user who comes with her own key."""
    return Guest(here.fairlead, "alice", here.fairlead.key)


async def enter(browser: Browser, url: str) -> Page:
    """Open an app of another user for the first time, past the page that names the owner."""
    asked = await browser.get(url)
    assert asked.text.startswith("This page is "), (asked.status, asked.text)
    return await browser.submit(asked, "open")
