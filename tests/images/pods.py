"""A pod without Kubernetes: an init container fills a volume, a main container of any image runs shelld."""

import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio

from protos.shelld.v1.shelld_pb2_grpc import ShelldStub
from proxy.workspaces.kubernetes.bundle import POD_ROOT, PORT, init_command, main_command
from tests.images import docker
from tests.images.trust import SERVER_NAME, Authority

TARGETS = ("tests/images/targets.Dockerfile", "tests/images")
UNPRIVILEGED = ("--user", "1000:1000", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
START_S = 60


@dataclass
class Pod:
    """A running workspace and the way to it."""

    name: str
    image: str
    root: bool
    address: str
    directory: Path
    authority: Authority
    stub: Any = None

    @property
    def has_shell(self) -> bool:
        return self.image != "nothing"

    @property
    def log(self) -> str:
        return docker.docker("logs", self.name)

    def log_has(self, text: str) -> bool:
        done = subprocess.run(["docker", "logs", self.name], capture_output=True, text=True)
        return text in done.stdout + done.stderr

    @asynccontextmanager
    async def connected(self) -> AsyncIterator["Pod"]:
        options = [("grpc.ssl_target_name_override", SERVER_NAME), ("grpc.use_local_subchannel_pool", 1)]
        credentials = self.authority.credentials()
        async with grpc.aio.secure_channel(self.address, credentials, options=options) as channel:
            await channel.channel_ready()
            yield Pod(**{**self.__dict__, "stub": ShelldStub(channel)})

    def sftp(self, batch: str) -> subprocess.CompletedProcess[str]:
        """Run commands of OpenSSH's `sftp` against the workspace."""
        bridge = f"{sys.executable} -m tests.images.bridge {self.address} {self.directory / 'client'}"
        return subprocess.run(
            ["sftp", "-b", "-", "-D", bridge],
            input=batch,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=docker.ROOT,
        )

    def processes(self) -> list[tuple[int, int, str]]:
        """Return pid, resident KiB and command line of every process, numbers as the host has them."""
        lines = docker.docker("top", self.name, "-o", "pid,rss,args").splitlines()[1:]
        split = (line.split(None, 2) for line in lines)
        return [(int(pid), int(rss), command) for pid, rss, command in split]


@contextmanager
def pod(
    image: str, directory: Path, *, root: bool, more: tuple[str, ...] = (), **settings: Any
) -> Iterator[Pod]:
    """Run an image of `targets.Dockerfile` as a workspace, its home an empty volume."""
    user = () if root else UNPRIVILEGED
    authority = Authority()
    authority.write_for_workspace(directory / "trust")
    _write_for_client(directory / "client", authority)
    config = directory / "shelld.json"
    account = {"name": "alice", "home": "/home/alice"}
    config.write_text(
        json.dumps(
            {
                "workspace": "ws1",
                "user": "alice",
                "account": account,
                "create_account": True,
                "container_env": True,
                "grace_s": 1,
                **settings,
            }
        )
    )
    config.chmod(0o644)
    main = docker.built(TARGETS[0], image, TARGETS[1])
    with docker.volume() as bundle, docker.volume() as home:
        init = (
            "--entrypoint",
            init_command()[0],
            docker.built("deploy/shelld.Dockerfile"),
            *init_command()[1:],
        )
        docker.docker("run", "--rm", *user, "-v", f"{bundle}:{POD_ROOT}", *init)
        words = [*user, *more, "-v", f"{bundle}:{POD_ROOT}:ro", "-v", f"{home}:/home/alice"]
        words += [
            "-v",
            f"{directory / 'trust'}:/etc/fairlead/trust:ro",
            "-v",
            f"{config}:/etc/fairlead/workspace/shelld.json:ro",
        ]
        command = main_command()
        with docker.container(
            *words, "-p", f"127.0.0.1::{PORT}", "--entrypoint", command[0], main, *command[1:]
        ) as name:
            made = Pod(
                name,
                image,
                root,
                docker.docker("port", name, str(PORT)).splitlines()[0],
                directory,
                authority,
            )
            _wait_until_serving(made)
            yield made


def _write_for_client(directory: Path, authority: Authority) -> None:
    directory.mkdir()
    signed = authority.issue("fairlead-proxy")
    for name, content in (("ca", authority.pem), ("key", signed.key), ("crt", signed.certificate)):
        (directory / name).write_bytes(content)


def _wait_until_serving(made: Pod) -> None:
    deadline = time.monotonic() + START_S
    while not made.log_has('"serving"'):
        running = docker.docker("inspect", "-f", "{{.State.Running}}", made.name)
        assert running == "true", "shelld ended"
        assert time.monotonic() < deadline, "shelld does not serve"
        time.sleep(0.05)
