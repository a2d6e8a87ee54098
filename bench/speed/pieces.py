"""What an event takes in memory while it is on its way, piece by piece.

Nothing here is held to a goal.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from bench.speed.ratios import Row, row
from bench.speed.sender import NAMESPACE, make_event
from cti_listener import Event
from cti_listener.event_base import Delivery
from cti_listener.events import event_of, load_object
from cti_listener.lanes import Lane
from cti_listener.router import Handler, make_wish
from cti_listener.values import identity, routing_key

COUNT = 5000
"""So many of each piece are made, and held."""

T = TypeVar("T")


def pieces() -> Iterator[Row]:
    """Tell how many bytes each piece of an event takes, beside those it is made of."""
    texts, size = _held([*range(COUNT)], lambda number: make_event(number, COUNT))
    yield row("Bytes of an event: its text", [size])
    dicts, size = _held(texts, load_object)
    yield row("  the dict it is read into, with all values", [size])
    devices = [routing_key(one) for one in dicts]
    pairs = list(zip(dicts, devices, strict=True))
    _, size = _held(pairs, lambda pair: identity(*pair))
    yield row("  what tells it from others", [size])
    delivery = Delivery()
    events, size = _held(pairs, lambda pair: event_of(pair[0], pair[1], delivery))
    yield row("  its model", [size])
    handler = Handler(name="all", wish=make_wish([Event], namespace=NAMESPACE), run=_take)

    def lane_of(event: Event) -> Lane:
        lane = Lane(handler, event.device)
        lane.queue.append(event)
        return lane

    _, size = _held(events, lane_of)
    yield row("  a lane that holds it", [size])


async def _take(event: Any) -> None:
    """Take nothing."""


def _held(things: list[Any], make: Callable[[Any], T]) -> tuple[list[T], float]:
    """Make something of each thing; return that, and how many bytes one takes."""
    held: list[T | None] = [None] * len(things)
    make(things[0])  # what is made once
    gc.collect()
    tracemalloc.start()
    for number, thing in enumerate(things):
        held[number] = make(thing)
    gc.collect()
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return [one for one in held if one is not None], taken / len(things)
