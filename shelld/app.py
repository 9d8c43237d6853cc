"""The composition root: builds every part once, in order, and closes them in reverse order."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable

from shelld import aio, stop_notice
from shelld.activity import Activity
from shelld.bootstrap.bootstrap import Bootstrap
from shelld.forwards.dial import Dialer
from shelld.forwards.listen import Listeners
from shelld.idle import stop_when_idle
from shelld.launch.account import Accounts
from shelld.launch.launch import Launcher
from shelld.launch.reaper import Reaper
from shelld.log import Log
from shelld.programs.command import Starter
from shelld.programs.hangup import Farewell
from shelld.programs.registry import Registry
from shelld.programs.sftpserver import SftpServers
from shelld.rpc.auth import TokenAuthenticator, trust_socket
from shelld.rpc.service import Server, Service
from shelld.settings import Settings
from shelld.temp_dirs import PrivateDirectories
from shelld.unix_socket import UnixDoor

_log = Log("shelld.app")
_LAST_FRAMES_S = 2.0
"""Seconds for the exits of hung-up programs to reach their clients."""
_LAST_WORDS_S = 0.5
"""Seconds for an announcement to be sent before programs are hung up."""
_IDLE = "idle"


async def serve(settings: Settings, forked: tuple[int, socket.socket]) -> None:
    """Serve until TERM, INT or idleness; every program of the workspace has ended afterwards.

    Raises: SettingsError, SocketInUse before anything was served.
    """
    authenticate = trust_socket if settings.tls is None else TokenAuthenticator(settings, settings.tls)
    door = UnixDoor(settings.listen.removeprefix("unix://")) if settings.tls is None else None
    told = _listen_for_signals()  # before a client can see the socket and expect an answer
    reaper = Reaper()
    reaper.install()
    launcher = Launcher(forked, reaper)
    accounts = Accounts(settings)
    registry = Registry(settings.limits)
    farewell = Farewell(settings.grace_s)
    bootstrap = Bootstrap(settings, accounts.own, launcher, farewell)
    private = PrivateDirectories()
    listeners = Listeners(
        settings.forward,
        settings.runtime_dir,
        settings.accept_timeout_s,
        launcher,
        private,
        accounts.own.home,
    )
    activity = Activity(registry, accounts.own.home)
    starter = Starter(
        settings,
        accounts,
        launcher,
        farewell,
        bootstrap.ready,
        listeners.agent_socket,
        SftpServers(settings.sftp_server, private),
    )
    dialer = Dialer(settings.forward, settings.dial_timeout_s, launcher, accounts.own.home)
    service = Service(settings, accounts, registry, starter, dialer, listeners, activity)
    server = Server(service.behaviours(), authenticate)

    await bootstrap.prepare()
    await server.start(settings.listen.removeprefix("tcp://") if door is None else door.hidden, settings.tls)
    if door is not None:
        door.show()
    aside = [
        aio.spawn(bootstrap.run_scripts(), name="init scripts"),
        aio.spawn(activity.keep_looking(), name="activity"),
    ]
    _log.info("serving", workspace=settings.workspace, listen=settings.listen, account=accounts.own.name)
    try:
        reason = await _until_stop(told, settings, registry, activity, door)
        _log.info("stopping", reason=reason, programs=registry.programs)
        await _say_goodbye(reason, settings, registry)
    finally:
        registry.stop()
        if door is not None:
            door.hide()
        await aio.end(aside)
        await _end_programs(registry, farewell, launcher, server)
        private.close()
        launcher.close()
        reaper.uninstall()
        if door is not None:
            door.close()


def _listen_for_signals() -> asyncio.Future[str]:
    """Return the name of the first TERM or INT to come; as PID 1 no signal has a default effect."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[str] = loop.create_future()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _tell(told, number.name))
    return told


async def _until_stop(
    told: asyncio.Future[str],
    settings: Settings,
    registry: Registry,
    activity: Activity,
    door: UnixDoor | None,
) -> str:
    """Wait for a signal or, if configured, for idleness; return which."""
    waiting: set[asyncio.Future[str]] = {told}
    if settings.idle_stop_s > 0:
        waiting.add(aio.spawn(_idle(settings, registry, activity, door), name="idle"))
    done, rest = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    await aio.end(task for task in rest if isinstance(task, asyncio.Task))
    return done.pop().result()


def _tell(told: asyncio.Future[str], reason: str) -> Callable[[], None]:
    def tell() -> None:
        if not told.done():
            told.set_result(reason)

    return tell


async def _idle(settings: Settings, registry: Registry, activity: Activity, door: UnixDoor | None) -> str:
    def nothing() -> None:
        """Do nothing: a TCP port has no name to hide, and `draining` refuses new calls."""

    await stop_when_idle(
        registry,
        activity,
        settings.idle_stop_s,
        hide=nothing if door is None else door.hide,
        show=nothing if door is None else door.show,
    )
    return _IDLE


async def _say_goodbye(reason: str, settings: Settings, registry: Registry) -> None:
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
    await registry.announced(_LAST_WORDS_S)


async def _end_programs(registry: Registry, farewell: Farewell, launcher: Launcher, server: Server) -> None:
    """Hang up every program, send the last frames, then end the remaining processes of the workspace."""
    for program in list(registry.running):
        program.hang_up()
    await farewell.everything(frozenset({launcher.pid}))
    await server.stop(_LAST_FRAMES_S)
