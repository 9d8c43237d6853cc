"""The thirteen calls: decode a request, pass it to its module, encode the result."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, TypeVar

import grpc
import grpc.aio

from protos.shelld.v1 import shelld_pb2 as pb
from shelld import __version__, octets
from shelld.activity import Activity
from shelld.apps.app import App
from shelld.apps.supervisor import Supervisor
from shelld.bootstrap.bootstrap import Bootstrap
from shelld.errors import (
    CallGone,
    Mismatch,
    NotFound,
    OpenCode,
    OpenError,
    ProtocolError,
    SettingsError,
    StartError,
    Unauthenticated,
    Unavailable,
)
from shelld.forwards.dial import Dialer
from shelld.forwards.listen import Listener, Listeners
from shelld.forwards.relay import address_text, relay
from shelld.launch.account import Account, Accounts
from shelld.launch.fds import MAX_FRAME_BYTES
from shelld.log import Log
from shelld.programs.command import ProgramStarter
from shelld.programs.program import Program
from shelld.programs.registry import PROGRAM, Registry
from shelld.programs.stdio import STDIN_WINDOW_BYTES
from shelld.rpc import wire
from shelld.rpc.auth import Authenticate
from shelld.rpc.token import Caller
from shelld.settings import Settings, Tls
from shelld.unix_socket import private_files

_log = Log("shelld.rpc.service")
_Item = TypeVar("_Item")
Behaviour = Callable[[Any, wire.Context, Caller], Awaitable[Any]]

VERSION = pb.Version(major=1, minor=5)
FEATURES = (
    *("sftp", "tcp-forward", "streamlocal-forward", "ssh-agent"),
    *("announce", "drain", "stdout-close", "bytes", "apps"),
)
_MOST_NAME = 128
MAX_ANNOUNCEMENT = 1000
"""Characters of an announcement, and of the sentence of an activity."""


@dataclass(frozen=True, slots=True)
class Service:
    """The behaviours of the service, without transport or authentication."""

    settings: Settings
    accounts: Accounts
    registry: Registry
    starter: ProgramStarter
    dialer: Dialer
    listeners: Listeners
    activity: Activity
    bootstrap: Bootstrap
    apps: Supervisor

    def behaviours(self) -> dict[str, Behaviour]:
        """Return one coroutine function per method, by the method's name."""
        return {
            "Handshake": self.handshake,
            "Run": self.run,
            "Dial": self.dial,
            "Listen": self.listen,
            "Accept": self.accept,
            "Status": self.status,
            "Announce": self.announce,
            "Drain": self.drain,
            "EnsureApp": self.ensure_app,
            "StopApp": self.stop_app,
            "ListApps": self.list_apps,
            "AppLog": self.app_log,
            "Touch": self.touch,
        }

    async def handshake(
        self, request: pb.HandshakeRequest | wire.Malformed, _context: wire.Context, _caller: Caller
    ) -> pb.HandshakeReply:
        """Compare versions and names, and return the limits."""
        request = wire.well_formed(request)
        theirs, ours = request.version.major, VERSION.major
        if theirs != ours:
            raise Mismatch(f"shelld speaks version {ours} of the protocol, the caller version {theirs}")
        if request.workspace and request.workspace != self.settings.workspace:
            raise Mismatch(f"this is workspace {self.settings.workspace}, not {request.workspace[:64]}")
        return pb.HandshakeReply(
            version=VERSION,
            workspace=self.settings.workspace,
            features=FEATURES,
            max_frame_bytes=MAX_FRAME_BYTES,
            build=f"shelld {__version__}",
        )

    async def run(self, _request: None, context: wire.Context, caller: Caller) -> None:
        """Run one program."""
        self._refuse_when_draining()
        frames = wire.Frames(context)
        try:
            with self.registry.program():
                await self._run(context, caller, frames)
        except StartError as error:
            await frames.send(wire.start_failed(error))
            await wire.linger(context)

    async def _run(self, context: wire.Context, caller: Caller, frames: wire.Frames) -> None:
        spec = wire.program_spec(await wire.read(context))
        self._check_account(caller, spec.account)
        program = await self.starter.start(spec)
        try:
            output = wire.RunFrames(frames, partial(self.registry.touch, PROGRAM))
            # Before the client can know of it, so that every announcement from then on reaches it;
            # still after the first frame, since frames are sent in turn.
            self.registry.enter(program, output.notice)
            failed = self.bootstrap.failures_for(is_shell=spec.kind == "shell")
            await frames.send(pb.RunOutput(started=_started(program)))
            for failure in failed:
                await output.notice(str(failure))
            await program.converse(self._receiver(context, wire.run_input, self._touch), output)
        finally:
            self.registry.leave(program)
            program.close()

    async def dial(self, _request: None, context: wire.Context, caller: Caller) -> None:
        """Connect to a target and carry the connection."""
        first = await wire.read(context)

        async def connect() -> socket.socket:
            target = wire.target(first)
            if target.app:
                self._check_account(caller, self.apps.find(target.app).spec.account)
                return await self.apps.connect(target.app, target.reserved)
            account = self._account(caller, target.account)
            if target.path:
                return await self.dialer.unix(target.path, account, target.reserved)
            return await self.dialer.tcp(target.host, target.port, target.reserved)

        await self._carry(context, connect, quiet=isinstance(first, pb.ConnectionInput) and first.dial.quiet)

    async def accept(self, _request: None, context: wire.Context, caller: Caller) -> None:
        """Claim a connection that a Listen for the same account announced, and carry it."""
        first = await wire.read(context)

        async def claim() -> socket.socket:
            connection_id = wire.connection_id(first)
            self._check_account(caller, self.listeners.account_of(connection_id))
            return self.listeners.claim(connection_id)

        await self._carry(context, claim)

    async def _carry(
        self, context: wire.Context, open_: Callable[[], Awaitable[socket.socket]], *, quiet: bool = False
    ) -> None:
        self._refuse_when_draining()
        frames = wire.Frames(context)
        try:
            with self.registry.connection(quiet=quiet) as keepalives, await open_() as connection:
                connected = pb.Connected(local_address=octets.shown(address_text(connection)))
                await frames.send(pb.ConnectionOutput(connected=connected))
                receive = self._receiver(context, wire.connection_input, keepalives.carried)
                await relay(connection, receive, wire.ConnectionFrames(frames, keepalives.carried))
        except OpenError as error:
            await frames.send(pb.ConnectionOutput(failed=wire.open_failed(error)))
            await wire.linger(context)

    async def listen(
        self, request: pb.ListenRequest | wire.Malformed, context: wire.Context, caller: Caller
    ) -> None:
        """Listen on one address for as long as the call lasts."""
        self._refuse_when_draining()
        frames = wire.Frames(context)
        try:
            with self.registry.listener():
                async with self._listener(wire.well_formed(request), caller) as listener:
                    bound = pb.Bound(address=octets.shown(listener.address), port=listener.port)
                    await frames.send(pb.ListenOutput(bound=bound))
                    while True:
                        await frames.send(wire.accepted(await listener.arrivals.get()))
        except OpenError as error:
            await frames.send(pb.ListenOutput(failed=wire.open_failed(error)))

    def _listener(self, request: pb.ListenRequest, caller: Caller) -> AbstractAsyncContextManager[Listener]:
        """Return the listener for a request. Raises: OpenError."""
        account = self._account(caller, request.account)
        match request.WhichOneof("bind"):
            case "tcp":
                return self.listeners.tcp(request.listener_id, request.tcp.host, request.tcp.port, account)
            case "unix_path":
                reserved = wire.reserved(request.reserved)
                path = octets.text_of(request.unix_path)
                return self.listeners.unix(request.listener_id, path, account, reserved)
            case "ssh_agent":
                return self.listeners.ssh_agent(request.listener_id, request.ssh_agent, account)
        raise OpenError(OpenCode.INVALID, "the request names nothing to listen on")

    async def status(
        self, _request: pb.StatusRequest, _context: wire.Context, _caller: Caller
    ) -> pb.StatusReply:
        """Return the programs and the use of resources."""
        usage = self.activity.look()
        registry = self.registry
        return pb.StatusReply(
            programs=registry.programs,
            connections=registry.connections,
            listeners=registry.listeners,
            idle_ms=int(registry.idle_s * 1000),
            uptime_ms=int(registry.uptime_s * 1000),
            load_1m=usage.load_1m,
            memory_bytes=usage.memory_bytes,
            disk_free_bytes=usage.disk_free_bytes,
            draining=registry.draining,
            why=registry.why,
            why_ms=int(registry.idle_s * 1000) if registry.why else 0,
            failed_scripts=[
                pb.FailedScript(name=one.name, how=one.how, said=one.said) for one in self.bootstrap.failures
            ],
        )

    async def announce(
        self, request: pb.AnnounceRequest | wire.Malformed, _context: wire.Context, _caller: Caller
    ) -> pb.AnnounceReply:
        """Send a sentence to the user of every program."""
        request = wire.well_formed(request)
        return pb.AnnounceReply(programs=self.registry.announce(request.text[:MAX_ANNOUNCEMENT], request.id))

    async def drain(
        self, request: pb.DrainRequest | wire.Malformed, _context: wire.Context, _caller: Caller
    ) -> pb.DrainReply:
        """Measure again, and refuse new work if nothing is active; no step in between yields."""
        request = wire.well_formed(request)
        self.activity.look()
        again = self.registry.draining
        draining = self.registry.drain(request.if_idle_ms / 1000, request.for_ms / 1000)
        if draining and not again and request.reason:
            self.registry.announce(request.reason[:MAX_ANNOUNCEMENT])
        _log.info("drain asked for", draining=draining, idle_s=round(self.registry.idle_s, 1))
        return pb.DrainReply(draining=draining, idle_ms=int(self.registry.idle_s * 1000))

    # ---------------------------------------------------------------------------------- apps

    async def ensure_app(
        self, request: pb.EnsureAppRequest | wire.Malformed, context: wire.Context, caller: Caller
    ) -> None:
        """Start an app unless it runs, and send its states up to one that lasts."""
        self._refuse_when_draining()
        request = wire.well_formed(request)
        spec = wire.app_spec(request.spec)
        self._check_account(caller, spec.account)
        try:
            app = await self.apps.ensure(spec, automatic=request.automatic)
        except StartError as error:
            raise ProtocolError(error.reason) from error
        frames = wire.Frames(context)
        async for state in app.states():
            await frames.send(wire.app_state(state))

    async def stop_app(
        self, request: pb.StopAppRequest | wire.Malformed, _context: wire.Context, caller: Caller
    ) -> pb.AppState:
        """End the processes of an app."""
        request = wire.well_formed(request)
        app = self._app(caller, request.slug)
        await app.stop(request.by[:_MOST_NAME])
        return wire.app_state(app.state())

    async def list_apps(
        self, _request: pb.ListAppsRequest, _context: wire.Context, _caller: Caller
    ) -> pb.ListAppsReply:
        """Return the state of every app."""
        return pb.ListAppsReply(apps=[wire.app_state(state) for state in self.apps.states()])

    async def app_log(
        self, request: pb.AppLogRequest | wire.Malformed, context: wire.Context, caller: Caller
    ) -> None:
        """Send the log of an app."""
        request = wire.well_formed(request)
        self._app(caller, request.slug)
        frames = wire.Frames(context)
        async for data in self.apps.log(request.slug, request.lines, follow=request.follow):
            for at in range(0, len(data), MAX_FRAME_BYTES):
                await frames.send(pb.AppLogChunk(data=data[at : at + MAX_FRAME_BYTES]))

    def _app(self, caller: Caller, slug: str) -> App:
        """Return an app that the caller may act on. Raises: NotFound, Unauthenticated."""
        try:
            app = self.apps.find(slug)
        except OpenError as error:
            raise NotFound(error.reason) from error
        self._check_account(caller, app.spec.account)
        return app

    async def touch(
        self, request: pb.TouchRequest | wire.Malformed, _context: wire.Context, _caller: Caller
    ) -> pb.TouchReply:
        """Record activity that a proxy has seen."""
        self.registry.touch(wire.well_formed(request).why[:MAX_ANNOUNCEMENT])
        return pb.TouchReply()

    # ------------------------------------------------------------------------------- helpers

    def _touch(self, _count: int) -> None:
        """Record a frame for a program as activity: a user or a peer sent it."""
        self.registry.touch(PROGRAM)

    def _receiver(
        self, context: wire.Context, decode: Callable[[object], _Item], carried: Callable[[int], None]
    ) -> Callable[[], Awaitable[_Item | None]]:
        async def receive() -> _Item | None:
            frame = await wire.read(context)
            if frame is None:
                return None
            carried(len(frame) if isinstance(frame, memoryview) else 0)
            return decode(frame)

        return receive

    def _check_account(self, caller: Caller, account: str) -> None:
        """Refuse a token of another account. Raises: Unauthenticated."""
        used = account or self.accounts.own.name
        if caller.account and caller.account != used:
            raise Unauthenticated("token for another account")

    def _account(self, caller: Caller, name: str) -> Account:
        """Return an account that the caller may use. Raises: Unauthenticated; OpenError PROHIBITED."""
        self._check_account(caller, name)
        try:
            return self.accounts.find(name)
        except StartError as error:
            raise OpenError(OpenCode.PROHIBITED, error.reason) from error

    def _refuse_when_draining(self) -> None:
        """Refuse new work while draining. Raises: Unavailable."""
        if self.registry.draining:
            raise Unavailable("draining: this workspace is being stopped")


