"""Several feeds of the same events at once; whoever takes them tells their copies apart.

Each feed is a source of its own and goes its own way; here they are begun, watched and ended
together. A feed that gives up or breaks is made anew after a while, for as long as another goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import Final, Protocol

from cti_listener.clock import Clock
from cti_listener.errors import ConfigurationError, CtiError
from cti_listener.interest import Interest
from cti_listener.log import log
from cti_listener.sources.base import Receiver, Source

AGAIN: Final = 60.0
"""After so long, in seconds, a feed that gave up is made anew, while another goes on."""


class Feed(Source, Protocol):
    """A source that can tell beforehand whether it can follow a wish."""

    def check(self, interest: Interest) -> None:
        """Change nothing.

        Raises:
            ConfigurationError: It cannot be written on the wire.
        """


def feed_names(count: int) -> tuple[str, ...]:
    """Return the names of so many feeds: `a`, `b` ..."""
    return tuple(chr(ord("a") + index) for index in range(count))


class MergedSource:
    """Runs several sources as one.

    Args:
        make: Makes the source of a feed, by its name; again for each new beginning.
        feeds: The names of the feeds.
        clock: The one clock.
    """

    def __init__(self, make: Callable[[str], Feed], feeds: Sequence[str], *, clock: Clock) -> None:
        """Make every feed; nothing is opened yet."""
        self._make = make
        self._clock = clock
        self._sources = {feed: make(feed) for feed in feeds}
        self._failed: dict[str, CtiError] = {}  # feeds that gave up, and wait to be made anew
        self._stopping = False
        self._paused = False
        self._one_by_one = asyncio.Lock()
        self._tasks: asyncio.TaskGroup | None = None  # while it runs
        self._interest: Interest
        self._updates: set[asyncio.Task[Exception | None]] = set()
        self._end: asyncio.Future[CtiError | None] | None = None

    def __repr__(self) -> str:
        return f"<MergedSource {', '.join(map(repr, self._sources.values()))}>"

    @property
    def endpoints(self) -> Sequence[str]:
        """Where it connects, without credentials."""
        every = (url for source in self._sources.values() for url in source.endpoints)
        return list(dict.fromkeys(every))

    @property
    def last_signs(self) -> Mapping[str, datetime]:
        """When the last byte came that was taken, aware, by each feed that stands."""
        every = (source.last_signs.items() for source in self._sources.values())
        return dict(chain.from_iterable(every))

    @property
    def subscriptions(self) -> int:
        """How many destinations stand now, of all feeds."""
        return sum(getattr(one, "subscriptions", 0) for one in self._sources.values())

    async def run(self, receiver: Receiver, interest: Interest) -> None:
        """Bring the events of every feed until stopped.

        Raises:
            RefusedError: Every feed was refused.
            UnreachableError: Every feed gave up.
            ConfigurationError: An endpoint or a template cannot be used.
        """
        if self._stopping:
            return  # before it began: nobody will say so again
        self._interest = interest
        self._end = asyncio.get_running_loop().create_future()
        async with asyncio.TaskGroup() as tasks:
            keepers = [
                tasks.create_task(self._keep(feed, receiver, interest), name=f"cti-feed-{feed}")
                for feed in self._sources
            ]
            self._tasks = tasks
            try:
                error = await self._end
            finally:
                self._tasks = None
            for task in (*keepers, *self._updates):
                task.cancel()
        if error is not None:
            raise error

    async def _keep(self, feed: str, receiver: Receiver, interest: Interest) -> None:
        """See to it that a feed goes on: one that breaks or gives up begins anew."""
        while not self._stopping:
            pause = AGAIN
            try:
                await self._sources[feed].run(receiver, interest)
                continue
            except ConfigurationError as error:
                self._finish(error)
                return
            except CtiError as error:
                log.error("feed_failed", feed=feed, problem=str(error), again_in=pause)
                self._failed[feed] = error
                if len(self._failed) == len(self._sources):
                    self._finish(error)
                    return
            except Exception:  # noqa: BLE001 - a bug on one feed must not end the others
                pause = 1.0
                log.exception("feed_broke", feed=feed, again_in=pause)
            await self._clock.sleep(pause)
            self._failed.pop(feed, None)
            self._sources[feed] = self._make(feed)
            if self._paused:
                self._sources[feed].pause()

    def _finish(self, error: CtiError | None) -> None:
        if self._end is not None and not self._end.done():
            self._end.set_result(error)

    async def update(self) -> None:
        """Follow a changed interest; return when it stands on every feed that is connected.

        One feed after another: where the wish is in the URL each connects anew, and meanwhile the
        others hear. Who waits no longer does not undo it.

        Raises:
            ConfigurationError: It cannot be written on the wire.
        """
        if self._tasks is None:
            return  # what is wished for by then is asked for at the start
        for source in self._sources.values():
            source.check(self._interest)  # before any event is judged by it
        task = self._tasks.create_task(self._update(), name="cti-feeds-update")
        self._updates.add(task)
        task.add_done_callback(self._updates.discard)
        await asyncio.wait([task])
        error = None if task.cancelled() else task.result()  # cancelled by the end of the feeds
        if error is not None:
            raise error

    async def _update(self) -> Exception | None:
        """Have each feed follow; return what went wrong, which ends no feed."""
        try:
            async with self._one_by_one:
                for feed in list(self._sources):
                    await self._sources[feed].update()
        except Exception as error:  # noqa: BLE001 - told to whoever changed the wish
            return error
        return None

    def pause(self) -> None:
        """Read nothing until `resume()`."""
        self._paused = True
        for source in self._sources.values():
            source.pause()

    def resume(self) -> None:
        """Read on."""
        self._paused = False
        for source in self._sources.values():
            source.resume()

    async def stop(self) -> None:
        """Take no more at once, then close within the close timeout; `run()` returns."""
        self._stopping = True
        async with asyncio.TaskGroup() as tasks:
            for source in self._sources.values():
                tasks.create_task(source.stop())
        self._finish(None)
