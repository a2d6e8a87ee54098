"""Which feeds stand, and what is told and missed because of it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from cti_listener.errors import ConnectError
from cti_listener.interest import Interest
from cti_listener.notices import Connected, Disconnected, Gap, Notice, SubscriptionRefused
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

    def lose(self, feed: str = "a") -> None:
        self.standing.lost(
            URL,
            feed=feed,
            since=self.clock.now(),
            covered=self.clock.now(),
            reason="disconnected",
            detail="it broke",
            last=None,
        )

    def refuse(self, feed: str = "a") -> None:
        self.standing.destination_refused(
            TOPIC, feed=feed, since=self.clock.now(), detail="no", last=None
        )

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
