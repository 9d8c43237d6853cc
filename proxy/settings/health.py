"""Settings of the health page and the metrics."""

from typing import Annotated

from pydantic import Field

from proxy.settings.base import Section


class HealthSettings(Section):
    """The state and the metrics of this process, over plain HTTP for probes and Prometheus."""

    listen: str = ""
    """`host:port` of `/livez`, `/readyz` and `/metrics`; empty for none. Says nothing of users or
    addresses, but belongs on an inner network all the same."""
    drain_s: Annotated[float, Field(ge=0, le=3_600)] = 0
    """After SIGTERM connections are accepted for so long, while `/readyz` says no: a load balancer needs a
    moment to look."""
