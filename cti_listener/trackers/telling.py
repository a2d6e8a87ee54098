"""What follows from one event, put together as it is found."""

from __future__ import annotations

from collections.abc import Callable, Container
from datetime import datetime
from typing import Any

from cti_listener.derived import Derived
from cti_listener.values import EventKey

Kinds = Container[object]


class Telling:
    """The notices that follow from one event, in order; only those that somebody wants.

    A tracker has one, for one event after the other.

    Attributes:
        now: When the event came.
        event: What identifies it; None: time alone.
        notices: What follows, so far.
    """

    __slots__ = ("_wanted", "event", "notices", "now")

    def __init__(self, wanted: Kinds) -> None:
        """Wait for an event."""
        self._wanted = wanted
        self.now: datetime
        self.event: tuple[Any, ...] | None
        self.notices: list[Derived] = []

    def of(self, event: tuple[Any, ...] | None, now: datetime) -> Telling:
        """Begin with nothing to tell of this event; what was told of others stays as it is."""
        self.event, self.now, self.notices = event, now, []
        return self

    def add(
        self,
        kind: Callable[..., Derived],
        device: str,
        *,
        inferred: bool = False,
        **fields: object,
    ) -> None:
        """Tell this, if somebody wants it.

        Args:
            kind: The class of notice.
            device: Whose it is.
            inferred: No event said so.
            **fields: Its other fields.
        """
        if kind in self._wanted:
            self.notices.append(
                kind(
                    at=self.now,
                    device=device,
                    event=None if self.event is None else EventKey(*self.event),
                    inferred=inferred,
                    **fields,
                )
            )
