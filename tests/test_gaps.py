"""The ledger: every moment in which something may have been missed, once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cti_listener.gaps import KEPT, LIVES, GapLedger
from cti_listener.notices import Gap, GapReason
from cti_listener.values import EventKey

BEGIN = datetime(2024, 5, 1, tzinfo=UTC)


def at(second: float) -> datetime:
    return BEGIN + timedelta(seconds=second)


def key(serial: int) -> EventKey:
    return EventKey("a.cc", "csta", "1@a.cc", serial, "held", "t", "c")


def span(gap: Gap) -> tuple[float, float | None]:
    until = None if gap.until is None else (gap.until - BEGIN).total_seconds()
    return (gap.since - BEGIN).total_seconds(), until


def begun(**given: object) -> GapLedger:
    """A ledger of a feed that stands."""
    ledger = GapLedger(**given)  # type: ignore[arg-type]  # what a ledger takes
    assert ledger.covers("a", at(0)) == []
    return ledger


def lose(
    ledger: GapLedger, second: float, last: EventKey | None = None, feed: str = "a"
) -> list[tuple[float, float | None]]:
    return [span(gap) for gap in ledger.lost(feed, at(second), "disconnected", last)]


def test_the_very_first_connection_opens_no_gap() -> None:
    ledger = begun()
    assert ledger.gaps == ()
    assert not ledger.awaiting


def test_what_failed_before_the_first_connection_is_no_loss() -> None:
    ledger = GapLedger()
    assert lose(ledger, 1) == []
    assert ledger.covers("a", at(2)) == []
    assert ledger.gaps == ()


def test_a_gap_lasts_from_the_last_sign_of_life_to_the_confirmed_subscription() -> None:
    ledger = begun()
    assert ledger.lost("a", at(1), "half_open", key(1)) == []
    (open_gap,) = ledger.gaps
    assert (open_gap.since, open_gap.until, open_gap.reason) == (at(1), None, "half_open")
    (gap,) = ledger.covers("a", at(5))
    assert (gap.id, gap.since, gap.until, gap.at) == (1, at(1), at(5), at(5))
    assert (gap.reason, gap.devices, gap.destination) == ("half_open", frozenset(), None)
    assert (gap.last_before, gap.first_after, gap.recovered) == (key(1), None, False)
    assert ledger.gaps == (gap,)


def test_the_first_event_after_completes_the_gaps_that_await_it() -> None:
    ledger = begun()
    lose(ledger, 1)
    ledger.covers("a", at(2))
    lose(ledger, 3)
    ledger.covers("a", at(4))
    assert ledger.awaiting
    ledger.note(key(9))
    assert not ledger.awaiting
    ledger.note(key(10))
    assert [gap.first_after for gap in ledger.gaps] == [key(9), key(9)]


def test_an_open_gap_stays_open_when_an_event_comes() -> None:
    ledger = begun()
    lose(ledger, 1)
    ledger.note(key(1))
    assert ledger.gaps[0].until is None
    assert ledger.gaps[0].first_after is None


def test_a_refused_destination_is_a_gap_of_its_own_until_it_is_taken() -> None:
    ledger = begun()
    ledger.refused("/topic/x", at(1), key(1), frozenset({"1@a.cc"}))
    ledger.refused("/topic/x", at(2), None)
    lose(ledger, 3)
    (regained,) = ledger.covers("a", at(4))
    assert regained.id == 2
    open_gap = ledger.gaps[-1]
    assert (open_gap.id, open_gap.until, open_gap.destination) == (1, None, "/topic/x")
    gap = ledger.accepted("/topic/x", at(9))
    assert gap is not None
    assert (gap.id, gap.since, gap.until, gap.reason) == (1, at(1), at(9), "refused")
    assert (gap.devices, gap.destination) == (frozenset({"1@a.cc"}), "/topic/x")
    assert ledger.accepted("/topic/x", at(10)) is None
    assert [one.id for one in ledger.gaps] == [2, 1]


def test_a_restarted_server_is_a_gap_between_two_events() -> None:
    ledger = GapLedger()
    gap = ledger.restarted(at(1), at(5), key(1), key(2))
    assert (gap.since, gap.until, gap.reason) == (at(1), at(5), "server_restarted")
    assert (gap.last_before, gap.first_after) == (key(1), key(2))
    assert not ledger.awaiting
    assert ledger.gaps == (gap,)


def test_the_oldest_gaps_are_forgotten_first() -> None:
    ledger = begun()
    for second in range(KEPT + 50):
        lose(ledger, second)
        ledger.covers("a", at(second + 0.5))
    assert len(ledger.gaps) == KEPT
    assert ledger.gaps[0].id == 51


# Two feeds


def test_the_loss_of_one_of_two_feeds_is_no_gap() -> None:
    ledger = begun()
    ledger.covers("b", at(1))
    assert lose(ledger, 5) == []
    assert ledger.covers("a", at(9)) == []
    assert lose(ledger, 12, feed="b") == []
    assert ledger.gaps == ()


def test_two_feeds_lost_together_are_one_gap_from_the_later_loss() -> None:
    ledger = begun()
    ledger.covers("b", at(1))
    lose(ledger, 5)
    assert lose(ledger, 8, key(3), feed="b") == []
    (gap,) = ledger.covers("a", at(9))
    assert span(gap) == (8, 9)
    assert gap.last_before == key(3)


def test_what_was_on_its_way_when_one_feed_was_lost_is_missed_if_the_other_is_lost_at_once() -> (
    None
):
    for later, since in ((4.08, 4.0), (4.12, 4.12)):
        ledger = begun()
        ledger.covers("b", at(2))
        assert ledger.lost("a", at(4), "disconnected", key(1)) == []
        assert ledger.lost("b", at(later), "disconnected", key(1)) == []
        assert [span(gap) for gap in ledger.gaps] == [(since, None)]


def test_one_that_was_behind_and_is_lost_with_the_other_says_as_much() -> None:
    for silent, since in ((3.95, 3.9), (3.85, 4.0)):
        ledger = begun()
        ledger.covers("b", at(2))
        ledger.lost("b", at(3), "disconnected", key(1), silent=at(silent))
        ledger.lost("a", at(4), "disconnected", key(1))
        assert [span(gap) for gap in ledger.gaps] == [(since, None)]


def test_what_was_on_its_way_when_a_feed_was_lost_is_missed_by_one_that_has_just_begun() -> None:
    for stood, gaps in ((3.95, [(3.9, 3.95)]), (3.85, []), (4.05, [(4.0, 4.05)])):
        ledger = begun()
        if stood < 4:
            ledger.covers("b", at(stood))
        ledger.lost("a", at(4), "disconnected", key(1))
        ledger.covers("b", at(stood))
        assert [span(gap) for gap in ledger.gaps] == gaps


def test_a_peer_found_dead_late_shows_a_gap_that_is_over() -> None:
    ledger = begun()
    ledger.covers("b", at(1))
    lose(ledger, 10, feed="b")  # and `a` seems to live
    assert ledger.covers("b", at(14)) == []
    gaps = ledger.lost("a", at(11), "half_open", None)  # but was silent since
    assert [span(gap) for gap in gaps] == [(11, 14)]
    assert gaps[0].reason == "half_open"
    assert lose(ledger, 20, feed="b") == []
    assert [span(gap) for gap in ledger.gaps] == [(11, 14), (20, None)]


def test_a_feed_covers_from_when_it_was_spliced_in() -> None:
    ledger = begun()
    lose(ledger, 5)  # while `b` is connected, and not yet known to be in step
    (gap,) = ledger.covers("b", at(6))
    assert span(gap) == (5, 6)


# A run after another


@pytest.mark.parametrize("apart", [False, True])
def test_feeds_that_are_lost_by_turns_for_ever_leave_no_gap(*, apart: bool) -> None:
    ledger = begun()
    ledger.apart = apart
    ledger.covers("b", at(5))
    for turn in range(LIVES + 10):
        assert lose(ledger, 10 + 5 * turn, feed="ab"[turn % 2]) == []
        ledger.covers("ab"[turn % 2], at(11 + 5 * turn))
    assert lose(ledger, 12 + 5 * turn, feed="a") == []
    assert lose(ledger, 13 + 5 * turn, feed="b") == []
    assert [span(gap)[0] for gap in ledger.gaps if gap.until is None][-1] >= 12 + 5 * turn


def test_a_run_after_another_names_its_absence_and_goes_on_counting() -> None:
    ledger = GapLedger()
    ledger.resume(7, (), at(3), key(1))
    (open_gap,) = ledger.gaps
    assert (open_gap.id, open_gap.reason, span(open_gap)) == (8, "listener_down", (3, None))
    (gap,) = ledger.covers("a", at(9))
    assert (gap.id, gap.last_before, span(gap)) == (8, key(1), (3, 9))


def test_an_absence_over_several_runs_is_one_gap() -> None:
    """None of those between was ever connected."""
    left: list[Gap] = []
    for run in range(3):
        ledger = GapLedger()
        ledger.resume(7 + bool(run), left, at(3), key(1))
        left = [gap for gap in ledger.gaps if gap.until is None]
    (gap,) = ledger.covers("a", at(9))
    assert (gap.id, gap.reason, gap.last_before, span(gap)) == (8, "listener_down", key(1), (3, 9))


def test_what_a_run_left_open_is_closed_by_the_next_one() -> None:
    first = begun()
    first.lost("a", at(2), "half_open", key(1))
    first.refused("/topic/x", at(1), None)
    first.refused("/topic/y", at(1), None)
    ledger = GapLedger()
    ledger.resume(3, [gap for gap in first.gaps if gap.until is None], at(3), None)
    ledger.refused("/topic/x", at(8), None)  # still
    closed = ledger.covers("a", at(9))
    assert [(gap.id, gap.reason, span(gap)) for gap in closed] == [
        (1, "half_open", (2, 9)),
        (4, "listener_down", (3, 9)),
    ]
    assert [(gap.id, gap.destination) for gap in ledger.no_longer_refused(at(9))] == [
        (3, "/topic/y")
    ]
    assert ledger.no_longer_refused(at(9)) == []
    assert [gap.destination for gap in ledger.gaps if gap.until is None] == ["/topic/x"]


def test_the_first_event_of_a_run_completes_what_the_one_before_left_without() -> None:
    first = begun()
    lose(first, 1)
    first.covers("a", at(2))
    kept: list[Gap] = []
    ledger = GapLedger(kept.append)
    ledger.resume(1, (), at(3), key(1), first.gaps)
    ledger.covers("a", at(9))
    assert ledger.awaiting
    ledger.note(key(5))
    ledger.note(key(6))
    assert [(gap.id, gap.first_after) for gap in kept] == [
        (2, None),
        (2, None),
        (1, key(5)),
        (2, key(5)),
    ]
    assert [gap.id for gap in ledger.gaps] == [2]  # those of this run
    assert ledger.counts["disconnected"] == 0


def test_every_change_of_a_gap_is_kept() -> None:
    kept: list[Gap] = []
    ledger = begun(keep=kept.append)
    lose(ledger, 1)
    ledger.covers("a", at(2))
    ledger.note(key(5))
    assert [(gap.id, span(gap)[1], gap.first_after) for gap in kept] == [
        (1, None, None),
        (1, 2, None),
        (1, 2, key(5)),
    ]


# What a broker kept


def test_a_gap_whose_events_were_kept_is_closed_once_they_are_in() -> None:
    ledger = begun()
    lose(ledger, 1)
    assert ledger.covers("a", at(5), backlog=True) == []
    assert span(ledger.gaps[0]) == (1, None)
    (gap,) = ledger.caught_up("a", recovered=True)
    assert (span(gap), gap.recovered) == ((1, 5), True)
    assert ledger.caught_up("a", recovered=True) == []


def test_a_feed_lost_before_its_backlog_is_in_leaves_the_gap_open() -> None:
    ledger = begun()
    lose(ledger, 1)
    ledger.covers("a", at(5), backlog=True)
    lose(ledger, 6)
    assert ledger.caught_up("a", recovered=True) == []
    assert span(ledger.gaps[0]) == (1, None)
    (gap,) = ledger.covers("a", at(8))
    assert (span(gap), gap.recovered) == ((1, 8), False)


# Backlogs


def test_a_gap_stays_open_until_the_backlog_is_in_and_ends_where_the_feed_stood() -> None:
    for recovered in (True, False):
        ledger = begun()
        lose(ledger, 1)
        assert ledger.covers("a", at(5), backlog=True) == []
        assert span(ledger.gaps[0]) == (1, None)
        (gap,) = ledger.caught_up("a", recovered=recovered)
        assert (span(gap), gap.recovered) == ((1, 5), recovered)
        assert ledger.caught_up("a", recovered=recovered) == []


def test_what_overflowed_before_it_was_in_may_have_dropped_events_until_then() -> None:
    ledger = begun()
    lose(ledger, 1)
    ledger.covers("a", at(5), backlog=True)
    (gap,) = ledger.caught_up("a", recovered=False, overflowed=at(8))
    assert (span(gap), gap.recovered) == ((1, 8), False)


def test_what_overflowed_before_it_was_in_is_a_gap_where_none_was_open() -> None:
    ledger = GapLedger()
    ledger.covers("a", at(2), backlog=True)
    (gap,) = ledger.caught_up("a", recovered=False, overflowed=at(4))
    assert (gap.reason, span(gap)) == ("slow_consumer", (2, 4))
    assert ledger.gaps == (gap,)


def test_what_overflowed_is_no_gap_where_another_feed_has_it() -> None:
    ledger = begun()
    ledger.covers("b", at(2), backlog=True)
    assert ledger.caught_up("b", recovered=False, overflowed=at(4)) == []


def test_a_backlog_that_makes_up_for_nothing_closes_nothing() -> None:
    ledger = GapLedger()
    assert ledger.covers("a", at(0), backlog=True) == []
    assert ledger.caught_up("a", recovered=True) == []
    assert ledger.gaps == ()


def test_a_feed_without_a_backlog_leaves_the_gap_to_the_one_that_has_one() -> None:
    ledger = begun()
    lose(ledger, 1)
    ledger.covers("a", at(5), backlog=True)
    assert ledger.covers("b", at(6)) == []
    (gap,) = ledger.caught_up("a", recovered=True)
    assert (span(gap), gap.recovered) == ((1, 5), True)


def test_the_first_backlog_that_is_in_says_what_the_gap_was() -> None:
    ledger = begun()
    lose(ledger, 1)
    ledger.covers("b", at(5), backlog=True)
    ledger.covers("a", at(6), backlog=True)
    (gap,) = ledger.caught_up("a", recovered=False)
    assert (span(gap), gap.recovered) == ((1, 5), False)  # the other stood since then
    assert ledger.caught_up("b", recovered=True) == []


def test_a_gap_whose_backlog_is_lost_is_closed_by_the_feed_that_is_left() -> None:
    ledger = begun()
    lose(ledger, 1)
    ledger.covers("a", at(5), backlog=True)
    ledger.covers("b", at(6))
    (gap,) = ledger.lost("a", at(7), "disconnected", None)
    assert (span(gap), gap.recovered) == ((1, 6), False)
    assert lose(ledger, 8, feed="b") == []
    assert span(ledger.gaps[-1]) == (8, None)


def test_a_gap_whose_only_backlog_is_lost_goes_on() -> None:
    ledger = begun()
    lose(ledger, 1)
    ledger.covers("a", at(5), backlog=True)
    assert lose(ledger, 6) == []
    ledger.covers("a", at(8), backlog=True)
    (gap,) = ledger.caught_up("a", recovered=True)
    assert (span(gap), gap.recovered) == ((1, 8), True)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["covers", "backlog", "caught up", "lost"]),
            st.sampled_from(["a", "b"]),
        ),
        max_size=40,
    )
)
def test_with_backlogs_too_whatever_no_feed_covered_is_named(steps: list[tuple[str, str]]) -> None:
    ledger = GapLedger()
    up: dict[str, int] = {}
    lives: list[tuple[int, int]] = []
    for second, (step, feed) in enumerate(steps):
        match step:
            case "covers" | "backlog" if feed not in up:
                up[feed] = second
                ledger.covers(feed, at(second), backlog=step == "backlog")
            case "caught up":
                ledger.caught_up(feed, recovered=True)
            case "lost" if feed in up:
                lives.append((up.pop(feed), second))
                ledger.lost(feed, at(second), "disconnected", None)
            case _:
                pass
    end = len(steps)
    lives += [(since, end) for since in up.values()]
    named = [span(gap) for gap in ledger.gaps]
    for half in range(2 * min((since for since, _ in lives), default=end), 2 * end):
        moment = half / 2 + 0.25
        covered = any(a <= moment <= b for a, b in lives)
        assert covered or any(a <= moment <= (end if b is None else b) for a, b in named)
    for feed in up:
        ledger.caught_up(feed, recovered=True)
    assert not up or all(gap.until is not None for gap in ledger.gaps)


# All of it


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["covers", "lost", "noticed late", "refuse", "accept", "event"]),
            st.sampled_from(["a", "b"]),
        ),
        max_size=40,
    )
)
def test_the_gaps_are_the_complement_of_what_the_feeds_covered(
    steps: list[tuple[str, str]],
) -> None:
    ledger = GapLedger()
    up: dict[str, int] = {}
    lives: list[tuple[int, int]] = []
    told: list[Gap] = []
    reason: GapReason = "disconnected"
    for second, (step, feed) in enumerate(steps):
        match step:
            case "covers" if feed not in up:
                up[feed] = second
                told += ledger.covers(feed, at(second))
            case "lost" | "noticed late" if feed in up:
                since = up.pop(feed)
                until = second if step == "lost" else max(since, second - 3)
                lives.append((since, until))
                told += ledger.lost(feed, at(until), reason, None)
            case "refuse":
                ledger.refused("/x", at(second), None)
            case "accept":
                ledger.accepted("/x", at(second))
            case "event":
                ledger.note(key(second))
            case _:
                pass
    end = len(steps)
    lives += [(since, end) for since in up.values()]
    named = [span(gap) for gap in ledger.gaps if gap.reason == reason]
    begin = min((since for since, _ in lives), default=end)

    def among(spans: list[tuple[float, float | None]], second: float) -> bool:
        return any(a <= second <= (end if b is None else b) for a, b in spans)

    for half in range(2 * begin, 2 * end):
        moment = half / 2 + 0.25
        covered = any(a <= moment <= b for a, b in lives)
        assert covered or among(named, moment)
        assert not (covered and among(named, moment))
    assert {gap.id for gap in told} <= {gap.id for gap in ledger.gaps if gap.until}
    ids = [gap.id for gap in ledger.gaps]
    assert len(set(ids)) == len(ids)
    assert all(gap.until is None or gap.since <= gap.until for gap in ledger.gaps)
