"""Readiness of an app: one look whether it answers."""

from __future__ import annotations

import asyncio
import re
import socket

from shelld.errors import OpenCode, OpenError

LOOK_EVERY_S = 0.2
"""Seconds between looks."""
_ANSWER_S = 5.0
"""Seconds for the status line of an answer."""
_MOST_BYTES = 4096
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: |\r)")
_UNREADY = 500


async def problem_of(connection: socket.socket, path: str) -> str:
    """Return the reason for which an app that took a connection is not ready; "" when it is. Closes it.

    With a path, the app has to answer a GET of it with a status below 500.
    """
    with connection:
        if not path:
            return ""
        try:
            async with asyncio.timeout(_ANSWER_S):
                return await _answered(connection, path)
        except TimeoutError:
            return f"it did not answer GET {path} in {_ANSWER_S:g} s"
        except OSError as error:
            return f"it broke GET {path} off: {error.strerror}"


async def _answered(connection: socket.socket, path: str) -> str:
    loop = asyncio.get_running_loop()
    # Connection: close, so that a server of one connection at a time is free for the next one.
    head = (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: fairlead-ready\r\nConnection: close\r\n\r\n"
    )
    await loop.sock_sendall(connection, head.encode("ascii"))
    answer = b""
    while b"\n" not in answer and len(answer) < _MOST_BYTES:
        data = await loop.sock_recv(connection, _MOST_BYTES)
        if not data:
            break
        answer += data
    found = _STATUS.match(answer)
    if found is None:
        return f"it answered GET {path} with something other than HTTP/1.1"
    status = int(found[1])
    return f"it answered GET {path} with status {status}" if status >= _UNREADY else ""


def is_foreign(error: OpenError) -> bool:
    """Return whether an app cannot be reached because its address is taken by another process."""
    return error.code in {OpenCode.PERMISSION, OpenCode.PROHIBITED}
