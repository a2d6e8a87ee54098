"""Two connections that stand for each other, on two servers that tell of one centre."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from cti_listener.clock import SystemClock
from cti_listener.event_base import Event
from cti_listener.feeds import APART, PROOF
from cti_listener.gaps import ON_ITS_WAY
from cti_listener.listener import Listener
from cti_listener.notices import Connected, Disconnected, FeedsApart, Gap, SubscriptionRefused
from cti_listener.sightings import JUDGED, KEPT
from cti_listener.simulator import SimulatorServer
from tests.examples import NAMESPACE, make

PATIENCE = 15.0
EVERYBODY = "/topic/event.agent.*.*"


class Jumping(SystemClock):
    """The machine's clocks, but that they can jump."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead = 0.0

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self.ahead)

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


class Pair:
    """A listener on two servers, and all it was told."""

    def __init__(
        self,
        servers: tuple[SimulatorServer, ...],
        *,
        over_json: bool = False,
        **options: Any,
    ) -> None:
        self.servers = servers
        self.clock = Jumping()
        self.listener = Listener(
            [server.json_url if over_json else server.stomp_url for server in servers],
            namespace=NAMESPACE,
            redundancy=2,
            proxy=None,
            **{"clock": self.clock, **options},
        )
        self.events: list[Event] = []
        self.notices: list[Any] = []
        self._told = asyncio.Event()

        @self.listener.on(Event)
        async def keep(event: Event) -> None:
            self.events.append(event)
            self._told.set()

        @self.listener.on(Connected, Disconnected, Gap, FeedsApart, SubscriptionRefused)
        async def note(notice: Any) -> None:
            self.notices.append(notice)
            self._told.set()

    @property
    def serials(self) -> list[int | None]:
        return [event.serial for event in self.events]

    def told(self, kind: type[Any]) -> list[Any]:
        return [one for one in self.notices if isinstance(one, kind)]

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._told.clear()
                await self._told.wait()

    async def both_stand(self) -> None:
        """Wait until both stand, and have for long enough to stand for each other."""
        await self.until(lambda: all(one.connected for one in self.feeds.values()))
        self.clock.ahead += 2 * ON_ITS_WAY.total_seconds()

    async def are_in_step(self) -> None:
        """Bring both in step, after they stood long enough to come back where they were."""
        due = {name: one.seen + PROOF for name, one in self.feeds.items()}
        for _ in range(PROOF):
            await self.send(last := make(device=8009))
        await self.until(lambda: last["serial"] in self.serials)
        while any(self.feeds[name].seen < due[name] for name in due):  # noqa: ASYNC110 - a repeat tells nobody
            await asyncio.sleep(0)
        self.events.clear()
        self.clock.ahead += 2.0

    @property
    def feeds(self) -> Any:
        return self.listener.stats().feeds

    async def send(self, event: dict[str, Any], *to: int) -> None:
        for index in to or (0, 1):
            await self.servers[index].send(event)


@asynccontextmanager
async def pair(*, in_step: bool = True, **options: Any) -> AsyncIterator[Pair]:
    async with SimulatorServer() as one, SimulatorServer() as other:
        made = Pair((one, other), **options)
        async with made.listener:
            await made.both_stand()
            if in_step:
                await made.are_in_step()
            yield made


async def test_each_event_is_handled_once_whoever_brings_it_first() -> None:
    async with pair() as two:
        sent = [make(serial=100 + n) for n in range(4)]
        await two.send(sent[0], 0, 1)
        await two.send(sent[1], 1, 0)
        await two.send(sent[2], 0)
        await two.send(sent[3], 1)
        await two.until(lambda: len(two.events) == 4)
    assert two.serials == [100, 101, 102, 103]
    assert two.listener.stats().repeated == 2 + PROOF


async def test_each_feed_begins_at_a_server_of_its_own() -> None:
    async with pair() as two:
        assert [len(server.sessions) for server in two.servers] == [1, 1]
        urls = {one.feed: one.url for one in two.told(Connected)}
    assert urls == {"a": two.servers[0].stomp_url, "b": two.servers[1].stomp_url}


async def test_the_loss_of_one_feed_is_told_and_is_no_gap() -> None:
    async with pair() as two:
        await two.servers[0].disconnect()
        await two.until(lambda: two.told(Disconnected))
        assert two.listener.stats().connected
        await two.send(make(serial=1), 1)
        await two.until(lambda: two.events)
        await two.until(lambda: len(two.told(Connected)) == 3)
    assert [one.feed for one in two.told(Disconnected)] == ["a"]
    assert two.told(Gap) == []
    assert two.listener.stats().gaps == ()


