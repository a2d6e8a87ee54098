"""What can go wrong with the stream of events, each fault a generator around the stream.

A fault takes messages and yields messages, and draws from a `random.Random` of its own, so that
adding one changes nothing about the others. Pure.
"""

from __future__ import annotations

import heapq
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Final, NamedTuple

from cti_listener.values import Payload, routing_key

REPEAT_WITHIN: Final = 50
"""A later repeat comes at most so many events after the first."""

REORDER_WITHIN: Final = 3
"""A delayed event lets at most so many later ones of its device pass."""

REORDER_SECONDS: Final = 1.0
"""A delayed event waits no longer than this for later ones of its device."""


class Message(NamedTuple):
    """What is to be sent.

    Attributes:
        at: When, in seconds of the stream.
        event: What it is about; decides who gets it.
        body: What is sent instead of the event; None: the event itself.
        repeat: Whether the event has been sent before.
    """

    at: float
    event: Payload
    body: bytes | None = None
    repeat: bool = False


StreamFault = Callable[[Iterable[Message], float, Random], Iterator[Message]]
"""The stream, how much of the fault, chance."""


def restarts(stream: Iterable[Message], every: float, rng: Random) -> Iterator[Message]:
    """Restart the server every so many seconds of the stream: its counters fall back."""
    del rng  # regular, so that a test knows when
    first: dict[object, int] = {}
    ahead: dict[object, int] = {}
    fresh: set[object] = set()
    due = every
    for message in stream:
        if message.at >= due:
            due += every * (1 + (message.at - due) // every)
            fresh = set(first)
        event = message.event
        serial, counter = event.get("serial"), (event.get("namespace"), event.get("eventType"))
        if not isinstance(serial, int):
            yield message
            continue
        first.setdefault(counter, serial)
        if counter in fresh:
            fresh.discard(counter)
            ahead[counter] = serial - first[counter]
        if behind := ahead.get(counter):
            message = message._replace(event={**event, "serial": serial - behind})  # noqa: PLW2901
        yield message


def reorders(stream: Iterable[Message], share: float, rng: Random) -> Iterator[Message]:
    """Delay a share of the events until a few later ones of their device have passed."""
    held: OrderedDict[str | None, _Held] = OrderedDict()  # one a device, the oldest first
    now = 0.0
    for message in stream:
        now = message.at
        while held and next(iter(held.values())).until < now:
            _, overdue = held.popitem(last=False)
            yield overdue.message._replace(at=now)
        device = routing_key(message.event)
        late = held.get(device)
        if late is None and rng.random() < share:
            until = now + REORDER_SECONDS
            held[device] = _Held(message, until, rng.randint(1, REORDER_WITHIN))
            continue
        yield message
        if late is not None:
            late.to_pass -= 1
            if not late.to_pass:
                del held[device]
                yield late.message._replace(at=now)
    for late in held.values():
        yield late.message._replace(at=now)


@dataclass(slots=True)
class _Held:
    """An event that waits until enough others of its device have passed, or for long enough."""

    message: Message
    until: float
    to_pass: int


def repeats(stream: Iterable[Message], share: float, rng: Random) -> Iterator[Message]:
    """Send a share of the events again, half of them at once, half a while later."""
    later: list[tuple[int, int, Message]] = []
    order = count()
    now = 0.0
    for sent, message in enumerate(stream):
        now = message.at
        yield message
        while later and later[0][0] <= sent:
            yield heapq.heappop(later)[2]._replace(at=now)
        if rng.random() < share:
            again = message._replace(repeat=True)
            if rng.random() < 0.5:  # noqa: PLR2004 - a half
                yield again
            else:
                due = sent + rng.randint(1, REPEAT_WITHIN)
                heapq.heappush(later, (due, next(order), again))
    for _, _, again in sorted(later):
        yield again._replace(at=now)


def malforms(stream: Iterable[Message], share: float, rng: Random) -> Iterator[Message]:
    """Send something that is no event ahead of a share of the events, which follow whole."""
    for message in stream:
        if rng.random() < share:
            body = rng.choice(_MALFORMED)(message.event, rng)
            yield message._replace(body=body, repeat=False)
        yield message


def _cut_short(event: Payload, rng: Random) -> bytes:
    """Cut an event's text somewhere; its text is ASCII, so never inside a character."""
    text = json.dumps(event).encode()
    return text[: rng.randrange(1, len(text))]


def _not_json(event: Payload, rng: Random) -> bytes:
    del event, rng
    return b"<html><body>502 Bad Gateway</body></html>"


def _not_an_object(event: Payload, rng: Random) -> bytes:
    return json.dumps(rng.choice((None, 7, event.get("eventName")))).encode()


_MALFORMED: Final = (_cut_short, _not_json, _not_an_object)
