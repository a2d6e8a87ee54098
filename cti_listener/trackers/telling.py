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

    Attributes:
        now: When it came.
        event: What identifies the event; None: time alone.
        notices: What follows, so far.
    """

    __slots__ = ("_wanted", "event", "notices", "now")

    def __init__(self, wanted: Kinds, now: datetime, event: tuple[Any, ...] | None) -> None:
        """Begin with nothing to tell."""
        self._wanted = wanted
        self.now = now
        self.event = event
        self.notices: list[Derived] = []

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
