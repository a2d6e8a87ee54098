"""What a broker kept for a feed, on its way through the pipeline: gaps, and acknowledgements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cti_listener.dedupe import Dedupe
from cti_listener.event_base import Delivery
from cti_listener.feeds import Feeds
from cti_listener.interest import Interest
from cti_listener.lives import WINDOW
from cti_listener.notices import Gap
from cti_listener.pipeline import Pipeline
from cti_listener.testing import ManualClock
from tests.examples import NAMESPACE, make
from tests.test_pipeline import Way


class TwoFeeds(Way):
    """A pipeline of two feeds; what is to be called later is called by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.time = ManualClock()
        self.later: list[Callable[[], None]] = []
        self.pipeline = Pipeline(
            Interest(NAMESPACE),
            Dedupe(),
            self.time,
            self.handover,
            feeds=Feeds(("a", "b")),
            later=lambda _seconds, call: self.later.append(call),
        )

    async def stand(self, feed: str, *, backlog: bool = True) -> None:
        await self.time.advance(1.0)
        self.pipeline.subscribed(
            f"ws://{feed}.test/", feed=feed, confirmed=True, attempts=1, backlog=backlog
        )

    async def fall(self, feed: str) -> None:
        await self.time.advance(1.0)
        self.pipeline.lost(
            f"ws://{feed}.test/",
            feed=feed,
            since=self.time.now(),
            reason="disconnected",
            detail="",
        )

    def bring(self, feed: str, *events: dict[str, Any]) -> None:
        delivery = Delivery(self.time.now(), feed)
        self.pipeline.message_received(delivery)
        for event in events:
            self.pipeline.event_received(event, None, delivery)

    @property
    def gaps(self) -> list[Gap]:
        return list(self.pipeline.stats().gaps)


async def lost_twice() -> TwoFeeds:
    """Return a pipeline whose two feeds stood, and both were lost."""
    way = TwoFeeds()
    await way.stand("a")
    await way.stand("b")
    way.later.pop()()
    await way.time.advance(WINDOW)  # by then no feed is doubted for what the other began without
    await way.fall("a")
    await way.fall("b")
    return way


async def test_a_gap_of_all_feeds_is_closed_once_the_backlog_of_one_is_in() -> None:
    way = await lost_twice()
    await way.stand("a")
    await way.stand("b")
    way.later.pop()()
    assert [gap.until for gap in way.gaps] == [None]
    way.pipeline.caught_up("a", recovered=True)
    way.pipeline.caught_up("b", recovered=False)
    assert [gap.recovered for gap in way.gaps] == [True]


async def test_the_first_backlog_that_is_in_closes_the_gap_though_its_feed_is_not_spliced_in() -> (
    None
):
    way = await lost_twice()
    await way.stand("a")
    await way.stand("b")
    way.pipeline.caught_up("b", recovered=True)
    assert [gap.recovered for gap in way.gaps] == [True]
    way.later.pop()()
    way.pipeline.caught_up("a", recovered=False)
    assert [gap.recovered for gap in way.gaps] == [True]


async def test_a_backlog_lost_with_its_feed_makes_up_for_nothing() -> None:
    way = await lost_twice()
    await way.stand("a")
    await way.stand("b")
    way.later.pop()()
    await way.fall("a")
    way.pipeline.caught_up("b", recovered=True)
    assert [gap.recovered for gap in way.gaps] == [True]
    await way.fall("b")
    await way.stand("b")
    await way.fall("b")
    await way.stand("a", backlog=False)
    assert [gap.recovered for gap in way.gaps] == [True, False]


async def test_nothing_is_acknowledged_that_is_only_held_back() -> None:
    way = TwoFeeds()
    acked: list[str] = []
    await way.stand("a")
    way.pipeline.when_committed(lambda: acked.append("before"))
    await way.stand("b")
    ahead = make()
    way.bring("b", ahead)
    way.pipeline.when_committed(lambda: acked.append("ahead"))
    assert acked == ["before"]
    way.bring("a", ahead)
    assert acked == ["before", "ahead"]


async def test_it_is_when_the_feed_has_been_held_long_enough() -> None:
    way = TwoFeeds()
    acked: list[str] = []
    await way.stand("a")
    await way.stand("b")
    way.bring("b", make())
    way.pipeline.when_committed(lambda: acked.append("ahead"))
    assert acked == []
    way.later.pop()()
    assert acked == ["ahead"]


async def test_a_feed_that_is_made_anew_knows_what_became_of_its_queues() -> None:
    way = TwoFeeds()
    way.pipeline.queues_empty(["x", "y"], way.time.now())
    way.pipeline.queues_empty(["y"], None)
    assert way.pipeline.queues_emptied == {"x": way.time.now()}
