"""An OpenID provider that others wrote (npm `oidc-provider`), as a process, and a way through its pages.

Needs node and npm, and once the npm registry; without them tests are skipped, and say so.
"""

import asyncio
import fcntl
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.browser import Browser, Page

HERE = Path(__file__).parent / "oidc_provider"
SECRET = "not-much-of-a-secret"


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


def free_issuer() -> str:
    """Give an address of this machine that nothing listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def provider_of(issuer: str, directory: Path, approval: str) -> dict[str, Any]:
    """Write the client's secret into `directory`, and give the settings of the provider at `issuer`."""
    (directory / "secret").write_text(f"{SECRET}\n")
    return {
        "kind": "oidc",
        "name": "independent",
        "issuer": issuer,
        "client_id": "fairlead",
        "client_secret_file": str(directory / "secret"),
        "approval": approval,
        "mapping": {"keys": "claims.ssh_keys"} if approval == "device" else {},
    }


@asynccontextmanager
async def running(installed: Path, issuer: str, redirect_uri: str, **environment: str) -> AsyncIterator[None]:
    """Run the provider until left; `environment` is as server.mjs says."""
    process = await asyncio.create_subprocess_exec(
        "node",
        "server.mjs",
        cwd=installed,
        env={
            "PATH": os.environ["PATH"],
            "ISSUER": issuer,
            "PORT": issuer.rpartition(":")[2],
            "REDIRECT_URI": redirect_uri,
            **environment,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            while b"listening" not in (line := await process.stdout.readline()):
                assert line, "the provider ended before it listened"
        yield
    finally:
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
