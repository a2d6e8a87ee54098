"""Faults: each does what it says, as much as it says, the same for the same seed."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from itertools import islice, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cti_listener.errors import BadMessageError
from cti_listener.events import parse_event
from cti_listener.simulator.centre import FIRST_SERIALS, Centre, Timed
from cti_listener.simulator.connection_faults import Act
from cti_listener.simulator.faults import Faults
from cti_listener.simulator.stomp_door import StompRules
from cti_listener.simulator.stream_faults import (
    REORDER_SECONDS,
    REORDER_WITHIN,
    REPEAT_WITHIN,
    Message,
)
from cti_listener.values import identity, routing_key

N = 3000
RULES = StompRules()


def stream(n: int = N) -> list[Timed]:
    return list(islice(Centre(1, agents=20, rate=100), n))


def identities(events: Any) -> list[tuple[Any, ...]]:
    return [identity(event, routing_key(event)) for event in events]


# None, and all of them


def test_without_faults_the_stream_is_what_it_was() -> None:
    assert list(Faults().apply(stream())) == [Message(at, event) for at, event in stream()]


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32))
def test_all_faults_together_lose_nothing_and_are_the_same_for_the_same_seed(seed: int) -> None:
    faults = Faults(repeat=0.3, reorder=0.3, malformed=0.1, storm=(0.01, 9), split=0.2)
    first, second = (list(faults.apply(stream(500), seed=seed)) for _ in range(2))
    assert first == second
    sent = [message.event for message in first if message.body is None and not message.repeat]
    assert Counter(identities(sent)) == Counter(identities(event for _, event in stream(500)))
    assert all(one.at <= other.at for one, other in pairwise(first))


def test_one_fault_changes_nothing_about_another() -> None:
    alone = Faults(malformed=0.1).apply(stream())
    beside = Faults(malformed=0.1, repeat=0.5).apply(stream())
    assert sum(one.body is not None for one in alone)
    assert {one.event["serial"] for one in beside if one.repeat}


# Repeats


def test_a_share_of_events_is_sent_again_at_once_or_later() -> None:
    messages = list(Faults(repeat=0.2).apply(stream()))
    first_at: dict[tuple[Any, ...], int] = {}
    distances = []
    for index, message in enumerate(messages):
        (key,) = identities([message.event])
        if message.repeat:
            distances.append(index - first_at[key])
        else:
            assert key not in first_at
            first_at[key] = index
    assert len(distances) / N == pytest.approx(0.2, abs=0.03)
    assert min(distances) == 1
    assert 10 < max(distances) <= 3 * REPEAT_WITHIN


def test_each_event_may_come_twice() -> None:
    messages = list(Faults(repeat=1).apply(stream(100)))
    assert set(Counter(identities(m.event for m in messages)).values()) == {2}


# Order


def test_events_change_places_within_their_device_only() -> None:
    before, after = defaultdict(list), defaultdict(list)
    for _, event in stream():
        before[routing_key(event)].append(event)
    messages = list(Faults(reorder=0.2).apply(stream()))
    for message in messages:
        after[routing_key(message.event)].append(message.event)
    moved = 0
    for device, events in before.items():
        for index, event in enumerate(events):
            shift = after[device].index(event) - index
            assert -REORDER_WITHIN <= shift <= REORDER_WITHIN
            moved += shift > 0
    assert 0.05 * N < moved < 0.25 * N


def test_a_delayed_event_waits_no_longer_than_a_second() -> None:
    quiet = [(float(at), {"srcDeviceId": f"{at % 2}@a", "serial": at}) for at in range(0, 40, 4)]
    messages = list(Faults(reorder=1).apply(quiet))
    assert [m.event["serial"] for m in messages] == [event["serial"] for _, event in quiet]
    assert all(m.at - m.event["serial"] <= 4 + REORDER_SECONDS for m in messages)


# Malformed messages


def test_a_share_of_events_has_something_malformed_ahead_of_it() -> None:
    messages = list(Faults(malformed=0.1).apply(stream()))
    assert [m.event for m in messages if m.body is None] == [event for _, event in stream()]
    bad = [m.body for m in messages if m.body is not None]
    assert len(bad) / N == pytest.approx(0.1, abs=0.03)
    assert b"<html>" in bad[0] + b"".join(bad)
    for body in bad:
        with pytest.raises(BadMessageError):
            parse_event(body)


def test_a_malformed_message_is_followed_by_the_whole_one() -> None:
    messages = list(Faults(malformed=1).apply(stream(50)))
    for bad, good in zip(messages[::2], messages[1::2], strict=True):
        assert bad.body is not None
        assert good.body is None
        assert bad.event is good.event


# Hostile messages, storms, splits


def junk(faults: Faults, n: int = 200) -> list[bytes]:
    messages = list(faults.apply(stream(n)))
    assert [m.event for m in messages if m.body is None] == [event for _, event in stream(n)]
    return [m.body for m in messages if m.body is not None]


def test_broken_utf8_comes_ahead_of_the_whole_event() -> None:
    found = junk(Faults(invalid_utf8=1))
    assert len(found) == 200
    for body in found:
        with pytest.raises(UnicodeDecodeError):
            body.decode()


@pytest.mark.parametrize("body", [*junk(Faults(deep=1), 1), *junk(Faults(oversized=(1, 3000)), 1)])
def test_deep_and_large_messages_are_no_events(body: bytes) -> None:
    with pytest.raises(BadMessageError):
        parse_event(body)


def test_deep_and_large_messages_are_as_deep_and_large_as_asked_for() -> None:
    assert junk(Faults(deep=(1, 5)), 1) == [b"[[[[[]]]]]"]
    assert {len(body) for body in junk(Faults(oversized=(0.5, 1234)))} == {1234}
    assert {len(body) for body in junk(Faults(bomb=(1, 2)), 1)} == {2 * 2**20}


def test_a_storm_is_the_last_events_again_in_their_order() -> None:
    messages = list(Faults(storm=(0.02, 20)).apply(stream()))
    assert [m.event for m in messages if not m.repeat] == [event for _, event in stream()]
    storms = 0
    for index, message in enumerate(messages):
        if message.repeat and not messages[index - 1].repeat:
            before = [m.event for m in messages[:index] if not m.repeat][-20:]
            assert [m.event for m in messages[index : index + len(before)]] == before
            storms += 1
    assert storms / N == pytest.approx(0.02, abs=0.01)


def test_a_share_of_the_events_points_at_one_session() -> None:
    messages = list(Faults(split=0.5).apply(stream()))
    chosen = [m.to_one for m in messages if m.to_one is not None]
    assert len(chosen) / N == pytest.approx(0.5, abs=0.05)
    assert sum(chosen) / len(chosen) == pytest.approx(0.5, abs=0.05)


# Restarts


def test_counters_fall_back_every_so_many_seconds_and_nothing_else_changes() -> None:
    messages = list(Faults(restart_every=5).apply(stream()))
    for kind, first in FIRST_SERIALS.items():
        found = [m for m in messages if m.event["eventType"] == kind]
        falls = [b.at for a, b in pairwise(found) if b.event["serial"] < a.event["serial"]]
        assert len(falls) == int(found[-1].at // 5)
        for n, at in enumerate(falls, 1):
            assert 5 * n <= at < 5 * n + 1
        assert {m.event["serial"] for m in found if m.at in falls} >= {first}
    stripped = [json.dumps({**m.event, "serial": 0}) for m in messages]
    assert stripped == [json.dumps({**event, "serial": 0}) for _, event in stream()]


def test_the_centres_own_events_are_left_as_they_are() -> None:
    events = stream()
    serials = [event["serial"] for _, event in events]
    list(Faults(restart_every=5).apply(events))
    assert [event["serial"] for _, event in events] == serials


# Connections


def test_connections_are_dropped_after_a_while_each_its_own() -> None:
    faults = Faults(drop_every=30)
    lives = []
    for number in range(500):
        (script,) = faults.cues(number, seed=1)
        (cue,) = script
        assert cue.act is Act.DROP
        lives.append(cue.after)
    assert sum(lives) / len(lives) == pytest.approx(30, rel=0.15)
    assert len(set(lives)) == len(lives)
    assert [next(faults.cues(n, seed=1)[0]).after for n in range(500)] == lives


def test_without_faults_connections_are_left_alone() -> None:
    assert Faults(repeat=0.5).cues(1) == []
    assert Faults(repeat=0.5).server_cues() == []
    assert Faults(repeat=0.5).rules(RULES, 1) is RULES


def test_stalls_come_again_and_say_for_how_long() -> None:
    (script,) = Faults(stall_every=(10, 2)).cues(1)
    cues = list(islice(script, 500))
    assert {(cue.act, cue.amount) for cue in cues} == {(Act.STALL, 2)}
    assert sum(cue.after for cue in cues) / 500 == pytest.approx(10, rel=0.15)


def test_outages_leave_at_least_half_the_time_between() -> None:
    (script,) = Faults(away_every=10).server_cues(seed=3)
    cues = list(islice(script, 500))
    assert {(cue.act, cue.amount) for cue in cues} == {(Act.LEAVE, 3)}
    assert all(5 <= cue.after <= 15 for cue in cues)
    (again,) = Faults(away_every=10).server_cues(seed=3)
    assert list(islice(again, 500)) == cues


def test_a_rule_changes_for_a_share_of_the_sessions() -> None:
    faults = Faults(refuse=0.3, slow_heartbeats=(0.5, 4))
    found = [faults.rules(RULES, n, seed=1) for n in range(500)]
    assert sum(rules.refuse_all for rules in found) / 500 == pytest.approx(0.3, abs=0.07)
    assert sum(rules.lateness == 4 for rules in found) / 500 == pytest.approx(0.5, abs=0.07)
    assert found == [faults.rules(RULES, n, seed=1) for n in range(500)]
