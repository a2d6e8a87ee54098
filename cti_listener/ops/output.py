"""Events and notices on stdout, one a line: the handler that the command line registers.

The form is JSON lines, exactly as received, or `pretty`'s. A line is written when the handler
returns; a reader too slow makes it wait, which in time pauses reading from the server, and never
the loop.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

from cti_listener.derived import CallEnded
from cti_listener.errors import HaltError
from cti_listener.event_base import Event
from cti_listener.log import log

if TYPE_CHECKING:
    from collections.abc import Callable

    from cti_listener.notices import Notice
    from cti_listener.ops.descriptor import Descriptor

_READABLE: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_ESCAPED: Final = json.JSONEncoder(separators=(",", ":"))

# What JSON lets stand as it is, and a terminal obeys: DEL, C1 controls, marks that turn the
# direction of writing, and line separators.
_STEERING: Final = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def json_line(happening: Event | Notice) -> bytes:
    """Return an event as received, or a notice, as one compact JSON object in UTF-8.

    What would steer a terminal is escaped; it is the equal object.
    """
    body = happening.as_received() if isinstance(happening, Event) else happening.as_wire()
    try:
        return _harmless(_READABLE.encode(body)).encode()
    except UnicodeEncodeError:  # a lone surrogate is JSON, and no UTF-8
        return _harmless(_ESCAPED.encode(body)).encode()


def _harmless(text: str) -> str:
    if text.isascii() and "\x7f" not in text:  # nearly always, and told at once
        return text
    return _STEERING.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


class Output:
    """Writes what it is given, until it has written enough or nobody reads any more.

    Attributes:
        events: How many events it has written, or records of calls.
        error: What makes writing impossible; None while it is possible.
        abandoned: Whether the reader has left: a quiet end.
        ended: Whether it writes nothing more.
    """

    def __init__(
        self,
        descriptor: Descriptor,
        form: Callable[[Event | Notice], bytes],
        *,
        count: int = 0,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare to write.

        Args:
            descriptor: Where to.
            form: Makes a line, without its line break.
            count: End after so many events; 0: never.
            on_end: Called once, when there is nothing more to write for.
        """
        self.events = 0
        self.error: OSError | None = None
        self.abandoned = False
        self.ended = False
        self._on_end = on_end
        self._descriptor = descriptor
        self._form = form
        self._count = count

    def __repr__(self) -> str:
        return f"<Output {self.events} events{', ended' if self.ended else ''}>"

    async def take(self, happening: Event | Notice) -> None:
        """Write one line; return when it is written.

        What comes after the end is not written: the handler is not done with it, and a journal
        keeps it for the next run.

        Raises:
            HaltError: It has ended.
        """
        if self.ended or not await self._put(happening):
            raise HaltError("the output has ended")

    async def _put(self, happening: Event | Notice) -> bool:
        """Write one line; tell whether it is written."""
        line = self._line(happening)
        try:
            await self._descriptor.write(line + b"\n")
        except BrokenPipeError:
            self.abandoned = True
            self._end()
            return False
        except OSError as error:
            self.error = error
            self._end()
            return False
        if isinstance(happening, Event | CallEnded):
            self.events += 1
            if self.events == self._count:
                self._end()
        return True

    def look(self) -> None:
        """See whether the reader has left, which a silent stream would not notice for long."""
        if not self.ended and self._descriptor.is_broken():
            self.abandoned = True
            self._end()

    def _end(self) -> None:
        self.ended = True
        self._on_end()

    def _line(self, happening: Event | Notice) -> bytes:
        """Return it in its form, or as plain JSON: no event is lost over its looks."""
        try:
            return self._form(happening)
        except Exception:  # noqa: BLE001 - a bug of ours on one; it is told, and the event printed
            log.exception("form_failed", event_name=str(happening.event_name))
            return json_line(happening)
