"""Moved to `proxy.settings.front_door`."""

from proxy.settings.front_door import *  # noqa: F403
