from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cti_listener import Event, Listener, __version__
from cti_listener.admin import make_admin
from cti_listener.admin.ring import ROOM
from cti_listener.errors import CertificateError, ConnectError, RefusedError
from cti_listener.simulator import Centre, Faults, SimulatorServer
from cti_listener.testing import FakeSource
from tests.admin.support import Served, reading, samples, served
from tests.examples import NAMESPACE, make, make_agent
from tests.turns import until

NAMES = {
    "frames_received_total{wire}",
    "events_received_total{event}",
    "events_duplicate_total",
    "parse_errors_total{reason}",
    "events_unrouted_total",
    "events_dropped_total{reason}",
    "handler_failures_total{handler}",
    "handler_duration_seconds{handler}",
    "event_lag_seconds",
    "connection_attempts_total{outcome}",
    "disconnects_total{reason}",
    "connected{feed}",
    "subscriptions",
    "gaps_total{reason}",
    "last_frame_timestamp_seconds",
    "last_event_timestamp_seconds",
    "queue_events{handler}",
    "journal_pending_events",
    "journal_commit_duration_seconds",
    "sink_records_total{outcome,sink}",
    "event_loop_lag_seconds",
    "agents{mode}",
    "calls{state}",
    "build_info{python,version}",
}
"""What the endpoint promises, less its prefix."""


def families(found: Mapping[str, float]) -> set[str]:
    """Return the names of what was scraped, with their labels, as promised."""
    names = set()
    for series in found:
        name, _, labels = series.removesuffix("}").partition("{")
        for ending in ("_bucket", "_count", "_sum"):
            name = name.removesuffix(ending)
        kept = [one.partition("=")[0] for one in labels.split(",") if one and one[:3] != "le="]
        names.add(name.removeprefix("cti_listener_") + (f"{{{','.join(kept)}}}" if kept else ""))
    return names


def sinks() -> dict[tuple[str, str], int]:
    return {("output", "written"): 7}


async def of(it: Served, name: str) -> float:
    return (await it.metrics())[f"cti_listener_{name}"]


async def test_every_metric_that_is_promised_is_there_and_no_other(tmp_path: Path) -> None:
    async with served(journal=tmp_path / "j.db", admin={"sinks": sinks}) as it:

        @it.listener.on()
        async def take(_event: Event) -> None: ...

        found = await it.metrics()
        assert families(found) == NAMES
        assert all(name.startswith("cti_listener_") for name in found)
        built = [name for name in found if "build_info" in name]
        assert f"version={__version__}" in built[0]
        assert found["cti_listener_sink_records_total{outcome=written,sink=output}"] == 7


async def test_prometheus_gets_the_form_it_asks_for() -> None:
    async with served() as it:
        asked = {"Accept": "application/openmetrics-text; version=1.0.0"}
        async with it.client.get("/metrics", headers=asked) as answer:
            assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
            assert (await answer.text()).endswith("# EOF\n")
        async with it.client.get("/metrics") as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=")


async def test_events_are_counted_by_name_and_by_what_became_of_them() -> None:
    async with served(devices=["8002"]) as it:

        @it.listener.on("delivered")
        async def take(_event: Event) -> None: ...

        again = make("delivered")
        for event in (again, again, make("held"), make("surprise"), make(device=8009)):
            it.source.send(event)
        it.source.send({**make(), "eventName": ["odd"]})
        await until(lambda: it.listener.stats().waiting == 0)
        found = await it.metrics()
        for name, expected in {
            "frames_received_total{wire=other}": 6,
            "events_received_total{event=delivered}": 3,
            "events_received_total{event=held}": 1,
            "events_received_total{event=unknown}": 2,
            "events_duplicate_total": 1,
            "events_unrouted_total": 3,
            "events_dropped_total{reason=not_asked_for}": 1,
        }.items():
            assert (name, found[f"cti_listener_{name}"]) == (name, expected)
        assert found["cti_listener_last_event_timestamp_seconds"] > 1.7e9
        assert found["cti_listener_last_frame_timestamp_seconds"] > 1.7e9


