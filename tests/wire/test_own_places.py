"""Forwards of the local backend do not lead to what is the proxy's own, by any of its names."""

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import asyncssh
import pytest

from proxy.workspaces.local.state import State
from tests.wire.clients import asyncssh_login
from tests.wire.harness import Fairlead, free_port
from tests.wire.peers import Peer, echo

NAMES = [
    "127.0.0.1",
    "localhost",
    "0.0.0.0",
    "127.1",
    "2130706433",
    "0x7f000001",
    "127.9.9.9",
    "::ffff:127.0.0.1",
    "::ffff:0.0.0.0",
    "::1",
    "::",
]


@dataclass
class House:
    """A proxy with a development provider and a health page, each on a port that is known."""

    fairlead: Fairlead
    ports: dict[str, int]


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    # Sockets of the homes are dialled by longer ways than their own, and a path has at most 107 bytes.
    directory = Path(tempfile.mkdtemp(prefix="fl-", dir="/tmp"))
    server = Fairlead(directory)
    ports = {"provider": free_port(), "health": free_port(), "nats": free_port()}
    server.extra_env["FAIRLEAD_FRONT_DOOR__PROVIDERS"] = f'[{{"kind": "dev", "port": {ports["provider"]}}}]'
    server.extra_env["FAIRLEAD_HEALTH__LISTEN"] = f"127.0.0.1:{ports['health']}"
    server.extra_env["FAIRLEAD_EVENTS__URLS"] = f'["nats://127.0.0.1:{ports["nats"]}"]'
    server.prepare({"other": "name: other\n"})
    try:
        server.start()
        assert server.ssh("true").returncode == 0
        assert server.ssh("true", "-l", "alice+other").returncode == 0
        yield House(server, {**ports, "ssh": server.port})
    finally:
        server.close()
        shutil.rmtree(directory)


async def dialled(connection: asyncssh.SSHClientConnection, target: tuple[str, int] | Path) -> bool:
    """Return whether a forward stood or was refused by policy; what else fails is raised."""
    try:
        if isinstance(target, Path):
            _, writer = await connection.open_unix_connection(str(target))
        else:
            _, writer = await connection.open_connection(*target)
    except asyncssh.ChannelOpenError as exc:
        if exc.code != asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED or "not permitted" not in exc.reason:
            raise
        return False
    writer.close()
    return True


def own_addresses() -> list[str]:
    """Return an address of this machine besides loopback, if it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect(("192.0.2.1", 9))  # sends nothing
        return [probe.getsockname()[0]]
    return []


@pytest.mark.parametrize("what", ["ssh", "provider", "health", "nats"])
async def test_no_name_of_a_port_of_ours_can_be_dialled(house: House, what: str) -> None:
    async with asyncssh_login(house.fairlead) as connection:
        for name in [*NAMES, *own_addresses()]:
            assert not await dialled(connection, (name, house.ports[what])), name


async def test_other_ports_of_this_machine_can_be_dialled(house: House) -> None:
    async with asyncssh_login(house.fairlead) as connection:
        with Peer(echo) as peer:
            for name in ("127.0.0.1", "localhost", "::ffff:127.0.0.1"):
                assert await dialled(connection, (name, peer.port)), name


async def test_no_name_of_a_socket_of_ours_can_be_dialled(house: House) -> None:
    state = State(house.fairlead.home)
    names = [record.name for record in state.records()]
    assert len(names) == 2
    for name in names:
        own, places = state.places(names[0]), state.places(name)
        link, directory, hard = (own.home / word for word in ("link", "directory", "hard"))
        link.symlink_to(places.socket)
        directory.symlink_to(places.runtime)
        targets = [places.socket, link, directory / "shelld.sock", Path(f"/proc/self/root{places.socket}")]
        targets.append(Path(f"{state.runtime}/../{places.socket.relative_to(state.runtime.parent)}"))
        with suppress(OSError):  # another file system
            os.link(places.socket, hard)
            targets.append(hard)
        try:
            async with asyncssh_login(house.fairlead) as connection:
                for target in targets:
                    assert not await dialled(connection, target), target
        finally:
            for made in (link, directory, hard):
                made.unlink(missing_ok=True)


async def test_sockets_of_the_home_can_be_dialled_and_bound(house: House, tmp_path: Path) -> None:
    home = house.fairlead.workspace() / "home"
    assert len(str(home / "s")) < 107
    async with asyncssh_login(house.fairlead) as connection:
        for path in (home / "s", tmp_path / "s"):
            with Peer(echo, path):
                assert await dialled(connection, path)
            path.unlink()
        bound = await connection.forward_remote_path(str(home / "bound"), str(tmp_path / "none"))
        bound.close()
        await bound.wait_closed()


async def test_no_socket_can_be_bound_beside_ours(house: House, tmp_path: Path) -> None:
    state = State(house.fairlead.home)
    async with asyncssh_login(house.fairlead) as connection:
        for folder in (
            state.runtime,
            *(state.places(one.name).runtime for one in state.records()),
            state.workspaces,
        ):
            with pytest.raises(asyncssh.ChannelListenError):
                await connection.forward_remote_path(str(folder / "planted"), str(tmp_path / "none"))
            assert not (folder / "planted").exists()
