"""The composition root: builds everything once, in order, and takes it down in the other order."""

from __future__ import annotations

import asyncio
import os
import signal
import socket

import grpc.aio

from shelld import log, wire
from shelld.account import Accounts
from shelld.farewell import Farewell
from shelld.launch import Launcher
from shelld.reaper import Reaper
from shelld.registry import Registry
from shelld.service import Service
from shelld.settings import Settings
from shelld.start import Starter
from shelld.token import Caller


async def serve(settings: Settings, requests: socket.socket) -> int:
    log.configure(settings.log_level)
    reaper = Reaper()
    reaper.install()
    launcher = Launcher(requests, reaper)
    accounts = Accounts(settings)
    registry = Registry(settings.limits)
    farewell = Farewell(settings.grace_s)

    async def ready() -> None:
        return None

    def agent(_: str) -> str:
        raise KeyError

    starter = Starter(settings, accounts, launcher, farewell, ready, agent)
    service = Service(settings, accounts, registry, starter)
    server = grpc.aio.server(options=wire.SERVER_OPTIONS)
    server.add_generic_rpc_handlers((wire.handlers(service.behaviours(), lambda _: Caller()),))
    old = os.umask(0o177)
    server.add_insecure_port("unix:" + settings.listen.removeprefix("unix://"))
    os.umask(old)
    await server.start()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await server.stop(1)
    reaper.uninstall()
    launcher.close()
    return 0
