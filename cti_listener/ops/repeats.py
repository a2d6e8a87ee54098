"""Lines of the log that repeat: the first few are said at once, then one a period with a count.

`logs` sends every line through a `RateLimit`.
"""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import EventDict, WrappedLogger

AT_ONCE: Final = 3
"""So many lines of a kind pass at once, and again after a period in which none was held back."""

PERIOD: Final = 10.0
"""Of those that go on one passes in so many seconds."""

LEFT_OUT: Final = "lines_left_out"
"""The name of the line that counts what no later line of its kind could."""

_KIND: Final = (
    *("handler", "sink", "feed", "reason", "destination", "url", "queue"),
    *("stream", "filter", "name", "path"),
)
"""The fields that tell lines of one name apart: each has few values, and an id is none of them."""


class RateLimit:
    """Lets the first few lines of a kind through at once, then one a period that counts the others.

    A kind is a name and what of its fields is a closed set: the same name about another handler,
    feed or destination, or for another reason, is another kind. So what happens once is always
    said, and the line that says why the program ends is never held back.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Measure by this clock."""
        self._monotonic = monotonic
        self._kinds: dict[tuple[Any, ...], _Kind] = {}
        self._lock = threading.Lock()

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        """Pass a line on, or drop it; one that follows dropped ones says how many."""
        if event.get("event") == LEFT_OUT or event.get("level") == "critical":
            return event
        key = tuple(event.get(part) for part in ("event", "level", *_KIND))
        with self._lock:
            held = self._kinds.setdefault(key, _Kind()).pass_or_hold(self._monotonic())
        if held is None:
            raise structlog.DropEvent
        if held:
            event["left_out"] = held
        return event

    def settle(self, *, at_the_end: bool = False) -> list[tuple[str, int]]:
        """Return the names of lines held back in a period that is over, with how many.

        What held nothing back in it is forgotten.

        Args:
            at_the_end: Also those of the period at hand: nothing will be said of them later.
        """
        told = []
        with self._lock:
            now = self._monotonic()
            for key, kind in list(self._kinds.items()):
                if kind.held and (at_the_end or kind.is_over(now)):
                    told.append((str(key[0]), kind.held))
                    kind.begin(now)
                elif kind.is_over(now):
                    del self._kinds[key]
        return told


class _Kind:
    """How many lines of one kind passed in the period at hand, and how many were held back."""

    def __init__(self) -> None:
        self.held = 0
        self._since = -math.inf
        self._passed = 0

    def pass_or_hold(self, now: float) -> int | None:
        """Return None to hold a line back, else how many were since the last that passed."""
        held = self.held
        if self.is_over(now):
            self.begin(now)
        if self._passed >= AT_ONCE:
            self.held += 1
            return None
        self._passed += 1
        return held

    def begin(self, now: float) -> None:
        """Begin a period: where lines were held back they keep coming, and one is to pass."""
        self._passed = AT_ONCE - 1 if self.held else 0
        self._since = now
        self.held = 0

    def is_over(self, now: float) -> bool:
        """Tell whether its period is."""
        return now - self._since >= PERIOD
