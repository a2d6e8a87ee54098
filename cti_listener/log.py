"""The one logger: structlog as the host has configured it, else plain lines by stdlib logging.

Unconfigured, structlog prints everything to stdout, and tracebacks with the values of variables,
events and credentials among them. A library must do neither, so until somebody configures structlog
(as the command line does, in `ops.logs`) what is said goes to `logging.getLogger("cti_listener")`.
"""

from __future__ import annotations

import logging
from typing import Any

import structlog
from structlog.typing import EventDict, WrappedLogger


def _as_line(
    _logger: WrappedLogger, _method: str, event: EventDict
) -> tuple[tuple[str], dict[str, Any]]:
    """Turn a happening into a message and what stdlib logging makes of an exception."""
    error = event.pop("exc_info", None)
    stack = event.pop("stack", None)  # a text of several lines, shown below as a traceback is
    words = [str(event.pop("event")), *(f"{name}={value}" for name, value in event.items())]
    line = " ".join(words)
    return (line if stack is None else f"{line}\n{stack}",), {"exc_info": error}


_plain = structlog.wrap_logger(
    logging.getLogger("cti_listener"),
    processors=[
        structlog.stdlib.filter_by_level,
        structlog.contextvars.merge_contextvars,
        _as_line,
    ],
    wrapper_class=structlog.stdlib.BoundLogger,
)


class _Log:
    """Passes on to whichever logger holds at the time."""

    def __getattr__(self, name: str) -> Any:
        configured = structlog.is_configured()
        return getattr(structlog.get_logger("cti_listener") if configured else _plain, name)


log = _Log()

about = structlog.contextvars.bound_contextvars
"""Binds what every line is about that is logged within its block, and by what begins there."""