async def test_handlers_tell_how_they_fare() -> None:
    async with served(lane_size=1) as it:
        release = asyncio.Event()

        @it.listener.on("delivered", name="slow")
        async def slow(_event: Event) -> None:
            await release.wait()

        @it.listener.on("held", name="broken")
        async def broken(_event: Event) -> None:
            raise ValueError

        for name in ("delivered", "delivered", "delivered", "held"):
            it.source.send(make(name))
            await asyncio.sleep(0)
        await until(lambda: it.listener.stats().handlers["broken"].failed)
        found = await it.metrics()
        assert found["cti_listener_queue_events{handler=slow}"] == 2
        assert found["cti_listener_events_dropped_total{reason=lane_full}"] == 1
        assert found["cti_listener_handler_failures_total{handler=broken}"] == 1
        assert found["cti_listener_handler_duration_seconds_count{handler=broken}"] == 1
        release.set()
        await until(lambda: it.listener.stats().waiting == 0)
        found = await it.metrics()
        assert found["cti_listener_queue_events{handler=slow}"] == 0
        assert found["cti_listener_handler_duration_seconds_count{handler=slow}"] == 1
        assert found["cti_listener_handler_duration_seconds_bucket{handler=slow,le=+Inf}"] == 1
        assert found["cti_listener_handler_duration_seconds_sum{handler=slow}"] > 0


async def test_one_run_of_a_handler_in_sixteen_is_timed() -> None:
    async with served() as it:

        @it.listener.on(name="quick")
        async def quick(_event: Event) -> None: ...

        for _ in range(33):
            it.source.send(make())
        await until(lambda: it.listener.stats().handlers["quick"].handled == 33)
        assert await of(it, "handler_duration_seconds_count{handler=quick}") == 3


async def test_the_age_of_events_is_told_by_the_servers_clock() -> None:
    async with served() as it:
        it.source.send(make(eventTime="2017.03.18 14:13:36"))
        it.source.send(make(eventTime="soon"))
        found = await it.metrics()
        assert found["cti_listener_event_lag_seconds_count"] == 1
        assert found["cti_listener_event_lag_seconds_bucket{le=3600.0}"] == 0
        assert found["cti_listener_event_lag_seconds_sum"] > 3600


async def test_a_feed_that_goes_and_comes_back_shows() -> None:
    async with served() as it:
        assert await of(it, "connected{feed=a}") == 1
        it.source.disconnect("half_open")
        found = await it.metrics()
        assert found["cti_listener_connected{feed=a}"] == 0
        assert found["cti_listener_disconnects_total{reason=half_open}"] == 1
        assert found["cti_listener_gaps_total{reason=half_open}"] == 1  # from its beginning
        it.source.connect()
        found = await it.metrics()
        assert found["cti_listener_connected{feed=a}"] == 1
        assert found["cti_listener_gaps_total{reason=half_open}"] == 1  # and once
        assert found["cti_listener_connection_attempts_total{outcome=subscribed}"] == 2


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ConnectError("ws://x", "nobody answers"), "failed"),
        (RefusedError("ws://x", "says no"), "refused"),
        (CertificateError("ws://x", "is expired"), "untrusted"),
    ],
)
async def test_attempts_are_told_apart_by_how_they_ended(error: ConnectError, outcome: str) -> None:
    class Unlucky(FakeSource):
        def connect(self) -> None:
            self._tell().attempt_failed(error, feed="a")
            super().connect()

    listener = Listener(Unlucky(), namespace=NAMESPACE)
    async with make_admin(listener) as admin, listener, aiohttp.ClientSession(admin.url) as client:
        async with client.get("/metrics") as answer:
            found = samples(await answer.text())
        name = "cti_listener_connection_attempts_total"
        assert found[f"{name}{{outcome={outcome}}}"] == found[f"{name}{{outcome=subscribed}}"] == 1


