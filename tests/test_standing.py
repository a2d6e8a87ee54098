"""Which feeds stand, and what is told and missed because of it."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from cti_listener.errors import ConnectError
from cti_listener.gaps import ON_ITS_WAY
from cti_listener.interest import Interest
from cti_listener.notices import (
    Connected,
    Disconnected,
    Gap,
    GapReason,
    Notice,
    SubscriptionRefused,
)
from cti_listener.standing import Standing
from cti_listener.testing import ManualClock
from tests.examples import NAMESPACE, device_id

URL = "ws://cti.example.com/mvc/stomp/websocket"
TOPIC = "/topic/device.8002@zhen04_cc"


class Stage:
    """A `Standing`, and all it told."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.told: list[Notice] = []
        self.kept: list[Gap] = []
        self.standing = Standing(
            Interest(NAMESPACE, devices=["8002"]),
            self.clock,
            tell=self.told.append,
            keep=self.kept.append,
        )

    def stand(self, feed: str = "a") -> None:
        self.standing.subscribed(URL, feed=feed, confirmed=True, attempts=1)
        self.standing.covers(feed, self.clock.now())

    def lose(
        self, feed: str = "a", *, behind: float = 0.0, reason: GapReason = "disconnected"
    ) -> None:
        self.standing.lost(
            URL,
            feed=feed,
            since=self.clock.now(),
            covered=self.clock.now() - timedelta(seconds=behind),
            reason=reason,
            detail="it broke",
            last=None,
        )

    def refuse(self, feed: str = "a") -> None:
        self.standing.destination_refused(
            TOPIC, feed=feed, since=self.clock.now(), detail="no", last=None
        )

    def accept(self, feed: str = "a") -> None:
        self.standing.destination_accepted(TOPIC, feed=feed)

    @property
    def seconds(self) -> float:
        """How long it has lasted."""
        return self.clock.monotonic()

    @property
    def refusals(self) -> list[tuple[float, float | None]]:
        """From when until when it was missed for being refused."""
        return [self.span(gap) for gap in self.ledger_gaps if gap.reason == "refused"]

    def span(self, gap: Gap) -> tuple[float, float | None]:
        return self._second(gap.since), None if gap.until is None else self._second(gap.until)

    def _second(self, at: datetime) -> float:
        return self.seconds - (self.clock.now() - at).total_seconds()

    @property
    def kinds(self) -> list[str]:
        return [type(notice).__name__ for notice in self.told]

    @property
    def refused_now(self) -> bool:
        return any(gap.until is None and gap.reason == "refused" for gap in self.ledger_gaps)

    @property
    def ledger_gaps(self) -> tuple[Gap, ...]:
        return self.standing.ledger.gaps


@pytest.fixture
def stage() -> Stage:
    return Stage()


async def test_a_connection_a_loss_and_another_are_told_in_order(stage: Stage) -> None:
    with capture_logs() as logs:
        stage.stand()
        await stage.clock.advance(5)
        stage.lose()
        await stage.clock.advance(2)
        stage.stand()
    assert stage.kinds == ["Connected", "Disconnected", "Connected", "Gap"]
    gap = stage.told[-1]
    assert isinstance(gap, Gap)
    assert gap.until is not None
    assert gap.until - gap.since == timedelta(seconds=2)
    assert [entry["event"] for entry in logs] == ["connected", "disconnected", "connected", "gap"]
    assert stage.standing.connections == 2


def test_it_is_known_which_feeds_stand_and_since_when(stage: Stage) -> None:
    stage.stand("a")
    stage.stand("b")
    assert list(stage.standing.stands) == ["a", "b"]
    assert stage.standing.stands["a"].since == stage.clock.now()
    stage.lose("a")
    assert list(stage.standing.stands) == ["b"]
    stage.standing.ended()
    assert not stage.standing.stands


def test_a_failed_attempt_is_counted_and_logged(stage: Stage) -> None:
    with capture_logs() as logs:
        stage.standing.attempt_failed(ConnectError(URL, "nothing listens"), feed="b")
    assert stage.standing.attempts == 1
    assert [(entry["event"], entry["feed"]) for entry in logs] == [("attempt_failed", "b")]
    assert stage.told == []


def test_a_refused_destination_is_missed_until_it_is_taken(stage: Stage) -> None:
    stage.refuse()
    assert stage.refused_now
    stage.stand()  # with all the others
    assert stage.refused_now
    stage.standing.destination_accepted(TOPIC, feed="a")
    assert not stage.refused_now
    assert stage.kinds == ["SubscriptionRefused", "Connected", "Gap"]
    notice = stage.told[0]
    assert isinstance(notice, SubscriptionRefused)
    assert notice.devices == {device_id(8002)}


def test_what_one_feed_has_is_not_missed_for_another_that_is_refused_it(stage: Stage) -> None:
    stage.stand("a")
    stage.refuse("b")
    stage.stand("b")
    assert not stage.refused_now
    assert "Gap" not in stage.kinds


def test_it_is_missed_when_the_feed_that_has_it_is_lost(stage: Stage) -> None:
    stage.stand("a")
    stage.refuse("b")
    stage.stand("b")
    stage.lose("a")
    assert stage.refused_now
    stage.stand("a")
    assert not stage.refused_now


