"""Runs a sink as a handler: when it is given the same again, and what is said of it.

Called by `app`: `attach` before the listener starts, `opened` for the length of a run.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, Literal, get_args

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type
from tenacity.wait import wait_base

from cti_listener.backoff import wait_outage
from cti_listener.clock import Clock
from cti_listener.errors import ConfigurationError, HaltError, SinkAwayError
from cti_listener.listener import Listener
from cti_listener.log import log
from cti_listener.router import Happening, Kind, Order
from cti_listener.sinks.base import Reopenable, Sink

CLOSING: Final = 2.0
"""How long sinks may take to close, in seconds, where nobody says."""

Outcome = Literal["taken", "tried_again", "refused"]
"""What became of one try: a closed set, fit for a metric's label."""

OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)


class wait_sink(wait_base):  # noqa: N801 - tenacity's strategies are spelled so
    """Wait as long as the failing has lasted at most, half of it at random, and as long as asked.

    Args:
        longest: The cap of what we choose ourselves, in seconds.
    """

    def __init__(self, longest: float = 60.0) -> None:
        """Keep the cap."""
        self._outage = wait_outage(longest)

    def __call__(self, retry_state: RetryCallState) -> float:
        """Return the seconds to wait before the same is given again."""
        error = retry_state.outcome.exception() if retry_state.outcome else None
        asked = error.after if isinstance(error, SinkAwayError) else None
        return max(self._outage.after(retry_state.seconds_since_start or 0.0), asked or 0.0)


class Outlet:
    """One sink, as a handler of the listener.

    Args:
        name: The handler's name; without secrets, and the same in every run.
        sink: The sink.
        clock: The clock.

    Attributes:
        name: As above.
        counts: What became of each try, by outcome.
    """

    def __init__(self, name: str, sink: Sink, *, clock: Clock) -> None:
        """Begin with nothing taken."""
        self.name = name
        self.counts: Counter[Outcome] = Counter()
        self._sink = sink
        self._clock = clock
        self._failing = 0  # tries in a row, of whatever lane
        self._halted: HaltError | None = None

    def __repr__(self) -> str:
        state = "halted" if self._halted else "failing" if self._failing else "well"
        return f"<Outlet {self.name} {state}, {self.counts['taken']} taken>"

    @property
    def halted(self) -> bool:
        """Whether it takes nothing more in this run."""
        return self._halted is not None

    @property
    def order(self) -> Order:
        """The order it wants."""
        return self._sink.order

    @property
    def retry(self) -> AsyncRetrying:
        """When the same is given again: for as long as the sink is away, and never else."""
        return AsyncRetrying(
            retry=retry_if_exception_type((SinkAwayError, OSError)),
            wait=wait_sink(),
            sleep=self._clock.sleep,
            reraise=True,
        )

    async def open(self) -> None:
        """Open the sink, or raise what it raises."""
        await self._sink.open()

    async def take(self, happening: Happening) -> None:
        """Give the sink one; say when it begins to fail, works again, or halts."""
        if self._halted is not None:
            raise HaltError(self._halted.problem)
        try:
            await self._sink.take(happening)
        except HaltError as error:
            self._halt(error)
            raise
        except (SinkAwayError, OSError) as error:
            self._fail(error)
            raise
        except Exception:
            self.counts["refused"] += 1
            raise
        self.counts["taken"] += 1
        if self._failing:
            log.info("sink_recovered", sink=self.name, tries=self._failing)
            self._failing = 0

    async def reopen(self) -> None:
        """Have the sink begin anew with its files, if it has any; what goes wrong is logged."""
        if isinstance(self._sink, Reopenable):
            try:
                await self._sink.reopen()
            except (OSError, ConfigurationError) as error:
                log.error("sink_not_reopened", sink=self.name, problem=str(error))
            else:
                log.info("sink_reopened", sink=self.name)

    async def close(self, within: float = CLOSING) -> None:
        """Close the sink, within so many seconds; what goes wrong is logged."""
        try:
            async with asyncio.timeout(within):
                await self._sink.close()
        except TimeoutError:
            log.warning("sink_not_closed", sink=self.name, problem=f"not within {within:g} s")
        except Exception as error:  # noqa: BLE001 - nothing is left to be done about it
            log.warning("sink_not_closed", sink=self.name, problem=str(error) or repr(error))

    def _halt(self, error: HaltError) -> None:
        if self._halted is None:
            self._halted = error
            log.error("sink_halted", sink=self.name, problem=error.problem)

    def _fail(self, error: SinkAwayError | OSError) -> None:
        self.counts["tried_again"] += 1
        if not self._failing:
            problem = error.problem if isinstance(error, SinkAwayError) else str(error)
            log.warning("sink_failing", sink=self.name, problem=problem)
        self._failing += 1


@asynccontextmanager
async def opened(
    outlets: Sequence[Outlet], hung_up: asyncio.Event | None = None, *, within: float = CLOSING
) -> AsyncIterator[None]:
    """Have all of them open within the block, and begin anew with their files when asked.

    Args:
        outlets: The sinks.
        hung_up: Set on SIGHUP; None: nobody asks.
        within: How long they may take to close, all at once, in seconds.

    Raises:
        ConfigurationError: One can never work as asked.
    """
    began: list[Outlet] = []
    # Not a task group: it would wrap what ends the run, which decides on the exit code.
    reopener = None
    try:
        for outlet in outlets:
            await outlet.open()
            began.append(outlet)
        if hung_up is not None:
            reopening = _reopen_when(hung_up, outlets)
            reopener = asyncio.get_running_loop().create_task(reopening, name="cti-reopen")
        yield
    finally:
        if reopener is not None:
            reopener.cancel()
            await asyncio.wait([reopener], timeout=within)
        await asyncio.gather(*(outlet.close(within) for outlet in began))


async def _reopen_when(asked: asyncio.Event, outlets: Sequence[Outlet]) -> None:
    while True:
        await asked.wait()
        asked.clear()
        for outlet in outlets:
            await outlet.reopen()


def attach(listener: Listener, outlets: Sequence[Outlet], kinds: Sequence[Kind]) -> None:
    """Register each as a handler of its own: durable with a journal, and nothing is dropped."""
    for outlet in outlets:
        register = listener.on(
            *kinds,
            order=outlet.order,
            overflow="block",
            retry=outlet.retry,
            name=outlet.name,
        )
        register(outlet.take)


def shortfall(left: int, drain: float, outlets: Sequence[Outlet]) -> str:
    """Say that so many events were left over at the end, and what to do about it.

    Args:
        left: How many.
        drain: How long the end could take, in seconds.
        outlets: The sinks there were.
    """
    if halted := ", ".join(one.name for one in outlets if one.halted):
        return f"{left} events were not passed on; {halted} took no more"
    done = "passed on" if outlets else "printed"
    within = f"within the drain time of {drain:g} s"
    return f"{left} events were not {done} {within}; give it more by --drain"
