"""The sftp server for a workspace that has none: AsyncSSH's, over standard input and output.

The only importer of asyncssh in shelld, and only in a process that serves nothing else. AsyncSSH offers its
server only to its own channels. So the two private names used below (`run_sftp_server` and the reader and
writer that it expects) are kept in this module; the pinned version has them, and a test against OpenSSH's
`sftp` fails when they change.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from typing import Any

from asyncssh.logging import logger
from asyncssh.sftp import SFTPServer, run_sftp_server

SFTP_VERSION = 3
"""draft-ietf-secsh-filexfer-02: the version that OpenSSH speaks."""
_READ_BYTES = 256 * 1024
_FLUSH_BYTES = 256 * 1024


class _Stdio:
    """Reader, writer and channel in one object; blocking, because there is only one client.

    Answers are collected until the next request has to be waited for, which joins the many small ones of a
    directory or an upload.
    """

    logger = logger

    def __init__(self) -> None:
        self.channel = self
        self._input = bytearray()
        self._start = 0
        self._output = bytearray()
        self._closing = False

    async def readexactly(self, size: int) -> bytes:
        while len(self._input) - self._start < size:
            self.flush()
            data = os.read(0, _READ_BYTES)
            if not data:
                raise EOFError
            del self._input[: self._start]
            self._start = 0
            self._input += data
        taken = bytes(memoryview(self._input)[self._start : self._start + size])
        self._start += size
        return taken

    def write(self, data: bytes) -> None:
        self._output += data
        if len(self._output) >= _FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        waiting = memoryview(bytes(self._output))
        self._output.clear()
        while waiting:
            waiting = waiting[os.write(1, waiting) :]

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        # Linux clients all send the arguments of SYMLINK in OpenSSH's order, as its server expects.
        return "SSH-2.0-OpenSSH" if name == "client_version" else default

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self.flush()
        self._closing = True


def main() -> None:
    """Serve one client on descriptors 0 and 1 until it closes its end.

    Paths are relative to the working directory, which is the account's home. The kernel's permissions of the
    account are the only limit.
    """
    # Standard error is the client's terminal here, and shelld's loggers were inherited.
    logging.getLogger("asyncssh").setLevel(logging.WARNING)
    stdio: Any = _Stdio()
    serving = run_sftp_server(SFTPServer(stdio), stdio, stdio, SFTP_VERSION)

    async def serve() -> None:
        await serving

    # The client may disconnect, or never send a byte.
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        asyncio.run(serve())


if __name__ == "__main__":
    main()
