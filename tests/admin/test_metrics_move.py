"""Each metric, and each reason that is a label, moves when that happens which it counts.

What befalls a connection befalls a real one here, to the simulator; the rest comes by a source
without a socket.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, get_args

import aiohttp
import pytest

from cti_listener import Event, Listener
from cti_listener.admin import make_admin
from cti_listener.errors import BadReason, HaltError, SinkAwayError, SinkError
from cti_listener.notices import GapReason
from cti_listener.simulator import Centre, Faults, SimulatorServer
from cti_listener.sinks.base import Order
from cti_listener.sinks.making import make_outlets
from cti_listener.sinks.outlet import OUTCOMES, Outlet
from cti_listener.sinks.running import attach, opened, records
from cti_listener.wire.stomp_frames import Frame, encode
from tests.admin.support import PATIENCE, Served, samples, served
from tests.admin.test_metrics import NAMES, families
from tests.examples import NAMESPACE, make, make_agent
from tests.sinks.support import HastyClock
from tests.sinks.support import options as sink_options
from tests.turns import until

PREFIX: Final = "cti_listener_"

NEVER: Final = {"build_info{python,version}"}
"""What stands still."""


@dataclass(frozen=True)
class Cause:
    """Something that happens, and the series that must be another for it."""

    series: str
    happen: Callable[[Served], None]
    options: dict[str, Any] = field(default_factory=dict)
    journal: bool = False


def send(*events: dict[str, Any]) -> Callable[[Served], None]:
    def happen(it: Served) -> None:
        for event in events:
            it.source.send(event)

    return happen


def lose(reason: GapReason = "disconnected") -> Callable[[Served], None]:
    def happen(it: Served) -> None:
        it.source.disconnect(reason)

    return happen


def lose_and_return(it: Served) -> None:
    it.source.disconnect()
    it.source.connect()


SAME = make()
WHOSE: Final = {"devices": ["8002"]}

CAUSES: Final = [
    Cause("frames_received_total{wire=other}", send(make())),
    Cause("events_received_total{event=held}", send(make("held"))),
    Cause("events_received_total{event=unknown}", send(make("surprise"))),
    Cause("events_duplicate_total", send(SAME, SAME)),
    Cause("parse_errors_total{reason=internal}", send(make(odd=object())), journal=True),
    Cause("events_unrouted_total", send(make("surprise"))),
    Cause("events_dropped_total{reason=not_asked_for}", send(make(device=8009)), WHOSE),
    Cause(
        "events_dropped_total{reason=lane_full}",
        send(*(make("held") for _ in range(4))),
        {"lane_size": 1},
    ),
    Cause("handler_failures_total{handler=quick}", send(make(broken=True))),
    Cause("handler_duration_seconds_count{handler=quick}", send(make())),
    Cause("event_lag_seconds_count", send(make(eventTime="2017.03.18 14:13:36"))),
    Cause("connection_attempts_total{outcome=subscribed}", lose_and_return),
    Cause("connected{feed=a}", lose()),
    *(
        Cause(f"{name}_total{{reason={reason}}}", lose(reason))
        for name in ("disconnects", "gaps")
        for reason in ("half_open", "slow_consumer")
    ),
    Cause(
        "gaps_total{reason=server_restarted}",
        send(
            make(serial=5000, eventTime="2017.03.18 12:00:00"),
            make(serial=10, eventTime="2017.03.18 13:00:00"),
        ),
    ),
    Cause("last_frame_timestamp_seconds", send(make())),
    Cause("last_event_timestamp_seconds", send(make())),
    Cause("queue_events{handler=held}", send(make("held"), make("held"))),
    Cause("journal_commit_duration_seconds_count", send(make()), journal=True),
    Cause("event_loop_lag_seconds_count", lambda _it: None, {"block_limit": 0.04}),
    Cause("agents{mode=Ready}", send(make_agent("agentReady"))),
    Cause("calls{state=alerting}", send(make("delivered", alertingDevice="8002@zhen04.cc"))),
]


def name_of(cause: Any) -> str:
    return str(cause.series)


@pytest.mark.parametrize("cause", CAUSES, ids=name_of)
async def test_what_is_counted_happens(cause: Cause, tmp_path: Path) -> None:
    release = asyncio.Event()

    def register(listener: Listener) -> None:
        @listener.on("held", name="held")
        async def hold(_event: Event) -> None:
            await release.wait()

        @listener.on("delivered", "agentReady", name="quick")
        async def quick(event: Event) -> None:
            if event.as_received().get("broken"):
                raise ValueError

    given = {**cause.options, **({"journal": tmp_path / "j.db"} if cause.journal else {})}
    async with served(register=register, **given) as it:
        before = (await it.metrics())[PREFIX + cause.series]
        cause.happen(it)
        await moved(it, cause.series, before)
        release.set()


async def moved(it: Served, series: str, before: float) -> float:
    """Wait until a series says something else; return what."""
    async with asyncio.timeout(PATIENCE):
        while (now := (await it.metrics())[PREFIX + series]) == before:
            pass
    return now


async def test_what_waits_for_a_disk_that_is_busy_is_pending(tmp_path: Path) -> None:
    async with served(journal=tmp_path / "j.db") as it:
        other = sqlite3.connect(tmp_path / "j.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        send(make(), make())(it)
        for _ in range(3):  # it stays so, however often one looks
            assert (await it.metrics())[f"{PREFIX}journal_pending_events"] == 2
        other.execute("ROLLBACK")
        other.close()
        assert await moved(it, "journal_pending_events", 2) == 0


@asynccontextmanager
async def served_with(outlets: list[Outlet]) -> AsyncIterator[Served]:
    """Serve a listener that has these sinks."""
    listeners: list[Listener] = []

    def register(listener: Listener) -> None:
        attach(listener, outlets, (Event,), kept=False)
        listeners.append(listener)

    def counted() -> dict[tuple[str, str], int]:
        return records(listeners[0], outlets)

    async with served(register=register, admin={"sinks": counted}) as it:
        yield it


class Moody:
    """A sink that does as it is told, and takes what it is told nothing of."""

    order: Order = "all"

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    async def open(self) -> None: ...

    async def take(self, _: object) -> None:
        if self.errors:
            raise self.errors.pop(0)

    async def close(self) -> None: ...


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (SinkAwayError("x", "away"), "tried_again"),
        (SinkError("x", "never"), "refused"),
        (HaltError("gone"), "halted"),
    ],
)
async def test_what_becomes_of_a_sinks_records_is_counted(error: Exception, outcome: str) -> None:
    outlet = Outlet("x", Moody(error), clock=HastyClock())
    async with served_with([outlet]) as it:
        series = f"sink_records_total{{outcome={outcome},sink=x}}"
        assert (await it.metrics())[PREFIX + series] == 0
        send(make())(it)
        assert await moved(it, series, 0) == 1
        send(make(), make())(it)
        taken = (await it.metrics())[f"{PREFIX}sink_records_total{{outcome=taken,sink=x}}"]
        if outcome == "halted":  # what comes for it later counts as well
            assert await moved(it, series, 1) == 3
            assert taken == 0
    assert outcome in OUTCOMES


async def test_what_a_file_takes_is_counted(tmp_path: Path) -> None:
    lines = tmp_path / "lines.jsonl"
    outlets = await asyncio.to_thread(make_outlets, [f"jsonl:{lines}"], sink_options())
    (outlet,) = outlets

    async with opened(outlets), served_with(outlets) as it:
        taken = f"sink_records_total{{outcome=taken,sink={outlet.name}}}"
        send(make(), make())(it)
        await until(lambda: it.listener.stats().handlers[outlet.name].handled == 2)
        assert await moved(it, taken, 0) == 2
        assert len(lines.read_text(encoding="utf-8").splitlines()) == 2


# Real connections


@asynccontextmanager
async def scraping(listener: Listener) -> AsyncIterator[Callable[[str], Awaitable[None]]]:
    """Serve a listener's metrics; give what waits until a series, which is 0 yet, is above it."""
    async with make_admin(listener) as admin, aiohttp.ClientSession(admin.url) as client:

        async def scraped(series: str) -> None:
            async with asyncio.timeout(PATIENCE):
                while True:
                    async with client.get("/metrics") as answer:
                        if samples(await answer.text()).get(PREFIX + series):
                            return

        yield scraped