async def only_b_has_it(stage: Stage) -> None:
    """Have two feeds stand from the tenth second on, of which one is refused it since the fifth."""
    await stage.clock.advance(5)
    stage.refuse("a")
    await stage.clock.advance(5)
    stage.stand("b")
    stage.stand("a")
    assert stage.refusals == [(5, 10)]


async def test_it_is_missed_since_the_feed_that_had_it_was_lost(stage: Stage) -> None:
    await only_b_has_it(stage)
    for second in (100, 200):
        await stage.clock.advance(second - stage.seconds)
        stage.lose("b")
        await stage.clock.advance(1)
        stage.stand("b")
    assert stage.refusals[1:] == [(100, 101), (200, 201)]


async def test_it_is_missed_since_that_feed_had_come_no_further(stage: Stage) -> None:
    await only_b_has_it(stage)
    await stage.clock.advance(90)
    stage.lose("b", behind=7)
    assert stage.refusals[1:] == [(93, None)]


async def test_it_is_not_missed_for_longer_than_it_is_refused(stage: Stage) -> None:
    stage.stand("b")
    stage.stand("a")
    await stage.clock.advance(5)
    stage.lose("a")
    stage.refuse("a")
    stage.stand("a")
    await stage.clock.advance(1)
    stage.lose("b", behind=7)
    assert stage.refusals == [(5 - ON_ITS_WAY.total_seconds(), None)]


async def test_it_is_missed_since_a_feed_was_lost_that_was_given_it_later(stage: Stage) -> None:
    await only_b_has_it(stage)
    stage.lose("b")
    stage.refuse("b")
    stage.stand("b")
    await stage.clock.advance(10)
    stage.accept("a")
    await stage.clock.advance(10)
    stage.lose("a")
    assert stage.refusals[1:] == [(10, 20), (30, None)]


async def test_what_two_are_asked_for_and_refused_in_turn_is_missed_since_the_first(
    stage: Stage,
) -> None:
    stage.stand("a")
    stage.stand("b")
    for feed in ("a", "b"):
        await stage.clock.advance(5)
        stage.lose(feed, reason="refused")
        stage.refuse(feed)
        stage.stand(feed)
    assert stage.refusals == [(5, None)]


async def test_what_a_feed_that_was_behind_had_of_it_alone_is_missed(stage: Stage) -> None:
    await only_b_has_it(stage)
    await stage.clock.advance(10)
    stage.stand("c")
    await stage.clock.advance(1)
    stage.lose("b", behind=7)
    assert stage.refusals[1:] == [(14, 20)]
    await stage.clock.advance(9)
    stage.lose("c")
    assert stage.refusals[2:] == [(30, None)]


async def test_it_is_missed_for_longer_than_all_where_its_feed_was_behind(stage: Stage) -> None:
    await only_b_has_it(stage)
    await stage.clock.advance(10)
    stage.lose("a")
    await stage.clock.advance(1)
    stage.lose("b", behind=7)
    await stage.clock.advance(1)
    stage.stand("b")
    assert stage.refusals[1:] == [(14, 22)]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["stand", "lose", "fall behind", "refuse", "accept"]),
            st.sampled_from(["a", "b", "c"]),
        ),
        max_size=40,
    )
)
async def test_no_moment_of_what_some_are_refused_that_no_feed_covers_is_in_no_gap(
    steps: list[tuple[str, str]],
) -> None:
    stage = Stage()
    stage.refuse("d")  # which never stands
    refused: set[str] = set()
    up: dict[str, float | None] = {}  # since when each has it, if it has
    told: list[tuple[float, float | None]] = []
    for step, feed in steps:
        await stage.clock.advance(1)
        now = stage.seconds
        match step:
            case "stand" if feed not in up:
                up[feed] = None if feed in refused else now
                stage.stand(feed)
            case "lose" | "fall behind" if feed in up:
                behind = 0 if step == "lose" else 4
                since = up.pop(feed)
                told += [] if since is None else [(since, now - behind)]
                stage.lose(feed, behind=behind)
            case "refuse" if feed not in up:
                refused.add(feed)
                stage.refuse(feed)
            case "accept" if feed in refused:
                refused.remove(feed)
                if feed in up:
                    up[feed] = now
                stage.accept(feed)
            case _:
                pass
    told += [(since, None) for since in up.values() if since is not None]
    told += map(stage.span, stage.ledger_gaps)
    for second in range(int(stage.seconds)):
        moment = second + 0.5
        assert any(since <= moment and (until is None or moment <= until) for since, until in told)


def test_what_every_feed_is_refused_is_missed(stage: Stage) -> None:
    stage.refuse("a")
    stage.stand("a")
    stage.refuse("b")
    stage.stand("b")
    assert stage.refused_now
    stage.standing.destination_accepted(TOPIC, feed="b")
    assert not stage.refused_now


def test_every_change_of_a_gap_is_kept(stage: Stage) -> None:
    stage.stand()
    stage.lose()
    stage.stand()
    assert [(gap.id, gap.until is None) for gap in stage.kept] == [(1, True), (1, False)]
    assert isinstance(stage.told[0], Connected)
    assert isinstance(stage.told[1], Disconnected)
