"""Settings of the shutdown."""

from typing import Annotated

from pydantic import Field

from proxy.settings.base import Section


class ShutdownSettings(Section):
    """The shutdown of the process."""

    grace_s: Annotated[float, Field(ge=0, le=86_400)] = 5
    """Live sessions may end by themselves for this long after SIGTERM and `health.drain_s`."""
    deadline_s: Annotated[float, Field(gt=0, le=86_400)] | None = None
    """From SIGTERM to the KILL of the platform, such as `terminationGracePeriodSeconds` of a pod. Live
    sessions then have what it leaves, or `grace_s` where that is given and shorter."""
