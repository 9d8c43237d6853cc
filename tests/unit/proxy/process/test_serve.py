"""One process of real parts: every part is opened, adds its values, and is closed again."""

import asyncio
import re
import socket
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy.errors import SettingsError
from proxy.process.serve import assembled
from proxy.settings import load

VALUES = {
    "fairlead_bans",
    "fairlead_build_info",
    "fairlead_checks_failed",
    "fairlead_connections",
    "fairlead_connections_refused",
    "fairlead_connections_unauthenticated",
    "fairlead_directory_in_doubt",
    "fairlead_events",
    "fairlead_links",
    "fairlead_onboardings_pending",
    "fairlead_session_records",
    "fairlead_sessions",
    "fairlead_uptime_seconds",
    "fairlead_web_app_connections",
    "fairlead_web_app_connections_idle",
    "fairlead_web_connections",
    "fairlead_web_upgraded",
}
"""All that is read at a scrape; dashboards hold these names."""


@pytest.fixture
def values(tmp_path: Path) -> dict[str, Any]:
    """Settings of a process that takes any free port."""
    return {
        "home": tmp_path,
        "listen": "127.0.0.1:0",
        "front_door": {"confirm": {"listen": "127.0.0.1:0"}},
        "web": {"listen": "127.0.0.1:0"},
    }


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def others() -> set[str]:
    return {task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()}


async def test_a_process_accepts_connections_and_leaves_nothing_behind(values: dict[str, Any]) -> None:
    async with assembled(load({}, overrides=values)) as process:
        address = process.ssh.address
        reader, writer = await asyncio.open_connection(*address)
        assert (await reader.readline()).startswith(b"SSH-2.0-")
        assert process.web is not None
        assert process.web.login_url.startswith("http://login.localhost")
        assert others()
    assert await reader.read() is not None
    writer.close()
    assert not others()
    with pytest.raises(OSError, match="Connect call failed"):
        await asyncio.open_connection(*address)


async def test_every_part_adds_its_values_to_the_health_page(values: dict[str, Any]) -> None:
    page = f"127.0.0.1:{free_port()}"
    settings = load({}, overrides={**values, "health": {"listen": page}})
    async with (
        assembled(settings),
        aiohttp.ClientSession() as client,
        client.get(f"http://{page}/metrics") as answer,
    ):
        text = await answer.text()
    shown = set(re.findall(r"^# TYPE (fairlead_\w+?)(?:_total)? (?:gauge|counter)$", text, re.MULTILINE))
    assert shown >= VALUES


@pytest.mark.parametrize("taken", ["listen", "health", "web"])
async def test_a_process_that_cannot_start_closes_what_it_opened(values: dict[str, Any], taken: str) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        address = f"127.0.0.1:{one.getsockname()[1]}"
        values[taken] = address if taken == "listen" else {"listen": address}
        with pytest.raises(SettingsError, match=f"cannot listen on {address}"):
            async with assembled(load({}, overrides=values)):
                pytest.fail("it started")
    assert not others()
