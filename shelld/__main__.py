"""The entry point of shelld: settings, then the launcher, then the parts that have threads."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any, NoReturn

from shelld import bundle, log, memory, settings
from shelld.bootstrap import container_etc
from shelld.errors import SettingsError
from shelld.launch import fds

EX_TEMPFAIL = 75
EX_CONFIG = 78


def main() -> None:
    """Serve until a signal or idleness ends the process.

    Exits 0 then, 78 with every problem in one message when the settings are bad, 75 when another
    shelld serves the socket, 69 when a required init script failed.
    """
    try:
        chosen = settings.load(sys.argv[1:])
    except SettingsError as error:
        _refuse(error, EX_CONFIG)
    settings.prepare_process()
    fds.keep_from_children()
    memory.keep_buffers()
    log.configure(chosen.log_level)
    if bundle.find() is not None:
        bundle.keep_to_files()
    chosen = container_etc.prepare(chosen)

    # The launcher must be forked while this process has one thread; gRPC's import changes that.
    from shelld.launch.launch import fork_launcher

    forked = fork_launcher()
    memory.collect_rarely()
    from shelld.app import serve
    from shelld.bootstrap.outcome import EX_REQUIRED, RequiredScriptFailed
    from shelld.unix_socket import SocketInUse

    memory.settle_heap()
    try:
        _run(serve(chosen, forked))
    except SettingsError as error:
        _refuse(error, EX_CONFIG)
    except SocketInUse as error:
        _refuse(error, EX_TEMPFAIL)
    except RequiredScriptFailed as error:
        _refuse(error, EX_REQUIRED)


def _run(serving: Coroutine[Any, Any, None]) -> None:
    """Run on uvloop where it is installed: it takes a fifth off the cost of a byte."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(serving)
    else:
        uvloop.run(serving)


def _refuse(error: Exception, status: int) -> NoReturn:
    sys.stderr.write(f"shelld: {error}\n")
    sys.exit(status)


if __name__ == "__main__":
    main()
