"""What tracking calls and agents costs: the listener that does against itself that does not.

Both hand every event of a simulated centre to a handler; the one that tracks hands the record of
each call to another as well, which reads it.
"""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from bench.speed.floor import with_least
from bench.speed.ratios import Row, over, race, rate, row
from bench.speed.receivers import Receiver, ours_of_calls
from bench.speed.sender import NAMESPACE, Load
from cti_listener import CallEnded, CallStarted, Listener, parse_event
from cti_listener.event_base import Delivery
from cti_listener.events import event_of, load_object
from cti_listener.simulator import Centre
from cti_listener.tracking import Tracking
from cti_listener.values import identity, routing_key

AGENTS = 1000
LIVE = 2000
"""So many devices are in a call each, for the memory of a live call."""


def tracked(sender: str, events: int, rounds: int) -> Iterator[Row]:
    """Compare rates and memory."""
    load = Load(events, devices=AGENTS, calls=1)
    runs: dict[str, tuple[Receiver, Load]] = {
        "without": (ours_of_calls, load),
        "views": (_with_views, load),
        "with": (_with_records, load),
        "least": (with_least(_with_records, records=True), load),
        "least views": (with_least(_with_call_view, records=False), load),
    }
    seconds = race(sender, runs, rounds)
    yield row(
        "Tracking calls and agents, each record handled: to not tracking",
        over(seconds["without"], seconds["with"]),
        at_least=0.75,
        detail=f"{rate(seconds['with'], events)} to {rate(seconds['without'], events)}",
    )
    yield row(
        "Tracking calls and agents, for the views alone: to not tracking",
        over(seconds["without"], seconds["views"]),
        detail=rate(seconds["views"], events),
    )
    yield row(
        "  a stand-in that understands nothing, one record for all: to not tracking",
        over(seconds["without"], seconds["least"]),
        detail=rate(seconds["least"], events),
    )
    yield row(
        "  the same, without records: to not tracking",
        over(seconds["without"], seconds["least views"]),
        detail=rate(seconds["least views"], events),
    )
    yield row("Memory per live call, bytes", [_per_live_call()], at_most=2048)
    yield row("Memory per call that is over, bytes", [_per_dead_call()], at_most=16)


async def _with_views(sender: str, load: Load) -> float:
    views: list[Listener] = []

    def begin(listener: Listener) -> None:
        assert len(listener.calls) == 0
        views.append(listener)

    took = await ours_of_calls(sender, load, begin)
    (listener,) = views
    assert len(listener.agents) > AGENTS / 2
    assert any(call.answered for call in listener.calls.values())
    return took


async def _with_call_view(sender: str, load: Load) -> float:
    def begin(listener: Listener) -> None:
        assert len(listener.calls) == 0

    return await ours_of_calls(sender, load, begin)


async def _with_records(sender: str, load: Load) -> float:
    talked = 0.0
    ended = 0

    def begin(listener: Listener) -> None:
        @listener.on(CallEnded)
        async def note(notice: CallEnded) -> None:
            nonlocal talked, ended
            ended += 1
            talked += notice.call.talk_seconds or 0.0

    took = await ours_of_calls(sender, load, begin)
    assert ended > load.events / 15
    assert talked > ended
    return took


def _tracking() -> Tracking:
    return Tracking(wanted=frozenset({CallStarted, CallEnded}), namespace=NAMESPACE)


def _per_live_call() -> float:
    """Have each of many devices in a call that is on hold, as the simulator makes it."""
    events = [event for device in range(LIVE) for event in _call_on_hold(device)]
    tracking = _tracking()
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for body in events:
        payload = load_object(body)
        device = routing_key(payload)
        event = event_of(payload, device, Delivery(received_at=datetime.now(UTC)))
        tracking.apply(event, identity(payload, device))  # as the pipeline does
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(tracking.calls) == LIVE
    return (after - before) / LIVE


def _call_on_hold(device: int) -> Iterator[bytes]:
    """Yield the events of a call with an outside number, up to its first time on hold."""
    centre = Centre(device, agents=1, namespace=NAMESPACE, weights={"hold": 1.0})
    for _, event in centre:
        if event["eventType"] == "csta":
            yield json.dumps(event).replace("8001@", f"{10_000 + device}@").encode()
        if event["eventName"] == "held":
            return


def _per_dead_call() -> float:
    """Let calls begin and end, and see what is left of them when none goes on any more."""
    tracking = _tracking()
    centre = Centre(1, agents=100, rate=20.0, namespace=NAMESPACE)
    now = datetime.now(UTC)

    def run(seconds: float) -> int:
        nonlocal now
        ended, began = 0, now
        for at, event in centre.run(seconds):
            now = began + timedelta(seconds=at)
            notices = tracking.apply(parse_event(event, delivery=Delivery(received_at=now)))
            ended += sum(type(one) is CallEnded for one in notices)
        for _ in range(2):  # those that go on are given up, then forgotten
            now += timedelta(days=1)
            tracking.expire(now)
        assert not tracking.calls
        return ended

    tracemalloc.start()
    run(1200.0)  # what stays for each device is there by then
    gc.collect()
    before, _ = tracemalloc.get_traced_memory()
    ended = run(3600.0)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return max(0, after - before) / ended
