"""Settings of the log."""

from typing import Literal

from proxy.settings.base import Section


class LogSettings(Section):
    """The log of the process."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "text", "json"] = "auto"
