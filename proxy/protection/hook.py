"""An operator's command that runs at each ban and at its end, one run at a time."""

import asyncio
from datetime import UTC, datetime

import structlog

from proxy.aio import TaskOwner
from proxy.events.publisher import Gap
from proxy.protection.bans import Ban, Bans, read
from proxy.settings.protection import BanSettings

_log = structlog.get_logger("protection")


class Hook:
    """A queue of runs of the command on this replica, for the bans of every replica.

    The queue holds one action per source, the newest; with more sources than `command_queue_size` the oldest
    action is dropped. After a start or a reconnection every ban is repeated, so the command must accept a ban
    that it knows already.
    """

    def __init__(self, settings: BanSettings, bans: Bans) -> None:
        self._settings = settings
        self._bans = bans
        self._wanted: dict[str, Ban | None] = {}
        self._done: set[str] = set()
        self._wake = asyncio.Event()
        self._tasks = TaskOwner("ban-command")

    def start(self) -> None:
        """Start; needs a running loop."""
        if self._settings.command:
            self._tasks.spawn(self._listen(), name="listen")
            self._tasks.spawn(self._run(), name="run")

    async def close(self) -> None:
        """Stop; a running command is ended too."""
        await self._tasks.close()

    async def _listen(self) -> None:
        watch = self._bans.watch()
        try:
            async for item in watch:
                if isinstance(item, Gap):
                    current = {ban.source: ban for ban in self._bans.all()}
                    for source in self._done - current.keys():
                        self._want(source, None)
                    for ban in current.values():
                        self._want(ban.source, ban)
                else:
                    known = None if item.entry is None else read(item.entry)
                    self._want(item.key.replace("_", ":") if known is None else known.source, known)
        finally:
            watch.close()

    def _want(self, source: str, ban: Ban | None) -> None:
        self._wanted.pop(source, None)
        self._wanted[source] = ban
        if len(self._wanted) > self._settings.command_queue_size:
            oldest = next(iter(self._wanted))
            del self._wanted[oldest]
            _log.warning("ban command left out: too many wait", source=oldest)
        self._wake.set()

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            while self._wanted:
                source = next(iter(self._wanted))
                await self._call(source, self._wanted.pop(source))
            await self._wake.wait()

    async def _call(self, source: str, ban: Ban | None) -> None:
        (self._done.discard if ban is None else self._done.add)(source)
        seconds = 0 if ban is None else max(1, round(ban.seconds_left(datetime.now(UTC))))
        values = {
            "action": "unban" if ban is None else "ban",
            "address": source,
            "family": "6" if ":" in source else "4",
            "seconds": str(seconds),
        }
        words = [_filled(word, values) for word in self._settings.command]
        try:
            process = await asyncio.create_subprocess_exec(
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
        except OSError as exc:
            _log.warning("ban command cannot be run", command=words[0], reason=exc.strerror)
            return
        try:
            async with asyncio.timeout(self._settings.command_timeout_s):
                status: int | None = await process.wait()
        except TimeoutError:
            status = None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if status is None:
            _log.warning("ban command took too long", command=words[0], source=source)
        elif status:
            _log.warning("ban command failed", command=words[0], source=source, status=status)


def _filled(word: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        word = word.replace(f"{{{name}}}", value)
    return word
