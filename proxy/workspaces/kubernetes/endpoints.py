"""Endpoints of pods: the address and the readiness of their shelld."""

import asyncio

from proxy.model import Endpoint, WorkspaceName
from proxy.trust.authority import server_name
from proxy.workspaces.kubernetes.bundle import PORT
from proxy.workspaces.kubernetes.manifest import CONTAINER
from proxy.workspaces.kubernetes.objects import Object, condition, is_going, listed, uid_of

_PROBE_TIMEOUT_S = 1.0


def is_started(stateful_set: Object | None, pod: Object | None) -> bool:
    """Return whether a workspace is meant to run, and its container does."""
    if stateful_set is None or pod is None or is_going(stateful_set) or is_going(pod):
        return False
    return stateful_set["spec"].get("replicas") != 0 and is_container_running(pod, CONTAINER)


def is_container_running(pod: Object, container: str) -> bool:
    """Return whether one container of a pod runs."""
    return any(
        status["name"] == container and (status.get("state") or {}).get("running")
        for status in listed(pod, "status", "containerStatuses")
    )


def is_ready(pod: Object) -> bool:
    """Return whether shelld answered the last probe of Kubernetes."""
    return condition(pod, "Ready").get("status") == "True"


def endpoint_of(
    name: WorkspaceName, user: str, namespace: str, pod: Object, container: str = CONTAINER
) -> Endpoint:
    """Return the endpoint of a running pod's shelld; a restarted container is another generation."""
    running = next(
        (
            str(status.get("containerID") or "")
            for status in listed(pod, "status", "containerStatuses")
            if status["name"] == container
        ),
        "",
    )
    return Endpoint(
        name,
        grpc_target(address_of(pod)),
        generation=f"{uid_of(pod)}/{running.rpartition('/')[2][:16]}",
        server_name=server_name(name, namespace),
        user=user,
    )


def address_of(pod: Object) -> str:
    """Return the IP address of a pod; empty while it has none."""
    return str((pod.get("status") or {}).get("podIP") or "")


def grpc_target(address: str) -> str:
    """Write an address as gRPC wants it."""
    return f"ipv6:[{address}]:{PORT}" if ":" in address else f"ipv4:{address}:{PORT}"


async def answers(pod: Object) -> bool:
    """Return whether a server listens on shelld's port; waits a second at most."""
    if not (address := address_of(pod)):
        return False
    try:
        async with asyncio.timeout(_PROBE_TIMEOUT_S):
            _, writer = await asyncio.open_connection(address, PORT)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
