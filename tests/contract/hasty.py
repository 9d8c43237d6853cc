"""shelld with a clock of apps that skips pauses of a second and more; looks at readiness take real time.

With `--late FILE SECONDS` in front, each look passes 5 s until so many seconds have passed, then the file is
made and time goes on as usual: an app that waits for the file needs so long, without a test that waits.
"""

import asyncio
import sys
import time
from pathlib import Path

import shelld.__main__
from shelld.apps.app import Clock, Tools

_LOOK_PASSES_S = 5.0


class Skipping:
    """The time since the start, and what was skipped of it."""

    def __init__(self, late: Path | None, late_s: float) -> None:
        self._started = time.monotonic()
        self._skipped = 0.0
        self._late = late
        self._late_s = late_s

    def now(self) -> float:
        return time.monotonic() - self._started + self._skipped

    async def sleep(self, seconds: float) -> None:
        if seconds >= 1:
            self._skipped += seconds
            await asyncio.sleep(0)
            return
        if self._late is not None:
            self._skipped += _LOOK_PASSES_S
            if self.now() >= self._late_s:
                self._late.touch()
                self._late = None
        await asyncio.sleep(seconds)


def main() -> None:
    late, late_s = None, 0.0
    if sys.argv[1] == "--late":
        late, late_s = Path(sys.argv[2]), float(sys.argv[3])
        del sys.argv[1:4]
    clock = Skipping(late, late_s)
    # Not `shelld.app`: it imports gRPC, before which the launcher has to be forked.
    Tools.__init__.__defaults__ = (Clock(clock.now, clock.sleep),)
    shelld.__main__.main()


if __name__ == "__main__":
    main()
