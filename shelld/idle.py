"""The stop of an idle workspace."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from shelld import stop_notice
from shelld.activity import Activity
from shelld.programs.registry import Registry

_LOOKS_PER_LIMIT = 4
_LONGEST_NAP_S = 15.0


async def until_idle(registry: Registry, activity: Activity, idle_stop_s: float, warn_s: float = 0) -> None:
    """Wait until nothing has been active for `idle_stop_s` (> 0); warn users `warn_s` seconds before."""
    while True:
        activity.look()
        left_s = idle_stop_s - registry.idle_s
        if left_s <= 0:
            return
        to_warning_s = left_s - warn_s
        if warn_s and to_warning_s <= 0:
            registry.announce(stop_notice.soon(registry.idle_s, left_s), f"idle {registry.active_at:.3f}")
        nap_s = min(left_s, idle_stop_s / _LOOKS_PER_LIMIT, _LONGEST_NAP_S)
        await asyncio.sleep(min(nap_s, to_warning_s) if to_warning_s > 0 else nap_s)


async def stop_when_idle(
    registry: Registry,
    activity: Activity,
    idle_stop_s: float,
    warn_s: float = 0,
    *,
    hide: Callable[[], None],
    show: Callable[[], None],
) -> None:
    """Wait until the workspace is idle and no client can reach it any more.

    The socket is hidden first, then the clock is read again. A client that connected in between keeps the
    workspace alive. A later client finds no socket and starts another shelld.
    """
    while True:
        await until_idle(registry, activity, idle_stop_s, warn_s)
        hide()
        await asyncio.sleep(0)
        activity.look()
        if registry.idle_s >= idle_stop_s:
            registry.stop()
            return
        show()
