"""The same flows against an OpenID provider that others wrote (npm `oidc-provider`).

Needs node and npm, and once the npm registry; without them these tests are skipped, and say so.
"""

import asyncio
import fcntl
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from proxy.errors.login import ApprovalDenied, KeyNotListed
from proxy.identity.clock import REAL, Clock
from proxy.identity.frontdoor import FrontDoor
from proxy.settings.front_door import FrontDoorSettings
from tests.fakes.browser import Browser, Page
from tests.fakes.provider import Registered, new_key

HERE = Path(__file__).parent / "oidc_provider"
ALICE, MALLORY = new_key(), new_key()


@pytest.fixture(scope="session")
def installed(request: pytest.FixtureRequest) -> Path:
    """The provider with its dependencies, in the cache of pytest."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"NOT TESTED against an independent provider: there is no {program} on this machine")
    assert request.config.cache is not None
    target = request.config.cache.mkdir("oidc-provider")
    for file in ("package.json", "server.mjs"):
        shutil.copy(HERE / file, target)
    with (target / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run side by side
        if not (target / "node_modules" / "oidc-provider").is_dir():
            command = ["npm", "install", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"]
            try:
                subprocess.run(command, cwd=target, check=True, capture_output=True, timeout=90)
            except (subprocess.SubprocessError, OSError) as exc:
                shutil.rmtree(target / "node_modules", ignore_errors=True)
                pytest.skip(f"NOT TESTED against an independent provider: npm could not install it ({exc})")
    return target


@dataclass
class House:
    door: FrontDoor
    records: Registered
    issuer: str


async def _quick(seconds: float) -> None:
    await asyncio.sleep(seconds if seconds > 100 else 0.05)


@pytest.fixture(params=["device", "confirm"])
async def house(request: pytest.FixtureRequest, installed: Path, tmp_path: Path) -> AsyncIterator[House]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    issuer = f"http://127.0.0.1:{port}"
    (tmp_path / "secret").write_text("not-much-of-a-secret\n")
    provider = {
        "kind": "oidc",
        "name": "independent",
        "issuer": issuer,
        "client_id": "fairlead",
        "client_secret_file": str(tmp_path / "secret"),
        "approval": request.param,
        "mapping": {"keys": "claims.ssh_keys"} if request.param == "device" else {},
    }
    settings = FrontDoorSettings.model_validate(
        {
            "providers": [provider],
            "confirm": {"listen": "127.0.0.1:0"},
            "onboarding": {
                "linger_s": 1000,
                "rules": [{"name": "wonderland", "action": "allow", "organizations": ["wonderland"]}],
            },
        }
    )
    records = Registered()
    clock = Clock(REAL.now, _quick)
    door = await FrontDoor.open(settings.in_effect(embedded=False), records, clock=clock)
    redirect_uri = door._confirm.redirect_uri if door._confirm is not None else "http://127.0.0.1:9/callback"
    environment = {
        "PATH": os.environ["PATH"],
        "ISSUER": issuer,
        "PORT": str(port),
        "REDIRECT_URI": redirect_uri,
        "SSH_KEY": str(ALICE),
    }
    process = await asyncio.create_subprocess_exec(
        "node",
        "server.mjs",
        cwd=installed,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            while b"listening" not in (line := await process.stdout.readline()):
                assert line, "the provider ended before it listened"
        yield House(door, records, issuer)
    finally:
        await door.close()
        process.kill()
        await process.wait()
        process._transport.close()  # type: ignore[attr-defined]


async def through_the_provider(browser: Browser, url: str, login: str, *, abort: bool = False) -> Page:
    """Click through whatever forms the provider shows, as `login`, until there is none of its own."""
    page = await browser.get(url)
    for _ in range(8):
        if not page.forms or "csrf" in page.forms[0].fields:
            return page
        fields = {"login": login, "password": "any"} if "login" in page.forms[0].fields else {}
        if abort and page.forms[0].fields.pop("confirm", ""):
            return await browser.submit(page, "", abort="yes")
        page = await browser.submit(page, "", **fields)
    raise AssertionError(f"forms without end; the last said: {page.text[:200]}")


@pytest.mark.parametrize("house", ["device"], indirect=True)
async def test_device_flow(house: House) -> None:
    pending = await house.door.onboarding.begin("192.0.2.1", "alice", ALICE.blob)
    waiting = asyncio.ensure_future(pending.outcome())
    async with Browser() as browser:
        await through_the_provider(browser, pending.shown.verification_uri_complete, "alice")
    approved = await waiting
    assert (approved.profile.subject, approved.profile.name) == ("alice", "alice")
    assert approved.profile.email == "alice@wonder.example"
    assert house.records.calls == [("alice", "alice", ALICE.fingerprint, "independent")]


@pytest.mark.parametrize("house", ["device"], indirect=True)
async def test_device_flow_for_a_strangers_key(house: House) -> None:
    pending = await house.door.onboarding.begin("192.0.2.66", "alice", MALLORY.blob)
    waiting = asyncio.ensure_future(pending.outcome())
    async with Browser() as browser:
        await through_the_provider(browser, pending.shown.verification_uri_complete, "alice")
    with pytest.raises(KeyNotListed):
        await waiting
    assert house.records.calls == []


@pytest.mark.parametrize("house", ["device"], indirect=True)
async def test_device_flow_denied(house: House) -> None:
    pending = await house.door.onboarding.begin("192.0.2.1", "alice", ALICE.blob)
    waiting = asyncio.ensure_future(pending.outcome())
    async with Browser() as browser:
        await through_the_provider(browser, pending.shown.verification_uri_complete, "alice", abort=True)
    with pytest.raises(ApprovalDenied):
        await waiting


@pytest.mark.parametrize("house", ["confirm"], indirect=True)
async def test_code_pkce_and_the_confirm_page(house: House) -> None:
    pending = await house.door.onboarding.begin("192.0.2.1", "alice", ALICE.blob)
    waiting = asyncio.ensure_future(pending.outcome())
    async with Browser() as browser:
        page = await through_the_provider(browser, pending.shown.verification_uri, "alice")
        assert ALICE.fingerprint in page.text
        assert pending.shown.user_code in page.text
        await browser.submit(page, "confirm")
    approved = await waiting
    assert approved.profile.confirmed == {ALICE.fingerprint}
    assert house.records.calls == [("alice", "alice", ALICE.fingerprint, "independent")]
