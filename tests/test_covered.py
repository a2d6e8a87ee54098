"""Up to when nothing is missed if we die now: what the journal keeps as the last sign of life."""

from __future__ import annotations

from datetime import timedelta

from cti_listener.feeds import PROOF
from cti_listener.sightings import JUDGED
from tests.examples import make
from tests.test_backlogs import TwoFeeds


async def both(way: TwoFeeds) -> None:
    await way.stand("a", backlog=False)
    await way.stand("b", backlog=False)
    for end_a_splice in way.later:
        end_a_splice()


async def in_step(way: TwoFeeds, *, behind: float = 0.0) -> None:
    """Have both bring the same, the one by so many seconds later."""
    await both(way)
    for _ in range(4 * PROOF):
        event = make()
        way.bring("a", event)
        await way.time.advance(behind)
        way.bring("b", event)
        await way.time.advance(0.1)


async def test_of_two_in_step_it_is_the_later_sign() -> None:
    way = TwoFeeds()
    await in_step(way)
    now = way.time.now()
    signs = {"a": now - timedelta(seconds=5), "b": now}
    assert way.pipeline.covered(signs) == now


async def test_a_feed_that_is_behind_stands_for_no_more_than_it_has_come_to() -> None:
    way = TwoFeeds()
    await in_step(way, behind=3.0)
    await way.fall("a")
    lost = way.time.now()
    await way.time.advance(1.5)
    covered = way.pipeline.covered({"b": way.time.now()})
    assert covered is not None
    assert covered <= lost
    await way.fall("b")
    assert [gap.since for gap in way.gaps] == [covered]  # as if it had been lost then


async def test_of_feeds_that_bring_different_events_it_is_the_earlier_sign() -> None:
    way = TwoFeeds()
    await both(way)
    for _ in range(JUDGED):
        way.bring("a", make())
        way.bring("b", make())
        await way.time.advance(1.0)
    assert way.pipeline.standing.ledger.apart
    now = way.time.now()
    silent = now - timedelta(seconds=7)
    assert way.pipeline.covered({"a": silent, "b": now}) == silent


async def test_what_one_is_refused_is_covered_by_the_other_alone() -> None:
    way = TwoFeeds()
    way.pipeline.destination_refused("/topic/x", feed="a", since=way.time.now(), detail="no")
    await in_step(way)
    silent = way.time.now()
    for _ in range(5):
        way.bring("a", make())
        await way.time.advance(2.0)
    covered = way.pipeline.covered({"a": way.time.now(), "b": silent})
    assert covered is not None
    assert covered <= silent


async def test_while_one_has_ended_that_we_have_not_heard_of_it_is_not_known() -> None:
    way = TwoFeeds()
    await in_step(way)
    assert way.pipeline.covered({"b": way.time.now()}) is None


async def test_where_none_stands_there_is_no_sign() -> None:
    way = TwoFeeds()
    assert way.pipeline.covered({}) is None
    await in_step(way)
    await way.fall("a")
    await way.fall("b")
    assert way.pipeline.covered({}) is None
