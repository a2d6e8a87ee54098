"""The check of the benches: it ends a race at the first event that should not have come."""

from __future__ import annotations

from typing import Any

import pytest

from bench.speed.receivers import LOOKED_INTO, Check
from bench.speed.sender import Load, event_of
from cti_listener import Event, parse_event

FOUR = Load(4, devices=2)


def events(*numbers: int) -> list[Event]:
    return [parse_event(event_of(number, FOUR.devices)) for number in numbers]


def test_all_that_came_once_and_in_order_is_a_time() -> None:
    check = Check(FOUR)
    for event in events(0, 1, 2, 3):
        check.take(event)
    assert check.done.is_set()
    assert check.seconds >= 0


@pytest.mark.parametrize(
    ("came", "fault"),
    [
        (events(2, 0), "behind"),
        (events(0, 0), "behind"),
        ([parse_event({**event_of(0, 2), "eventName": "established"})], "Established"),
        ([parse_event({**event_of(0, 2), "serial": None})], "without a serial"),
    ],
)
def test_the_first_fault_ends_the_race(came: list[Event], fault: str) -> None:
    check = Check(FOUR)
    for event in came:
        check.take(event)
    assert check.done.is_set()
    assert check.missing == 0
    with pytest.raises(AssertionError, match=fault):
        _ = check.seconds


@pytest.mark.parametrize("change", [{"callingDevice": "wrong"}, {"callingDevice": None}])
@pytest.mark.parametrize("rate", [0, 2000])
def test_now_and_then_one_is_held_to_all_that_was_sent(change: dict[str, Any], rate: int) -> None:
    check = Check(Load(LOOKED_INTO, devices=2, rate=rate))
    check.take(parse_event({**event_of(0, 2), **change}))
    with pytest.raises(AssertionError, match="121000 came with other values"):
        _ = check.seconds


def test_what_never_came_is_no_time() -> None:
    check = Check(FOUR)
    for event in events(0, 1, 2):
        check.take(event)
    assert not check.done.is_set()
    with pytest.raises(AssertionError, match="1 of 4"):
        _ = check.seconds