async def test_whom_is_added_by_url_costs_one_connection_after_another() -> None:
    async with pair(over_json=True, in_step=False, devices=["8002"]) as two:
        await two.listener.add(devices=["8003"])
        await two.until(lambda: len(two.told(Connected)) == 4)
        paths = [session.path for server in two.servers for session in server.sessions]
    assert [path.count("device=") for path in paths] == [2, 2]
    states = [(type(one), one.feed) for one in two.notices if not isinstance(one, Gap)][2:]
    assert states == [(kind, feed) for feed in ("a", "b") for kind in (Disconnected, Connected)]


async def test_the_loss_of_both_is_one_gap() -> None:
    async with pair() as two:
        await two.send(make(serial=1))
        await two.until(lambda: two.events)
        for server in two.servers:
            await server.disconnect()
        await two.until(lambda: two.told(Gap))
        await two.both_stand()
        assert len(two.told(Gap)) == 1
        (gap,) = two.listener.stats().gaps
    losses = [one.since for one in two.told(Disconnected)]
    assert min(losses) - ON_ITS_WAY <= gap.since <= max(losses)  # both may have been behind
    assert gap.until is not None


async def test_a_feed_that_comes_back_ahead_of_the_other_turns_no_order_round() -> None:
    async with pair(splice_hold=600.0) as two:
        await two.servers[0].disconnect()
        await two.until(lambda: len(two.told(Connected)) == 3)
        await two.send(make(serial=3), 0)  # the other server is slower
        await two.send(make(serial=1), 1)
        await two.send(make(serial=2), 1)
        await two.until(lambda: len(two.events) == 2)
        await two.send(make(serial=3), 1)
        await two.until(lambda: len(two.events) == 3)
    assert two.serials == [1, 2, 3]
    assert not any(event.delivery.late for event in two.events)


async def test_after_the_hold_it_goes_on_and_what_comes_too_late_is_marked() -> None:
    async with pair(splice_hold=0.05) as two:
        await two.servers[0].disconnect()
        await two.until(lambda: len(two.told(Connected)) == 3)
        await two.send(make(serial=3), 0)
        await two.until(lambda: two.events)
        await two.send(make(serial=2), 1)
        await two.send(make(serial=3), 1)
        await two.send(make(serial=4), 1)
        await two.until(lambda: len(two.events) == 3)
    assert [(event.serial, event.delivery.late) for event in two.events] == [
        (3, False),
        (2, True),
        (4, False),
    ]


@pytest.mark.parametrize("written", [int, str, float])
async def test_which_of_one_second_was_first_goes_by_its_number_however_it_is_written(
    written: Callable[[int], object],
) -> None:
    first, second, third = (make(serial=written(10**7 + n)) for n in range(3))
    async with pair() as two:
        await two.send(first)
        await two.until(lambda: len(two.events) == 1)
        await two.send(third, 0)
        await two.until(lambda: len(two.events) == 2)
        await two.send(second, 1)
        await two.until(lambda: len(two.events) == 3)
    assert [event.delivery.late for event in two.events] == [False, False, True]


async def test_what_is_held_back_is_handled_when_the_other_feed_is_lost() -> None:
    async with pair(splice_hold=600.0) as two:
        await two.servers[0].disconnect()
        await two.until(lambda: len(two.told(Connected)) == 3)
        await two.send(make(serial=3), 0)
        await two.servers[1].disconnect()
        await two.until(lambda: two.events)
        assert two.serials == [3]
        (gap,) = two.told(Gap)  # what the other had still to bring is missing
    assert two.told(Disconnected)[0].since - ON_ITS_WAY <= gap.since < two.told(Disconnected)[0].at
    assert gap.until == two.told(Connected)[2].at


async def test_what_is_held_back_is_handled_when_the_listener_stops() -> None:
    async with pair(splice_hold=600.0) as two:
        await an_event_is_held_back(two)
        assert two.events == []
        assert await two.listener.stop() == []
    assert two.serials == [3]


async def test_no_sign_of_life_is_kept_while_an_event_is_held_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cti_listener.commits.INTERVAL", 0.01)
    monkeypatch.setattr("cti_listener.journal.store.SIGN_INTERVAL", 0.01)
    path = tmp_path / "journal.db"

    def last_sign() -> float:
        with closing(sqlite3.connect(path)) as db:
            return float(db.execute("SELECT last_sign FROM state").fetchone()[0])

    async with pair(splice_hold=600.0, journal=path) as two:
        await an_event_is_held_back(two)
        before = 0.0
        while (known := last_sign()) != before:  # what was known before it came is being kept
            before = known
            await asyncio.sleep(0.1)
        for server in two.servers:
            await server.send(make(device=8009))
        await asyncio.sleep(0.2)
        assert last_sign() == before
    assert 3 in two.serials


async def an_event_is_held_back(two: Pair) -> None:
    """Have one feed come back, and bring what the other does not."""
    await two.servers[0].disconnect()
    await two.until(lambda: len(two.told(Connected)) == 3)
    received = two.listener.stats().received
    await two.send(make(serial=3), 0)
    while two.listener.stats().received == received:  # noqa: ASYNC110 - it is told to nobody
        await asyncio.sleep(0)


