"""The ledger: every moment in which something may have been missed, once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from cti_listener.gaps import KEPT, GapLedger
from cti_listener.values import EventKey

BEGIN = datetime(2024, 5, 1, tzinfo=UTC)


def at(second: float) -> datetime:
    return BEGIN + timedelta(seconds=second)


def key(serial: int) -> EventKey:
    return EventKey("a.cc", "csta", "1@a.cc", serial, "held", "t", "c")


def test_the_very_first_connection_opens_no_gap() -> None:
    ledger = GapLedger()
    assert ledger.regained(at(0), None) is None
    assert ledger.gaps == ()
    assert not ledger.awaiting


def test_a_gap_lasts_from_the_last_sign_of_life_to_the_confirmed_subscription() -> None:
    ledger = GapLedger()
    ledger.lost(at(1), "half_open", key(1))
    (open_gap,) = ledger.gaps
    assert (open_gap.since, open_gap.until, open_gap.reason) == (at(1), None, "half_open")
    gap = ledger.regained(at(5), None)
    assert gap is not None
    assert (gap.id, gap.since, gap.until, gap.at) == (1, at(1), at(5), at(5))
    assert (gap.reason, gap.devices, gap.destination) == ("half_open", frozenset(), None)
    assert (gap.last_before, gap.first_after) == (key(1), None)
    assert ledger.gaps == (gap,)
    assert ledger.regained(at(6), None) is None


def test_a_loss_within_a_loss_changes_nothing() -> None:
    ledger = GapLedger()
    ledger.lost(at(1), "disconnected", key(1))
    ledger.lost(at(3), "oversized", key(2))
    gap = ledger.regained(at(5), key(3))
    assert gap is not None
    assert (gap.since, gap.reason, gap.last_before) == (at(1), "disconnected", key(1))
    assert (gap.id, gap.first_after) == (1, key(3))
    assert len(ledger.gaps) == 1


def test_the_first_event_after_completes_the_gaps_that_await_it() -> None:
    ledger = GapLedger()
    ledger.lost(at(1), "disconnected", None)
    ledger.regained(at(2), key(8))
    assert not ledger.awaiting
    ledger.lost(at(3), "disconnected", None)
    ledger.regained(at(4), None)
    ledger.lost(at(5), "disconnected", None)
    ledger.regained(at(6), None)
    assert ledger.awaiting
    ledger.note(key(9))
    assert not ledger.awaiting
    ledger.note(key(10))
    assert [gap.first_after for gap in ledger.gaps] == [key(8), key(9), key(9)]


def test_an_open_gap_stays_open_when_an_event_comes() -> None:
    ledger = GapLedger()
    ledger.lost(at(1), "disconnected", None)
    ledger.note(key(1))
    assert ledger.gaps[0].until is None
    assert ledger.gaps[0].first_after is None


def test_a_refused_destination_is_a_gap_of_its_own_until_it_is_taken() -> None:
    ledger = GapLedger()
    ledger.refused("/topic/x", at(1), key(1), frozenset({"1@a.cc"}))
    ledger.refused("/topic/x", at(2), None)
    ledger.lost(at(3), "disconnected", None)
    regained = ledger.regained(at(4), None)
    assert regained is not None
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
    gap = ledger.restarted(at(1), at(5), key(2))
    assert (gap.since, gap.until, gap.reason) == (at(1), at(5), "server_restarted")
    assert gap.first_after == key(2)
    assert not ledger.awaiting
    assert ledger.gaps == (gap,)


def test_the_oldest_gaps_are_forgotten_first() -> None:
    ledger = GapLedger()
    for second in range(KEPT + 50):
        ledger.lost(at(second), "disconnected", None)
        ledger.regained(at(second + 0.5), None)
    assert len(ledger.gaps) == KEPT
    assert ledger.gaps[0].id == 51


@given(st.lists(st.sampled_from(["lost", "regained", "refuse", "accept", "event"]), max_size=40))
def test_the_gaps_are_the_complement_of_what_was_listened_to(steps: list[str]) -> None:
    ledger = GapLedger()
    told = []
    since: float | None = None
    missing: list[tuple[datetime, datetime]] = []
    for second, step in enumerate(steps):
        match step:
            case "lost":
                since = float(second) if since is None else since
                ledger.lost(at(second), "disconnected", None)
            case "regained":
                if gap := ledger.regained(at(second), None):
                    told.append(gap)
                if since is not None:
                    missing.append((at(since), at(second)))
                    since = None
            case "refuse":
                ledger.refused("/x", at(second), None)
            case "accept":
                ledger.accepted("/x", at(second))
            case _:
                ledger.note(key(second))
    assert [(gap.since, gap.until) for gap in told] == missing
    assert any(gap.until is None and gap.reason == "disconnected" for gap in ledger.gaps) == (
        since is not None
    )
    ids = [gap.id for gap in ledger.gaps]
    assert len(set(ids)) == len(ids)
    assert all(gap.until is None or gap.since <= gap.until for gap in ledger.gaps)