def _started(program: Program) -> pb.Started:
    return pb.Started(pid=program.pid, tty=program.tty, stdin_window=STDIN_WINDOW_BYTES)


# --------------------------------------------------------------------------------------- guard

_SERVICE = pb.DESCRIPTOR.services_by_name["Shelld"]
_STATUS: dict[type[BaseException], grpc.StatusCode] = {
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    ProtocolError: grpc.StatusCode.INVALID_ARGUMENT,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    Mismatch: grpc.StatusCode.FAILED_PRECONDITION,
    NotFound: grpc.StatusCode.NOT_FOUND,
}
_CLIENT_STREAMING = {method.name for method in _SERVICE.methods if method.client_streaming}
_KINDS: dict[tuple[bool, bool], Callable[..., grpc.RpcMethodHandler[Any, Any]]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


class Server:
    """The gRPC server, with authentication before every method of the service."""

    def __init__(self, behaviours: Mapping[str, Behaviour], authenticate: Authenticate) -> None:
        """Take coroutines by method name: they get the request, the context and the caller.

        Replies are messages, or bytes already encoded. The list of methods comes from the service's
        descriptor: one without a behaviour is an error here, at start, and one without the guard
        cannot exist.
        """
        self._authenticate = authenticate
        self._calls: dict[asyncio.Task[Any], str] = {}
        self._stopping = False
        table: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        for method in _SERVICE.methods:
            kind = _KINDS[method.client_streaming, method.server_streaming]
            table[method.name] = kind(
                self._guarded(method.name, behaviours[method.name]),
                request_deserializer=wire.decoder(getattr(pb, method.input_type.name)),
                response_serializer=wire.encode,
            )
        self._server = grpc.aio.server(options=wire.SERVER_OPTIONS)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(_SERVICE.full_name, table),)
        )

    def _guarded(self, name: str, behaviour: Behaviour) -> Callable[[Any, wire.Context], Awaitable[Any]]:
        async def call(request: Any, context: wire.Context) -> Any:
            task = asyncio.current_task()
            assert task is not None, "gRPC runs each call as a task"
            self._calls[task] = name
            try:
                caller = self._authenticate(context.invocation_metadata() or (), context.auth_context())
                return await behaviour(request, context, caller)
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the last handler of one call
                await self._conclude(name, context, error)
            finally:
                del self._calls[task]

        return call

    async def _conclude(self, name: str, context: wire.Context, error: BaseException) -> NoReturn:
        """End one call after an exception; other calls are not affected."""
        code, words = grpc.StatusCode.INTERNAL, "internal error of shelld"
        if isinstance(error, asyncio.CancelledError) and self._stopping:
            code, words = grpc.StatusCode.UNAVAILABLE, "this workspace is being stopped"
        elif isinstance(error, asyncio.CancelledError | grpc.aio.AbortError):
            raise error
        elif isinstance(error, CallGone):
            raise asyncio.CancelledError from error
        elif type(error) in _STATUS:
            code, words = _STATUS[type(error)], str(error)
            _log.info("call refused", method=name, reason=words, peer=context.peer())
            if name in _CLIENT_STREAMING:
                await wire.linger(context)
        else:
            _log.bug("call failed", error, method=name)
        await context.abort(code, words)

    async def start(self, address: str, tls: Tls | None) -> None:
        """Bind and serve `host:port`, or a Unix path whose socket has mode 0600 from its creation on.

        Raises: SettingsError when the address cannot be bound or the certificates cannot be read.
        """
        try:
            with private_files():
                if tls is None:
                    self._server.add_insecure_port(f"unix:{address}")
                else:
                    self._server.add_secure_port(address, _credentials(tls))
        except (RuntimeError, OSError) as error:
            raise SettingsError([f"--listen: {address} cannot be served: {error}"]) from error
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls; end connections and listeners now, programs when their Exit is sent.

        A call that lasts longer than `grace_s` is ended too.
        """
        self._stopping = True
        for task, name in self._calls.items():
            if name != "Run":
                task.cancel()
        if self._calls:
            await asyncio.wait(list(self._calls), timeout=grace_s)
        for task in self._calls:
            task.cancel()
        await self._server.stop(grace_s)


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    """Read certificates now and again for each connection, because they are renewed while shelld runs.

    gRPC gets a configuration only when the files changed: it replaces its TLS context without regard to
    handshakes that begin on other threads, and the process aborts when one of them uses the old context.
    """

    def read() -> tuple[bytes, bytes, bytes]:
        return tls.key.read_bytes(), tls.cert.read_bytes(), tls.client_ca.read_bytes()

    def configuration() -> grpc.ServerCertificateConfiguration:
        key, cert, client_ca = latest
        return grpc.ssl_server_certificate_configuration([(key, cert)], root_certificates=client_ca)

    latest = read()

    def read_again() -> grpc.ServerCertificateConfiguration | None:
        nonlocal latest
        try:
            found = read()
        except OSError as error:
            _log.warning("certificates not read again", reason=error.strerror)
            return None
        if found == latest:
            return None
        latest = found
        return configuration()

    return grpc.dynamic_ssl_server_credentials(
        configuration(),
        read_again,  # type: ignore[arg-type]  # the stubs leave out None, which means no change
        require_client_authentication=True,
    )
