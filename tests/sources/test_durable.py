"""What a durable subscription asks of a life: acks after the commit, and an honest verdict."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from cti_listener.clock import FOREVER
from cti_listener.sources.durable import MISSED, QUIET, RENEWED, STAMPED, Durable
from cti_listener.sources.past import OUTLIVES, Past, held_by
from cti_listener.testing import ManualClock
from cti_listener.wire.stomp_queues import TWIN_AFTER, TWIN_AGAIN, TWIN_WAITS
from tests.examples import make
from tests.sources.receiver import Kept
from tests.wire.test_stomp import A, B
from tests.wire.test_stomp_queues import ID, TERMS, TWIN, Broker

PLACE = "ws://cti.test, /"
NAME = f"{ID} at {PLACE}"
HELD = held_by(TERMS.name)


class Life:
    """A life as `Durable` sees one, without a socket."""

    def __init__(
        self,
        before: Life | None = None,
        *destinations: str,
        confirmed: bool = True,
        found: bool = True,
        heartbeat: float = 10.0,
        stands: bool = True,
        answers: bool = True,
        **options: Any,
    ) -> None:
        self.clock: ManualClock = ManualClock() if before is None else before.clock
        self.past: Past = Past() if before is None else before.past
        self.kept: Kept = Kept() if before is None else before.kept
        self.kept.recovered.clear()
        self.past.found = frozenset(self.past.emptied if found else ())
        self.broker = Broker(*(destinations or (A,)), **options)
        self.answers = answers  # what is asked to see whether it is there
        self.durable = Durable(
            self.broker.queues,
            self.past,
            self.kept,
            self.clock,
            place=PLACE,
            feed="a",
            flush=lambda: None,
        )
        self.durable.opened(heartbeat)
        if confirmed:
            for one in self.broker.queues.ids:
                self.broker.say("RECEIPT", {"receipt-id": f"subscribe-{one}"})
        self.broker.heard()
        if stands:
            self.durable.stands()
            self._answer()

    async def take(self, count: int = 1, **headers: str) -> None:
        for _ in range(count):
            self.broker.bring(make(), **{"persistent": "true", **headers})
        self.durable.take()
        await asyncio.sleep(0)

    async def tick(self, seconds: float = QUIET, *, reading: bool = True) -> str | None:
        await self.clock.advance(seconds)
        problem = self.durable.tick(self.clock.now(), reading=reading)
        self._answer()
        return problem

    def _answer(self) -> None:
        if self.answers:
            self.broker.answer()

    async def settle(self) -> bool:
        """Wait until the backlog is in; return whether it made up for the outage."""
        for _ in range(3):
            await self.tick()
        (recovered,) = self.kept.recovered
        return recovered

    def end(self, *, noticed: bool = True) -> float:
        """End it; return how long ago it covered everything, in seconds."""
        now = self.clock.now()
        covered = self.durable.covered(now)
        self.durable.ended(noticed=noticed)
        return (now - covered).total_seconds()

    @property
    def acked(self) -> int:
        return [command for command, _ in self.broker.heard()].count("ACK")


async def known(*, noticed: bool = True, **options: Any) -> Life:
    """Return a life whose queue was empty at its end, and had brought what outlives the broker."""
    first = Life(**options)
    await first.take()
    await first.settle()
    first.end(noticed=noticed)
    return first


def next_run(before: Life) -> Life:
    """Return the first life of a process that knows only what the one before has kept."""
    past = Past()
    kept = {**before.kept.queues_emptied, **before.kept.held, **before.kept.known}
    past.recall(kept, TERMS.name, before.clock)
    before.past = past
    return Life(before)


# Acknowledgements


async def test_nothing_is_acknowledged_before_its_commit() -> None:
    life = Life()
    life.kept.uncommitted = []
    await life.take(3)
    assert life.acked == 0
    life.kept.uncommitted.pop()()
    await asyncio.sleep(0)
    assert life.acked == 3


async def test_what_one_commit_brought_is_acknowledged_at_once() -> None:
    life = Life()
    life.kept.uncommitted = []
    await life.take()
    await life.take()
    for call in life.kept.uncommitted:
        call()
    assert life.acked == 0
    await asyncio.sleep(0)
    (sent,) = life.broker.codec.data_to_send()
    assert sent.count(b"ACK\n") == 2


async def test_an_ack_of_a_life_that_ended_is_never_sent() -> None:
    life = Life()
    life.kept.uncommitted = []
    await life.take(3)
    life.end()
    life.kept.uncommitted.pop()()
    await asyncio.sleep(0)
    assert life.acked == 0


async def test_whoever_leaves_waits_for_what_is_being_committed() -> None:
    life = Life()
    life.kept.uncommitted = []
    await life.take(2)
    leaving = asyncio.get_running_loop().create_task(life.durable.leave(10.0))
    await asyncio.sleep(0)
    assert life.acked == 0
    for call in life.kept.uncommitted:
        call()
    await leaving
    assert life.acked == 2


async def test_whoever_leaves_does_not_wait_for_ever() -> None:
    life = Life()
    life.kept.uncommitted = []
    await life.take(2)
    await life.durable.leave(0.01)
    for call in life.kept.uncommitted:
        call()
    await asyncio.sleep(0)
    assert life.acked == 0


# When a backlog is in


async def test_a_backlog_is_in_after_a_quiet_second() -> None:
    life = Life(await known())
    await life.take(3)
    await life.tick()
    assert life.kept.recovered == []
    await life.tick(QUIET / 2)
    assert life.kept.recovered == []
    await life.tick(QUIET / 2)
    assert life.kept.recovered == [True]
    await life.tick()
    assert life.kept.recovered == [True]  # told once


async def test_a_backlog_is_not_in_while_reading_is_paused() -> None:
    life = Life(await known())
    for _ in range(10):
        await life.tick(reading=False)
    await life.tick(QUIET / 2)
    assert life.kept.recovered == []
    assert await life.settle()


async def test_a_backlog_is_not_in_while_anything_is_not_committed() -> None:
    life = Life(await known())
    life.kept.uncommitted = []
    await life.take()
    for _ in range(5):
        await life.tick()
    assert life.kept.recovered == []
    life.kept.uncommitted.pop()()
    life.kept.uncommitted = None
    await asyncio.sleep(0)
    assert await life.settle()


async def test_every_destination_must_be_in() -> None:
    first = Life(None, A, B)
    await first.take()
    await first.settle()
    first.end()
    life = Life(first, A, B)
    for _ in range(5):
        life.broker.bring(make(), TERMS.id_for(B), persistent="true")
        await life.tick()
    assert life.kept.recovered == []
    life.durable.take()
    assert await life.settle()


async def test_in_a_busy_centre_a_backlog_is_in_when_its_queue_brings_what_its_twin_shows() -> None:
    life = Life(await known())
    await life.take()
    await life.tick()
    for _ in range(2):
        live = make()
        life.broker.bring(live, TWIN)
        await life.take()
        await life.tick()
        assert life.kept.recovered == []
        life.broker.bring(live, persistent="true")
    await life.take()
    await life.tick()
    assert life.kept.recovered == [True]


# What makes up for an outage


async def test_a_queue_that_never_was_makes_up_for_nothing_and_is_relied_on_from_then_on() -> None:
    first = Life()
    assert first.kept.queues_emptied == {}
    await first.take()
    assert not await first.settle()
    assert list(first.kept.queues_emptied) == [NAME]
    first.end()
    assert await Life(first).settle()


async def test_what_an_earlier_run_knew_of_a_queue_is_relied_on() -> None:
    clock = ManualClock()
    for age, recovered in ((TERMS.expires - 10, True), (TERMS.expires, False)):
        life = Life()
        life.past.emptied[NAME] = clock.now() - timedelta(seconds=age)
        life.past.persistent[NAME] = True
        life.past.found = frozenset([NAME])
        life.durable.stands()
        assert await life.settle() is recovered


async def test_a_queue_that_nobody_looked_for_makes_up_for_nothing() -> None:
    assert not await Life(await known(), found=False).settle()


async def test_a_queue_left_for_longer_than_it_is_kept_makes_up_for_nothing() -> None:
    first = await known()
    await first.clock.advance(TERMS.expires)
    assert not await Life(first).settle()


async def test_a_queue_that_held_all_it_may_makes_up_for_nothing() -> None:
    for count, recovered in ((TERMS.max_length - 1, True), (TERMS.max_length, False)):
        life = Life(await known())
        await life.take(count)
        assert await life.settle() is recovered
        assert life.kept.overflowed is not recovered


async def test_what_a_life_before_took_out_of_a_queue_counts_as_well() -> None:
    life = Life(await known())
    await life.take(TERMS.max_length // 2)
    life.end()
    after = Life(life)
    await after.take(TERMS.max_length // 2)
    assert not await after.settle()
    after.end()
    assert await Life(after).settle()


async def test_a_queue_nobody_confirmed_makes_up_for_nothing() -> None:
    assert not await Life(await known(), confirmed=False).settle()


async def test_a_broker_that_answers_nothing_makes_up_for_nothing() -> None:
    life = Life(await known(), answers=False)
    while not life.kept.recovered:
        await life.tick()
    assert life.kept.recovered == [False]
    await life.tick(STAMPED)
    assert NAME not in life.kept.queues_emptied


async def test_a_server_that_keeps_no_queues_makes_up_for_nothing() -> None:
    assert not await Life(await known(), server="ActiveMQ/6").settle()


@pytest.mark.parametrize(
    ("headers", "recovered"),
    [
        ({"persistent": "true"}, True),
        ({"persistent": "false"}, False),
        ({"persistent": "true", "expiration": "2000"}, False),
    ],
)
async def test_messages_that_may_be_gone_when_we_come_back_make_up_for_nothing(
    headers: dict[str, str],
    recovered: bool,  # noqa: FBT001 - a row's value
) -> None:
    first = Life()
    await first.take(1, **headers)
    await first.settle()
    first.end()
    second = Life(first)
    assert await second.settle() is recovered
    second.end()
    assert await next_run(second).settle() is recovered


async def test_a_queue_that_brought_nothing_before_is_not_known_to_outlive_the_broker() -> None:
    first = Life()
    await first.settle()
    first.end()
    life = Life(first)
    await life.take()  # it outlived the broker; what did not is not seen
    assert not await life.settle()
    life.end()
    assert await Life(life).settle()


@pytest.mark.parametrize(
    ("persistent", "recovered"), [("true", True), ("false", False), (None, True)]
)
async def test_a_queue_that_was_quiet_is_taken_to_be_like_the_others(
    persistent: str | None,
    recovered: bool,  # noqa: FBT001 - a row's value
) -> None:
    names = (A, B, "/topic/C")
    first = Life(None, *names)
    await first.take()
    if persistent is not None:
        first.broker.bring(make(), TERMS.id_for(B), persistent=persistent)
    await first.take(0)
    await first.settle()
    first.end()
    assert await Life(first, *names).settle() is recovered


async def test_one_such_message_is_known_for_ever_and_kept_as_soon_as_it_is_acknowledged() -> None:
    life = await known()
    later = Life(life)
    await later.take(persistent="false")
    await later.clock.advance(MISSED * 10.0 + RENEWED + QUIET)
    killed = next_run(later)
    await killed.take()
    assert not await killed.settle()
    killed.end()
    assert not await next_run(killed).settle()


async def test_what_a_queue_brings_is_kept_while_the_connection_stands() -> None:
    life = Life()
    for persistent in ("true", "false", "true"):
        await life.take(persistent=persistent)
        outlives = life.broker.queues.is_persistent(ID)
        assert outlives is not None
        assert NAME + OUTLIVES[outlives] in life.kept.known
        assert NAME + OUTLIVES[not outlives] not in life.kept.known
    assert not outlives


async def test_queues_that_are_asked_for_no_more_say_nothing_of_a_quiet_one() -> None:
    first = Life()
    await first.take()
    await first.settle()
    first.end()
    quiet = Life(first, B)
    await quiet.settle()
    quiet.end()
    assert not await Life(quiet, B).settle()


async def test_what_a_later_run_does_not_know_to_outlive_the_broker_does_not() -> None:
    life = await known()
    assert NAME + OUTLIVES[True] in life.kept.known
    life.kept.known.clear()  # of a version that kept nothing of it
    assert not await next_run(life).settle()


async def test_of_what_is_kept_only_its_own_queues_are_taken_for_known() -> None:
    past = Past()
    when = ManualClock().now()
    past.recall({f"other.a.1{OUTLIVES[True]}": when}, TERMS.name, ManualClock())
    assert past.persistent == {}
    assert past.emptied == {}


async def test_that_the_broker_may_have_been_away_is_known_until_a_backlog_is_in() -> None:
    first = Life()
    await first.settle()
    first.end()
    cut = Life(first)
    cut.end()
    assert not await Life(cut).settle()


async def test_a_queue_that_somebody_else_takes_from_makes_up_for_nothing_and_is_told_of() -> None:
    life = Life(await known())
    await life.take()
    await life.tick()
    life.broker.bring(make(), TWIN)
    with capture_logs() as logs:
        assert not await life.settle()
    assert [entry["queue"] for entry in logs if entry["event"] == "queue_shared"] == [NAME]


async def test_a_queue_found_to_be_shared_when_it_is_in_is_told_of_once_and_relied_on_no_more() -> (
    None
):
    life = Life(await known())
    await life.settle()
    with capture_logs() as logs:
        for _ in range(TWIN_AGAIN + 3 * TWIN_WAITS):
            await life.take()
            await life.tick()
            if any(TWIN in headers["id"] for _, headers in life.broker.heard()):
                life.broker.bring(make(), TWIN)
    assert [entry["queue"] for entry in logs if entry["event"] == "queue_shared"] == [NAME]
    assert life.kept.queues_emptied == {}
    life.end()
    assert not await Life(life).settle()


async def test_a_dead_connection_the_broker_may_not_have_noticed_is_waited_for() -> None:
    life = Life(await known(noticed=False))
    for _ in range(round(MISSED * 10.0)):
        await life.tick()
    assert life.kept.recovered == []
    assert await life.settle()


async def test_one_it_never_notices_makes_up_for_nothing() -> None:
    life = Life(await known(noticed=False, heartbeat=0.0))
    assert not await life.settle()
    life.end()
    assert await Life(life).settle()


async def test_nor_one_that_is_waited_for_beyond_the_calendar() -> None:
    life = Life(await known(noticed=False, heartbeat=9e15))
    assert not await life.settle()
    assert life.kept.held == {HELD: FOREVER}


async def test_a_run_that_was_killed_leaves_a_connection_that_the_next_one_waits_for() -> None:
    killed = await known()
    life = Life(killed)
    await life.settle()
    for _ in range(30):
        await life.tick()
        life.durable.renew()
    after = next_run(life)
    for _ in range(round(MISSED * 10.0)):
        await after.tick()
    assert after.kept.recovered == []
    for _ in range(round(RENEWED)):
        await after.tick()
    assert await after.settle()


async def test_a_run_that_ended_in_order_leaves_none_of_its_own_but_one_from_before() -> None:
    dead = await known(noticed=False)
    assert list(dead.kept.held) == [HELD]
    life = Life(dead)
    await life.clock.advance(5.0)
    life.end()
    after = next_run(life)
    for _ in range(round(MISSED * 10.0 - 5.0)):
        await after.tick()
    assert after.kept.recovered == []
    assert await after.settle() is False  # it was left before its backlog was in
    after.end()
    assert after.kept.held == {}
    assert await next_run(after).settle()


async def test_a_run_may_be_killed_before_its_subscriptions_stand() -> None:
    life = await known()
    assert life.kept.held == {}
    Life(life)  # opened, and no more
    assert next_run(life).past.unnoticed > life.clock.monotonic()


async def test_a_killed_connection_that_the_broker_never_notices_makes_up_for_nothing() -> None:
    life = Life(await known(heartbeat=0.0), heartbeat=0.0)
    await life.settle()
    after = next_run(life)
    assert not await after.settle()


# What comes out of order


def is_late(life: Life) -> bool:
    """Tell whether what the broker takes back from another connection comes late."""
    life.broker.bring(make(), redelivered="true")
    return life.broker.queues.late


async def test_what_a_dead_connection_held_is_late_in_the_life_after_one_that_took_newer() -> None:
    dead = await known(noticed=False)
    quiet = Life(dead)
    assert not is_late(quiet)
    quiet.end()
    newer = Life(quiet)
    assert not is_late(newer)  # none has overtaken it yet
    await newer.take()
    newer.end()
    cut = Life(newer)
    assert is_late(cut)
    await cut.clock.advance(MISSED * 10.0 + QUIET)
    cut.end()
    last = Life(cut)  # some of it may have been on its way by then
    assert is_late(last)
    await last.take()
    await last.settle()
    last.end()
    assert not is_late(Life(last))


async def test_what_a_life_left_that_the_broker_knows_to_be_over_is_not_late() -> None:
    life = await known()
    for _ in range(2):
        life = Life(life)
        assert not is_late(life)
        await life.take()
        life.end()


async def test_what_a_killed_process_left_may_be_late_but_not_what_one_left_in_order() -> None:
    life = Life(await known())
    assert is_late(next_run(life))
    life.end()
    assert not is_late(next_run(life))


# What later runs may rely on


async def test_a_later_run_may_rely_on_a_queue_only_while_it_is_known_to_be_empty() -> None:
    life = Life(await known())
    assert life.kept.queues_emptied == {}
    await life.settle()
    stamped = life.kept.queues_emptied[NAME]
    assert stamped == life.clock.now() - timedelta(seconds=3 * QUIET)
    await life.tick(min(STAMPED, TERMS.expires / 10))
    assert life.kept.queues_emptied[NAME] > stamped


async def test_it_may_not_before_it_is_committed_that_the_backlog_is_in() -> None:
    life = Life(await known())
    life.kept.uncommitted = []
    for _ in range(3):
        await life.tick()
    assert life.kept.queues_emptied == {}
    life.end()
    for call in life.kept.uncommitted:
        call()
    assert life.kept.queues_emptied == {}
    assert life.kept.recovered == []  # a gap that is open by now is another one


async def test_a_backlog_is_in_though_each_message_fills_what_may_be_on_its_way() -> None:
    life = Life(await known())
    for _ in range(4 * TWIN_AFTER):
        await life.take(TERMS.prefetch)
        for _ in range(2):
            live = make()
            life.broker.bring(live, TWIN)
            life.broker.bring(live, persistent="true")
        await life.take(TERMS.prefetch)  # more at once than it brings before we acknowledge
        await life.tick()
    assert life.kept.recovered == [True]
    assert life.end() <= 3 * QUIET


# A queue that overflows beside us


@pytest.mark.parametrize("looks", [0, 1])
async def test_a_burst_that_is_over_before_anybody_asks_may_have_overflowed(looks: int) -> None:
    life = Life(await known())
    await life.settle()
    began = life.clock.now()
    for part in range(2):
        for _ in range(TERMS.max_length // 2 // (TERMS.prefetch - 1) + 1):
            await life.take(TERMS.prefetch - 1)
        if part < looks:
            assert await life.tick() is None
    why = [await life.tick(), await life.tick(), await life.tick()]
    assert any(one is not None and "dropped" in one for one in why)
    assert life.durable.covered(life.clock.now()) <= began


async def test_a_life_that_ends_just_behind_a_burst_covers_nothing_since_and_counts_it() -> None:
    life = Life(await known())
    await life.settle()
    for _ in range(TERMS.max_length // (TERMS.prefetch - 1)):
        await life.take(TERMS.prefetch - 1)
    await life.clock.advance(0.5)
    assert life.end() == pytest.approx(0.5 + QUIET)
    after = Life(life)
    await after.take(TERMS.prefetch)
    assert not await after.settle()


async def test_a_queue_that_overflows_while_we_are_slow_ends_the_life_and_counts_as_missed() -> (
    None
):
    life = Life(await known())
    await life.settle()
    await life.tick(reading=False)
    await life.tick(reading=False)
    assert life.kept.queues_emptied == {}
    await life.take(TERMS.max_length)
    await life.tick()
    why = [await life.tick(), await life.tick()][-1]
    assert why is not None
    assert "dropped" in why
    assert life.end() >= 4 * QUIET  # since before reading was paused
    assert not await Life(life).settle()


async def test_while_a_backlog_is_not_in_nothing_is_covered_since_it_stood() -> None:
    life = Life(await known())
    for _ in range(3):
        await life.take()
        await life.tick()
    assert life.kept.recovered == []
    assert life.end() == 3 * QUIET


async def test_a_queue_that_was_full_covers_nothing_since_until_it_is_known_what_it_held() -> None:
    life = Life(await known())
    await life.settle()
    now = life.clock.now()
    assert life.durable.covered(now) == now
    await life.tick(reading=False)
    await life.tick(5.0, reading=False)
    at_the_last_question = now - timedelta(seconds=QUIET)
    assert life.durable.covered(life.clock.now()) == at_the_last_question


async def test_a_queue_that_does_not_is_relied_on_again() -> None:
    life = Life(await known())
    await life.settle()
    life.kept.uncommitted = []
    await life.take(TERMS.prefetch + 1)
    await life.tick()
    assert life.kept.queues_emptied == {}
    calls, life.kept.uncommitted = life.kept.uncommitted, None
    for call in calls:
        call()
    await asyncio.sleep(0)
    for _ in range(3):
        assert await life.tick() is None
    assert list(life.kept.queues_emptied) == [NAME]
    assert life.end() == 0
    assert await Life(life).settle()


async def test_a_life_that_ends_while_a_queue_waits_for_us_covers_less() -> None:
    life = Life(await known())
    await life.settle()
    life.kept.uncommitted = []
    await life.take(TERMS.prefetch)
    await life.clock.advance(5.0)
    assert life.end() == pytest.approx(5.0 + QUIET)
    life.kept.uncommitted = None
    assert not await Life(life).settle()
