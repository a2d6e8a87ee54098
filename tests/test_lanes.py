"""A durable handler's lane: what a full one leaves in the journal comes back in its place."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cti_listener.event_base import Event
from cti_listener.events import parse_event
from cti_listener.lanes import Lane
from cti_listener.notices import Gap
from cti_listener.router import Handler, Happening, make_wish
from tests.examples import make

NOW = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)


async def nothing(_: object) -> None:
    pass


@pytest.fixture
def lane() -> Lane:
    return made_lane()


def made_lane() -> Lane:
    wish = make_wish((Event, Gap), namespace=None)
    return Lane(Handler(name="work", wish=wish, run=nothing, durable=True), "8002")


def event(seq: int) -> Event:
    return parse_event(make(serial=seq))


def gap(number: int) -> Gap:
    return Gap(at=NOW, id=number, since=NOW, until=NOW, reason="disconnected")


def name(happening: Happening) -> Any:
    return happening.serial if isinstance(happening, Event) else f"gap {happening.id}"  # type: ignore[attr-defined]


def waiting(lane: Lane) -> list[Any]:
    assert len(lane.queue) == len(lane.seqs)
    return [name(one) for one in lane.queue]


def found(*seqs: int) -> list[tuple[int, Event]]:
    return [(seq, event(seq)) for seq in seqs]


def test_a_lane_with_room_takes_all_in_order(lane: Lane) -> None:
    lane.append(event(1), 1)
    lane.append(gap(1), 0)
    lane.append(event(2), 2)
    assert waiting(lane) == [1, "gap 1", 2]
    assert list(lane.seqs) == [1, 0, 2]
    assert lane.spill is None


def test_a_full_lane_leaves_events_and_all_that_comes_behind_them(lane: Lane) -> None:
    lane.append(event(1), 1)
    assert not lane.take_or_leave(event(2), 2)
    assert not lane.take_or_leave(gap(1), 0)
    assert not lane.take_or_leave(event(5), 5)  # there is room again, but 2 comes first
    assert waiting(lane) == [1]
    assert lane.spill is not None
    assert list(lane.spill.left) == [2, 5]


def test_a_notice_finds_room_in_a_full_lane(lane: Lane) -> None:
    lane.append(event(1), 1)
    assert lane.take_or_leave(gap(1), 0)
    assert waiting(lane) == [1, "gap 1"]


def test_an_empty_lane_takes_one_though_its_handler_has_enough(lane: Lane) -> None:
    """Else nobody would ever run it, and so ask for more."""
    assert lane.take_or_leave(event(1), 1)
    assert not lane.take_or_leave(event(2), 2)


def test_a_refill_puts_notices_where_they_came(lane: Lane) -> None:
    lane.append(event(1), 1)
    lane.take_or_leave(event(2), 2)
    lane.take_or_leave(gap(1), 0)
    lane.take_or_leave(event(3), 3)
    lane.take_or_leave(gap(2), 0)
    assert lane.refill(found(2), 1) == 1
    assert waiting(lane) == [1, 2]
    assert lane.spill is not None
    assert lane.refill(found(3), 1) == 3
    assert waiting(lane) == [1, 2, "gap 1", 3, "gap 2"]
    assert lane.spill is None


def test_what_was_erased_meanwhile_is_not_waited_for(lane: Lane) -> None:
    lane.append(event(1), 1)
    for seq in (2, 3, 4):
        lane.take_or_leave(event(seq), seq)
        lane.take_or_leave(gap(seq), 0)
    assert lane.refill(found(3), 3) == 4
    assert waiting(lane) == [1, "gap 2", 3, "gap 3", "gap 4"]
    assert lane.spill is None


def test_what_comes_while_a_refill_is_under_way_stays_behind(lane: Lane) -> None:
    lane.append(event(1), 1)
    lane.take_or_leave(event(2), 2)
    lane.take_or_leave(event(9), 9)  # asked for 2, when this came
    assert lane.refill(found(2), 1) == 1
    assert lane.spill is not None
    assert not lane.spill.asked
    assert list(lane.spill.left) == [9]


def test_a_lane_that_begins_with_what_was_left_takes_nothing_before_it(lane: Lane) -> None:
    lane.leave([3, 7])
    assert not lane.take_or_leave(gap(1), 0)
    assert not lane.take_or_leave(event(9), 9)
    assert lane.refill(found(3, 7), 2) == 2
    assert lane.refill(found(9), 1) == 2
    assert waiting(lane) == [3, 7, "gap 1", 9]


def test_a_refill_of_a_lane_that_was_given_up_brings_nothing(lane: Lane) -> None:
    assert lane.refill(found(1), 1) == 0
    assert waiting(lane) == []


@dataclass
class Course:
    """What happens to a lane, and what should come of it."""

    size: int
    erased: frozenset[int]
    lane: Lane = field(default_factory=made_lane)
    journal: dict[int, Event] = field(default_factory=dict)
    put: list[Any] = field(default_factory=list)
    handled: list[Any] = field(default_factory=list)
    asked: list[int] | None = None

    def comes(self, happening: Event | Gap, seq: int) -> None:
        if self.lane.spill is None and len(self.lane.queue) < self.size:
            self.lane.append(happening, seq)
        else:
            self.lane.take_or_leave(happening, seq)

    def do(self, what: str, seq: int) -> None:
        lane = self.lane
        match what:
            case "event":
                self.journal[seq] = event(seq)
                self.put.append(seq)
                self.comes(self.journal[seq], seq)
            case "notice":
                self.put.append(f"gap {seq}")
                self.comes(gap(seq), 0)
            case "handle" if lane.queue:
                self.handled.append(name(lane.queue.popleft()))
                lane.seqs.popleft()
            case "ask" if lane.spill is not None and self.asked is None:
                self.asked = list(lane.spill.left[: self.size])
            case "answer" if self.asked is not None:
                there = [seq for seq in self.asked if seq not in self.erased]
                lane.refill([(seq, self.journal[seq]) for seq in there], len(self.asked))
                self.asked = None

    @property
    def idle(self) -> bool:
        return not (self.lane.queue or self.lane.spill or self.asked)


@given(
    st.integers(1, 4),
    st.lists(st.sampled_from(["event", "event", "notice", "handle", "ask", "answer"]), max_size=60),
    st.frozensets(st.integers(1, 60), max_size=5),
)
def test_whatever_comes_when_nothing_is_lost_or_overtaken(
    size: int, course: list[str], erased: frozenset[int]
) -> None:
    one = Course(size, erased)
    for seq, what in enumerate(course, 1):
        one.do(what, seq)
        assert len(one.lane.queue) == len(one.lane.seqs)
    for _ in range(3 * len(course) + 3):
        for what in ("handle", "ask", "answer"):
            one.do(what, 0)
    assert one.idle
    # An erased event may have been in the lane when it was erased; then it is handled all the same.
    missing = [what for what in one.put if what not in one.handled]
    assert set(missing) <= erased
    assert one.handled == [what for what in one.put if what not in missing]
