"""How the program logs: for people on a terminal, as JSON lines otherwise, always on stderr.

`app` calls `configure` once; a program that embeds the library configures structlog itself. A line
passes: level, rate limit, masking, form. Names of lines are stable, what varies stands in fields.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import deque
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from cti_listener.ops import terminal
from cti_listener.ops.repeats import LEFT_OUT, RateLimit

if TYPE_CHECKING:
    from datetime import tzinfo

    from structlog.typing import EventDict, WrappedLogger

    from cti_listener.ops.descriptor import Descriptor
    from cti_listener.ops.masking import Masker

_STYLE: Final = {"debug": "dim", "info": "green", "warning": "yellow", "error": "red"}
_NAME_COLUMNS: Final = 22

_WAITING_LINES: Final = 1000
"""So many lines wait for a stderr that is full; then the oldest go."""


class LogSink:
    """Writes lines to stderr without ever waiting for it: a full pipe must not stop the loop.

    Whoever logs may do so in a thread of its own.
    """

    def __init__(self, descriptor: Descriptor) -> None:
        """Write to this descriptor."""
        self.descriptor = descriptor
        self._waiting: deque[bytes] = deque([b"\n"] if descriptor.in_a_line else [])
        self._broken = False
        self._lock = threading.RLock()

    def write(self, line: str) -> None:
        """Write a line now, or when the next one is."""
        with self._lock:
            self._waiting.append(line.encode(errors="backslashreplace") + b"\n")
            # The first one may have been written in part.
            while len(self._waiting) > _WAITING_LINES:
                del self._waiting[1]
            self.flush()

    def flush(self) -> None:
        """Write what is taken of the lines that wait."""
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        while self._waiting and not self._broken:
            line = self._waiting[0]
            try:
                taken = self.descriptor.write_some(line)
            except BrokenPipeError:  # nobody reads: there is nowhere to say so
                self._broken = True
                return
            except OSError:  # the disk is full, and may have room again
                return
            if taken == 0:
                return
            if taken == len(line):
                self._waiting.popleft()
            else:
                self._waiting[0] = line[taken:]


class Logs:
    """What was configured, to be flushed from time to time and at the end."""

    def __init__(self, sink: LogSink, limit: RateLimit, masker: Masker, *, as_json: bool) -> None:
        """Keep the parts that hold something back."""
        self._sink = sink
        self._limit = limit
        self._masker = masker
        self._as_json = as_json

    def fail(self, text: str, code: int) -> None:
        """Say why the program ends, whatever the level: a plain line for people."""
        if self._as_json:
            structlog.get_logger("cti_listener").critical("failed", problem=text, exit_code=code)
        else:
            self._sink.write(f"cti-listen: {terminal.clean(self._masker.text(text))}")

    def flush(self, *, at_the_end: bool = False) -> None:
        """Say what was held back, and write what waits.

        Args:
            at_the_end: Also say what was held back in a period that is not over.
        """
        for name, held in self._limit.settle(at_the_end=at_the_end):
            structlog.get_logger("cti_listener").warning(LEFT_OUT, of=name, left_out=held)
        self._sink.flush()


def configure(
    sink: LogSink,
    masker: Masker,
    *,
    level: str,
    as_json: bool,
    colour: bool = False,
    leave_out: frozenset[str] = frozenset(),
    zone: tzinfo | None = None,
) -> Logs:
    """Configure structlog and the standard library's logging for this program.

    Args:
        sink: Where lines go.
        masker: Takes out of them what must not be read.
        level: The lowest level that is logged.
        as_json: One JSON object a line, instead of the form for people.
        colour: Whether the form for people is in colour.
        leave_out: Names of lines that are said elsewhere.
        zone: Where the times for people hang; None: here.
    """
    number: int = logging.getLevelNamesMapping()[level.upper()]
    limit = RateLimit()
    structlog.configure(
        processors=[
            partial(_leave_out, leave_out),
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            limit,
            partial(_stamp, UTC if as_json else zone),
            structlog.processors.format_exc_info,
            partial(_mask, masker),
            _json if as_json else _Console(colour=colour),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: _Line(sink),
        cache_logger_on_first_use=False,
    )
    handler = _FromStandardLibrary(with_traces=level == "debug")
    logging.basicConfig(handlers=[handler], level=max(number, logging.WARNING), force=True)
    logging.captureWarnings(True)  # noqa: FBT003 - the standard library's signature
    return Logs(sink, limit, masker, as_json=as_json)


class _Line:
    """What structlog calls a logger: its methods take the finished line."""

    def __init__(self, sink: LogSink) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = sink.write


class _FromStandardLibrary(logging.Handler):
    """Brings what other libraries log into our lines.

    Their records are free text, so the logger's name is the name of the line. What fails in a
    connection is told by our own lines: a trace of it helps those who debug only.
    """

    def __init__(self, *, with_traces: bool) -> None:
        super().__init__()
        self._with_traces = with_traces

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger("cti_listener")
        trace = record.exc_info if self._with_traces else None
        error = record.exc_info[1] if record.exc_info and not trace else None
        about = {"error": f"{type(error).__name__}: {error}"} if error else {}
        method = getattr(log, record.levelname.lower(), log.error)
        method(record.name, message=record.getMessage(), exc_info=trace, **about)


def _leave_out(
    names: frozenset[str], _logger: WrappedLogger, _method: str, event: EventDict
) -> EventDict:
    """Drop what is said elsewhere."""
    if event.get("event") in names:
        raise structlog.DropEvent
    return event


def _mask(masker: Masker, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Take out what must not be read."""
    return masker.fields(event)


def _stamp(
    zone: tzinfo | None, _logger: WrappedLogger, _method: str, event: EventDict
) -> EventDict:
    """Say when: JSON in UTC, to the microsecond."""
    event["time"] = datetime.now(UTC).astimezone(zone).isoformat(timespec="microseconds")
    return event


def _json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """Return a line as one JSON object, what matters first."""
    return json.dumps(_ordered(event, "time", "level", "event"), ensure_ascii=False, default=str)


def _ordered(event: EventDict, *first: str) -> EventDict:
    """Put these first, then the connection it is about."""
    names = (*first, "feed", "connection")
    return {**{name: event[name] for name in names if name in event}, **event}


class _Console:
    """The form for people: time, level, name, then what else is known."""

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> str:
        time_of_day = str(event.pop("time"))[11:19]
        level = str(event.pop("level"))
        name = terminal.pad(terminal.clean(str(event.pop("event"))), _NAME_COLUMNS)
        stack = event.pop("stack", None)
        trace = event.pop("exception", stack)
        rest = " ".join(f"{key}={_quoted(value)}" for key, value in _ordered(event).items())
        shown = terminal.pad(level, 7)
        if self._colour:
            time_of_day = terminal.styled(time_of_day, "dim")
            shown = terminal.styled(shown, _STYLE.get(level, "alarm"))
        line = f"{time_of_day} {shown} {name} {rest}".rstrip()
        if trace:
            line += "".join(f"\n    {terminal.clean(text)}" for text in str(trace).splitlines())
        return line


def _quoted(value: object) -> str:
    """Write a value so that it cannot pass for two."""
    text = terminal.clean(
        value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    )
    return f'"{text}"' if not text or (isinstance(value, str) and " " in text) else text
