"""Links to workspaces: one gRPC channel for each workspace and process, shared, counted and kept alive."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
import structlog
from google.protobuf.message import Message
from grpc import aio

from protos.shelld.v1 import shelld_pb2 as pb
from protos.shelld.v1.shelld_pb2_grpc import ShelldStub
from proxy import model
from proxy.aio import TaskOwner
from proxy.errors.upstream import Draining, Incompatible, TrustError, UpstreamError
from proxy.settings.upstream import UpstreamSettings
from proxy.upstream import app_frames, compat, frames
from proxy.upstream.credentials import Credentials
from proxy.upstream.frame_codec import decoder, encode
from proxy.upstream.frames import Output
from proxy.upstream.streams import AppStates, Connection, Listener, Program, app_error, upstream_error

_log = structlog.get_logger("upstream")

_SERVICE = pb.DESCRIPTOR.services_by_name["Shelld"].full_name
_RUN_OUTPUT = {
    pb.RunOutput.STDOUT_FIELD_NUMBER: Output,
    pb.RunOutput.STDERR_FIELD_NUMBER: lambda data: Output(data, is_stderr=True),
}
_CONNECTION_OUTPUT = {pb.ConnectionOutput.DATA_FIELD_NUMBER: Output}

NOTHING = model.Reserved()
_FRAME_HEADROOM_BYTES = 64 * 1024
_READ_AHEAD_BYTES = 256 * 1024
"""Bytes of a stream that gRPC receives before they are asked for, besides the rest of a frame that is asked
for. Left to itself, gRPC raises this with the load of the machine, to more than 16 MiB for each stream."""

_Opened = Program | Connection | Listener | AppStates
Metadata = tuple[tuple[str, str], ...]


class Link:
    """A channel to one shelld process, after the handshake."""

    def __init__(
        self,
        endpoint: model.Endpoint,
        channel: aio.Channel,
        settings: UpstreamSettings,
        credentials: Credentials | None = None,
        material: model.TlsMaterial | None = None,
    ) -> None:
        """Create it; over TCP `credentials` sign each call and `material` authenticates the channel."""
        self.endpoint = endpoint
        self.max_frame_bytes = 0
        self.features: frozenset[str] = frozenset()
        self.broken = False
        self.users = 0
        self._channel = channel
        self._stub = ShelldStub(channel)
        self._run = self._bulk_call("Run", pb.RunOutput, _RUN_OUTPUT)
        self._dial = self._bulk_call("Dial", pb.ConnectionOutput, _CONNECTION_OUTPUT)
        self._accept = self._bulk_call("Accept", pb.ConnectionOutput, _CONNECTION_OUTPUT)
        self._settings = settings
        self._credentials = credentials
        self._material = material

    async def handshake(self, proxy_id: str) -> None:
        """Agree on version and workspace. Raises: Unreachable, Incompatible, TrustError."""
        request = pb.HandshakeRequest(
            version=frames.VERSION, proxy_id=proxy_id, workspace=self.endpoint.workspace
        )
        try:
            reply = await self._stub.Handshake(
                request,
                timeout=self._settings.connect_timeout_s,
                wait_for_ready=True,
                metadata=self._signed(""),
            )
        except aio.AioRpcError as exc:
            if exc.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise upstream_error(exc) from exc
            raise Incompatible(f"handshake refused: {exc.details()}") from exc
        if reply.version.major != frames.VERSION.major or reply.workspace != self.endpoint.workspace:
            raise Incompatible(
                f"shelld {reply.build} of {reply.workspace!r} speaks version {reply.version.major}, "
                f"expected {frames.VERSION.major} of {self.endpoint.workspace!r}",
                user_message="the workspace runs an incompatible shelld",
            )
        self.max_frame_bytes = reply.max_frame_bytes
        self.features = frozenset(reply.features)

    async def run(self, spec: model.ProgramSpec, visit: model.Visit, program_id: str) -> Program:
        """Start a program. Raises: ProgramNotStarted, Unreachable, UpstreamLost."""
        spec = compat.program_for(self.features, spec)
        call = self._run(metadata=self._signed(visit.account))
        program = Program(call, self.features)
        with self._opening(program):
            await program.start(frames.start(spec, visit, program_id), self._settings.program_timeout_s)
        return program

    async def dial(
        self,
        target: model.Target,
        account: str,
        reserved: model.Reserved = NOTHING,
        *,
        quiet: bool = False,
    ) -> Connection:
        """Connect from inside the workspace; a quiet connection does not count as activity.

        Raises: OpenFailed, Unreachable, UpstreamLost; Incompatible for an app of an older shelld.
        """
        compat.check_target(self.features, target)
        if isinstance(target, model.AppTarget):
            account = target.account
        connection = Connection(self._dial(metadata=self._signed(account)))
        first = frames.target(target, account, reserved, quiet=quiet)
        with self._opening(connection):
            await connection.open(first, self._settings.rpc_timeout_s)
        return connection

    async def listen(
        self, bind: model.Bind, listener_id: str, account: str, reserved: model.Reserved = NOTHING
    ) -> Listener:
        """Listen inside the workspace. Raises: OpenFailed, Unreachable, UpstreamLost."""
        compat.check_path(self.features, bind)
        request = frames.bind(bind, listener_id, account, reserved)
        listener = Listener(self._stub.Listen(request, metadata=self._signed(account)))
        with self._opening(listener):
            await listener.open(self._settings.rpc_timeout_s)
        return listener

    async def accept(self, connection_id: str, account: str) -> Connection:
        """Claim a connection of a listener of `account`. Raises: OpenFailed, Unreachable, UpstreamLost."""
        connection = Connection(self._accept(metadata=self._signed(account)))
        with self._opening(connection):
            await connection.open(pb.ConnectionInput(accept=connection_id), self._settings.rpc_timeout_s)
        return connection

    async def status(self) -> frames.Status:
        """Return the activity of the workspace. Raises: UpstreamError."""
        return frames.status(await self._ask(self._stub.Status, pb.StatusRequest()))

    async def announce(self, text: str, once: str = "") -> None:
        """Show a sentence to all users with a program there; each value of `once` is shown once.

        An older shelld cannot do it, and then no user sees it. Raises: UpstreamError.
        """
        if "announce" in self.features:
            await self._ask(self._stub.Announce, pb.AnnounceRequest(text=text, id=once))

    async def drain(self, *, if_idle_s: float, reason: str, for_s: float) -> bool:
        """Stop new work for `for_s` seconds, if nothing was active for `if_idle_s`; 0 means in any case.

        Return False when something is active. An older shelld goes on with new work, so that its present
        state has to do. Raises: UpstreamError.
        """
        if "drain" not in self.features:
            return if_idle_s == 0 or (await self.status()).idle_s >= if_idle_s
        request = pb.DrainRequest(
            if_idle_ms=math.ceil(if_idle_s * 1000), reason=reason, for_ms=math.ceil(for_s * 1000)
        )
        reply = await self._ask(self._stub.Drain, request)
        return bool(reply.draining)

    async def ensure_app(self, spec: model.AppSpec, *, automatic: bool) -> AppStates:
        """Start an app unless it runs; an automatic start respects a stop and the limit of restarts.

        Returns its states, of which the first one has come. Raises: UpstreamError, AppNotStarted.
        """
        compat.check_apps(self.features)
        request = app_frames.ensure(spec, automatic=automatic)
        states = AppStates(self._stub.EnsureApp(request, metadata=self._signed(spec.account)))
        with self._opening(states):
            await states.open(self._settings.program_timeout_s)
        return states

    async def stop_app(self, slug: str, by: str) -> model.AppState:
        """End the processes of an app. Raises: UpstreamError; AppNotStarted for an unknown one."""
        compat.check_apps(self.features)
        request = pb.StopAppRequest(slug=slug, by=by)
        return app_frames.state(
            await self._ask(self._stub.StopApp, request, self._settings.program_timeout_s)
        )

    async def apps(self) -> list[model.AppState]:
        """Return the state of every app that was asked for since shelld started; none of an older shelld.

        Raises: UpstreamError.
        """
        if not compat.has_apps(self.features):
            return []
        reply = await self._ask(self._stub.ListApps, pb.ListAppsRequest())
        return [app_frames.state(one) for one in reply.apps]

    async def app_log(self, slug: str, lines: int, *, follow: bool) -> AsyncIterator[bytes]:
        """Yield the last lines of an app's log (0: all that were kept), and with `follow` those to come.

        Raises: UpstreamError; AppNotStarted for an unknown app.
        """
        compat.check_apps(self.features)
        request = pb.AppLogRequest(slug=slug, lines=lines, follow=follow)
        call = self._stub.AppLog(request, metadata=self._signed(""))
        try:
            async for chunk in call:
                yield chunk.data
        except aio.AioRpcError as exc:
            raise app_error(exc) from exc
        finally:
            call.cancel()

    async def touch(self, why: str) -> None:
        """Report activity in the workspace, with a sentence about it; nothing with an older shelld.

        Raises: UpstreamError.
        """
        if compat.has_apps(self.features):
            await self._ask(self._stub.Touch, pb.TouchRequest(why=why))

    async def _ask(
        self, call: Callable[..., Awaitable[Any]], request: Message, timeout_s: float | None = None
    ) -> Any:
        """Make one unary call; `timeout_s` None is `upstream.rpc_timeout_s`. Raises: UpstreamError."""
        timeout_s = timeout_s or self._settings.rpc_timeout_s
        try:
            return await call(request, timeout=timeout_s, metadata=self._signed(""))
        except aio.AioRpcError as exc:
            raise app_error(exc) from exc

    def _signed(self, account: str) -> Metadata:
        """Return the metadata that says for which user a call is made. Signatures are cached."""
        if self._credentials is None:
            return ()
        token = self._credentials.token(self.endpoint.workspace, self.endpoint.user, account)
        return (("authorization", f"Bearer {token}"),)

    def _bulk_call(
        self, name: str, output: type[Message], wrappers: Mapping[int, Callable[[memoryview], Output]]
    ) -> "aio.StreamStreamMultiCallable[Any, Any]":
        return self._channel.stream_stream(
            f"/{_SERVICE}/{name}", request_serializer=encode, response_deserializer=decoder(output, wrappers)
        )

    def _opening(self, stream: "_Opened") -> "_StreamOpening":
        return _StreamOpening(self, stream)

    @property
    def is_usable(self) -> bool:
        """Return whether the next stream can be expected to reach shelld.

        A link with credentials that are no longer the newest is not used again; its streams go on.
        """
        if self._credentials is not None and self._credentials.material() is not self._material:
            return False
        return not self.broken and self._channel.get_state() is grpc.ChannelConnectivity.READY

    async def close(self) -> None:
        """Close the channel and every stream on it."""
        await self._channel.close()


class _StreamOpening:
    """A context that cancels a stream that failed to open, and marks the link if the link was the reason."""

    def __init__(self, link: Link, stream: "_Opened") -> None:
        self._link = link
        self._stream = stream

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: object) -> None:
        if exc is None:
            return
        if isinstance(exc, UpstreamError) and not isinstance(exc, Draining):
            self._link.broken = True
        if isinstance(self._stream, Listener | AppStates):
            self._stream.close()
        else:
            self._stream.cancel()


class Links:
    """All links of this process; callers of the same workspace share one."""

    def __init__(
        self, settings: UpstreamSettings, proxy_id: str, credentials: Credentials | None = None
    ) -> None:
        """Create it; `credentials` are for TCP, and without them only Unix sockets can be reached."""
        self._settings = settings
        self._credentials = credentials
        self._proxy_id = proxy_id
        self._links: dict[tuple[str, str], asyncio.Task[Link]] = {}
        self._alive: set[Link] = set()
        """Includes links that get no new streams but still have old ones."""
        self._tasks = TaskOwner("links")

    def __len__(self) -> int:
        """Return the number of links, including those that are being opened."""
        return len(self._links)

    @asynccontextmanager
    async def use(self, endpoint: model.Endpoint) -> AsyncIterator[Link]:
        """Hold the link to `endpoint` while inside; open one when there is none, or only a broken one.

        Raises: Unreachable, Incompatible.
        """
        async with self.hold(await self.obtain(endpoint)) as link:
            yield link

    @asynccontextmanager
    async def hold(self, link: Link) -> AsyncIterator[Link]:
        """Hold a link that is in use already."""
        link.users += 1
        try:
            yield link
        finally:
            link.users -= 1
            if link.users == 0:
                self._tasks.spawn(self._linger(link), name="linger")

    async def close(self) -> None:
        """Close every link."""
        self._links.clear()
        await self._tasks.close()
        while self._alive:
            await self._alive.pop().close()

    @property
    def look_again_s(self) -> float:
        """Return after how many seconds of silence a workspace is looked for again."""
        return self._settings.look_again_s

    async def obtain(self, endpoint: model.Endpoint) -> Link:
        """Return the link to `endpoint`, as `use` does, for a caller that goes on to `hold` it.

        Raises: Unreachable, Incompatible, TrustError.
        """
        key = (endpoint.workspace, endpoint.generation)
        task = self._links.get(key)
        if task is None or _is_useless(task):
            task = self._tasks.spawn(self._open(endpoint), name=f"open {endpoint.workspace}")
            self._links[key] = task
        # A cancelled caller must not cancel the connect that others wait for.
        return await asyncio.shield(task)

    async def _open(self, endpoint: model.Endpoint) -> Link:
        link = self._link(endpoint)
        try:
            await link.handshake(self._proxy_id)
        except BaseException:
            await link.close()
            raise
        self._alive.add(link)
        _log.info("linked", workspace=endpoint.workspace)
        return link

    def _link(self, endpoint: model.Endpoint) -> Link:
        """Create the link of an endpoint.

        Raises: TrustError when the endpoint needs credentials that are missing.
        """
        if not endpoint.server_name:
            channel = aio.insecure_channel(endpoint.address, options=self._options("shelld"))
            return Link(endpoint, channel, self._settings)
        if self._credentials is None:
            raise TrustError(f"{endpoint.workspace} wants mutual TLS, and this proxy has no credentials")
        material = self._credentials.material()
        tls = grpc.ssl_channel_credentials(material.roots, material.key, material.certificate)
        # The name is compared with the server's certificate. It is not in DNS, so it replaces the target.
        override = ("grpc.ssl_target_name_override", endpoint.server_name)
        options = [*self._options(endpoint.server_name), override]
        channel = aio.secure_channel(endpoint.address, tls, options=options)
        return Link(endpoint, channel, self._settings, self._credentials, material)

    def _options(self, authority: str) -> list[tuple[str, Any]]:
        limit = 1024 * 1024 + _FRAME_HEADROOM_BYTES
        return [
            ("grpc.max_receive_message_length", limit),
            ("grpc.max_send_message_length", limit),
            ("grpc.http2.bdp_probe", 0),
            ("grpc.http2.lookahead_bytes", _READ_AHEAD_BYTES),
            ("grpc.keepalive_time_ms", int(self._settings.keepalive_interval_s * 1000)),
            ("grpc.keepalive_timeout_ms", int(self._settings.keepalive_timeout_s * 1000)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
            # Links of two generations of credentials must not share a connection of gRPC's global pool.
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", 0),
            ("grpc.default_authority", authority),
        ]

    async def _linger(self, link: Link) -> None:
        if not link.broken:
            await asyncio.sleep(self._settings.linger_s)
        if link.users:
            return
        key = (link.endpoint.workspace, link.endpoint.generation)
        task = self._links.get(key)
        if task is not None and task.done() and task.exception() is None and task.result() is link:
            del self._links[key]
        self._alive.discard(link)
        await link.close()


def _is_useless(task: asyncio.Task[Link]) -> bool:
    if not task.done():
        return False
    return task.cancelled() or task.exception() is not None or not task.result().is_usable
