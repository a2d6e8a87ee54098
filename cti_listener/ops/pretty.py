"""The form of events and notices for people: one line, columns aligned, what is notable last.

Called by `output` for a terminal. Every text comes from outside and is cleaned before it is shown.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from cti_listener.derived import CallEnded, CallRevised
from cti_listener.events import (
    AgentEvent,
    CallEvent,
    Conferenced,
    Delivered,
    Failed,
    RecordEvent,
    Transferred,
)
from cti_listener.notices import (
    Connected,
    Disconnected,
    Gap,
    Notice,
    Overflow,
    SubscriptionRefused,
)
from cti_listener.ops import terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import tzinfo

    from cti_listener.event_base import Event

_STYLE: Final = {
    "serviceInitiated": "yellow",
    "originated": "yellow",
    "delivered": "yellow",
    "established": "green",
    "retrieved": "green",
    "held": "blue",
    "transferred": "magenta",
    "conferenced": "magenta",
    "connectionCleared": "red",
    "failed": "alarm",
    "recordStarted": "dim",
    "recordStopped": "dim",
    "connected": "bold",
    "listener": "alarm",
    "agent": "cyan",
}
"""The colour of each event, else of its type; a notice that tells of trouble is an alarm."""

_DIRECTION: Final = len("predictive")

_WIDEST: Final = 26
"""A column grows with what it holds, up to this."""


class Pretty:
    """Lays out lines. A column that had to grow stays as wide, so what follows is aligned."""

    def __init__(
        self,
        *,
        zone: tzinfo,
        namespace: str | None,
        colour: bool,
        columns: Callable[[], int] = lambda: 0,
    ) -> None:
        """Prepare the columns.

        Args:
            zone: Where the times shown hang.
            namespace: Left out after ids; None: an event's own, but not after its device.
            colour: Whether to use it.
            columns: Tells how wide the terminal is now; events are cut there, notices never. 0:
                nowhere.
        """
        self._columns = columns
        self._zone = zone
        self._namespace = namespace
        self._colour = colour
        # Wide enough for a short id, the longest name of the catalogue, and a mobile's number.
        self._device, self._name, self._calling, self._called = 6, 21, 11, 11

    def line(self, happening: Event | Notice) -> str:
        """Return it as one line, without the line break."""
        if isinstance(happening, CallEnded | CallRevised):
            return self._record_line(happening)
        if isinstance(happening, Notice):
            return self._notice_line(happening)
        return self._event_line(happening)

    def _event_line(self, event: Event) -> str:
        own = self._namespace or event.namespace
        received = event.delivery.received_at or datetime.now(UTC)
        device = self._short(event.device, self._namespace)
        self._device, device = _column(device, self._device)
        self._name, name = _column(terminal.clean(str(event.event_name)), self._name)
        parties = self._parties(event, own)
        call = terminal.pad(terminal.cut(terminal.clean(event.call_id or "")[:8], 8), 8)
        time = self._event_time(event, received)
        after = f"  {parties}  {call}  "
        style = _STYLE.get(event.event_name) or _STYLE.get(event.event_type or "", "plain")
        rest = after + " · ".join(text for text in self._notable(event, own) if text)
        if columns := self._columns():
            taken = sum(map(terminal.width, (time, device, name))) + len("    ")
            rest = terminal.cut(rest, max(columns - taken, 40))
        return self._joined(time, device, name, style, rest)

    def _record_line(self, notice: CallEnded | CallRevised) -> str:
        """Return a call record: at which device, with whom, for how long, and what is notable."""
        record = notice.call
        self._device, device = _column(self._short(record.device, self._namespace), self._device)
        self._name, name = _column(notice.event_name, self._name)
        own = self._namespace or (record.device.partition("@")[2] or None)
        self._calling, other = _column(self._short(record.other_party, own), self._calling)
        parts = [
            _seconds("ring", record.ring_seconds),
            _seconds("talk", record.talk_seconds),
            _seconds("hold", record.hold_seconds or None),
            _seconds("wrap-up", record.wrap_up_seconds),
            f"to {self._short(record.transferred_to, own)}" if record.transferred_to else "",
            f"from {self._short(record.transferred_from, own)}" if record.transferred_from else "",
            terminal.clean(record.cause or ""),
            "uncertain" if record.uncertain else "",
        ]
        call = terminal.pad(terminal.cut(terminal.clean(record.id[:8]), 8), 8)
        said = " · ".join(text for text in parts if text)
        direction = terminal.pad(record.direction or "", _DIRECTION)
        style = "green" if record.was_answered else "yellow"
        rest = f"  {direction}  {other}  {call}  {said}"
        return self._joined(self._time(record.ended), device, name, style, rest)

    def _notice_line(self, notice: Notice) -> str:
        style = "bold" if isinstance(notice, Connected) else "alarm"
        self._name, name = _column(notice.event_name, self._name)
        time = self._time(notice.at)
        return self._joined(time, " " * self._device, name, style, f"  {self._said(notice)}")

    def _joined(self, time: str, device: str, name: str, style: str, rest: str) -> str:
        if self._colour:
            time, name = terminal.styled(time, "dim"), terminal.styled(name, style)
        return f"{time}  {device}  {name}{rest}".rstrip()

    def _parties(self, event: Event, own: str | None) -> str:
        """Say who with whom, or which agent."""
        arrow = "→" if event.calling_device or event.called_device else " "
        first = event.agent_id if isinstance(event, AgentEvent) else event.calling_device
        self._calling, calling = _column(self._short(first, own), self._calling)
        self._called, called = _column(self._short(event.called_device, own), self._called)
        return f"{calling} {arrow} {called}"

    def _notable(self, event: Event, own: str | None) -> Iterator[str]:
        """Yield what a person would want to know of it."""
        if isinstance(event, AgentEvent):
            if event.agent_mode and f"agent{event.agent_mode}" != event.event_name:
                yield terminal.clean(event.agent_mode)
            yield terminal.clean(str(getattr(event, "reason", None) or ""))
        if isinstance(event, CallEvent):
            yield from self._of_call(event, own)
        if isinstance(event, RecordEvent):
            if event.is_success is False:
                yield "not successful"
            yield terminal.clean((event.file_name or "").rpartition("/")[2])

    def _of_call(self, event: CallEvent, own: str | None) -> Iterator[str]:
        """Yield whose step it is when not the device's own, where the call goes, and why."""
        actor = getattr(event, event.own_field) if event.own_field else None
        if actor and not event.own_device:
            yield f"{'at' if isinstance(event, Delivered) else 'by'} {self._short(actor, own)}"
        if isinstance(event, Transferred) and event.transferred_to_device:
            yield f"to {self._short(event.transferred_to_device, own)}"
        if isinstance(event, Conferenced) and event.added_party:
            yield f"with {self._short(event.added_party, own)}"
        if isinstance(event, Failed):
            yield terminal.clean(event.failed_msg or str(event.failed_code or ""))
        yield terminal.clean(event.cause or "")

    def _said(self, notice: Notice) -> str:
        """Say in words what a notice tells."""
        whose = ", ".join(sorted(notice.concerns))
        match notice:
            case Connected():
                text = notice.url if notice.confirmed else f"{notice.url} (unconfirmed)"
            case Disconnected():
                text = f"{notice.detail}; last sign of life {self._time(notice.since)}"
            case Gap():
                text = f"{notice.reason}, {self._time(notice.since)}"
                if notice.until is not None:
                    seconds = (notice.until - notice.since).total_seconds()
                    text += f" to {self._time(notice.until)} ({seconds:.1f} s)"
                text += f": events of {whose or 'all devices'} may be missing"
            case SubscriptionRefused():
                text = f"{notice.destination}: {notice.detail}"
            case Overflow():
                text = f"{notice.dropped} events of {whose or 'all devices'} dropped"
                text += f", the lane of {notice.handler} was full"
            case _:
                text = str(notice.as_wire())
        return terminal.clean(text)

    def _event_time(self, event: Event, received: datetime) -> str:
        """Say when by the server's clock, or what it said if that is in no year of ours."""
        try:
            return self._time(event.event_time or received)
        except OverflowError:
            return terminal.cut(terminal.clean(event.event_time_text or ""), _WIDEST)

    def _time(self, time: datetime) -> str:
        return f"{time.astimezone(self._zone):%H:%M:%S}"

    @staticmethod
    def _short(identifier: str | None, namespace: str | None) -> str:
        """Leave out the namespace that goes without saying."""
        text = identifier or ""
        if namespace:
            text = text.removesuffix(f"@{namespace}")
        return terminal.clean(text)


def _seconds(what: str, seconds: float | None) -> str:
    return "" if seconds is None else f"{what} {seconds:.0f} s"


def _column(text: str, columns: int) -> tuple[int, str]:
    """Return the column's width, grown if it must, and the text filled up or cut to it."""
    columns = max(columns, min(terminal.width(text), _WIDEST))
    return columns, terminal.pad(terminal.cut(text, columns), columns)
