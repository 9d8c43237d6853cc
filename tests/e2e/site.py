"""What an operator has outside of a cluster: database, NATS, identity provider, bucket and load balancer.

All of it runs on this machine. Servers that pods reach listen on the bridge of the dockerd that runs the
pods, which no other machine reaches; what only clients reach listens on loopback.
"""

import asyncio
import json
import os
import secrets
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from tests.contract import independent, postgres, s3server
from tests.contract.natsauth import write_creds
from tests.contract.natsserver import NatsServer, free_port
from tests.fakes.browser import Browser
from tests.fakes.certificates import Authority
from tests.images import docker
from tests.wire.peers import until

LOGIN, SSH, NATS, S3, DATABASE = (f"{name}.example.com" for name in ("login", "ssh", "nats", "s3", "db"))
"""Names of docs/deploy.md."""

S3_SECRET = "not-checked-by-moto"


def bridge() -> str:
    """Return the address of this machine that pods on the bridge of dockerd reach."""
    return docker.docker("network", "inspect", "bridge", "-f", "{{(index .IPAM.Config 0).Gateway}}")


@dataclass
class Site:
    """Servers with the names of `example.com`, and the files that their operators hand out."""

    directory: Path
    provider: Path
    """The installed independent provider."""
    address: str = field(default_factory=bridge)

    def __post_init__(self) -> None:
        self.authority = Authority()
        self.login_port, self.database_port = free_port(self.address), free_port(self.address)
        # Minutes pass until haproxy binds these: nobody else gets them meanwhile.
        self._held = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        self.ssh_port, self.page_port = (one.getsockname()[1] for one in self._held)
        self._password = secrets.token_hex(16)

    @contextmanager
    def running(self) -> Iterator["Site"]:
        """Run the servers while inside, all but the load balancer."""
        with ExitStack() as stack:
            stack.callback(self._release)
            self._database = stack.enter_context(postgres.Cluster.running(self.address, self.database_port))
            self._database.sql("postgres", f"ALTER ROLE fairlead PASSWORD '{self._password}'")
            self._database_name = self._database.create()
            self.endpoint = stack.enter_context(s3server.s3_server(self.address))
            stack.enter_context(self._nats_running())
            stack.enter_context(self._provider_running())
            yield self

    def _release(self) -> None:
        """Let the ports of the load balancer go."""
        for one in self._held:
            one.close()

    @contextmanager
    def _nats_running(self) -> Iterator[None]:
        certificate, key = self.authority.issue(NATS).write(self.directory, "nats")
        config = write_creds(self.directory / "nats.creds")
        config["tls"] = {"cert_file": str(certificate), "key_file": str(key)}
        self.nats = NatsServer(self.directory / "nats", config=config, address=self.address)
        self.nats.start()
        try:
            yield
        finally:
            self.nats.kill()

    @contextmanager
    def _provider_running(self) -> Iterator[None]:
        """Run the provider in a loop of its own."""
        certificate, key = self.authority.issue(LOGIN).write(self.directory, "login")
        (accounts := self.directory / "accounts.json").write_text(json.dumps({"alice": ["example"]}))
        environment = {
            "ADDRESS": self.address,
            "CERTIFICATE": str(certificate),
            "KEY": str(key),
            "ACCOUNTS": str(accounts),
        }
        with _in_a_loop() as run, ExitStack() as stack:
            provider = independent.running(
                self.provider,
                f"https://{LOGIN}:{self.login_port}",
                f"https://{SSH}:{self.page_port}/callback",
                **environment,
            )
            run(provider.__aenter__())
            stack.callback(lambda: run(provider.__aexit__(None, None, None)))
            yield

    # ------------------------------------------------------------------------------------ files

    @cached_property
    def names(self) -> Mapping[str, str]:
        """Words of the page, and what stands for them here."""
        return {
            f"https://{LOGIN}": f"https://{LOGIN}:{self.login_port}",
            f"https://{SSH}": f"https://{SSH}:{self.page_port}",
            f"{NATS}:4222": f"{NATS}:{self.nats.port}",
            f"https://{S3}": f"http://{S3}:{self.endpoint.rpartition(':')[2]}",
            "10.0.0.0/24": f"{self.address}, {_own_address()}",
        }

    def host_aliases(self) -> list[dict[str, Any]]:
        """Return the lines of a pod's hosts file, in place of DNS."""
        return [{"ip": self.address, "hostnames": [LOGIN, NATS, S3, DATABASE]}]

    def write_secrets(self, directory: Path) -> None:
        """Write what docs/deploy.md wants from the operators of the servers."""
        url = f"postgresql+asyncpg://fairlead:{self._password}@{DATABASE}:{self.database_port}/{self._database_name}"
        (directory / "database-url").write_text(url)
        (files := directory / "secrets").mkdir()
        (files / "provider").write_text(f"{independent.SECRET}\n")
        (files / "ca.crt").write_bytes(self.authority.pem)
        shutil.copy(self.directory / "nats.creds", files / "nats")
        (files / "s3").write_text(f"{S3_SECRET}\n")

    # ------------------------------------------------------------------------------------ clients

    def browser(self) -> Browser:
        """Return a browser that knows the names and the authority; needs a running loop."""
        trust = ssl.create_default_context(cadata=self.authority.pem.decode())
        names = _Names({LOGIN: self.address, SSH: "127.0.0.1"})
        return Browser(aiohttp.TCPConnector(resolver=names, ssl=trust))

    def objects(self) -> list[str]:
        """Return the names of all objects of the bucket."""
        return s3server.names(self.endpoint, self.directory)

    @contextmanager
    def balancer(self, config: str, page: str) -> Iterator[None]:
        """Run haproxy with a configuration, and a second one that ends TLS before the address `page`."""
        signed = self.authority.issue(SSH)
        (self.directory / "page.pem").write_bytes(signed.certificate + signed.key)
        (self.directory / "haproxy.cfg").write_text(config)
        (self.directory / "ingress.cfg").write_text(
            f"listen page\n mode http\n bind 127.0.0.1:{self.page_port} ssl crt {self.directory}/page.pem\n"
            f" server page {page}\n"
        )
        program = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program
        words = [program, "-f", self.directory / "haproxy.cfg", "-f", self.directory / "ingress.cfg"]
        self._release()
        with (self.directory / "haproxy.log").open("wb") as log:
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            until(lambda: self._listens(process), "haproxy listens")
            yield
        finally:
            process.kill()
            process.wait()

    def _listens(self, process: "subprocess.Popen[bytes]") -> bool:
        assert process.poll() is None, (self.directory / "haproxy.log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.page_port)) == 0


def _own_address() -> str:
    """Return the address that this machine has on its way out; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("198.51.100.1", 9))
        return str(probe.getsockname()[0])


class _Names(AbstractResolver):
    """A resolver that knows some names and no others."""

    def __init__(self, known: Mapping[str, str]) -> None:
        self._known = known

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        del family
        if host not in self._known:
            raise OSError(f"no browser of this test has a reason to visit {host}")
        address = self._known[host]
        return [
            ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)
        ]

    async def close(self) -> None:
        pass


@contextmanager
def _in_a_loop() -> Iterator[Any]:
    """Give a function that runs a coroutine in one loop of a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(120)

    try:
        yield run
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
        loop.close()
