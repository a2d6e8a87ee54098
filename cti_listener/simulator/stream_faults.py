"""What can go wrong with the stream of events, each fault a generator around the stream.

A fault takes messages and yields messages, and draws from a `random.Random` of its own, so that
adding one changes nothing about the others. Pure.
"""

from __future__ import annotations

import heapq
import json
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
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
        bomb: Whether it is only for those who take compressed messages.
        to_one: Who gets it where only one of those who want it does: a number from 0 to 1 that
            points at one of them. None: all of them.
        number: What whoever tells the stream calls it, for the ledger; None: nothing.
    """

    at: float
    event: Payload
    body: bytes | None = None
    repeat: bool = False
    bomb: bool = False
    to_one: float | None = None
    number: int | None = None


StreamFault = Callable[[Iterable[Message], float, float, Random], Iterator[Message]]
"""The stream, how often, how much each time (0 where that is no question), chance."""


def restarts(
    stream: Iterable[Message], every: float, amount: float, rng: Random
) -> Iterator[Message]:
    """Restart the server every so many seconds of the stream: its counters fall back."""
    del amount, rng  # regular, so that a test knows when
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


def reorders(
    stream: Iterable[Message], share: float, amount: float, rng: Random
) -> Iterator[Message]:
    """Delay a share of the events until a few later ones of their device have passed."""
    del amount
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


def repeats(
    stream: Iterable[Message], share: float, amount: float, rng: Random
) -> Iterator[Message]:
    """Send a share of the events again, half of them at once, half a while later."""
    del amount
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


def storms(
    stream: Iterable[Message], share: float, amount: float, rng: Random
) -> Iterator[Message]:
    """Send the last so many events again, in their order, behind a share of them."""
    last: deque[Message] = deque(maxlen=int(amount))
    for message in stream:
        yield message
        if message.body is None:
            last.append(message)
        if rng.random() < share:
            for one in last:
                yield one._replace(at=message.at, repeat=True)


def splits(
    stream: Iterable[Message], share: float, amount: float, rng: Random
) -> Iterator[Message]:
    """Send a share of the events to one session each, whichever it is."""
    del amount
    for message in stream:
        chosen = rng.random() < share
        yield message._replace(to_one=rng.random()) if chosen else message


# Messages that are no events; each comes ahead of an event, which follows whole

_Junk = Callable[[Payload, float, Random], bytes]


def _ahead(make: _Junk, *, bomb: bool = False) -> StreamFault:
    def fault(
        stream: Iterable[Message], share: float, amount: float, rng: Random
    ) -> Iterator[Message]:
        for message in stream:
            if rng.random() < share:
                body = make(message.event, amount, rng)
                yield message._replace(body=body, repeat=False, bomb=bomb)
            yield message

    return fault


def _malformed(event: Payload, amount: float, rng: Random) -> bytes:
    del amount
    return rng.choice((_cut_short, _not_json, _not_an_object))(event, rng)


def _cut_short(event: Payload, rng: Random) -> bytes:
    """Cut an event's text somewhere; its text is ASCII, so never inside a character."""
    text = json.dumps(event).encode()
    return text[: rng.randrange(1, len(text))]


def _not_json(event: Payload, rng: Random) -> bytes:
    del event, rng
    return b"<html><body>502 Bad Gateway</body></html>"


def _not_an_object(event: Payload, rng: Random) -> bytes:
    return json.dumps(rng.choice((None, 7, event.get("eventName")))).encode()


_NO_UTF8: Final = (b"\xff", b"\xc0\xaf", b"\xe4\xb8", b"\xed\xa0\x80", b"\xd0\xa1\xd0")
"""A byte that never is, an overlong form, a cut character, a surrogate, half of a pair (GBK)."""


def _broken_text(event: Payload, amount: float, rng: Random) -> bytes:
    del amount
    text = json.dumps(event).encode()
    place = rng.randrange(1, len(text))
    return text[:place] + rng.choice(_NO_UTF8) + text[place:]


def _nested(event: Payload, amount: float, rng: Random) -> bytes:
    del event, rng
    return _padding(b"[", int(amount)) + _padding(b"]", int(amount))


def _long(event: Payload, amount: float, rng: Random) -> bytes:
    """Write a JSON text of just so many bytes: JSON, and no object."""
    del event, rng
    return b'"' + _padding(b"x", int(amount) - 2) + b'"'


def _inflated(event: Payload, amount: float, rng: Random) -> bytes:
    return _long(event, amount * 2**20, rng)


@lru_cache(maxsize=8)
def _padding(character: bytes, length: int) -> bytes:
    return character * length


malforms: Final = _ahead(_malformed)
invalid_utf8: Final = _ahead(_broken_text)
deep: Final = _ahead(_nested)
oversized: Final = _ahead(_long)
bombs: Final = _ahead(_inflated, bomb=True)
