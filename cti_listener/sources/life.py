"""The life of one connection: opened, subscribed, watched, ended.

`websocket` begins one life after another; nothing of a life is ever used again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Final

from websockets.frames import CloseCode

from cti_listener.clock import Clock
from cti_listener.errors import ConfigurationError, ConnectError, RefusedError, SessionError
from cti_listener.event_base import Delivery
from cti_listener.log import log
from cti_listener.notices import GapReason
from cti_listener.sources.base import Receiver
from cti_listener.sources.durable import Durable
from cti_listener.sources.endpoints import LifePlan
from cti_listener.sources.liveness import Liveness
from cti_listener.sources.meanings import without_secrets
from cti_listener.sources.past import Past
from cti_listener.sources.patience import turning
from cti_listener.sources.transport import Transport
from cti_listener.wire.base import (
    Codec,
    EventReceived,
    LateEvent,
    MessageBad,
    SessionDenied,
    SessionEnded,
    SessionOpened,
    SubscriptionConfirmed,
    SubscriptionDenied,
    WireEvent,
)
from cti_listener.wire.json_frames import JsonCodec
from cti_listener.wire.stomp import StompCodec

SETTLED: Final = 1.0
"""A life that brought events is stable when it stood this long, in seconds.

Not at the first event: a server that greets with one and hangs up would be met ten times a second.
"""

EARLY: Final = 10_000
"""How many events wait for the confirmation of others' destinations; then it is not waited for."""

NO_DELIVERY: Final = Delivery()

AFTER_PAUSE: Final = 5.0
"""A connection that ends so soon, in seconds, after reading was paused was cut for it."""


class DestinationDeniedError(ConnectError):
    """The server refuses one destination, and ended the session for it."""

    def __init__(self, url: str, destination: str, detail: str) -> None:
        super().__init__(url, f"{destination} is refused: {detail}")
        self.destination = destination
        self.detail = detail


class SubscribingDiedError(ConnectError):
    """The server hung up while a subscription was due, and said nothing of it.

    So does RabbitMQ's Web-STOMP (3.10) when it refuses a durable one: its ERROR frame gets lost.
    """

    def __init__(self, url: str, destination: str, detail: str) -> None:
        super().__init__(url, detail)
        self.destination = destination


