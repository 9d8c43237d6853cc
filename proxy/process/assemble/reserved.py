"""Addresses of the proxy that no forward may reach when workspaces are processes of the same machine."""

from collections.abc import Iterable
from urllib.parse import urlsplit

from proxy.addresses import is_loopback, split_address
from proxy.model import Reserved
from proxy.settings import Settings
from proxy.workspaces.local.state import State


def own_of(settings: Settings, ports: Iterable[int]) -> Reserved:
    """Return the ports that no forward may reach; none when workspaces have a network of their own.

    `ports` are those that were bound; the health page and a NATS server of this machine are added.
    """
    if settings.workspace.backend != "local":
        return Reserved()
    found = set(ports)
    if settings.health.listen:
        found.add(split_address(settings.health.listen)[1])
    for url in settings.events.urls:
        parts = urlsplit(url if "://" in url else f"nats://{url}")
        if is_loopback(parts.hostname or ""):
            found.add(parts.port or 4222)
    state = settings.state_dir
    directories = {str(state), str(state.resolve()), str(State(state).runtime)}
    return Reserved(frozenset(found - {0}), tuple(sorted(directories)))