async def test_stats_tell_what_each_feed_brought() -> None:
    async with pair() as two:
        await two.send(make(serial=1), 0, 1)
        await two.send(make(serial=2), 0, 1)
        await two.send(make(serial=3), 1)
        await two.until(lambda: len(two.events) == 3 and two.feeds["b"].seen == 3 + PROOF)
        a, b = two.feeds["a"], two.feeds["b"]
    assert (a.seen, b.seen) == (2 + PROOF, 3 + PROOF)
    assert a.first + b.first == 3 + PROOF
    assert (a.alone, b.alone) == (0, 0)  # not yet said
    assert (a.lead > 0, b.lag > 0) == (True, True)


async def test_a_server_that_gives_each_event_to_one_session_is_told_loudly() -> None:
    with capture_logs() as logs:
        async with pair(in_step=False) as two:
            for serial in range(JUDGED):
                await two.send(make(serial=1000 + serial), serial % 2)
            await two.until(lambda: len(two.events) == JUDGED)
            for turn in (1, 2):
                two.clock.ahead += KEPT
                await two.send(make(serial=5000 + turn), 0)
                await two.until(lambda: len(two.events) == JUDGED + turn)  # noqa: B023 - at once
            await two.until(lambda: two.told(FeedsApart))
            await two.servers[0].disconnect()
            await two.until(lambda: two.told(Disconnected))
            (gap,) = two.listener.stats().gaps  # its half is missed now
            await two.until(lambda: two.told(Gap))
    assert gap.until is None
    assert two.told(Gap)[0].id == gap.id
    (told,) = two.told(FeedsApart)
    assert told.share < APART
    assert "feeds_apart" in [entry["event"] for entry in logs]


async def test_a_feed_that_is_refused_leaves_the_other_alone() -> None:
    with capture_logs() as logs:
        async with (
            SimulatorServer() as good,
            SimulatorServer(credentials=("somebody", "else")) as bad,
        ):
            two = Pair((good, bad))
            async with two.listener:
                await two.send(make(serial=1), 0)
                await two.until(lambda: two.events)
            assert two.listener.stats().gaps == ()
    assert "attempt_failed" in [entry["event"] for entry in logs]


class Once(frozenset[str]):
    """What is refused to whoever asks for it first."""

    asked = False

    def __contains__(self, destination: object) -> bool:
        first, self.asked = not self.asked, True
        return first and super().__contains__(destination)


async def test_what_a_feed_was_refused_and_its_next_source_is_given_is_no_gap_without_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cti_listener.sources.merged.AGAIN", 0.01)
    async with SimulatorServer() as server:
        server.rules.refuse = Once({EVERYBODY})
        two = Pair((server,))
        async with two.listener:
            await two.until(lambda: two.told(SubscriptionRefused))
            await two.both_stand()
            server.rules.refuse = frozenset({EVERYBODY})
            server.sessions[0].abort()  # of the feed that was not refused, and is now
            await two.until(lambda: len(two.told(SubscriptionRefused)) > 1)
            await two.send(make(serial=1), 0)
            await two.until(lambda: two.events)
            assert all(gap.until for gap in two.listener.stats().gaps)
    assert len({one.feed for one in two.told(SubscriptionRefused)}) == 2


async def test_a_feed_that_was_behind_when_it_was_lost_leaves_a_gap() -> None:
    async with pair(splice_hold=0.05) as two:
        await two.servers[0].disconnect()
        await two.until(lambda: len(two.told(Connected)) == 3)
        await two.send(make(serial=3), 0)
        await two.until(lambda: two.events)  # the hold is over, and `b` has not come so far
        await two.servers[1].disconnect()
        await two.until(lambda: two.told(Gap))
        (gap,) = two.told(Gap)  # while the first one was away
    assert two.told(Disconnected)[0].since - ON_ITS_WAY <= gap.since < two.told(Disconnected)[0].at
    assert gap.until == two.told(Connected)[2].at


async def test_a_feed_that_had_brought_as_much_when_it_was_lost_leaves_none() -> None:
    async with pair(splice_hold=0.05) as two:
        await two.servers[0].disconnect()
        await two.until(lambda: len(two.told(Connected)) == 3)
        await two.both_stand()
        seen = two.feeds["a"].seen
        for serial in (3, 4):
            await two.send(make(serial=serial), 1, 0)
        await two.until(lambda: len(two.events) == 2)
        while two.feeds["a"].seen < seen + 2:  # noqa: ASYNC110 - a repeat tells nobody
            await asyncio.sleep(0)
        await two.servers[1].disconnect()
        await two.until(lambda: len(two.told(Disconnected)) == 2)
        await two.send(make(serial=5), 0)
        await two.until(lambda: len(two.events) == 3)
    assert two.told(Gap) == []
