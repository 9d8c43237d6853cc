"""First logins against an OAuth server that others wrote (npm `oidc-provider`), by OpenSSH and a browser.

Needs node and npm, and once the npm registry; without them these tests are skipped, and say so.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.contract.independent import installed, through_the_provider
from tests.fakes.browser import Browser, Page
from tests.wire.browser import Shown, in_a_loop
from tests.wire.harness import free_port
from tests.wire.newcomer import WIDE_OPEN, House, Newcomer, fingerprint, make_key, open_house, public_line
from tests.wire.peers import connect

__all__ = ["installed"]

FAILED = "fairlead.auth.failed"
SUCCEEDED = "fairlead.auth.succeeded"
STARTED = "fairlead.user.onboarding_started"
ONBOARDED = "fairlead.user.onboarded"
REFUSED = "fairlead.user.onboarding_refused"
RULES = [{"name": "wonderland", "action": "allow", "organizations": ["wonderland"]}]


@contextmanager
def in_front_of(program: Path, directory: Path, key: Path, **settings: Any) -> Iterator[House]:
    """Start the provider, whose accounts list `key`, and a proxy that knows it."""
    port, confirm_port = free_port(), free_port()
    issuer = f"http://127.0.0.1:{port}"
    (directory / "secret").write_text("not-much-of-a-secret\n")
    environment = {
        "PATH": os.environ["PATH"],
        "ISSUER": issuer,
        "PORT": str(port),
        "REDIRECT_URI": f"http://login.localhost:{confirm_port}/callback",
        "SSH_KEY": public_line(key),
    }
    provider = {
        "kind": "oidc",
        "name": "independent",
        "issuer": issuer,
        "client_id": "fairlead",
        "client_secret_file": str(directory / "secret"),
        **settings,
    }
    front_door = {
        "providers": [provider],
        "confirm": {"listen": f"127.0.0.1:{confirm_port}"},
        "onboarding": {**WIDE_OPEN, "rules": RULES},
    }
    with (directory / "provider.log").open("wb") as log:
        process = subprocess.Popen(
            ["node", "server.mjs"], cwd=program, env=environment, stdout=log, stderr=log
        )
    try:
        connect(port).close()
        with open_house(directory / "house", front_door) as house:
            yield house
    finally:
        process.kill()
        process.wait()


def visit(shown: Shown, account: str, decision: str = "", *, abort: bool = False) -> Page:
    """Open what was shown, sign in as an account, and press the last page's button if it is ours."""

    async def work() -> Page:
        async with Browser() as browser:
            page = await through_the_provider(browser, shown.link, account, abort=abort)
            if decision:
                assert shown.code in page.text
                page = await browser.submit(page, decision)
            return page

    return in_a_loop(work())


def test_the_device_flow(installed: Path, tmp_path: Path) -> None:
    """Approval by code; the keys of a claim decide."""
    listed = make_key(tmp_path / "listed")
    device = {"approval": "device", "mapping": {"keys": "claims.ssh_keys"}}
    with in_front_of(installed, tmp_path, listed, **device) as house:
        person = Newcomer(house, "alice", tmp_path, [listed])
        with person.log_in() as attempt:
            visit(attempt.shown(), "alice")
            attempt.entered()
        onboarded, _ = house.ears.wait("alice", STARTED, ONBOARDED, SUCCEEDED)[1:]
        assert (onboarded["provider"], onboarded["account"]) == ("independent", "alice")
        assert person.silently().stdout == b"in\n"

        stranger = Newcomer(house, "bob", tmp_path)
        with stranger.log_in() as attempt:
            visit(attempt.shown(), "bob")
            assert "is not among the keys of that independent account" in attempt.refused()
        refused = house.ears.wait("bob", STARTED, REFUSED, FAILED)[1]
        assert refused["reasons"] == ["onboarding.key_not_listed"]

        with Newcomer(house, "carol", tmp_path, [listed]).log_in() as attempt:
            visit(attempt.shown(), "carol", abort=True)
            assert "the request was denied at independent" in attempt.refused()
        assert house.ears.wait("carol", STARTED, REFUSED, FAILED)[2]["reasons"] == ["onboarding.denied"]


def test_code_and_pkce_with_the_confirm_page(installed: Path, tmp_path: Path) -> None:
    """Approval on our own page, which shows this very key, address and name."""
    with in_front_of(installed, tmp_path, make_key(tmp_path / "unused"), approval="confirm") as house:
        person = Newcomer(house, "alice", tmp_path)
        with person.log_in() as attempt:
            shown = attempt.shown()
            assert "compare the code" in attempt.err
            page = visit(shown, "alice")
            assert fingerprint(person.keys[0]) in page.text
            assert "127.0.0.1" in page.text
            assert "Confirmed" in visit(shown, "alice", "confirm").text
            attempt.entered()
        house.ears.wait("alice", STARTED, ONBOARDED, SUCCEEDED)
        assert person.silently().stdout == b"in\n"

        with Newcomer(house, "victim", tmp_path).log_in() as attempt:
            page = visit(attempt.shown(), "mallory")
            assert "That is not you" in page.text
            visit(attempt.shown(), "mallory", "deny")
            assert "the request was denied in the browser" in attempt.refused()
        assert house.ears.wait("victim", STARTED, REFUSED, FAILED)[2]["reasons"] == ["onboarding.denied"]
