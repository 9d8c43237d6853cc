"""Structured logging to stderr: JSON lines, or aligned text on a terminal.

Every event carries what was bound to its logger (`conn`, `user`, `chan`, …). Values of environment
variables, commands, tokens and keys are never logged; fingerprints are. Text that clients chose, such as user
strings and client versions, is shown with its control characters escaped in both forms.
"""

import io
import logging
import sys
from typing import Any, Literal, TextIO

import structlog

from proxy.printable import printable, printable_value

LogFormat = Literal["auto", "text", "json"]


def configure(level: str, form: LogFormat) -> None:
    """Set up logging for the process; `auto` means text on a terminal and JSON elsewhere."""
    text = form == "text" or (form == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[structlog.typing.Processor] = (
        [
            _printable_event,
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=_traceback),
        ]
        if text
        else [
            # Never with locals: they hold environments and commands.
            structlog.processors.ExceptionRenderer(
                structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
            ),
            structlog.processors.JSONRenderer(),
        ]
    )
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    # Libraries that use the standard module log only from WARNING on.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_PrintableLines("%(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("asyncssh").setLevel(logging.CRITICAL)


class _PrintableLines(logging.Formatter):
    """Lines of libraries, whose messages may quote text of a client."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), keep="\n\t")


def _printable_event(
    logger: object, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Escape control characters before colours are added. JSON escapes by itself."""
    del logger, method
    return {key: value if key == "exc_info" else _shown(value) for key, value in event.items()}


def _shown(value: Any) -> Any:
    """Return a value whose text, or whose `str`, holds no control character."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str | dict | list | tuple | set | frozenset):
        return printable_value(value)
    return printable(str(value))


def _traceback(stream: TextIO, exc_info: structlog.typing.ExcInfo) -> None:
    """Write a traceback, whose last line may quote a client."""
    text = io.StringIO()
    structlog.dev.plain_traceback(text, exc_info)
    stream.write(printable(text.getvalue(), keep="\n\t"))
