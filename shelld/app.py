"""The composition root: builds every part once, in order, and closes them in reverse order."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from shelld import aio, stop_notice
from shelld.activity import Activity
from shelld.apps.app import Tools
from shelld.apps.reach import Reach
from shelld.apps.supervisor import Supervisor
from shelld.bootstrap.bootstrap import Bootstrap
from shelld.bootstrap.outcome import RequiredScriptFailed, note_termination
from shelld.forwards.dial import Dialer
from shelld.forwards.listen import Listeners
from shelld.idle import stop_when_idle
from shelld.launch.account import Accounts
from shelld.launch.launch import Launcher
from shelld.launch.reaper import Reaper
from shelld.log import Log
from shelld.programs.command import ProgramStarter
from shelld.programs.hangup import SessionTerminator
from shelld.programs.registry import Registry
from shelld.programs.sftpserver import SftpServers
from shelld.rpc.auth import TokenAuthenticator, trust_socket
from shelld.rpc.service import Server, Service
from shelld.settings import Settings
from shelld.temp_dirs import PrivateDirectories
from shelld.unix_socket import UnixSocket

_log = Log("shelld.app")
_LAST_FRAMES_S = 2.0
"""Seconds for the exits of hung-up programs to reach their clients."""
_ANNOUNCE_S = 0.5
"""Seconds for an announcement to be sent before programs are hung up."""
_IDLE = "idle"
_INIT = "init"
_TERMINATION_LOG = "/dev/termination-log"
"""`terminationMessagePath` of a container, which the proxy leaves at its default."""


async def serve(settings: Settings, forked: tuple[int, socket.socket]) -> None:
    """Serve until TERM, INT or idleness; every program of the workspace has ended afterwards.

    Raises: SettingsError, SocketInUse before anything was served.
    """
    authenticate = trust_socket if settings.tls is None else TokenAuthenticator(settings, settings.tls)
    unix_socket = UnixSocket(settings.listen.removeprefix("unix://")) if settings.tls is None else None
    stop_signal = _listen_for_signals()  # before a client can see the socket and expect an answer
    reaper = Reaper()
    reaper.install()
    launcher = Launcher(forked, reaper)
    accounts = Accounts(settings)
    registry = Registry(settings.limits)
    terminator = SessionTerminator(settings.grace_s)
    bootstrap = Bootstrap(settings, accounts.own, launcher, terminator, registry.announce)
    private = PrivateDirectories()
    listeners = Listeners(
        settings.forward,
        settings.runtime_dir,
        settings.accept_timeout_s,
        launcher,
        private,
        accounts.own.home,
    )
    starter = ProgramStarter(
        settings,
        accounts,
        launcher,
        terminator,
        bootstrap.ready,
        listeners.agent_socket,
        SftpServers(settings.sftp_server, private),
    )
    dialer = Dialer(settings.forward, settings.dial_timeout_s, launcher, accounts.own.home)
    apps = Supervisor(Tools(accounts, starter, launcher, private, Reach(dialer), settings.grace_s))
    activity = Activity(registry, accounts.own.home, servers=apps.sessions)
    service = Service(settings, accounts, registry, starter, dialer, listeners, activity, bootstrap, apps)
    server = Server(service.behaviours(), authenticate)

    release = partial(_release, private, launcher, reaper, unix_socket)
    if not await _prepare(bootstrap, stop_signal, settings, release):
        return
    await server.start(
        settings.listen.removeprefix("tcp://") if unix_socket is None else unix_socket.hidden, settings.tls
    )
    if unix_socket is not None:
        unix_socket.show()
    aside = [
        aio.spawn(bootstrap.run_scripts(), name="init scripts"),
        aio.spawn(activity.keep_looking(), name="activity"),
        aio.spawn(apps.boot(settings.apps), name="boot apps"),
    ]
    _log.info("serving", workspace=settings.workspace, listen=settings.listen, account=accounts.own.name)
    try:
        reason = await _until_stop(stop_signal, settings, registry, activity, unix_socket)
        _log.info("stopping", reason=reason, programs=registry.programs)
        await _announce_stop(reason, settings, registry)
    finally:
        registry.stop()
        if unix_socket is not None:
            unix_socket.hide()
        await aio.end(aside)
        await asyncio.gather(apps.close(), _end_programs(registry, terminator, launcher, server))
        release()


def _release(
    private: PrivateDirectories, launcher: Launcher, reaper: Reaper, unix_socket: UnixSocket | None
) -> None:
    """Release the resources of this process."""
    private.close()
    launcher.close()
    reaper.uninstall()
    if unix_socket is not None:
        unix_socket.close()


async def _prepare(
    bootstrap: Bootstrap, stop_signal: asyncio.Future[str], settings: Settings, release: Callable[[], None]
) -> bool:
    """Prepare the workspace before anything is served; return False when a signal came first.

    Raises: RequiredScriptFailed. No process of the workspace is left then, or after a signal.
    """
    may_serve = False
    try:
        await bootstrap.prepare()
        may_serve = await _run_required(bootstrap, stop_signal, settings)
    finally:
        if not may_serve:
            await bootstrap.terminator.end_all(frozenset({bootstrap.launcher.pid}))
            release()
    return may_serve


async def _run_required(bootstrap: Bootstrap, stop_signal: asyncio.Future[str], settings: Settings) -> bool:
    """Run the required scripts; return False when a signal came first.

    Raises: RequiredScriptFailed, also written down for the backend that started this workspace.
    """
    running = aio.spawn(bootstrap.run_required(), name="required init scripts")
    awaited: set[asyncio.Future[Any]] = {running, stop_signal}
    await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
    if not running.done():
        await aio.end([running])
        return False
    failure = running.result()
    if failure is None:
        return True
    if settings.stop_note is not None:
        stop_notice.note(settings.stop_note, by=_INIT, reason=str(failure))
    if settings.create_account:  # this is a container
        note_termination(_TERMINATION_LOG, str(failure))
    raise RequiredScriptFailed(failure)


def _listen_for_signals() -> asyncio.Future[str]:
    """Return the name of the first TERM or INT to come; as PID 1 no signal has a default effect."""
    loop = asyncio.get_running_loop()
    stop_signal: asyncio.Future[str] = loop.create_future()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _set_once(stop_signal, number.name))
    return stop_signal


async def _until_stop(
    stop_signal: asyncio.Future[str],
    settings: Settings,
    registry: Registry,
    activity: Activity,
    unix_socket: UnixSocket | None,
) -> str:
    """Wait for a signal or, if configured, for idleness; return the reason."""
    waiting: set[asyncio.Future[str]] = {stop_signal}
    if settings.idle_stop_s > 0:
        waiting.add(aio.spawn(_idle(settings, registry, activity, unix_socket), name="idle"))
    done, rest = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    await aio.end(task for task in rest if isinstance(task, asyncio.Task))
    return done.pop().result()


def _set_once(stop_signal: asyncio.Future[str], reason: str) -> Callable[[], None]:
    def set_result() -> None:
        if not stop_signal.done():
            stop_signal.set_result(reason)

    return set_result


async def _idle(
    settings: Settings, registry: Registry, activity: Activity, unix_socket: UnixSocket | None
) -> str:
    def do_nothing() -> None:
        """Do nothing: a TCP port has no name to hide, and `draining` refuses new calls."""

    await stop_when_idle(
        registry,
        activity,
        settings.idle_stop_s,
        settings.idle_warn_s,
        hide=do_nothing if unix_socket is None else unix_socket.hide,
        show=do_nothing if unix_socket is None else unix_socket.show,
    )
    return _IDLE


async def _announce_stop(reason: str, settings: Settings, registry: Registry) -> None:
    """Announce the reason of the stop unless a proxy did; write it down if no other process knows it."""
    if reason == _IDLE:
        registry.stop()
        sentence = stop_notice.idle(settings.idle_stop_s)
        if settings.stop_note is not None:
            stop_notice.note(settings.stop_note, by=_IDLE, reason=sentence)
        registry.announce(sentence)
    elif not registry.draining:
        registry.stop()
        registry.announce(stop_notice.STOPPED)
    await registry.announced(_ANNOUNCE_S)


async def _end_programs(
    registry: Registry, terminator: SessionTerminator, launcher: Launcher, server: Server
) -> None:
    """Hang up every program, send the last frames, then end the remaining processes of the workspace."""
    for program in list(registry.running):
        program.hang_up()
    await terminator.end_all(frozenset({launcher.pid}))
    await server.stop(_LAST_FRAMES_S)
