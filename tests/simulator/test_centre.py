"""The centre: the same seed the same stream, counters by type, and nobody in two calls at once."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import islice, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cti_listener.errors import ConfigurationError
from cti_listener.events import CATALOGUE, parse_event
from cti_listener.simulator.centre import FIRST_SERIALS, Centre, Timed
from cti_listener.simulator.scenarios import SCENARIOS


def some(centre: Centre, n: int = 2000) -> list[dict[str, Any]]:
    return [event for _, event in islice(centre, n)]


def serials(events: Iterable[dict[str, Any]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for event in events:
        found[event["eventType"]].append(event["serial"])
    return found


# The same again


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32))
def test_the_same_seed_gives_the_same_stream(seed: int) -> None:
    first, second = (list(islice(Centre(seed, agents=7, rate=50), 500)) for _ in range(2))
    assert first == second


def test_another_seed_gives_another_stream() -> None:
    assert some(Centre(1), 200) != some(Centre(2), 200)


def test_a_stream_read_in_pieces_is_the_stream_read_at_once() -> None:
    whole, pieces = Centre(3, rate=20), Centre(3, rate=20)
    read = [timed for _ in range(30) for timed in islice(pieces, 7)]
    assert read == list(islice(whole, 210))
    assert list(pieces.run(10.0)) == list(whole.run(10.0))


def test_it_runs_for_as_long_as_it_is_asked_to() -> None:
    centre = Centre(1, rate=20)
    first = list(centre.run(30.0))
    then = list(centre.run(30.0))
    assert centre.now == 60.0
    assert 0.0 <= first[0][0] <= first[-1][0] <= 30.0 < then[0][0] <= then[-1][0] <= 60.0


# What the events look like


def test_agent_and_csta_events_count_separately_and_without_holes() -> None:
    for kind, found in serials(some(Centre(1))).items():
        first = FIRST_SERIALS[kind]
        assert found == list(range(first, first + len(found)))


def test_a_restart_has_both_counters_fall_back() -> None:
    centre = Centre(1)
    before = some(centre)
    centre.restart()
    after = some(centre)
    assert {event["serial"] for event in before} & {event["serial"] for event in after}
    assert {kind: found[0] for kind, found in serials(after).items()} == FIRST_SERIALS
    assert after[0]["eventTime"] >= before[-1]["eventTime"]


def test_every_event_of_the_catalogue_comes_and_is_read_without_remainder() -> None:
    events = some(Centre(1, agents=20, rate=100), 20_000)
    assert {event["eventName"] for event in events} == set(CATALOGUE)
    for raw in events:
        event = parse_event(raw)
        assert type(event) is CATALOGUE[raw["eventName"]]
        assert not event.model_extra
        assert event.as_received() == raw


def test_the_envelope_is_the_catalogues() -> None:
    events = {event["eventName"]: event for event in some(Centre(1, agents=20, rate=100), 5000)}
    envelope = ["eventName", "eventSrc", "eventTime", "eventType", "serial", "namespace"]
    assert list(events["delivered"])[:7] == [*envelope, "srcDeviceId"]
    assert list(events["recordStopped"])[:7] == [*envelope, "srcDeviceId"]
    assert list(events["recordStarted"])[:7] == [*envelope, "recordId"]
    assert "srcDeviceId" not in events["recordStarted"]
    assert "eventSrc" not in events["agentReady"]
    assert events["delivered"]["eventSrc"] == events["delivered"]["srcDeviceId"]


def test_times_are_the_wall_clock_of_the_namespace() -> None:
    start = datetime(2026, 1, 31, 15, 59, 50, 999_999, tzinfo=UTC)  # a leap over midnight in China
    seen = [(at, event["eventTime"]) for at, event in Centre(1, start=start, rate=20).run(30.0)]
    assert seen[0] == (0.0, "2026.01.31 23:59:50")
    assert seen[-1][1].startswith("2026.02.01 00:00:")
    for (at, time), (later, then) in pairwise(seen):
        assert at <= later
        assert time <= then


def test_a_start_without_a_zone_is_the_servers_wall_clock() -> None:
    start = datetime(2018, 7, 24, 11, 14, 39)  # noqa: DTZ001 - that is the point
    assert some(Centre(1, start=start), 1)[0]["eventTime"] == "2018.07.24 11:14:39"


def test_a_recordings_file_is_named_for_when_it_begins() -> None:
    events = some(Centre(1, weights={"recording": 1}), 200)
    found = [event for event in events if event["eventName"] == "recordStarted"]
    for event in found:
        digits = re.sub(r"\D", "", event["eventTime"])
        day, device, call = digits[4:8], event["deviceId"], event["callId"]
        assert event["fileName"] == (
            f"/mnt/volumes/recordings//zhen04.cc/2017/{day}/{device}/{digits}_{call}.wav"
        )
    assert found


# Rate and mix


@pytest.mark.parametrize(("agents", "rate"), [(10, 0.5), (10, 5), (200, 1000)])
def test_the_rate_holds_on_average(agents: int, rate: float) -> None:
    stream = list(islice(Centre(5, agents=agents, rate=rate), 10_000))
    assert len(stream) / stream[-1][0] == pytest.approx(rate, rel=0.15)


def test_scenarios_are_begun_as_often_as_the_weights_say() -> None:
    centre = Centre(1, agents=50, rate=100, weights={"call_in": 3, "hold": 1, "log_off": 0})
    some(centre, 20_000)
    assert set(centre.begun) == {"call_in", "hold"}
    assert centre.begun["call_in"] / centre.begun["hold"] == pytest.approx(3, rel=0.15)


def test_every_scenario_is_begun_sooner_or_later() -> None:
    centre = Centre(1, agents=20, rate=100)
    some(centre, 20_000)
    assert set(centre.begun) == set(SCENARIOS)


def test_what_takes_more_agents_than_there_are_is_left_out() -> None:
    centre = Centre(1, agents=1, rate=5)
    some(centre)
    assert {name for name, one in SCENARIOS.items() if one.fewest == 1} == set(centre.begun)


def test_three_parties_are_waited_for_when_they_are_all_that_is_asked_for() -> None:
    centre = Centre(1, agents=2, rate=100, weights={"single_step_transfer": 1})
    some(centre)
    assert centre.begun["single_step_transfer"] > 10


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"agents": 0}, "agents"),
        ({"rate": 0}, "rate"),
        ({"weights": {"lunch": 1}}, "lunch"),
        ({"weights": {"hold": -1}}, "hold"),
        ({"weights": {"hold": float("inf")}}, "hold"),
        ({"weights": {}}, "weights"),
        ({"agents": 1, "weights": {"consult_cancel": 1}}, "1 agents"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(arguments: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigurationError, match=what):
        Centre(**arguments)


# Agents


def test_all_agents_log_on_at_the_beginning() -> None:
    events = [event for at, event in Centre(1, agents=9).run(2.0)]
    seats = {e["agentId"]: e["srcDeviceId"] for e in events if e["eventName"] == "agentLoggedOn"}
    assert seats == {f"{5001 + n}@zhen04.cc": f"{8001 + n}@zhen04.cc" for n in range(9)}


def test_agents_who_come_back_may_sit_elsewhere() -> None:
    events = some(Centre(1, agents=5, rate=50, weights={"log_off": 1}), 500)
    seats = defaultdict(set)
    for event in events:
        if event["eventName"] == "agentLoggedOn":
            seats[event["agentId"]].add(event["srcDeviceId"])
    assert all(len(devices) > 1 for devices in seats.values())


def _seats_hold(stream: Iterable[Timed]) -> None:
    """Check that agents log on at vacant devices only, and events come from where they sit."""
    at: dict[str, str] = {}
    for _, event in stream:
        name, device = event["eventName"], event.get("srcDeviceId") or event["eventSrc"]
        if name == "agentLoggedOn":
            assert event["agentId"] not in at
            assert device not in at.values()
            at[event["agentId"]] = device
        elif name == "agentLoggedOff":
            assert at.pop(event["agentId"]) == device
        elif event["eventType"] == "agent":
            assert at[event["agentId"]] == device
        else:
            assert device in at.values()


def _calls_per_device(stream: Iterable[Timed]) -> int:
    """Return how many calls a device has at once at most, by what it hears itself."""
    calls: dict[str, set[str]] = defaultdict(set)
    most = 0
    for _, event in stream:
        if (call := event.get("callId")) is None or event["eventName"] == "recordStarted":
            continue
        device = event["srcDeviceId"]
        if event["eventName"] in ("transferred", "conferenced"):
            calls[device].discard(event["secondaryOldCall"])
        if event.get("releasingDevice") == device:
            calls[device].discard(call)
        elif event["eventName"] in ("serviceInitiated", "delivered", "originated"):
            calls[device].add(call)
        most = max(most, len(calls[device]))
    assert most
    return most


@settings(max_examples=5)
@given(seed=st.integers(0, 2**32))
def test_only_free_agents_take_part_in_anything_new(seed: int) -> None:
    _seats_hold(islice(Centre(seed, agents=12, rate=50), 5000))


def test_nobody_is_in_two_calls_but_who_consults() -> None:
    consulting = {name for name in SCENARIOS if name.startswith(("consult", "conference"))}
    plain = {name: one.weight for name, one in SCENARIOS.items() if name not in consulting}
    assert _calls_per_device(islice(Centre(1, rate=50, weights=plain), 20_000)) == 1
    assert _calls_per_device(islice(Centre(1, rate=50), 20_000)) == 2


def test_it_tells_its_state() -> None:
    centre = Centre(1, agents=3)
    assert repr(centre) == "<Centre zhen04.cc at 0.0 s, 0 agents free, 0 scenarios begun>"
