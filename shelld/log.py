"""JSON lines on standard error: one object a line, keys `ts`, `level`, `event` and the known facts.

Never logged: environment values, command lines, output of programs, tokens.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any


class _JsonLines(logging.Formatter):
    """A format of one line a record, for any message."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    """Return False for gRPC's message that a call could not be ended because its client had just left."""
    return not (record.name.startswith("grpc.") and "ExecuteBatchError" in record.getMessage())


class Log:
    """A logger whose keyword arguments become keys of the line."""

    def __init__(self, name: str) -> None:
        """Take the name of the module that logs."""
        self._logger = logging.getLogger(name)

    def debug(self, event: str, **fields: Any) -> None:
        """Log an event for developers."""
        self._logger.debug("%s", event, extra={"fields": fields})

    def info(self, event: str, **fields: Any) -> None:
        """Log an event."""
        self._logger.info("%s", event, extra={"fields": fields})

    def warning(self, event: str, **fields: Any) -> None:
        """Log an event that an operator may have to repair."""
        self._logger.warning("%s", event, extra={"fields": fields})

    def bug(self, event: str, error: BaseException, **fields: Any) -> None:
        """Log an event that is a bug, with its traceback."""
        self._logger.error("%s", event, extra={"fields": fields}, exc_info=error)


def configure(level: str) -> None:
    """Send every logger of the process to standard error; `level` is a name of `logging`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    handler.addFilter(_is_worth_a_line)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
