"""The source on WebSocket: one life after another, for ever by default.

Decides when to try again and what is fatal (`backoff` says how long), where to connect, and which
destinations are left out because the server refuses them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, tzinfo

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    RetryError,
    retry_if_exception,
    stop_after_attempt,
    stop_never,
)

from cti_listener.backoff import wait_outage
from cti_listener.clock import Clock, SystemClock
from cti_listener.errors import (
    ConfigurationError,
    ConnectError,
    CtiError,
    RefusedError,
    UnreachableError,
)
from cti_listener.interest import Interest
from cti_listener.log import about, log
from cti_listener.sources.base import Receiver
from cti_listener.sources.endpoints import NOBODY, Endpoints
from cti_listener.sources.life import DestinationDeniedError, Life, SubscribingDiedError
from cti_listener.sources.options import Auth, ConnectionOptions, WireChoice
from cti_listener.sources.past import Past, name_of
from cti_listener.values import china
from cti_listener.wire.json_frames import JsonCodec
from cti_listener.wire.stomp_terms import differing_argument, queue_name


class WebSocketSource:
    """Brings events over one WebSocket connection at a time, from one of several endpoints.

    Args:
        urls: Endpoints, `ws://` or `wss://`; one that is down is passed over for the next.
        wire: `stomp`, `json`, or `auto`: what the server chooses, else what the path says.
        auth: Credentials, or a coroutine function asked for them before every attempt.
        options: All else about the connection.
        zone: Where the server's clock hangs; None: China Standard Time.
        clock: For tests.
        feed: The name of this connection.
        refused: From when the events of destinations may be missing that the source of this feed
            before was refused; kept here.

    Raises:
        ConfigurationError: A URL that is none.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        wire: WireChoice = "auto",
        auth: Auth | None = None,
        options: ConnectionOptions | None = None,
        zone: tzinfo | None = None,
        clock: Clock | None = None,
        feed: str = "a",
        refused: dict[str, datetime] | None = None,
    ) -> None:
        """Keep where and how to connect; nothing is opened yet."""
        self._options = options or ConnectionOptions()
        self._endpoints = Endpoints(
            urls, wire, auth, self._options, feed, china() if zone is None else zone
        )
        self._clock = clock or SystemClock()
        self._feed = feed
        self._wait = wait_outage(self._options.max_wait)
        self._receiver: Receiver
        self._interest: Interest
        self._life: Life | None = None
        self._next_url = 0
        # From when the events of a refused destination may be missing.
        self._refused = {} if refused is None else refused
        self._left_out: set[str] = set()  # those of them that are not asked for now
        self._past = Past()
        self._refusals = 0  # in a row, of us
        self._attempts = 0  # in a row, the one at hand included
        self._connections = 0  # tried, in this run: each is named by its number in the log
        self._stood = False  # the life at hand did
        self._succeeded = False
        self._running = self._stopping = False
        self._paused = False
        self._interruptible: asyncio.Timeout | None = None
        self._standing = asyncio.Event()  # the attempt at hand got so far as to be subscribed
        self._outage_began = 0.0

    def __repr__(self) -> str:
        state = self._life or "no connection"
        return f"<WebSocketSource {self._feed} {', '.join(self.endpoints)}: {state}>"

    @property
    def endpoints(self) -> Sequence[str]:
        """Where it connects, without credentials."""
        return self._endpoints.shown

    @property
    def last_signs(self) -> Mapping[str, datetime]:
        """When the last byte came that was taken, aware; by no feed while it does not stand."""
        life = self._life
        if life is None or life.ended or not life.stood:
            return {}
        return {self._feed: life.last_sign}

    @property
    def subscriptions(self) -> int:
        """How many destinations stand now; over JSON, messages that ask for some, or the URL."""
        life = self._life
        if life is None or life.codec is None or not life.stood or life.ended:
            return 0
        return len(life.codec.destinations) or 1

    # Source

    async def run(self, receiver: Receiver, interest: Interest) -> None:
        """Bring events until stopped.

        Raises:
            RefusedError: The server said no before it ever said yes.
            UnreachableError: `max_attempts` failed in a row.
            ConfigurationError: The endpoint or a template cannot be used.
        """
        self._receiver, self._interest = receiver, interest
        if self._endpoints.terms is not None:
            self._past.recall(receiver.queues_emptied, self._endpoints.terms.name, self._clock)
        self._running = True
        self.check(interest)  # a bad template is an error now, not in a minute
        while not self._stopping:
            await self._outage()

    def check(self, interest: Interest) -> None:
        """Change nothing, but see whether a wish can be followed.

        Raises:
            ConfigurationError: It cannot be written on the wire.
        """
        self._wanted(interest)
        for index in range(len(self._endpoints)):
            self._endpoints.check(index, interest)

    async def update(self) -> None:
        """Follow a changed interest; return when it stands, if there is a connection.

        What the server refuses ends the connection: then when the next one stands without it.
        """
        if not self._running:
            return  # what is wished for by then is asked for at the start
        self.check(self._interest)  # what cannot be written changes nothing
        self._forget_unwanted()
        life = self._life
        if life is None:
            return  # the next one asks for what is wished for by then
        self._ask_for_more(life)
        if life.codec is None or life.ended or not await life.confirmed():
            await self._next_standing()
        else:
            self._ask_for_less(life)  # not before: nobody listened to goes unheard meanwhile

    async def _next_standing(self) -> None:
        """Wait for a connection that is being made; not for ever."""
        if self._stopping:
            return
        self._standing.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._options.open_timeout):
                await self._standing.wait()

    def _ask_for_more(self, life: Life) -> None:
        """Ask for what is wished for and was not asked for.

        A life that cannot carry the wish is ended.
        """
        if self._endpoints.url(self._next_url, self._interest) != life.plan.url:
            # The wish is in the URL: only a new connection can carry another one.
            life.end(ConnectError(life.url, "reconnecting for another subscription"))
            life.stable = True
            return
        asked, wished = self._asked_and_wished(life)
        life.subscribe([one for one in wished if one not in asked])

    def _ask_for_less(self, life: Life) -> None:
        """Ask no longer for what is not wished for by now."""
        asked, wished = self._asked_and_wished(life)
        life.unsubscribe([one for one in asked if one not in wished])

    def _asked_and_wished(self, life: Life) -> tuple[dict[str, None], dict[str, None]]:
        """Return the destinations that were asked for, and those that are wished for, in order."""
        wanted = self._plan_destinations()
        if isinstance(life.codec, JsonCodec):
            wanted = self._endpoints.messages(self._interest)
        asked = life.codec.destinations if life.codec else ()
        return dict.fromkeys(asked), dict.fromkeys(wanted)

    def pause(self) -> None:
        """Read nothing until `resume()`."""
        self._paused = True
        if self._life is not None:
            self._life.pause()

    def resume(self) -> None:
        """Read on."""
        self._paused = False
        if self._life is not None:
            self._life.resume()

    async def stop(self) -> None:
        """Take no more at once, then close within the close timeout; `run()` returns."""
        self._stopping = True
        self._standing.set()  # whoever waits for it need not any more
        if self._interruptible is not None and not self._interruptible.expired():
            self._interruptible.reschedule(asyncio.get_running_loop().time())
        if self._life is not None:
            await self._life.close()

    # Outages

    async def _outage(self) -> None:
        """Try until a connection was stable, or we are stopped; then the next outage begins."""
        self._outage_began = self._clock.monotonic()

        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            return self._wait.after(self._clock.monotonic() - self._outage_began, error)

        most = self._options.max_attempts
        attempts = AsyncRetrying(
            wait=wait,
            stop=stop_never if most is None else stop_after_attempt(most),
            retry=retry_if_exception(self._worth_trying_again),
            sleep=self._sleep,
        )
        try:
            async for attempt in attempts:
                with attempt:
                    if not self._stopping:
                        await self._attempt(attempt.retry_state.attempt_number)
        except RetryError as error:
            last = error.last_attempt.exception()
            if isinstance(last, ConnectError):
                raise UnreachableError(error.last_attempt.attempt_number, last) from last
            raise

    def _worth_trying_again(self, error: BaseException) -> bool:
        """Tell whether another attempt may help; a refusal counts only once we were let in."""
        if not isinstance(error, ConnectError) or self._stopping:
            return False
        if not isinstance(error, RefusedError) or self._succeeded:
            return True
        self._refusals += 1
        return self._refusals < len(self._endpoints)

    async def _sleep(self, seconds: float) -> None:
        with self._until_stopped():
            async with asyncio.timeout(None) as self._interruptible:
                await self._clock.sleep(seconds)

    @contextmanager
    def _until_stopped(self) -> Iterator[None]:
        """Take the interruption that `stop()` causes for what it is."""
        try:
            yield
        except TimeoutError:
            if not self._stopping:
                raise
        finally:
            self._interruptible = None

    # One attempt

    async def _attempt(self, number: int) -> None:
        """Live one life; return if it was stable or we were stopped, else raise what ended it."""
        if number == 1 and self._succeeded:
            await self._sleep(self._wait.first())
        if self._stopping:
            return
        self._standing.clear()
        self._connections += 1
        with about(feed=self._feed, connection=self._connections):
            await self._live_or_tell(self._next_url, number)

    async def _live_or_tell(self, index: int, number: int) -> None:
        try:
            await self._live(index, number)
        except ConnectError as error:
            self._next_url = (index + 1) % len(self._endpoints)
            if self._stopping:
                return
            await self._mind_refused_queue(error, index)
            if isinstance(error, DestinationDeniedError):
                self._leave_out(error)
            elif not self._stood:  # else it was told as lost
                self._receiver.attempt_failed(error, feed=self._feed)
            raise

    async def _live(self, index: int, number: int) -> None:
        life: Life | None = None
        error: ConnectError | None = None
        self._attempts, self._stood = number, False
        try:
            with self._until_stopped():
                async with asyncio.timeout(None) as self._interruptible:
                    await self._look_for_queues(index)
                    life = self._life = await self._conceive(index)
                    await life.open()
            if self._stopping or life is None:
                return
            self._ask_for_more(life)  # the wish may have changed meanwhile
            self._ask_for_less(life)
            async with asyncio.TaskGroup() as tasks:
                retrying = tasks.create_task(self._retry_refused(life))
                try:
                    error = await life.live()
                finally:
                    retrying.cancel()
            self._stood = life.stood
        finally:
            if life is not None:
                if life.stood and not self._stopping:  # also when a bug of ours ended it
                    self._tell_lost(life, error)
                await life.close()
            self._life = None
        if self._stopping:
            return
        if not life.stable:
            self._outage_began += life.stood_for  # the age is of the time without a subscription
            raise error
        if isinstance(error, DestinationDeniedError):
            self._leave_out(error)

    def _tell_lost(self, life: Life, error: ConnectError | None) -> None:
        self._receiver.lost(
            life.url,
            feed=self._feed,
            since=life.last_sign,
            reason=life.reason,
            detail=error.problem
            if error is not None
            else "ended on our side: see the error that ended the run",
        )

    def _stands(self, life: Life, confirmed: bool) -> None:  # noqa: FBT001 - a callback's argument
        """Hear from a life that every destination stands."""
        self._succeeded, self._refusals = True, 0
        self._receiver.subscribed(
            life.url,
            feed=self._feed,
            confirmed=confirmed,
            attempts=self._attempts,
            backlog=life.durable is not None,
        )
        if isinstance(life.codec, JsonCodec):
            self._accept(list(self._refused))  # the wish is in the URL, and whole
        elif life.codec is not None:
            self._accept(life.codec.destinations)
        self._standing.set()

    async def _conceive(self, index: int) -> Life:
        """Prepare a life at this endpoint, with all that is wanted and not refused."""
        plan = await self._endpoints.plan(index, self._interest, self._plan_destinations())
        life = Life(plan, self._receiver, self._clock, self._stands, self._past)
        if self._paused:
            life.pause()
        return life

    # Refused destinations

    def _plan_destinations(self) -> list[str]:
        """Return what to subscribe to: all that is wanted, less what the server refuses."""
        wanted = self._wanted(self._interest)
        left = [one for one in wanted if one not in self._left_out]
        if not left:  # nothing to be without; ask for all of it again
            self._left_out.clear()
            return wanted
        return left

    def _wanted(self, interest: Interest) -> list[str]:
        wanted = interest.destinations(self._options.topics)
        if not wanted:
            raise ConfigurationError("topics", NOBODY)
        return wanted

    def _leave_out(self, error: DestinationDeniedError) -> None:
        """Go on without a destination; if none is left, we are refused.

        Raises:
            RefusedError: Every destination is refused.
        """
        destination = error.destination
        since = self._refused.setdefault(destination, self._clock.now())
        self._left_out.add(destination)
        self._receiver.destination_refused(
            destination, feed=self._feed, since=since, detail=error.detail
        )
        wanted = self._interest.destinations(self._options.topics)
        if all(one in self._left_out for one in wanted):
            raise RefusedError(error.url, error.problem) from error

    def _accept(self, destinations: Sequence[str]) -> None:
        """Close the gaps of those of these that were refused before."""
        for destination in destinations:
            if self._refused.pop(destination, None):
                self._left_out.discard(destination)
                self._receiver.destination_accepted(destination, feed=self._feed)

    def _forget_unwanted(self) -> None:
        """Close the gaps of what is refused and no longer wanted."""
        wanted = self._interest.destinations(self._options.topics)
        self._accept([one for one in self._refused if one not in wanted])

    async def _retry_refused(self, life: Life) -> None:
        """Try refused destinations again on a connection of their own, so that no other suffers."""
        while True:
            await self._clock.sleep(self._options.refused_retry)
            for destination in sorted(self._left_out):
                if await self._is_taken_now(destination) and destination in self._left_out:
                    life.subscribe([destination])
                    if await life.confirmed():
                        self._accept([destination])

    async def _is_taken_now(self, destination: str) -> bool:
        problem = await self._try_out(self._next_url, [destination])
        if problem is not None:
            log.info("destination_still_refused", destination=destination, detail=str(problem))
        return problem is None

    async def _try_out(
        self, index: int, destinations: Sequence[str], *, look_only: bool = False
    ) -> CtiError | None:
        """Do as `_try_in_session`, but return whatever is against it."""
        try:
            return await self._try_in_session(index, destinations, look_only=look_only)
        except CtiError as error:
            return error

    async def _try_in_session(
        self, index: int, destinations: Sequence[str], *, look_only: bool
    ) -> CtiError | None:
        """Subscribe to destinations on a connection of its own; return what is against any.

        Args:
            index: Which endpoint.
            destinations: What to subscribe to.
            look_only: Take nothing out of it, and no silence for a yes.

        Raises:
            CtiError: There was no session.
        """
        taken = False

        def end(probe: Life, confirmed: bool) -> None:  # noqa: FBT001 - a callback's argument
            nonlocal taken
            taken = confirmed or not look_only
            if probe.codec is not None:
                probe.codec.close()  # the broker takes back what it sent before it closes
            probe.end(ConnectError(probe.url, "it is taken" if taken else "it is not confirmed"))

        plan = await self._endpoints.plan(index, self._interest, destinations, look_only=look_only)
        probe = Life(plan, self._receiver, self._clock, end)
        try:
            await probe.open()
            problem = await probe.live()
        finally:
            await probe.close()
        if not probe.opened:
            raise problem
        return None if taken else problem

    # Durable subscriptions

    async def _look_for_queues(self, index: int) -> None:
        """See whether the broker has the queues still that are known to be empty.

        To subscribe makes anew what is gone, so what is not found now is never relied on again.

        Raises:
            CtiError: There was no session to look by.
        """
        past, terms = self._past, self._endpoints.terms
        past.found = frozenset()
        if terms is None:
            return
        place, known = self._endpoints.place(index, self._interest), dict[str, str | None]()
        for destination in self._plan_destinations():
            subscription = terms.id_for(destination)
            name = name_of(subscription, place)
            if name in past.emptied:
                known[name] = queue_name(destination, subscription)
        paths = {name: f"/amq/queue/{queue}" for name, queue in known.items() if queue is not None}
        if paths and await self._try_in_session(index, [*paths.values()], look_only=True) is None:
            past.found = frozenset(paths)
        gone = [name for name in known if name not in past.found]
        for name in gone:
            del past.emptied[name]
        if gone:
            self._receiver.queues_empty(gone, None)

    async def _mind_refused_queue(self, error: ConnectError, index: int) -> None:
        """End the run for a durable subscription that is there already, but another one.

        Raises:
            ConfigurationError: It is, and no further attempt will change that.
        """
        terms = self._endpoints.terms
        if terms is None or not isinstance(error, DestinationDeniedError | SubscribingDiedError):
            return
        name = terms.id_for(error.destination)
        queue = queue_name(error.destination, name)
        argument = None
        if isinstance(error, DestinationDeniedError):
            argument = differing_argument(error.detail)
        elif queue is not None and await self._is_there(queue, index):
            argument = "x-expires (durable_expires) or x-max-length (durable_max_length)"
        if argument is not None and not self._stopping:
            vhost = self._options.vhost
            delete = f" (rabbitmqctl -p {vhost} delete_queue {queue})" if queue else ""
            raise ConfigurationError(
                "durable",
                f"the broker keeps {name} already, with another {argument}: {error.problem};"
                f" set that back, give durable another id, or have the queue deleted{delete}",
            ) from error

    async def _is_there(self, queue: str, index: int) -> bool:
        """Tell whether a queue can be had as it is: then its arguments are what was refused."""
        with self._until_stopped():
            async with asyncio.timeout(None) as self._interruptible:
                destination = f"/amq/queue/{queue}"
                return await self._try_out(index, [destination], look_only=True) is None
        return False
