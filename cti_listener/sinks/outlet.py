"""One sink as a handler: when it is given the same again, and what is said and counted of it.

`making` makes them, `running` runs them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final, Literal, get_args

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type
from tenacity.wait import wait_base

from cti_listener.backoff import wait_outage
from cti_listener.clock import Clock
from cti_listener.derived import Derived
from cti_listener.errors import ConfigurationError, HaltError, SinkAwayError, SinkError
from cti_listener.event_base import Event
from cti_listener.log import log
from cti_listener.router import Happening, Order
from cti_listener.sinks.base import Reopenable, Sink

CLOSING: Final = 2.0
"""How long sinks may take to close, in seconds, where nobody says."""

CHANGED: Final = 60.0
"""A sink that fails for another reason than was said says so after so many seconds."""

STILL: Final = 600.0
"""What still fails, or has halted, is said again after so many seconds."""

Outcome = Literal["taken", "tried_again", "refused", "halted"]
"""What became of a try, or `halted`: none was made any more. Closed, fit for a metric's label."""

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
        counts: What became of each try, by outcome; what halted is counted by its handler.
        kept: Whether what it refuses is a dead letter in a journal.
        lost: How many events and records it refused that no journal keeps.
    """

    def __init__(self, name: str, sink: Sink, *, clock: Clock) -> None:
        """Begin with nothing taken."""
        self.name = name
        self.counts: Counter[Outcome] = Counter()
        self.kept = False
        self.lost = 0
        self._sink = sink
        self._clock = clock
        self._failing: set[str | None] = set()  # the lanes that are, by device
        self._tries = 0  # of theirs, since the first of them began to fail
        self._halted: HaltError | None = None
        self._said = ""  # the problem that was said last
        self._said_at = 0.0

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
        """Give the sink one; say when it begins to fail, works again, refuses, or halts."""
        if self._halted is not None:
            raise HaltError(self._halted.problem)
        try:
            await self._sink.take(happening)
        except HaltError as error:
            self._halt(error)
            raise
        except (SinkAwayError, OSError) as error:
            self._fail(happening, error)
            raise
        except Exception as error:
            self._refuse(happening, error)
            raise
        self.counts["taken"] += 1
        if self._failing:
            self._pass(happening)

    def look(self) -> None:
        """Say again, from time to time, that it has halted: nothing else tells of it any more."""
        if self._halted is not None and self._is_due(self._halted.problem):
            self._say_halted(self._halted)

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
            self._failing.clear()
            self._tries = 0
            self._say_halted(error)

    def _say_halted(self, error: HaltError) -> None:
        self._note_said(error.problem)
        log.error("sink_halted", sink=self.name, problem=error.problem)

    def _fail(self, happening: Happening, error: SinkAwayError | OSError) -> None:
        self.counts["tried_again"] += 1
        if self._halted is not None:  # it was on its way when that was said
            return
        begins = not self._failing
        lane = self._lane_of(happening)
        self._failing.add(lane)
        self._tries += 1
        problem = error.problem if isinstance(error, SinkAwayError) else str(error)
        if begins or self._is_due(problem):
            self._note_said(problem)
            of_lane = {} if lane is None else {"device": lane}
            log.warning(
                "sink_failing",
                sink=self.name,
                problem=problem,
                **of_lane,
                lanes=len(self._failing),
            )

    def _pass(self, happening: Happening) -> None:
        """Note that the lane of this one goes on."""
        self._failing.discard(self._lane_of(happening))
        if not self._failing and self._tries:
            log.info("sink_recovered", sink=self.name, tries=self._tries)
            self._tries = 0

    def _refuse(self, happening: Happening, error: Exception) -> None:
        self.counts["refused"] += 1
        self._pass(happening)
        if self.kept or not isinstance(happening, Event | Derived):
            return
        if not self.lost:
            problem = error.problem if isinstance(error, SinkError) else repr(error)
            advice = "with --journal, what it refuses is kept as a dead letter"
            log.warning("sink_refused", sink=self.name, problem=problem, advice=advice)
        self.lost += 1

    def _lane_of(self, happening: Happening) -> str | None:
        """Return whose lane it is in; None for that of notices, or where there is only one."""
        if self.order == "all" or not isinstance(happening, Event | Derived):
            return None
        return happening.device

    def _is_due(self, problem: str) -> bool:
        """Tell whether something is to be said again: seldom, or for its being another sooner."""
        after = STILL if problem == self._said else CHANGED
        return self._clock.monotonic() - self._said_at >= after

    def _note_said(self, problem: str) -> None:
        self._said, self._said_at = problem, self._clock.monotonic()
