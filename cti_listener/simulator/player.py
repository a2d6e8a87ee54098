"""Plays a stream of messages in time, or as fast as somebody takes it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from math import isinf
from typing import Final, Generic, Protocol, TypeVar

from cti_listener.clock import Clock
from cti_listener.errors import ConfigurationError

_BREATH: Final = 64
"""After so many messages without a pause, the loop gets a turn."""


class Timed(Protocol):
    """What is due at some time of a stream."""

    @property
    def at(self) -> float:
        """When, in seconds of the stream."""


T = TypeVar("T", bound=Timed)


class Player(Generic[T]):
    """Hands the messages of a stream on, each when its time has come.

    Args:
        stream: The messages, in order of time.
        speed: How many seconds of the stream pass in one of ours; 0 or infinite: no pace is kept.
        clock: Tells our time.
        publish: Takes a message; waits if it must.
        subscribed: Waits until somebody listens.
        await_subscriber: Begin when somebody listens for the first time.

    Raises:
        ConfigurationError: The speed is negative.
    """

    def __init__(
        self,
        stream: Iterator[T],
        *,
        speed: float,
        clock: Clock,
        publish: Callable[[T], Awaitable[None]],
        subscribed: Callable[[], Awaitable[None]],
        await_subscriber: bool,
    ) -> None:
        """Take the stream; nothing is played before `start()`."""
        if not speed >= 0:
            raise ConfigurationError("speed", "must be 0 or more")
        self.keeps_time = speed > 0 and not isinf(speed)
        self._stream = stream
        self._speed = speed
        self._clock = clock
        self._publish = publish
        self._subscribed = subscribed
        self._await_subscriber = await_subscriber
        self._reached = 0.0  # in the stream
        self._next: T | None = None  # taken from the stream, and not yet published
        self._task: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()  # the stream is at its end, or the play failed

    def start(self) -> None:
        """Play, from where it stopped."""
        # Its owner is the server, from start() to stop(), which no block of code encloses.
        self._task = asyncio.create_task(self._play())  # noqa: TID251
        self._task.add_done_callback(self._note_end)

    async def stop(self) -> None:
        """Pause.

        Raises:
            Exception: Whatever the play failed with.
        """
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self._task.result()

    async def wait(self) -> None:
        """Wait until the stream is at its end.

        Raises:
            Exception: Whatever the play failed with.
        """
        await self._ended.wait()
        if self._task is not None:
            await self._task

    def _note_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self._ended.set()

    async def _play(self) -> None:
        if self._await_subscriber:
            await self._subscribed()
        began = self._clock.monotonic() - (self._reached / self._speed if self.keeps_time else 0.0)
        without_pause = 0
        while (message := self._next or next(self._stream, None)) is not None:
            self._next = message  # not lost if we are stopped while we wait
            wait = (
                began + message.at / self._speed - self._clock.monotonic() if self.keeps_time else 0
            )
            without_pause += 1
            if wait > 0 or without_pause > _BREATH:
                await self._clock.sleep(wait)
                without_pause = 0
            if not self.keeps_time:
                await self._subscribed()
            self._reached, self._next = message.at, None
            await self._publish(message)