class Life:
    """One connection, from opening to its end; the ears of its transport.

    Args:
        plan: What it is to do.
        receiver: Who is told what comes.
        clock: The one clock.
        on_standing: Called with it when every destination stands, and whether that is confirmed.
        past: What is known of the queues that a broker keeps for us, from before; None for a life
            that is not to acknowledge anything.
    """

    def __init__(
        self,
        plan: LifePlan,
        receiver: Receiver,
        clock: Clock,
        on_standing: Callable[[Life, bool], None],
        past: Past | None = None,
    ) -> None:
        """Prepare; nothing is opened yet."""
        self.durable: Durable | None = None
        self._past = past
        self.plan = plan
        self.url = without_secrets(plan.url)
        self.stable = False  # events came, or it stood long enough; known at its end
        self.stood = False  # every destination did, at some time
        self.reason: GapReason = "disconnected"
        self._last_sign = clock.now()  # of life, known at its end
        self._on_standing = on_standing
        self._receiver = receiver
        self._clock = clock
        self._transport: Transport | None = None
        self._codec: Codec | None = None
        loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = loop.create_future()
        self._confirmed: asyncio.Future[None] = loop.create_future()
        self._ended: asyncio.Future[ConnectError] = loop.create_future()
        self._stood_at: float | None = None
        self._liveness = Liveness(plan.options, clock)
        self._closing = False
        self._paused = False
        self._read_on_at: float | None = None
        self._heard_of: set[str | None] = set()
        self._delivery: Delivery | None = None  # of what the read at hand brings
        self._early: list[tuple[EventReceived, Delivery]] = []
        self._warned_of_silence = False

    def __repr__(self) -> str:
        state = "ended" if self._ended.done() else "standing" if self.stood else "opening"
        return f"<Life {self.url} {state}>"

    # The course of a life

    async def open(self) -> None:
        """Connect and shake hands.

        Raises:
            ConnectError: It failed; `RefusedError` if the server said no.
            ConfigurationError: It cannot be tried, or a header of CONNECT cannot be written.
        """
        self._transport = await self.plan.connect(self)
        if self._opened.done():
            self._opened.result()  # or the header that could not be written
        self._liveness.excuse()
        self._flush()

    async def live(self) -> ConnectError:
        """Subscribe, watch over it until it ends; return what ended it."""
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(self._watch())
            try:
                await self._become_standing()
                error = await asyncio.shield(self._ended)
            finally:
                watch.cancel()
        if self._early:  # it ended first; what came all the same is handled, and then the loss told
            self._stand(confirmed=False)
        if self.stood_for >= (SETTLED if self._heard_of else self.plan.options.stable_after):
            self.stable = True
        return error

    async def _become_standing(self) -> None:
        """See to it that every destination stands: confirmed, or after a time without a no."""
        options = self.plan.options
        if not await self._until(self._opened, options.open_timeout):
            self.end(ConnectError(self.url, "the server did not answer CONNECT in time"))
        due = self._codec is not None and self._codec.unconfirmed
        await self._until(self._confirmed, options.receipt_timeout if due else options.grace)
        if not self._ended.done():
            if self._codec is not None and not self.stood:
                self._codec.wait_no_longer()
            self._stand(confirmed=False)

    async def _until(self, future: asyncio.Future[None], timeout: float) -> bool:
        """Wait for one of ours, until the life or the time ends; tell whether it came."""
        with suppress(TimeoutError):
            async with turning(timeout):
                await asyncio.wait((future, self._ended), return_when="FIRST_COMPLETED")
        return future.done() or self._ended.done()

    def _stand(self, *, confirmed: bool) -> None:
        """Tell that it stands, then what came before it did; at once, ahead of what comes next."""
        if self.stood:
            return
        self.stood = True
        self._stood_at = self._clock.monotonic()
        self._on_standing(self, confirmed)
        early, self._early = self._early, []
        for event, delivery in early:
            self._receiver.event_received(event.payload, event.destination, delivery)
        if self.durable is not None:
            self.durable.stands()
            self.durable.take()
            self._flush()
        if self._paused and self._transport is not None:
            self._transport.pause()

    def end(self, error: ConnectError, reason: GapReason | None = None) -> None:
        """End it, if it has not ended; the first reason counts."""
        if not self._ended.done():
            self._ended.set_result(error)
            if reason is not None:
                self.reason = reason
            if not self._closing:
                self._last_sign = self._sign_of_life()
            if self.durable is not None:
                self.durable.ended(noticed=self._is_noticed(reason))

    def _is_noticed(self, reason: GapReason | None) -> bool:
        """Tell whether the server knows of the end: it is not silent, and heard our goodbye."""
        if self._closing and self._transport is not None:
            return self._transport.close_code not in (None, CloseCode.ABNORMAL_CLOSURE)
        return reason != "half_open"

    async def close(self) -> None:
        """Take no more at once, say goodbye, close within the close timeout."""
        if not self._ended.done():
            self._last_sign = self._sign_of_life()  # what comes from now on is not taken
        self._closing = True
        if self._early:  # what came is handled, though the rest was never confirmed
            self._stand(confirmed=False)
        if self._transport is None:
            return
        if self.reason == "half_open":
            self._transport.abort()
        if self.durable is not None and not self._ended.done():
            await self.durable.leave(self.plan.options.close_timeout / 2)
        if self._codec is not None and not self._ended.done():
            self._codec.close()
            self._flush()
        if self._paused:
            self._transport.resume()  # or the goodbye is never read
        try:
            async with asyncio.timeout(self.plan.options.close_timeout):
                await self._transport.close()
        except TimeoutError:  # a peer that takes nothing more can hold up even that
            self._transport.abort()

    # While it stands

    def subscribe(self, destinations: Sequence[str]) -> None:
        """Ask for more."""
        if self._codec is not None:
            self._codec.subscribe(destinations)
            if self._codec.unconfirmed and self._confirmed.done():
                self._confirmed = asyncio.get_running_loop().create_future()
            self._flush()

    def unsubscribe(self, destinations: Sequence[str]) -> None:
        """Ask for these no longer."""
        if self._codec is not None:
            self._codec.unsubscribe(destinations)
            self._flush()

    @property
    def opened(self) -> bool:
        """Whether there was a session: CONNECT was answered, and not by a no."""
        return self._opened.done()

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._ended.done()

    @property
    def last_sign(self) -> datetime:
        """When the last byte came that was taken, aware."""
        over = self._closing or self._ended.done()
        return self._last_sign if over else self._sign_of_life()

    def _sign_of_life(self) -> datetime:
        sign = self._last_heard()
        return sign if self.durable is None else self.durable.covered(sign)

    def _last_heard(self) -> datetime:
        """Return when the last byte came, whatever a queue of ours may hold back."""
        if self._transport is not None:
            self._liveness.last_came(self._transport.silent_for)
        return self._liveness.last_sign

    @property
    def codec(self) -> Codec | None:
        """The session; None before the handshake."""
        return self._codec

    @property
    def stood_for(self) -> float:
        """For how long every destination has stood, in seconds."""
        return 0.0 if self._stood_at is None else self._clock.monotonic() - self._stood_at

    async def confirmed(self) -> bool:
        """Wait until what was asked for since is confirmed, or that takes too long.

        Returns:
            Whether the life goes on.
        """
        if self._codec is not None and self._codec.unconfirmed:
            await self._until(self._confirmed, self.plan.options.receipt_timeout)
            self._codec.wait_no_longer()
        return not self._ended.done()

    def pause(self) -> None:
        """Read nothing; while that lasts, silence is our own doing."""
        self._paused = True
        # Before it stands it must read on, or CONNECTED never comes; what is early is bounded.
        if self.stood and self._transport is not None:
            self._transport.pause()

    def resume(self) -> None:
        """Read on."""
        self._paused = False
        self._read_on_at = self._clock.monotonic()
        self._liveness.excuse()
        if self._transport is not None and not self._ended.done():
            self._transport.resume()

    # The ears of the transport

    def about_to_read(self) -> None:
        """Note that what is unread from now on came later."""
        self._liveness.reading()

    def bytes_received(self, *, more: bool) -> None:
        """Note a sign of life: any byte is one."""
        self._liveness.heard(more=more)
        self._delivery = None

    def handshake_done(self, subprotocol: str | None) -> None:
        """Begin the session: messages may come with the very next byte."""
        try:
            self._codec = self.plan.make_codec(subprotocol)
            self._codec.open()
        except ConfigurationError as error:  # a header that STOMP cannot carry, or no STOMP at all
            self._opened.set_exception(error)
        queues = self._codec.queues if isinstance(self._codec, StompCodec) else None
        if queues is not None and self._past is not None:
            self.durable = Durable(
                queues,
                self._past,
                self._receiver,
                self._clock,
                place=self.plan.place,
                feed=self.plan.feed,
                flush=self._flush,
            )
        self._take_events(NO_DELIVERY)

    def message_received(self, data: bytes) -> None:
        """Take a whole message, unless we are leaving."""
        codec = self._codec
        if self._closing or codec is None:
            return
        # One for all that a read brings: it came at once, and a journal has many of them waiting.
        delivery = self._delivery
        if delivery is None:
            delivery = Delivery(self._clock.now(), self.plan.feed, self.plan.zone)
            self._delivery = delivery
        recall = self._receiver.message_received(delivery, codec.wire)
        lone = codec.lone_event(data, recall) if self.stood and self.durable is None else None
        if lone is not None:
            payload, destination, text = lone
            self._heard_of.add(destination)
            if payload is not None:
                self._receiver.event_received(payload, destination, delivery, text)
        else:
            codec.receive_data(data)
            self._take_events(delivery)

    def bytes_taken(self, *, whole: bool) -> None:
        """Note that what came in part happened before this read, if the rest of it never comes."""
        if not whole or (self._codec is not None and self._codec.unfinished):
            self._liveness.not_taken()

    def stream_broken(self, *, oversized: bool) -> None:
        """End it at once: nothing of what follows is ever read."""
        self._liveness.not_taken()
        if oversized:
            detail = f"a message above max_size ({self.plan.options.max_size} bytes)"
            self.end(ConnectError(self.url, detail), "oversized")
        else:
            self.end(ConnectError(self.url, "the server sent what is no WebSocket frame"))

    def connection_lost(self) -> None:
        """Note that the TCP connection is gone, and why as far as can be told."""
        transport = self._transport
        code = transport.close_code if transport is not None else None
        resumed = self._read_on_at
        now = self._clock.monotonic()
        if self._paused or (resumed is not None and now - resumed < AFTER_PAUSE):
            detail = "cut while reading was paused for a slow handler"
            self.end(ConnectError(self.url, detail), "slow_consumer")
        elif code in (None, CloseCode.ABNORMAL_CLOSURE):
            self.end(ConnectError(self.url, "the connection broke"))
        else:
            reason = self._discreet(transport.close_reason or "") if transport else ""
            detail = f"the server closed with code {code}{f' ({reason})' if reason else ''}"
            due = self._codec.unconfirmed if self._codec is not None and not self.stood else ()
            if due and self._opened.done():
                detail += f" when asked for {due[0]}; its log may say why"
                self.end(SubscribingDiedError(self.url, due[0], detail))
            else:
                self.end(ConnectError(self.url, detail))

    # What the codec says

    def _take_events(self, delivery: Delivery) -> None:
        codec = self._codec
        if codec is None:
            return
        for event in codec.events_received():
            if type(event) is EventReceived:
                self._heard_of.add(event[1])
                if self.stood:
                    self._receiver.event_received(event[0], event[1], delivery)
                else:
                    self._take_early(event, delivery)
            elif type(event) is LateEvent:
                self._take_late(event, replace(delivery, late=True))
            else:
                self._take_session_event(event)
                self._flush()
        if self.durable is not None and self.stood:
            self.durable.take()
            self._flush()

    def _take_late(self, event: EventReceived, delivery: Delivery) -> None:
        if self.stood:
            self._receiver.event_received(event.payload, event.destination, delivery)
        else:
            self._take_early(event, delivery)

    def _take_early(self, event: EventReceived, delivery: Delivery) -> None:
        """Keep an event until every destination stands; it is itself proof for its own."""
        self._early.append((event, delivery))
        if self._codec is not None:
            self._codec.prove(event.destination)
            if not self._codec.unconfirmed or len(self._early) > EARLY:
                confirmed = self._codec.confirms and not self._codec.unconfirmed
                self._stand(confirmed=confirmed)

    def _take_session_event(self, event: WireEvent) -> None:  # noqa: C901 - a table
        match event:
            case SessionOpened():
                self._liveness.heartbeat_send = event.heartbeat_send
                if self.durable is not None:
                    self.durable.opened(event.heartbeat_send)
                if not self._opened.done():
                    self._opened.set_result(None)
                server = self._discreet(event.server)
                log.debug("session_opened", server=server, heartbeat=event.heartbeat_receive)
            case SubscriptionConfirmed():
                if self._codec is not None and not self._codec.unconfirmed:
                    self._stand(confirmed=True)
                    if not self._confirmed.done():
                        self._confirmed.set_result(None)
            case SubscriptionDenied():
                detail = self._discreet(event.detail)
                self.end(DestinationDeniedError(self.url, event.destination, detail), "refused")
            case SessionDenied():
                self.end(RefusedError(self.url, self._discreet(event.detail)), "refused")
            case SessionEnded():
                self.end(SessionError(self.url, self._discreet(event.detail)))
            case MessageBad():
                self._receiver.message_bad(
                    replace(
                        event,
                        detail=self._discreet(event.detail),
                        sample=self.plan.discretion.data(event.sample),
                    )
                )
            case EventReceived():  # taken before; here for the type checker
                pass

    def _discreet(self, text: str) -> str:
        """Take out of the server's words what we told it in confidence."""
        return self.plan.discretion.words(text)

    def _flush(self) -> None:
        """Send what the codec asks to have sent."""
        if self._transport is None or self._codec is None:
            return
        for data in self._codec.data_to_send():
            self._transport.post(data)
            self._liveness.sent()

    # Watching over it

    async def _watch(self) -> None:
        """Judge every tick whether the peer lives, and show it that we do."""
        liveness, transport, codec = self._liveness, self._transport, self._codec
        if transport is None or codec is None:
            return
        while True:
            await liveness.tick()
            if liveness.heartbeat_due:
                codec.heartbeat()
                self._flush()
            if not self._paused and await liveness.is_dead():
                detail = f"nothing came for {liveness.silence:.0f} s, not even answers to pings"
                self.end(ConnectError(self.url, detail), "half_open")
            elif not self._paused and liveness.ping_due:
                transport.post_ping()
                liveness.asked()
            self._mind_silent_destinations()
            self._mind_backlog()

    def _mind_backlog(self) -> None:
        """See whether all is in that a broker kept for us."""
        if self.durable is None or self._ended.done():
            return
        self.durable.renew()
        if self.stood and not self._closing:  # what comes then is read no more
            overflow = self.durable.tick(self._last_heard(), reading=not self._paused)
            self._flush()
            if overflow is not None:
                self.end(ConnectError(self.url, overflow), "slow_consumer")

    def _mind_silent_destinations(self) -> None:
        """Warn once: a confirmed topic may be one that never matches."""
        limit = self.plan.options.silent_after
        if self._warned_of_silence or not limit or self._stood_at is None:
            return
        if self._clock.monotonic() - self._stood_at < limit:
            return
        self._warned_of_silence = True
        if self._codec is None or isinstance(self._codec, JsonCodec):
            return  # what subscribes there is a message: no destination, and it may hold a token
        for destination in self._codec.destinations:
            if destination not in self._heard_of:
                hint = "nothing came by it; is it the right one? See --topic (topics=)"
                log.warning("destination_silent", destination=destination, seconds=limit, hint=hint)