@pytest.mark.parametrize("wire", ["stomp", "json"])
async def test_frames_and_subscriptions_of_either_wire_are_counted(wire: str) -> None:
    centre = Centre(seed=3, agents=4, rate=500.0, namespace=NAMESPACE)
    faults = Faults.parse("malformed=0.3")
    async with SimulatorServer(centre=centre, faults=faults, await_subscriber=True) as server:
        url = server.stomp_url if wire == "stomp" else server.json_url
        listener = Listener(url, namespace=NAMESPACE)
        async with (
            make_admin(listener) as admin,
            listener,
            aiohttp.ClientSession(admin.url) as client,
        ):
            await until(lambda: sum(listener.stats().bad.values()) > 3)
            async with client.get("/metrics") as answer:
                found = samples(await answer.text())
    frames = {name: value for name, value in found.items() if "frames_received" in name and value}
    assert list(frames) == [f"cti_listener_frames_received_total{{wire={wire}}}"]
    assert found["cti_listener_subscriptions"] == 1
    assert sum(value for name, value in found.items() if "parse_errors" in name) > 3


async def test_agents_and_calls_are_counted_by_their_state() -> None:
    async with served() as it:
        it.source.send(make_agent("agentReady"))
        it.source.send(make_agent("agentNotReady", agent=5003, device=8003))
        odd = make_agent("agentLoggedOn", agent=5004, device=8004, agentMode="Dreaming")
        it.source.send(odd)
        it.source.send(make("delivered", alertingDevice="8002@zhen04.cc"))
        found = await it.metrics()
        for mode, expected in {"Ready": 1, "NotReady": 1, "Other": 1, "Logout": 0}.items():
            assert found[f"cti_listener_agents{{mode={mode}}}"] == expected
        assert found["cti_listener_calls{state=alerting}"] == 1
        it.source.send(make("established", answeringDevice="8002@zhen04.cc"))
        found = await it.metrics()
        assert found["cti_listener_calls{state=alerting}"] == 0
        assert found["cti_listener_calls{state=connected}"] == 1


async def test_the_journal_tells_what_it_is_at(tmp_path: Path) -> None:
    async with served(journal=tmp_path / "j.db") as it:
        for _ in range(3):
            it.source.send(make())
        found = samples((await it.get("/metrics"))[1])
        assert found["cti_listener_journal_pending_events"] in {0, 3}
        await until(lambda: it.listener.given == 3)
        found = await it.metrics()
        assert found["cti_listener_journal_pending_events"] == 0
        assert found["cti_listener_journal_commit_duration_seconds_count"] >= 1
        assert found["cti_listener_journal_commit_duration_seconds_sum"] > 0


async def test_pending_events_are_those_the_disk_does_not_have(tmp_path: Path) -> None:
    async with served(journal=tmp_path / "j.db") as it:
        it.source.send(make())
        stats = it.listener.stats().journal  # the loop has not turned since
        assert stats is not None
        assert stats.pending == 1


async def test_the_lag_of_the_loop_is_measured_all_the_time() -> None:
    async with served(block_limit=0.04) as it:
        await until(lambda: it.listener.stats().loop_lag.count > 2)
        assert await of(it, "event_loop_lag_seconds_count") > 2


async def test_what_readers_lost_is_counted() -> None:
    async with served() as it, reading(it.client) as reader:
        assert (await reader.next()).name == "hello"
        for _ in range(5000):  # in one turn of the loop, so that nobody could have read them
            it.source.send(make())
        lost = (await reader.of("lost")).data["lost"]
        assert await of(it, "events_dropped_total{reason=stream_full}") == lost == 5000 - ROOM


async def test_two_listeners_have_registries_of_their_own() -> None:
    async with served() as one, served() as other:
        one.source.send(make())
        assert await of(one, "events_received_total{event=delivered}") == 1
        assert await of(other, "events_received_total{event=delivered}") == 0


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_ten_thousand_devices_do_not_add_one_series() -> None:
    def odd(number: int) -> dict[str, Any]:
        event = make_agent if number % 2 else make
        name = f"event{number}" if number % 3 == 0 else "delivered"
        return event(name, device=number, cause=f"{number}")

    async with served(dedupe_window=1000) as it:

        @it.listener.on()
        async def take(_event: Event) -> None: ...

        it.source.send(make())
        before = await it.metrics()
        for number in range(10_000):
            it.source.send(odd(number))
            if number % 200 == 0:
                await asyncio.sleep(0)
        after = await it.metrics()
        assert after.keys() == before.keys()
        received = sum(value for name, value in after.items() if "events_received" in name)
        assert received == 10_001