@dataclass(frozen=True)
class Fault:
    """What goes wrong with a server, and the series that must have counted it."""

    series: str
    wire: str
    fault: str
    options: dict[str, Any] = field(default_factory=dict)


FAULTS: Final = [
    *(
        Fault(f"parse_errors_total{{reason={reason}}}", wire, fault, options)
        for wire in ("stomp", "json")
        for reason, fault, options in (
            ("not_json", "malformed=0.3", {}),
            ("not_an_object", "malformed=0.3", {}),
            ("not_utf8", "invalid_utf8=0.2", {}),
            ("too_deep", "deep=0.2", {}),
            ("too_large", "deep=0.2", {"soft_size": 20_000}),
        )
    ),
    Fault("subscriptions", "stomp", ""),
    Fault("connected{feed=a}", "json", ""),
    Fault("frames_received_total{wire=stomp}", "stomp", ""),
    Fault("frames_received_total{wire=json}", "json", ""),
    Fault("disconnects_total{reason=disconnected}", "stomp", "drop_every=0.2"),
    Fault("gaps_total{reason=disconnected}", "json", "drop_every=0.2"),
    Fault("disconnects_total{reason=oversized}", "stomp", "oversized=0.2"),
    Fault("gaps_total{reason=oversized}", "json", "oversized=0.2"),
    Fault("connection_attempts_total{outcome=subscribed}", "stomp", ""),
    Fault("connection_attempts_total{outcome=refused}", "stomp", "expire_every=0.2"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda it: f"{it.series}-{it.wire}")
async def test_what_goes_wrong_with_a_server_is_counted(fault: Fault) -> None:
    centre = Centre(seed=3, agents=8, rate=500.0, namespace=NAMESPACE)
    async with SimulatorServer(
        centre=centre, faults=Faults.parse(fault.fault), await_subscriber=True
    ) as server:
        url = server.stomp_url if fault.wire == "stomp" else server.json_url
        listener = Listener(url, namespace=NAMESPACE, **fault.options)
        async with scraping(listener) as scraped, asyncio.TaskGroup() as tasks:
            running = tasks.create_task(listener.run())
            await scraped(fault.series)
            if not running.done():  # it ends by itself where it is refused
                await listener.stop()


ALONE: Final = {
    "parse_errors_total{reason=not_a_frame}",
    "gaps_total{reason=refused}",
    "gaps_total{reason=listener_down}",
    "journal_pending_events",
    "sink_records_total{outcome=taken,sink=x}",
    "events_dropped_total{reason=stream_full}",  # in test_metrics
}
"""What has a test of its own."""


async def test_bytes_that_are_no_frame_are_counted(cti_server: SimulatorServer) -> None:
    listener = Listener(cti_server.stomp_url, namespace=NAMESPACE)
    async with listener, scraping(listener) as scraped:
        await cti_server.send_raw(encode(Frame("SURPRISE", {})))
        await scraped("parse_errors_total{reason=not_a_frame}")


async def test_a_refused_destination_is_a_gap_that_is_counted() -> None:
    async with SimulatorServer(refuse=["/topic/event.other"]) as server:
        topics = ["/topic/event.agent.*.*", "/topic/event.other"]
        listener = Listener(server.stomp_url, namespace=NAMESPACE, topics=topics)
        async with listener, scraping(listener) as scraped:
            await scraped("gaps_total{reason=refused}")


async def test_the_time_in_which_no_listener_ran_is_a_gap_that_is_counted(tmp_path: Path) -> None:
    series = f"{PREFIX}gaps_total{{reason=listener_down}}"
    async with served(journal=tmp_path / "j.db") as it:
        assert (await it.metrics())[series] == 0
    async with served(journal=tmp_path / "j.db") as it:
        assert (await it.metrics())[series] == 1


def test_nothing_that_is_promised_is_left_out() -> None:
    told = {one.series for one in CAUSES} | {one.series for one in FAULTS} | ALONE
    assert families({PREFIX + series: 1.0 for series in told}) == NAMES - NEVER
    labels = {"parse_errors_total": BadReason, "gaps_total": GapReason}
    for name, reasons in labels.items():
        assert {f"{name}{{reason={one}}}" for one in get_args(reasons)} <= told
