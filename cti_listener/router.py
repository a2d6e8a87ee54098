"""Who wants this event: handlers, what each asks for, and how they are found.

`Handler` is what `Listener.on` makes of a user's function. The router answers in time proportional
to the handlers that match, however many are registered for other devices. When a handler runs is
the dispatcher's business.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar

from tenacity import AsyncRetrying

from cti_listener.derived import Derived
from cti_listener.errors import HandlerError
from cti_listener.event_base import Event
from cti_listener.events import CATALOGUE, UnknownEvent
from cti_listener.histogram import Histogram
from cti_listener.log import log
from cti_listener.notices import Notice
from cti_listener.registration import returns_awaitable
from cti_listener.values import full_id

Happening = Event | Notice
"""What a handler can be given."""

Kind = type[Event] | type[Notice] | str
"""What a handler can ask for: a class (with all below it), or a wire name."""

Order = Literal["device", "all"]
WhenFull = Literal["drop_oldest", "block"]

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Wish:
    """Which happenings are asked for.

    Attributes:
        classes: Events and notices of exactly these classes.
        names: Unlisted events of these wire names.
        device: Only with this routing key; None: any. A notice passes if it concerns the device.
        where: A last word on each; an exception in it counts as no.
        fields: Attributes that must have these values.
        label: All that, for a person.
    """

    classes: frozenset[type[Happening]]
    names: frozenset[str] = frozenset()
    device: str | None = None
    where: Callable[[Any], object] | None = None
    fields: tuple[tuple[str, object], ...] = ()
    label: str = ""
    plain: bool = field(init=False)
    """Whether class, name and device say it all."""

    def __post_init__(self) -> None:
        """Settle once what is asked for each event."""
        object.__setattr__(self, "plain", self.where is None and not self.fields)

    def admits(self, happening: Happening) -> bool:
        """Tell whether the finer filters let it pass; class, name and device did already."""
        for name, value in self.fields:
            if getattr(happening, name, None) != value:
                return False
        if self.where is None:
            return True
        try:
            return bool(self.where(happening))
        except Exception:  # noqa: BLE001 - a user's code may raise anything
            log.exception("filter_failed", filter=self.label, event_name=happening.event_name)
            return False


def make_wish(
    kinds: Iterable[Kind],
    *,
    namespace: str | None,
    device: str | None = None,
    agent: str | None = None,
    where: Callable[[Any], object] | None = None,
    **wanted: object,
) -> Wish:
    """Turn what a user asks for into a `Wish`.

    Args:
        kinds: Classes and wire names; none means every event (notices must be asked for).
        namespace: Completes short ids.
        device: Only events with this routing key.
        agent: Only agent events of this agent.
        where: A predicate.
        **wanted: Attributes that must equal, as `call_id="..."` or `own_device=True`; None: any.

    Raises:
        HandlerError: A kind is neither class nor name, none of the kinds has such an attribute, an
            id is half an id, or the predicate cannot be asked.
    """
    _refuse_predicate(where)
    asked = list(kinds)
    classes: set[type[Happening]] = set()
    names: set[str] = set()
    for kind in asked or [Event]:
        if isinstance(kind, str):
            found = CATALOGUE.get(kind)
            classes.add(found) if found else names.add(kind)
        else:
            classes.update(_all_below(kind))
    if agent is not None:
        wanted["agent_id"] = _complete("agent", agent, namespace)
    fields = tuple((name, value) for name, value in wanted.items() if value is not None)
    for name, _ in fields:
        if not any(_has(one, name) for one in (*classes, *([UnknownEvent] if names else []))):
            shown = ", ".join(sorted(one.__name__ for one in classes))
            raise HandlerError(
                "on", f"no attribute {name!r} in {shown}; filter with where= instead"
            )
    label = (
        "/".join(kind if isinstance(kind, str) else kind.__name__ for kind in asked) or "any event"
    )
    label += "".join(f" {name}={value}" for name, value in fields)
    return Wish(
        classes=frozenset(classes),
        names=frozenset() if UnknownEvent in classes else frozenset(names),  # each event once
        device=None if device is None else _complete("device", device, namespace),
        where=where,
        fields=fields,
        label=label if device is None else f"{label} of {device}",
    )


def is_half_an_id(text: str) -> bool:
    """Tell whether one side of the `@` is missing, or all."""
    name, at, namespace = text.strip().partition("@")
    return not name or (bool(at) and not namespace)


def _complete(what: str, text: str, namespace: str | None) -> str:
    if is_half_an_id(text):
        raise HandlerError(what, f"{text!r} is half an id; write 8002, or 8002@zhen04.cc")
    return full_id(text, namespace)


def _refuse_predicate(where: Callable[[Any], object] | None) -> None:
    if where is None:
        return
    if not callable(where):
        raise HandlerError("where", f"{where!r} cannot be called; give a function of the event")
    if returns_awaitable(where):
        raise HandlerError(
            "where",
            "is a coroutine function, which is true of every event; write it with plain 'def', or "
            "look in the handler",
        )


def _all_below(kind: object) -> Iterator[type[Happening]]:
    if not (isinstance(kind, type) and issubclass(kind, Event | Notice)):
        what = f"{kind!r} is neither an event class nor an event name"
        raise HandlerError("on", f"{what}; a decorator needs its brackets: @listener.on()")
    yield kind
    for below in kind.__subclasses__():
        if below is not Derived:  # what follows from events is asked for by itself
            yield from _all_below(below)


def _has(kind: type[Happening], name: str) -> bool:
    return name in getattr(kind, "model_fields", ()) or hasattr(kind, name)


@dataclass(slots=True, kw_only=True, eq=False)
class Handler:
    """A registered function and how it wants to run.

    Attributes:
        name: For logs and counts.
        wish: What it asks for.
        run: The coroutine function to call with each happening.
        order: One lane per device, or one for everything in arrival order.
        lane_size: How many happenings wait in one lane before it is full.
        overflow: Drop the oldest and tell it, or pause reading.
        timeout: For one run, in seconds; None: none.
        retry: How to try again what failed; None: not at all.
        durable: What it is owed stands in the journal until it has done it.
        handled, failed, dropped, waiting: Counts; `waiting` is now, the others since the start.
        halted: It raised `HaltError`, and is not called again.
        withheld: What it would not take then, and what it has not been given since.
        durations: How long it takes, of one run in `dispatcher.SAMPLED`.
        plain: It has neither time limit nor retries.
        number: Tells its lanes from those of others.
    """

    name: str
    wish: Wish
    run: Callable[[Any], Awaitable[object]]
    order: Order = "device"
    lane_size: int = 1000
    overflow: WhenFull = "drop_oldest"
    timeout: float | None = None
    retry: AsyncRetrying | None = None
    durable: bool = False
    handled: int = 0
    failed: int = 0
    dropped: int = 0
    waiting: int = 0
    halted: bool = False
    withheld: int = 0
    durations: Histogram = field(default_factory=Histogram)
    plain: bool = field(init=False)
    number: int = field(default_factory=lambda: next(_numbers))

    def __repr__(self) -> str:
        counts = f"{self.handled} handled, {self.waiting} waiting"
        return f"<Handler {self.name} for {self.wish.label}, {counts}>"

    def __post_init__(self) -> None:
        """Refuse limits that cannot work.

        Raises:
            HandlerError: A limit is out of its range.
        """
        if self.timeout is not None and self.timeout <= 0:
            raise HandlerError("timeout", "must be more than 0 seconds, or None")
        if self.lane_size < 1:
            raise HandlerError("lane_size", "must be 1 or more")
        if self.order not in ("device", "all"):
            raise HandlerError("order", f"must be 'device' or 'all', not {self.order!r}")
        if self.overflow not in ("drop_oldest", "block"):
            raise HandlerError(
                "overflow", f"must be 'drop_oldest' or 'block', not {self.overflow!r}"
            )
        self.plain = self.timeout is None and self.retry is None


class Wishful(Protocol):
    """Whatever can be routed to."""

    @property
    def wish(self) -> Wish:
        """What it asks for."""


W = TypeVar("W", bound=Wishful)


class Router(Generic[W]):
    """An index of wishes by class or name, apart for each device asked for.

    Args:
        asked: Counts how many ask for each class or name, here and wherever else it is given.

    Attributes:
        any: Whether there is anybody.
    """

    def __init__(self, asked: Counter[type[Happening] | str]) -> None:
        """Start with nobody."""
        self.any = False
        self._asked = asked
        self._anywhere: dict[type[Happening] | str, list[W]] = {}
        self._by_device: dict[str, dict[type[Happening] | str, list[W]]] = {}
        self._all: dict[int, W] = {}

    def __iter__(self) -> Iterator[W]:
        return iter(list(self._all.values()))

    def add(self, one: W) -> None:
        """Route to it from now on."""
        self._all[id(one)] = one
        self.any = True
        wish = one.wish
        index = (
            self._anywhere if wish.device is None else self._by_device.setdefault(wish.device, {})
        )
        for key in (*wish.classes, *wish.names):
            index.setdefault(key, []).append(one)
            self._asked[key] += 1

    def discard(self, one: W) -> None:
        """Route to it no longer; not an error if it was not routed to."""
        if self._all.pop(id(one), None) is None:
            return
        self.any = bool(self._all)
        wish = one.wish
        index = self._anywhere if wish.device is None else self._by_device[wish.device]
        for key in (*wish.classes, *wish.names):
            index[key].remove(one)
            if not index[key]:
                del index[key]
            self._asked[key] -= 1
            if not self._asked[key]:
                del self._asked[key]
        if wish.device is not None and not index:
            del self._by_device[wish.device]

    def match(self, event: Event, device: str | None) -> Sequence[W]:
        """Return whoever wants this event of this device; to be read before the next change."""
        kind = type(event)
        found: Sequence[W] = self._anywhere.get(kind, ())
        if self._by_device and device is not None and (here := self._by_device.get(device)):
            found = [*found, *here.get(kind, ())]
            if kind is UnknownEvent:
                found += here.get(event.event_name, ())
        if kind is UnknownEvent and (named := self._anywhere.get(event.event_name)):
            found = [*found, *named]
        for one in found:
            if not one.wish.plain:
                # Of a copy: a predicate may register, and an abandoned stream may go meanwhile.
                return [one for one in tuple(found) if one.wish.admits(event)]
        return found

    def match_unread(self, kind: type[Event], device: str | None) -> Sequence[W] | None:
        """Return whoever wants events of this class and device; None: the event has to be read."""
        if kind is UnknownEvent:
            return None
        found: Sequence[W] = self._anywhere.get(kind, ())
        if self._by_device and device is not None and (here := self._by_device.get(device)):
            found = [*found, *here.get(kind, ())]
        for one in found:
            if not one.wish.plain:
                return None
        return found

    def match_notice(self, notice: Notice) -> Sequence[W]:
        """Return whoever wants this notice: of its devices, or of all if it concerns all."""
        kind = type(notice)
        found: Sequence[W] = self._anywhere.get(kind, ())
        if self._by_device:
            for device in notice.concerns or tuple(self._by_device):
                found = [*found, *self._by_device.get(device, {}).get(kind, ())]
        return [one for one in found if one.wish.plain or one.wish.admits(notice)]
