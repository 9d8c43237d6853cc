"""Two proxies on one database, with a NATS between them or without."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.contract.natsserver import NatsServer
from tests.wire.harness import Fairlead

REPLICA = "FAIRLEAD_PROXY_ID"


@dataclass
class Replicas:
    """Both proxies and what is between them."""

    first: Fairlead
    second: Fairlead
    nats: NatsServer | None = None


def replica_of(first: Fairlead, directory: Path, **settings: str) -> Fairlead:
    """Make a second proxy on the first one's state, with a client configuration of its own."""
    directory.mkdir()
    second = Fairlead(directory, extra_env={**first.extra_env, "FAIRLEAD_HOME": str(first.home), **settings})
    text = first.ssh_config.read_text().replace(f"Port {first.port}", f"Port {second.port}")
    second.ssh_config.write_text(text)
    return second


@contextmanager
def two_proxies(
    directory: Path, settings: Mapping[str, str], *, nats: bool, start: bool = True
) -> Iterator[Replicas]:
    """Run both while inside; without `start` they are made ready for it."""
    with ExitStack() as stack:
        server = None
        own = dict(settings)
        if nats:
            server = NatsServer(directory / "nats")
            server.start()
            stack.callback(server.kill)
            own["FAIRLEAD_EVENTS__URLS"] = server.url
        first = Fairlead(directory / "first", extra_env={**own, REPLICA: "first"})
        first.prepare()
        stack.callback(first.close)
        second = replica_of(first, directory / "second", **{REPLICA: "second"})
        stack.callback(second.stop)
        if start:
            first.start()
            second.start()
        yield Replicas(first, second, server)
