"""Samples the main thread of the process that imports it, which Python does by itself at start.

A timer of the process's own CPU time asks every few milliseconds where the main thread is. A sample
weighs what that thread has used since the last one, so that other threads are not charged to it (they
are listed apart). Samples count only while the file `go` exists in the folder named by BENCH_SAMPLES; the
sums go to `<pid>.json` there. C code called by the event loop cannot be interrupted: its time is charged
to the entry of the Python function that follows, and is shown as such.
"""

import atexit
import json
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

_TICK_S = 0.001
_LOOK_EVERY = 10
_DEPTH = 60


class _Sampler:
    def __init__(self, folder: Path) -> None:
        self._go = folder / "go"
        self._file = folder / f"{os.getpid()}.json"
        self._running = False
        self._seen = 0
        self._last = time.thread_time()
        self._self: Counter[str] = Counter()
        self._with_calls: Counter[str] = Counter()

    def sample(self, _number: int, frame: FrameType | None) -> None:
        now = time.thread_time()
        weight, self._last = now - self._last, now
        self._seen += 1
        if self._seen % _LOOK_EVERY == 0:
            if self._running and self._seen % (10 * _LOOK_EVERY) == 0:
                self._save()
            self._running = self._go.exists()
        if frame is None or not self._running:
            return
        entered = frame.f_lineno == frame.f_code.co_firstlineno
        self._self[("before " if entered else "") + _name(frame.f_code)] += weight  # type: ignore[assignment]
        names, depth = set(), 0
        walk: FrameType | None = frame
        while walk is not None and depth < _DEPTH:
            names.add(_name(walk.f_code))
            walk, depth = walk.f_back, depth + 1
        for name in names:
            self._with_calls[name] += weight  # type: ignore[assignment]

    def _save(self) -> None:
        content: dict[str, Any] = {
            "argv": sys.orig_argv,
            "self": dict(self._self.most_common(60)),
            "with_calls": dict(self._with_calls.most_common(60)),
            "threads": _threads(),
        }
        self._file.write_text(json.dumps(content))


def _name(code: CodeType) -> str:
    return f"{'/'.join(code.co_filename.split('/')[-2:])}:{code.co_qualname}"


def _threads() -> dict[str, float]:
    """Read the CPU seconds of every thread since it began, by thread name and number."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        before, _, after = (task / "stat").read_text().rpartition(")")
        words = after.split()
        found[f"{before.partition('(')[2]} {task.name}"] = (int(words[11]) + int(words[12])) / os.sysconf(
            "SC_CLK_TCK"
        )
    return found


def _stop(*_: Any) -> None:
    signal.setitimer(signal.ITIMER_PROF, 0)


def _hook(event: str, _arguments: tuple[Any, ...]) -> None:
    """Stop before exec: the timer would outlive this program and its signal would end the next one."""
    if event == "os.exec":
        _stop()


def _hand_on() -> None:
    """Have a shelld sample itself too: the proxy starts it with a clean environment."""
    spawn = os.posix_spawn

    def spawn_sampled(path: Any, argv: Any, env: Any, **options: Any) -> int:
        if "shelld" in argv:
            env = {**env, **{name: os.environ[name] for name in ("PYTHONPATH", "BENCH_SAMPLES")}}
        return spawn(path, argv, env, **options)

    os.posix_spawn = spawn_sampled


if _folder := os.environ.get("BENCH_SAMPLES"):
    _hand_on()
    signal.signal(signal.SIGPROF, _Sampler(Path(_folder)).sample)
    signal.setitimer(signal.ITIMER_PROF, _TICK_S, _TICK_S)
    atexit.register(_stop)
    sys.addaudithook(_hook)
