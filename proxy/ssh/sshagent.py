"""ssh-agent forwarding: one socket per SSH connection, one channel to the client per client of it."""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncssh

from proxy.aio import TaskOwner
from proxy.errors import FairleadError
from proxy.errors.programs import OpenFailed
from proxy.errors.upstream import UpstreamError
from proxy.model import Principal, SshAgentBind
from proxy.sessions.records import Kind
from proxy.ssh.forwarding import Dialled, new_listener_id
from proxy.upstream.client import Link
from proxy.upstream.frames import Accepted
from proxy.workspaces.backend import Report

if TYPE_CHECKING:
    from proxy.ssh.connection import ClientConnection

_socket_numbers = itertools.count(1)


class SshAgent:
    """The socket in the workspace; there from the first program that wants it to the last."""

    def __init__(self, owner: "ClientConnection") -> None:
        self._owner = owner
        self._users = 0
        self._listening: asyncio.Future[str] | None = None
        self._task: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def use(self, principal: Principal, report: Report) -> AsyncIterator[str]:
        """Keep the socket while inside; gives the id of its listener, or "" when it cannot be had.

        A program without its ssh-agent is better than no program.
        """
        self._users += 1
        try:
            yield await self._listener_id(principal, report)
        finally:
            self._users -= 1
            if self._users == 0:
                self._close()

    async def _listener_id(self, principal: Principal, report: Report) -> str:
        if self._listening is None:
            self._listening = asyncio.get_running_loop().create_future()
            self._task = self._owner.tasks.spawn(
                self._serve(principal, report, self._listening), name="ssh-agent"
            )
        try:
            return await asyncio.shield(self._listening)
        except (UpstreamError, OpenFailed) as exc:
            self._owner.log.info("no ssh-agent socket", code=exc.code, reason=str(exc))
            return ""

    def _close(self) -> None:
        self._listening = None
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _serve(self, principal: Principal, report: Report, listening: "asyncio.Future[str]") -> None:
        owner = self._owner
        proxy_id = owner.shared.settings.proxy_id
        bind = SshAgentBind(f"ssh-agent-ux-{proxy_id}-{os.getpid()}-{next(_socket_numbers)}.sock")
        listener_id = new_listener_id(owner)
        bridges = TaskOwner(f"{owner.conn_id}:ssh-agent")
        try:
            async with owner.shared.gateway.listen(principal, bind, listener_id, report) as (listener, link):
                listening.set_result(listener_id)
                async for accepted in listener.accepted():
                    bridges.spawn(self._bridge(principal, link, accepted), name="bridge")
        except FairleadError as exc:
            if not listening.done():
                listening.set_exception(exc)
        finally:
            listening.cancel()
            bridges.cancel()
            if self._listening is listening:  # the socket is gone with the workspace: make another next time
                self._listening = None

    async def _bridge(self, principal: Principal, link: Link, accepted: Accepted) -> None:
        relay = self._owner.shared.settings.relay
        await self._owner.openings.begin()
        if not self._owner.has_room:
            self._owner.log_no_room("ssh-agent")
            return  # it is not claimed, and the workspace closes it
        session = Dialled(self._owner, Kind.SSH_AGENT)
        session.begin()
        try:
            accepting = self._owner.shared.gateway.accept(principal, link, accepted.connection_id)
            async with accepting as connection:
                channel = self._owner.conn.create_agent_channel(relay.window_bytes, relay.packet_bytes)
                await channel.open(lambda: session)
                await session.carry_open(connection, link)
        except asyncssh.ChannelOpenError as exc:
            session.failed(exc)
            self._owner.log.info("client refused its ssh-agent", reason=exc.reason)
        except (OpenFailed, UpstreamError) as exc:
            session.failed(exc)
            self._owner.log.debug("ssh-agent connection lost", reason=str(exc))
