"""Several sources as one: begun, watched and ended together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from cti_listener.errors import ConfigurationError, CtiError, RefusedError, UnreachableError
from cti_listener.event_base import Delivery, Event
from cti_listener.interest import Interest
from cti_listener.listener import Listener
from cti_listener.sources.base import Receiver
from cti_listener.sources.merged import AGAIN, Feed, MergedSource, feed_names
from cti_listener.testing import ManualClock
from tests.examples import NAMESPACE, make
from tests.sources.receiver import PATIENCE, Kept

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


class Scripted:
    """A source that does nothing until it is told to fail or to stop."""

    def __init__(self, feed: str) -> None:
        self.feed = feed
        self.endpoints: Sequence[str] = (f"fake:{feed}", "fake:shared")
        self.last_signs: dict[str, datetime] = {}
        self.paused = False
        self.updates = 0
        self.updating = asyncio.Event()  # once it may be done
        self.updating.set()
        self.unwritable: Exception | None = None
        self.unsaid: Exception | None = None
        self.ran = asyncio.Event()
        self._outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, receiver: Receiver, interest: Interest) -> None:
        del receiver, interest
        self.ran.set()
        await asyncio.shield(self._outcome)

    def fail(self, error: Exception) -> None:
        self._outcome.set_exception(error)

    def check(self, interest: Interest) -> None:
        del interest
        if self.unwritable is not None:
            raise self.unwritable

    async def update(self) -> None:
        self.updates += 1
        await self.updating.wait()
        if self.unsaid is not None:
            raise self.unsaid

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    async def stop(self) -> None:
        if not self._outcome.done():
            self._outcome.set_result(None)


class Studio:
    """Makes scripted sources, and remembers them."""

    def __init__(self, count: int = 2) -> None:
        self.clock = ManualClock()
        self.made: dict[str, list[Scripted]] = {}
        self.merged = MergedSource(self._make, feed_names(count), clock=self.clock)

    def _make(self, feed: str) -> Feed:
        source = Scripted(feed)
        self.made.setdefault(feed, []).append(source)
        return source

    def __getitem__(self, feed: str) -> Scripted:
        return self.made[feed][-1]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
            task = tasks.create_task(self.merged.run(Kept(), Interest(NAMESPACE)))
            for feed in self.made:
                await self[feed].ran.wait()
            yield task
            await self.merged.stop()


def refused() -> CtiError:
    return RefusedError("fake:", "no")


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_feeds_are_called_by_letters() -> None:
    assert feed_names(3) == ("a", "b", "c")


async def test_all_are_run_and_stopped_together() -> None:
    studio = Studio(3)
    async with studio.running() as task:
        assert not task.done()
        assert set(studio.made) == {"a", "b", "c"}
        await studio.merged.update()
        studio.merged.pause()
        assert [(studio[name].updates, studio[name].paused) for name in "abc"] == [(1, True)] * 3
        studio.merged.resume()
        assert not any(studio[name].paused for name in "abc")
    assert task.done()


async def test_a_changed_wish_is_followed_by_one_feed_after_another() -> None:
    studio = Studio()

    def updates() -> tuple[int, int]:
        return studio["a"].updates, studio["b"].updates

    async with studio.running(), asyncio.TaskGroup() as tasks:
        studio["a"].updating.clear()
        first = tasks.create_task(studio.merged.update())
        second = tasks.create_task(studio.merged.update())
        await settled()
        assert updates() == (1, 0)
        first.cancel()  # who waits no longer does not undo it
        await settled()
        assert updates() == (1, 0)
        studio["a"].updating.set()
        await second
        assert updates() == (2, 2)


async def test_a_wish_that_cannot_be_written_is_told_as_what_it_is() -> None:
    studio = Studio()
    async with studio.running(), asyncio.TaskGroup() as tasks:
        studio["a"].updating.clear()
        tasks.create_task(studio.merged.update())
        await settled()
        studio["b"].unwritable = ConfigurationError("template", "no")
        with pytest.raises(ConfigurationError):  # at once, whatever is under way
            await studio.merged.update()
        studio["a"].updating.set()
    assert (studio["a"].updates, studio["b"].updates) == (1, 1)


@pytest.mark.parametrize("error", [ConfigurationError("topics", "no"), ValueError("a bug")])
async def test_what_hinders_one_feed_from_following_ends_none(error: Exception) -> None:
    studio = Studio()
    async with studio.running() as task:
        studio["b"].unsaid = error
        with pytest.raises(type(error)):
            await studio.merged.update()
        assert not task.done()


async def test_who_waits_for_a_changed_wish_is_let_go_when_the_feeds_end() -> None:
    studio = Studio()
    async with asyncio.TaskGroup() as tasks, studio.running():
        studio["a"].updating.clear()
        tasks.create_task(studio.merged.update())
        await settled()


async def test_feeds_that_were_stopped_before_they_began_end_at_once() -> None:
    studio = Studio()
    await studio.merged.stop()
    async with asyncio.timeout(PATIENCE):
        await studio.merged.run(Kept(), Interest(NAMESPACE))


async def test_tells_every_endpoint_once_and_each_feeds_sign_of_life() -> None:
    studio = Studio()
    assert list(studio.merged.endpoints) == ["fake:a", "fake:shared", "fake:b"]
    assert studio.merged.last_signs == {}
    studio["a"].last_signs = {"a": NOON}
    assert studio.merged.last_signs == {"a": NOON}
    studio["b"].last_signs = {"b": NOON.replace(hour=13)}
    assert studio.merged.last_signs == {"a": NOON, "b": NOON.replace(hour=13)}


async def test_a_feed_that_is_refused_is_made_anew_while_the_other_goes_on() -> None:
    studio = Studio()
    with capture_logs() as logs:
        async with studio.running() as task:
            studio["b"].fail(refused())
            await settled()
            assert [entry["event"] for entry in logs] == ["feed_failed"]
            assert len(studio.made["b"]) == 1
            studio.merged.pause()
            await studio.clock.advance(AGAIN)
            await studio["b"].ran.wait()
            assert len(studio.made["b"]) == 2
            assert studio["b"].paused
            assert len(studio.made["a"]) == 1
            assert not task.done()


async def test_a_feed_that_a_bug_ends_is_made_anew_soon() -> None:
    studio = Studio()
    with capture_logs() as logs:
        async with studio.running() as task:
            studio["a"].fail(ZeroDivisionError())
            await settled()
            await studio.clock.advance(1.0)
            assert len(studio.made["a"]) == 2
            assert not task.done()
    assert [entry["event"] for entry in logs] == ["feed_broke"]


@pytest.mark.parametrize("error", [refused(), UnreachableError(3, RefusedError("fake:", "no"))])
async def test_when_all_have_given_up_the_last_reason_is_raised(error: CtiError) -> None:
    studio = Studio()
    task = asyncio.get_running_loop().create_task(studio.merged.run(Kept(), Interest(NAMESPACE)))
    await settled()
    studio["a"].fail(refused())
    await settled()
    assert not task.done()
    studio["b"].fail(error)
    with pytest.raises(type(error)) as raised:
        await asyncio.wait_for(task, PATIENCE)
    assert raised.value is error


async def test_what_cannot_be_done_as_asked_ends_all_at_once() -> None:
    studio = Studio()
    task = asyncio.get_running_loop().create_task(studio.merged.run(Kept(), Interest(NAMESPACE)))
    await settled()
    studio["a"].fail(ConfigurationError("topics", "cannot be"))
    with pytest.raises(ConfigurationError, match="topics"):
        await asyncio.wait_for(task, PATIENCE)


async def test_stop_does_not_wait_for_a_feed_that_is_to_be_made_anew() -> None:
    studio = Studio()
    async with studio.running() as task:
        studio["b"].fail(refused())
        await settled()
    assert task.done()


class Parting(Scripted):
    """A source that brings an event as it stops, as those that wait for a RECEIPT are."""

    async def run(self, receiver: Receiver, interest: Interest) -> None:
        self.receiver = receiver
        await super().run(receiver, interest)

    async def stop(self) -> None:
        self.receiver.event_received(make(), None, Delivery(NOON, self.feed))
        await super().stop()


async def test_what_a_feed_brings_as_it_stops_is_handled() -> None:
    made: list[Parting] = []

    def begin(feed: str) -> Feed:
        made.append(Parting(feed))
        return made[-1]

    source = MergedSource(begin, feed_names(2), clock=ManualClock())
    listener = Listener(source, namespace=NAMESPACE)
    handled: list[Event] = []

    @listener.on(Event)
    async def keep(event: Event) -> None:
        handled.append(event)

    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
        tasks.create_task(listener.run())
        for one in made:
            await one.ran.wait()
        assert await listener.stop() == []
    assert len(handled) == len(made)
