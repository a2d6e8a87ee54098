"""What a hostile message of 1 MiB costs, in milliseconds of CPU that hold the event loop.

    python -m bench.hostile [--repeat N] [--only TEXT]

For each shape of `bench.hostile_messages`:

- `codec`: `receive_data` and `events_received`, up to the receiver; of several WebSocket messages
  the dearest.
- `all`: the same, of all its WebSocket messages together.
- `ratio`: `all` at 1 MiB to `all` at 1/4 MiB. About 4 is linear, 16 is quadratic.
- `values`: `routing_key`, `identity` and `parse_event` of the events that came out.
- `whole`: codec and a real `Listener` together, with one handler for everything.

Exits 1 when a `codec` is above 50 ms, when the growth is not linear, or when a legitimate message
is not taken whole.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from time import process_time
from typing import NamedTuple

import structlog

from bench.hostile_messages import JSON, STOMP, Shape
from cti_listener import Event, Gap, Listener, parse_event
from cti_listener.event_base import Delivery
from cti_listener.interest import Interest
from cti_listener.sources.base import Receiver
from cti_listener.values import identity, routing_key
from cti_listener.wire.base import Codec, EventReceived, MessageBad, WireEvent
from cti_listener.wire.json_frames import JsonCodec
from cti_listener.wire.stomp import StompCodec

SIZE = 2**20
LIMIT = 50.0
"""The most that the codec may take for one message, in milliseconds."""

STEEPEST = 8.0
"""The most that four times the bytes may cost: halfway, by factors, from linear to quadratic."""

TRIFLE = 4.0
"""Below this many milliseconds a ratio is noise."""

DELIVERY = Delivery(datetime.now(UTC))


class Cost(NamedTuple):
    """Milliseconds of CPU."""

    codec: float
    total: float
    values: float
    events: int
    bad: dict[str, int]


def open_codec(shape: Shape) -> Codec:
    if shape.wire == "json":
        codec: Codec = JsonCodec(max_size=SIZE)
    else:
        codec = StompCodec(["/topic/event.agent.*.*"], max_size=SIZE)
    codec.open()
    codec.receive_data(b"CONNECTED\nversion:1.2\n\n\0" if shape.wire == "stomp" else b"[]")
    codec.events_received()
    codec.data_to_send()
    return codec


def take(codec: Codec, piece: bytes) -> tuple[list[WireEvent], float]:
    began = process_time()
    codec.receive_data(piece)
    events = codec.events_received()
    return events, process_time() - began


def handle(events: list[WireEvent]) -> float:
    """Return the seconds that the values of the events and their models take."""
    began = process_time()
    for event in events:
        if type(event) is EventReceived:
            device = routing_key(event.payload)
            hash(identity(event.payload, device))
            parse_event(event.payload, device=device, delivery=DELIVERY)
    del events[:]
    return process_time() - began


def measure(shape: Shape, pieces: Sequence[bytes], repeat: int) -> Cost:
    best = Cost(9e9, 9e9, 9e9, 0, {})
    for _ in range(repeat):
        codec = open_codec(shape)
        gc.collect()
        dearest = total = values = 0.0
        found = 0
        bad: dict[str, int] = {}
        for piece in pieces:
            events, took = take(codec, piece)
            dearest = max(dearest, took)
            total += took
            if events:
                found += sum(type(event) is EventReceived for event in events)
                bad |= {one.reason: one.count for one in events if type(one) is MessageBad}
                values += handle(events)
        best = Cost(
            min(best.codec, dearest * 1000),
            min(best.total, total * 1000),
            min(best.values, values * 1000),
            found,
            bad,
        )
    return best


class Ears:
    """A `Source` that keeps its receiver, so that it can be told things by hand."""

    endpoints = ("bench:",)
    last_signs: Mapping[str, datetime] = {}

    def __init__(self) -> None:
        self.receiver: Receiver
        self.runs = asyncio.Event()
        self._stopped = asyncio.Event()

    async def run(self, receiver: Receiver, interest: Interest) -> None:
        del interest
        self.receiver = receiver
        receiver.subscribed("bench:", feed="a", confirmed=True, attempts=1)
        self.runs.set()
        await self._stopped.wait()

    async def update(self) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    async def stop(self) -> None:
        self._stopped.set()


async def measure_whole(shape: Shape, pieces: Sequence[bytes], repeat: int) -> float:
    """Return the milliseconds that the dearest message takes through a listener."""
    best = 9e9
    for _ in range(repeat):
        ears = Ears()
        listener = Listener(ears)

        @listener.on(Event, Gap)
        async def ignore(_: Event | Gap) -> None: ...

        async with listener:
            await ears.runs.wait()
            codec = open_codec(shape)
            gc.collect()
            best = min(best, max(hand_over(codec, piece, ears.receiver) for piece in pieces))
            await listener.stop(drain=10)
    return best * 1000


def hand_over(codec: Codec, piece: bytes, receiver: Receiver) -> float:
    began = process_time()
    receiver.message_received(DELIVERY)
    codec.receive_data(piece)
    for event in codec.events_received():
        if type(event) is EventReceived:
            receiver.event_received(event[0], event[1], DELIVERY)
        elif type(event) is MessageBad:
            receiver.message_bad(event)
    return process_time() - began


def run(shape: Shape, repeat: int) -> list[str]:
    """Measure a shape, print its row, return what is wrong with it."""
    pieces = shape.make(SIZE)
    if len(pieces) > 10_000:
        repeat = 1
    cost = measure(shape, pieces, repeat)
    small = measure(shape, shape.make(SIZE // 4), repeat)
    whole = asyncio.run(measure_whole(shape, pieces, repeat)) if cost.events else cost.codec
    ratio = cost.total / small.total if cost.total >= TRIFLE else None
    if (
        ratio is not None and ratio > STEEPEST
    ):  # or was it a step, beyond which more is let through?
        half = measure(shape, shape.make(SIZE // 2), repeat)
        ratio = min(ratio, (cost.total / half.total) ** 2)
    wrong = []
    if cost.codec > LIMIT:
        wrong.append(f"above {LIMIT:.0f} ms")
    if ratio is not None and ratio > STEEPEST:
        wrong.append("not linear")
    if shape.events and cost.bad:
        wrong.append("not taken whole")
    told = ", ".join(f"{reason} {number:,}" for reason, number in cost.bad.items())
    print(
        f"{shape.wire:5} {shape.name:44} {cost.codec:7.1f} {cost.total:8.1f}"
        f" {'-' if ratio is None else f'{ratio:.1f}':>5} {cost.values:7.1f} {whole:7.1f}"
        f" {cost.events:7,} {told:20} {'; '.join(wrong).upper()}".rstrip(),
        flush=True,
    )
    return wrong


def main() -> None:
    """Print the table; exit 1 if a row is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5, help="the best of so many counts")
    parser.add_argument("--only", default="", help="shapes whose name holds this")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    print(
        f"{'wire':5} {'shape':44} {'codec':>7} {'all':>8} {'ratio':>5} {'values':>7} {'whole':>7}"
        f" {'events':>7} bad"
    )
    wrong = [
        f"{shape.wire} {shape.name}: {fault}"
        for shape in (*JSON, *STOMP)
        if given.only in f"{shape.wire} {shape.name}"
        for fault in run(shape, given.repeat)
    ]
    for fault in wrong:
        print(fault, file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
