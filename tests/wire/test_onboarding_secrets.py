"""Everything that a full run wrote is searched for what nobody may see: tokens, codes, private keys."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.fakes.browser import Browser
from tests.wire.browser import Shown, decide, in_a_loop
from tests.wire.forge import CLIENT_SECRET, SECRETS, open_forge
from tests.wire.newcomer import WIDE_OPEN, Attempt, House, Newcomer, make_key, open_house

_LONG = re.compile(rb"(?<!SHA256:)(?<![A-Za-z0-9+/=_-])[A-Za-z0-9_-]{40,}(?![A-Za-z0-9+/=_-])")
_KEPT = {"host_keys"}
"""Where private keys belong."""


@contextmanager
def opened(directory: Path, provider: dict[str, Any], **onboarding: Any) -> Iterator[House]:
    limits = {**WIDE_OPEN, "otherwise": "allow", **onboarding}
    settings = {"providers": [provider], "onboarding": limits, "confirm": {"listen": "127.0.0.1:0"}}
    with open_house(directory, settings) as house:
        yield house


def everything(directory: Path, house: House, said: str = "") -> bytes:
    """Join logs, database, JetStream's store, what shelld wrote, events, and what a person read."""
    files = [
        path
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not _KEPT & set(path.relative_to(directory).parts)
    ]
    names = {path.name for path in files}
    assert {"proxy.log", "nats.log", "fairlead.db"} <= names, names
    assert any(name.endswith(".log") and "shelld" in name for name in names), names
    return b"\n".join([*(path.read_bytes() for path in files), house.ears.raw, said.encode()])


def without_code(attempt: Attempt, shown: Shown) -> str:
    """Give what a person read, but for what was meant to be read."""
    said = attempt.err
    assert shown.code in said
    return said.replace(shown.url, "").replace(shown.code, "")


def private_lines(*keys: Path) -> list[str]:
    return [line for key in keys for line in key.read_text().splitlines() if "PRIVATE KEY" not in line]


def assert_absent(haystack: bytes, secrets: list[str]) -> None:
    assert b'"event": "onboarding begun"' in haystack
    assert b"fairlead.user.onboarded" in haystack
    for secret in secrets:
        assert len(secret) >= 4
        # Four letters occur by chance in what is base64 or binary, but hardly as a word.
        word = rb"(?<![A-Za-z0-9+/])" + re.escape(secret.encode()) + rb"(?![A-Za-z0-9+/=])"
        found = re.search(word, haystack)
        assert not found, haystack[max(found.start() - 200, 0) : found.end() + 200]


def test_a_provider_whose_every_secret_is_known(tmp_path: Path) -> None:
    """Let in, refused for the key, given up upon: nothing of it is written down anywhere."""
    (tmp_path / "secret").write_text(CLIENT_SECRET)
    alice, other = make_key(tmp_path / "listed"), make_key(tmp_path / "other")
    house_dir = tmp_path / "house"
    with open_forge([alice]) as forge:
        provider = {**forge.provider, "client_secret_file": str(tmp_path / "secret")}
        with opened(house_dir, provider) as house:
            said, codes = "", []
            forge.approve()
            for key, way in ((other, Attempt.refused), (alice, Attempt.entered)):
                with Newcomer(house, "alice", tmp_path, [key]).log_in() as attempt:
                    codes.append(shown := attempt.shown())
                    way(attempt)
                    said += without_code(attempt, shown)
            forge.die()
            with Newcomer(house, "bob", tmp_path, [other]).log_in() as attempt:
                said += attempt.refused()
        written = everything(house_dir, house, said)
    assert forge.server.asked[-1][2]["client_secret"] == CLIENT_SECRET  # it was used, and in every request
    assert_absent(written, [*SECRETS, *(shown.code for shown in codes), *private_lines(alice, other)])


@pytest.mark.parametrize("approval", [pytest.param("device", marks=pytest.mark.slow), "confirm"])
def test_the_development_provider(approval: str, tmp_path: Path) -> None:
    """Its secrets are random: nothing of their shape may be there, nor what a browser carried."""
    house_dir = tmp_path / "h"
    with opened(house_dir, {"kind": "dev", "approval": approval}) as house:
        person = Newcomer(house, "p", tmp_path)
        with person.log_in() as attempt:
            shown = attempt.shown()
            carried = confirm(shown, person.name) if approval == "confirm" else []
            if approval == "device":
                decide(shown)
            attempt.entered()
            said = without_code(attempt, shown)
        assert person.silently().stdout == b"in\n"
    written = everything(house_dir, house, said)
    secrets = [shown.code, *carried, *private_lines(*person.keys)]
    if approval == "confirm":
        secrets.append(shown.url.rsplit("/", 1)[1])
    assert_absent(written, secrets)
    logged = b"\n".join([(house_dir / "fairlead" / "proxy.log").read_bytes(), house.ears.raw])
    assert _LONG.findall(logged) == []  # fingerprints apart


def confirm(shown: Shown, account: str) -> list[str]:
    """Sign in and confirm; gives every code, state and cookie on the way."""

    async def visit() -> list[str]:
        async with Browser() as browser:
            page = await browser.get(shown.url)
            page = await browser.submit(page, "approve", account=account)
            assert shown.code in page.text
            assert (await browser.submit(page, "confirm")).status == 200
            queries = [parse_qs(urlsplit(url).query) for url in browser.visited]
            names = ("code", "state", "nonce", "code_challenge", "view")
            found = [value for query in queries for name in names for value in query.get(name, [])]
            return found + list(browser.cookies.values())

    carried = in_a_loop(visit())
    assert len(set(carried)) >= 5
    return carried
