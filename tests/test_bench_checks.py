"""The check of the benches: it ends a race at the first event that should not have come."""

from __future__ import annotations

import pytest

from bench.speed.receivers import Check
from bench.speed.sender import Load, event_of
from cti_listener import Event, parse_event

FOUR = Load(4, devices=2)


def events(*numbers: int) -> list[Event]:
    return [parse_event(event_of(number, FOUR.devices)) for number in numbers]


@pytest.mark.parametrize("ordered", [True, False])
def test_all_that_came_once_and_in_order_is_a_time(*, ordered: bool) -> None:
    check = Check(FOUR, ordered=ordered)
    for event in events(0, 1, 2, 3):
        check.take(event)
    assert check.done.is_set()
    assert check.seconds >= 0


@pytest.mark.parametrize(
    ("came", "ordered", "fault"),
    [
        (events(2, 0), True, "behind"),
        (events(0, 0), True, "behind"),
        (events(0, 1, 0), False, "twice"),
        ([parse_event({**event_of(0, 2), "eventName": "established"})], True, "Established"),
        ([parse_event({**event_of(0, 2), "serial": None})], True, "without a serial"),
    ],
)
def test_the_first_fault_ends_the_race(*, came: list[Event], ordered: bool, fault: str) -> None:
    check = Check(FOUR, ordered=ordered)
    for event in came:
        check.take(event)
    assert check.done.is_set()
    assert check.missing == 0
    with pytest.raises(AssertionError, match=fault):
        _ = check.seconds


def test_what_never_came_is_no_time() -> None:
    check = Check(FOUR)
    for event in events(0, 1, 2):
        check.take(event)
    assert not check.done.is_set()
    with pytest.raises(AssertionError, match="1 of 4"):
        _ = check.seconds
