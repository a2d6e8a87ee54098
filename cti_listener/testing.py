"""For the tests of those who embed the listener: a server, a source and a clock in your hands.

- `simulated_server()` and the pytest fixture `cti_server`: a real server on a loopback port.
- `FakeSource`: no socket at all; events go in by `send()`.
- `ManualClock`: time moves when you say so.

Import the fixture into your `conftest.py`: `from cti_listener.testing import cti_server`.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from cti_listener.errors import NotRunningError
from cti_listener.event_base import Delivery, Event
from cti_listener.interest import Interest
from cti_listener.notices import GapReason
from cti_listener.simulator import SimulatorServer
from cti_listener.sources.base import Receiver

try:
    import pytest_asyncio
except ImportError:
    HAVE_PYTEST_ASYNCIO = False
else:
    HAVE_PYTEST_ASYNCIO = True

START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)


class ManualClock:
    """A `Clock` that stands still until `advance()`.

    Args:
        start: What the wall clock says at first, aware.
    """

    def __init__(self, start: datetime = START) -> None:
        """Stand still at `start`."""
        self._start = start
        self._elapsed = 0.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def __repr__(self) -> str:
        return f"<ManualClock {self._elapsed:g} s, {len(self._sleepers)} asleep>"

    def now(self) -> datetime:
        """Return the wall clock, aware, in UTC."""
        return self._start + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        """Return the seconds advanced so far."""
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock was advanced by so much."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        sleeper = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed + seconds, next(self._order), sleeper))
        await sleeper

    async def advance(self, seconds: float) -> None:
        """Move on, waking each sleeper at its time; what it does is done before time goes on."""
        until = self._elapsed + seconds
        await _settle()
        while self._sleepers and self._sleepers[0][0] <= until:
            self._elapsed, _, sleeper = heapq.heappop(self._sleepers)
            if not sleeper.done():
                sleeper.set_result(None)
            await _settle()
        self._elapsed = until


async def _settle() -> None:
    """Let everything run that can run without time going on."""
    for _ in range(10):
        await asyncio.sleep(0)


class FakeSource:
    """A `Source` without a socket: hand it to `Listener` in place of a URL.

    Connected as soon as the listener runs; what is sent passes through everything that a server's
    event passes through.

    Args:
        clock: Stamps what is received; the system's by default.
    """

    endpoints: Sequence[str] = ("fake:",)

    def __init__(self, clock: ManualClock | None = None) -> None:
        """Wait for a listener."""
        self.paused = False
        self._clock = clock
        self._receiver: Receiver | None = None
        self._connected = False
        self._stopped = asyncio.Event()

    def __repr__(self) -> str:
        return f"<FakeSource {'connected' if self._connected else 'not connected'}>"

    @property
    def last_signs(self) -> Mapping[str, datetime]:
        """Now, while it is connected."""
        return {"a": self._now()} if self._connected else {}

    def _now(self) -> datetime:
        return self._clock.now() if self._clock else datetime.now(UTC)

    async def run(self, receiver: Receiver, interest: Interest) -> None:
        """Connect and wait to be stopped."""
        del interest  # everything sent is offered; the listener filters
        self._receiver = receiver
        self.connect()
        await self._stopped.wait()

    async def update(self) -> None:
        """Do nothing: everything sent is offered anyway."""

    def pause(self) -> None:
        """Note that the listener wants nothing read."""
        self.paused = True

    def resume(self) -> None:
        """Note that it does again."""
        self.paused = False

    async def stop(self) -> None:
        """End `run()`."""
        self._connected = False
        self._stopped.set()

    def connect(self) -> None:
        """Stand again after `disconnect()`."""
        self._connected = True
        self._tell().subscribed("fake:", feed="a", confirmed=True, attempts=1)

    def disconnect(self, reason: GapReason = "disconnected") -> None:
        """Lose the connection; the gap is told when `connect()` stands again."""
        self._connected = False
        self._tell().lost("fake:", feed="a", since=self._now(), reason=reason, detail="by the test")

    def send(self, event: Event | Mapping[str, Any], *, destination: str | None = None) -> None:
        """Receive an event.

        Args:
            event: The object as the server would send it, or a model of it.
            destination: The destination it comes by.

        Raises:
            NotRunningError: The listener does not run, or `disconnect()` came before.
        """
        if not self._connected:
            raise NotRunningError("not connected; start the listener, or connect() again")
        payload = event.as_received() if isinstance(event, Event) else dict(event)
        receiver = self._tell()
        delivery = Delivery(self._now())
        receiver.message_received(delivery)
        receiver.event_received(payload, destination, delivery)

    def _tell(self) -> Receiver:
        if self._receiver is None:
            raise NotRunningError("no listener runs on this source yet")
        return self._receiver


@asynccontextmanager
async def simulated_server(**options: Any) -> AsyncIterator[SimulatorServer]:
    """Serve both wires on a free loopback port; silent until you `send()`.

    Args:
        **options: As for `cti_listener.simulator.SimulatorServer`.

    Yields:
        The server: `stomp_url`, `json_url`, `send(event)`, `disconnect()`.
    """
    async with SimulatorServer(**options) as server:
        yield server


if HAVE_PYTEST_ASYNCIO:  # the fixture is for those who have it

    @pytest_asyncio.fixture
    async def cti_server() -> AsyncIterator[SimulatorServer]:
        """Serve both wires on a free loopback port for one test."""
        async with simulated_server() as server:
            yield server
