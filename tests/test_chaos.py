"""The audit of `bench.chaos` by hand-made evidence, and short runs of it and of `bench.soak`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from bench.audit import Account, Audit, Evidence, Handled, Span, Spans
from bench.chaos import run
from bench.soak import Soaking, soak
from bench.stage import Copy, Key, Told
from bench.trial import Trial

START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
Times = Sequence[tuple[float, float]]


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def key(name: str) -> Key:
    """Return the key of the event that is called after its device and its serial: `a1`."""
    return "ns", "csta", name[0], int(name[1:]), "held", "2017.03.18 14:13:24", None


def audit(
    told: str,
    handled: str,
    *,
    sent: Sequence[tuple[int, float]] | None = None,
    gaps: Times = (),
    outages: Times | None = None,
    uncovered: Times = (),
    began: float = 0.0,
) -> Account:
    """Hold a story against what was seen of it.

    Args:
        told: Events, one a second from 0 on.
        handled: What the handler saw, in order; `a1@2.5` came at that time, else as it was told
            first; `a1@2.5!` was late, `a1@2.5~` came by the other feed.
        sent: Which of those told got out, by number, and when; else all, as they were told.
        gaps: The named gaps.
        outages: When a feed was not connected; else in the gaps.
        uncovered: When no server had a subscription.
        began: When the listener was first connected.
    """
    names = told.split()
    copies = [(n, float(n)) for n in range(len(names))] if sent is None else sent

    def seen(text: str) -> Handled:
        name, _, came = text.rstrip("!~").partition("@")
        first = names.index(name) if name in names else 0
        feed = "b" if text.endswith("~") else "a"
        return Handled(key(name), at(float(came or first)), text.endswith("!"), feed)

    evidence = Evidence(
        told=[Told(key(name), at(n), name in names[:n]) for n, name in enumerate(names)],
        copies=[Copy(number, at(seconds), 0, 1) for number, seconds in copies],
        handled=[seen(text) for text in handled.split()],
        began=at(began),
        gaps=_spans(gaps),
        outages=list(_spans(gaps if outages is None else outages)),
        hold=0.5,
        uncovered=_spans(uncovered),
    )
    return Audit(evidence).account()


def _spans(times: Times) -> Spans:
    return Spans(Span(at(since), at(until)) for since, until in times)


# What is missing


def test_all_that_was_sent_and_handled_in_order_is_in_order() -> None:
    account = audit("a1 b1 a2 a1 b2", "b1 b2 a1 a2")
    assert (account.sent, account.handled, account.wrong) == (4, 4, 0)
    assert account.findings == []


def test_what_was_not_handled_lies_in_a_gap_or_is_unaccounted_for() -> None:
    account = audit("a1 a2 a3 a4", "a1", gaps=[(1.0, 2.5)])
    assert (account.in_gaps, account.unaccounted) == (2, 1)
    assert "a held 4" in account.findings[0]


def test_what_got_out_to_nobody_is_not_asked_for() -> None:
    account = audit("a1 a2", "a1", sent=[(0, 0.0)])
    assert (account.sent, account.wrong) == (1, 0)


def test_a_copy_outside_the_gap_should_have_been_handled_though_another_lies_in_it() -> None:
    assert audit("a1 a1", "", gaps=[(0.0, 0.5)]).unaccounted == 1
    assert audit("a1 a1", "", gaps=[(0.0, 1.5)]).in_gaps == 1


def test_what_one_feed_lost_outside_a_gap_the_other_should_have_brought() -> None:
    assert audit("a1", "", outages=[(0.0, 1.0)]).unaccounted == 1


def test_nothing_is_promised_before_the_first_connection() -> None:
    account = audit("a1 a2", "", began=0.5)
    assert (account.before, account.unaccounted) == (1, 1)


def test_what_was_on_its_way_while_there_was_a_gap_may_have_been_lost_in_it() -> None:
    sent, outages = [(1, 3.0)], [(2.5, 4.0)]
    assert audit("b1 a1", "b1", sent=sent, gaps=[(0.5, 1.0)], outages=outages).in_gaps == 1
    assert audit("b1 a1", "b1", sent=sent, gaps=[(1.5, 2.0)], outages=outages).in_gaps == 1
    assert audit("b1 a1", "b1", sent=sent, gaps=[(3.0, 3.5)], outages=outages).in_gaps == 1
    assert audit("b1 a1", "b1", sent=sent, gaps=[(0.5, 0.9)], outages=outages).unaccounted == 1
    assert audit("b1 a1", "b1", sent=sent, gaps=[(3.1, 3.5)], outages=outages).unaccounted == 1
    assert audit("b1 a1", "b1", sent=sent, gaps=[(0.5, 2.0)], outages=[]).unaccounted == 1


# How often, and what


def test_what_is_handled_again_is_repeated() -> None:
    assert audit("a1 a2", "a1 a2 a1 a1").repeated == 2


def test_what_was_never_told_is_unknown() -> None:
    assert audit("a1", "a1 a7").unknown == 1


def test_what_was_handled_was_sent_whether_or_not_the_server_could_see_it() -> None:
    account = audit("a1 a2", "a1 a2", sent=[(0, 0.0)])
    assert (account.sent, account.wrong) == (2, 0)


# In which order


def test_an_event_behind_one_that_came_after_it_is_out_of_order() -> None:
    assert audit("a1 b1 a2 b2", "a2 a1 b1 b2").out_of_order == 1


@pytest.mark.parametrize(
    ("told", "handled", "out_of_order"),
    [
        ("a2 a1", "a1 a2@1~", 0),
        ("a2 a1", "a1 a2@1", 1),
        ("a1 a2", "a2 a1@1~", 1),
        ("a2 a3 a1", "a3 a1 a2@2~", 1),
        ("a2 a3 a1", "a1 a3@2~ a2@2~", 1),
        ("a2 a3 a4 a5 a6 a1", "a1 a6@5~ a5@5~ a4@5~ a3@5~ a2@5~", 4),
    ],
)
def test_what_another_feed_puts_in_the_order_of_its_numbers_is_in_order(
    told: str, handled: str, out_of_order: int
) -> None:
    assert audit(told, handled).out_of_order == out_of_order


def test_a_repeat_gives_no_event_a_later_place() -> None:
    assert audit("a1 a2 a1", "a2 a1@2").out_of_order == 1


def test_a_repeat_is_the_first_to_come_when_the_one_before_it_was_lost_in_a_gap() -> None:
    assert audit("a1 a2 a1", "a2 a1@2", gaps=[(0.0, 0.5)]).out_of_order == 0
    assert audit("a1 a2 a1", "a2 a1@2", sent=[(1, 1.0), (2, 2.0)]).out_of_order == 0


def test_a_repeat_is_the_first_to_come_where_the_one_before_it_got_out_later_by_another_feed() -> (
    None
):
    sent = [(1, 1.0), (2, 2.0), (0, 2.5)]
    assert audit("a1 a2 a1", "a2 a1@2", sent=sent).out_of_order == 0
    assert audit("a1 a2 a1", "a2 a1@2.5", sent=sent).out_of_order == 1


def test_in_the_order_of_the_stream_is_in_order_though_the_first_copy_was_lost() -> None:
    sent = [(1, 2.0), (2, 2.0)]
    assert audit("a1 a2 a1", "a1@2 a2@2", sent=sent).out_of_order == 0
    assert audit("b1 a2 a1", "a1@2 a2@2", sent=sent).out_of_order == 1


def test_a_copy_in_a_gap_may_have_come_all_the_same() -> None:
    assert audit("a1 a2 a1", "a1 a2", gaps=[(0.0, 0.5)]).out_of_order == 0


def test_the_last_bytes_of_a_connection_may_have_come_though_the_server_saw_none_of_it() -> None:
    sent = [(1, 1.0), (2, 2.0)]
    assert audit("a1 a2 a1", "a1 a2", sent=sent, gaps=[(0.0, 0.5)]).out_of_order == 0


def test_a_repeat_among_the_last_bytes_may_be_the_first_to_come() -> None:
    lost_at_first = audit("a1 a2 a1 a3", "a2 a1@2 a3", sent=[(1, 1.0)], gaps=[(-1.0, 0.5)])
    assert (lost_at_first.out_of_order, lost_at_first.unaccounted) == (0, 0)


def test_a_repeat_that_never_got_out_has_not_come_when_a_later_one_has() -> None:
    told = "a1 a2 a3 a2 a1 a4"
    known = [(1, 1.0), (2, 2.0), (5, 5.0)]
    assert audit(told, "a2 a3 a1@4 a4", sent=known, gaps=[(-1.0, 0.5)]).out_of_order == 0
    assert audit(told, "a2 a3 a1@5 a4", sent=known, gaps=[(-1.0, 0.5)]).out_of_order == 1


def test_nothing_has_come_before_it_was_told() -> None:
    account = audit("a1 a2 a1", "a2 a1@1.5", gaps=[(0.0, 0.5)])
    assert account.out_of_order == 1


def test_what_is_marked_as_late_is_not_asked_for_its_place_but_for_how_late_it_was() -> None:
    account = audit("a1 a2 b1 b2", "a2 a1@0.5! b2 b1@2.4!")
    assert (account.late, account.out_of_order, account.early_late) == (2, 0, 1)


def test_what_was_told_while_nobody_listened_may_be_late_at_once() -> None:
    away: Times = [(0.0, 0.2)]
    assert audit("a1 a2", "a2 a1@0.3!", uncovered=away).early_late == 0
    assert audit("a1 a2", "a2 a1@0.3!", gaps=away).early_late == 1


def test_what_is_marked_as_late_is_behind_another_of_its_device() -> None:
    account = audit("a1 a2 a3 b1", "a2 a1@1.5! b1 a3@3!")
    assert (account.late, account.early_late, account.idly_late) == (2, 0, 1)


def test_what_is_in_its_place_may_be_late_by_its_number_where_a_feed_was_away_meanwhile() -> None:
    account = audit("a2 a1 a4 a3 a5", "a2 a1! a4 a3! a5!", outages=[(2.5, 2.6)])
    assert (account.late, account.disorderly_late, account.idly_late) == (3, 1, 2)


# Spans


def test_spans_that_meet_are_one_and_both_ends_belong_to_it() -> None:
    spans = _spans([(5, 6), (1, 2), (2, 3), (1.5, 1.8)])
    assert list(spans) == [Span(at(1), at(3)), Span(at(5), at(6))]
    assert [at(n) in spans for n in (0.9, 1, 3, 3.1, 4.9, 5, 6, 6.1)] == [
        *(False, True, True, False),
        *(False, True, True, False),
    ]
    assert spans.seconds(Span(at(2.5), at(5.5))) == 1.0
    assert spans.nearest(at(3.9)) == Span(at(1), at(3))


# Short runs


@pytest.mark.parametrize(
    "trial",
    [
        Trial(seed=3, events=3000, speed=4.0, haste=5.0, wire="stomp"),
        Trial(seed=3, events=3000, speed=4.0, haste=5.0, wire="json"),
        Trial(seed=3, events=3000, speed=4.0, haste=5.0, feeds=2),
    ],
    ids=str,
)
async def test_a_short_chaos_keeps_every_promise(trial: Trial) -> None:
    outcome = await run(trial)
    assert outcome.broken == [], str(outcome)
    assert outcome.account.handled > 500
    assert sum(stats.connections for stats in outcome.books.stats) > 2
    assert sum(outcome.reasons.values()) > 1


async def test_a_short_soak_leaves_nothing_behind() -> None:
    troubles = "drop_every=1,stall_every=1:0.2,error_every=2"
    soaking = Soaking(seconds=3.0, every=0.5, rate=500.0, devices=50, troubles=troubles)
    course = await soak(soaking)
    assert course.left == []
    assert course.rested.connections > 1
    assert course.rested.handled > 100
    assert course.growth is None  # in so short a time there is only warming up
