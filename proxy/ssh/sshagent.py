"""ssh-agent forwarding: one socket for each SSH connection, one channel for each connection to the socket."""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from proxy.access.forward import ClientRefused
from proxy.aio import TaskOwner
from proxy.errors import FairleadError
from proxy.errors.programs import OpenFailed
from proxy.errors.upstream import UpstreamError
from proxy.model import SshAgentBind, Visit
from proxy.sessions.records import Kind
from proxy.ssh.forwarding import ForwardSession, client_refusals
from proxy.ssh.served import Served
from proxy.upstream.client import Link
from proxy.upstream.frames import Accepted
from proxy.workspaces.backend import Report

_socket_numbers = itertools.count(1)


class SshAgent:
    """The ssh-agent socket in the workspace; it exists while at least one program uses it."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._users = 0
        self._listening: asyncio.Future[str] | None = None
        self._task: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def use(self, visit: Visit, report: Report) -> AsyncIterator[str]:
        """Hold the socket; yield the id of its listener, or "" when the socket cannot be made.

        A program without its ssh-agent is better than no program.
        """
        self._users += 1
        try:
            yield await self._listener_id(visit, report)
        finally:
            self._users -= 1
            if self._users == 0:
                self._close()

    async def _listener_id(self, visit: Visit, report: Report) -> str:
        if self._listening is None:
            self._listening = asyncio.get_running_loop().create_future()
            self._task = self._served.tasks.spawn(
                self._serve(visit, report, self._listening), name="ssh-agent"
            )
        try:
            return await asyncio.shield(self._listening)
        except (UpstreamError, OpenFailed) as exc:
            self._served.log.info("no ssh-agent socket", code=exc.code, reason=str(exc))
            return ""

    def _close(self) -> None:
        self._listening = None
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _serve(self, visit: Visit, report: Report, listening: "asyncio.Future[str]") -> None:
        served = self._served
        bind = SshAgentBind(f"ssh-agent-ux-{served.proxy_id}-{os.getpid()}-{next(_socket_numbers)}.sock")
        listener_id = served.new_listener_id()
        bridges = TaskOwner(f"{served.conn_id}:ssh-agent")
        try:
            async with served.gateway.listen(visit, bind, listener_id, report) as (listener, link):
                listening.set_result(listener_id)
                async for accepted in listener.accepted():
                    bridges.spawn(self._bridge(visit, link, accepted), name="bridge")
        except FairleadError as exc:
            if not listening.done():
                listening.set_exception(exc)
        finally:
            listening.cancel()
            bridges.cancel()
            if (
                self._listening is listening
            ):  # the socket ended with the workspace; the next program makes another
                self._listening = None

    async def _bridge(self, visit: Visit, link: Link, accepted: Accepted) -> None:
        served = self._served
        await served.openings.begin()
        if not served.has_room:
            served.log_no_room("ssh-agent")
            return  # not claimed, so that the workspace closes it
        session = ForwardSession(served, Kind.SSH_AGENT)
        record = session.begin()
        opening = served.gateway.accept(visit, link, accepted.connection_id)
        try:
            await session.carry(record, opening, lambda: self._open_channel(session))
        except ClientRefused as exc:
            served.log.info("client refused its ssh-agent", reason=str(exc))
        except FairleadError as exc:
            served.log.debug("ssh-agent connection lost", reason=str(exc))

    async def _open_channel(self, session: ForwardSession) -> None:
        """Open a channel to the client's ssh-agent. Raises: ClientRefused."""
        relay = self._served.relay
        channel = self._served.conn.create_agent_channel(relay.window_bytes, relay.packet_bytes)
        with client_refusals():
            await channel.open(lambda: session)
