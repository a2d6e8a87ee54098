"""One session with the server, taken step by step and watched: for `connecting`.

It speaks as a life of the listener does, by the same transport, codecs and plan, but acts on
nothing: it notes when each step was taken, and counts what comes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Final

from cti_listener.errors import ConfigurationError, ConnectError, RefusedError, SessionError
from cti_listener.sources.patience import turning
from cti_listener.sources.transport import Transport
from cti_listener.values import routing_key
from cti_listener.wire.base import (
    Codec,
    EventReceived,
    MessageBad,
    SessionDenied,
    SessionEnded,
    SessionOpened,
    SubscriptionConfirmed,
    SubscriptionDenied,
    WireEvent,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from cti_listener.interest import Interest
    from cti_listener.sources.endpoints import LifePlan

_SHARE_OF_HEARTBEAT: Final = 0.5
"""A heart-beat is sent when so much of the time has passed in which the server wants one."""


class Session:
    """A session with one endpoint; the ears of its transport.

    Args:
        plan: Where to connect and what to say.
        url: The endpoint, without credentials.
        interest: Who was asked for.

    Attributes:
        subprotocol: What the server chose, if anything.
        opened: What it said of the session; None until then, or where the wire has no such word.
        confirmed: The destinations it confirmed, in order.
        came: How many events came, by their destination.
        wanted: How many of these were about somebody asked for.
        bad: How many messages were no events, by reason.
    """

    def __init__(self, plan: LifePlan, url: str, interest: Interest) -> None:
        """Prepare; nothing is opened yet."""
        self.subprotocol: str | None = None
        self.opened: SessionOpened | None = None
        self.confirmed: list[str] = []
        self.came: Counter[str | None] = Counter()
        self.wanted: Counter[str | None] = Counter()
        self.bad: Counter[str] = Counter()
        self._plan = plan
        self._url = url
        self._interest = interest
        self._transport: Transport | None = None
        self._codec: Codec | None = None
        self._unwritable: ConfigurationError | None = None
        self._happened = asyncio.Event()
        self._error: ConnectError | None = None

    @property
    def codec(self) -> Codec:
        """What is spoken, once hands are shaken."""
        assert self._codec is not None  # noqa: S101 - for the type checker: `connect` came first
        return self._codec

    # Steps

    async def connect(self) -> None:
        """Shake hands.

        Raises:
            ConnectError: It failed; `RefusedError` if the server said no.
            ConfigurationError: It cannot be tried, or a header of CONNECT cannot be written.
        """
        self._transport = await self._plan.connect(self)
        if self._unwritable is not None:
            raise self._unwritable
        self._flush()

    async def be_opened(self) -> SessionOpened:
        """Wait for the server to accept the session.

        Raises:
            ConnectError: It does not, or not in time.
        """
        await self._until(lambda: self.opened is not None, self._plan.options.open_timeout)
        if self.opened is None:
            raise ConnectError(
                self._url,
                "the server took CONNECT and did not answer in time (open_timeout); does it speak"
                " STOMP on this path? See --wire",
            )
        return self.opened

    async def be_confirmed(self, count: int) -> bool:
        """Wait for so many destinations to be confirmed; tell whether they were, in time.

        Raises:
            ConnectError: One was refused, or the session ended.
        """
        timeout = self._plan.options.receipt_timeout
        await self._until(lambda: len(self.confirmed) >= count, timeout)
        return len(self.confirmed) >= count

    async def listen(self, seconds: float) -> None:
        """Take what comes for so long.

        Raises:
            ConnectError: The session ended meanwhile.
        """
        self.codec.wait_no_longer()
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        beat = (self.opened.heartbeat_send if self.opened else 0.0) * _SHARE_OF_HEARTBEAT
        while (left := until - loop.time()) > 0:
            await self._until(lambda: False, min(left, beat) if beat else left)
            self.codec.heartbeat()
            self._flush()

    async def close(self) -> None:
        """Say goodbye, within the close timeout."""
        if self._transport is None:
            return
        if self._codec is not None and self._error is None:
            self._codec.close()
            self._flush()
        try:
            async with asyncio.timeout(self._plan.options.close_timeout):
                await self._transport.close()
        except TimeoutError:
            self._transport.abort()

    async def _until(self, done: Callable[[], bool], seconds: float) -> None:
        """Wait until this holds or the time is over; raise what ended the session before."""
        try:
            async with turning(seconds):
                while self._error is None and not done():
                    self._happened.clear()
                    await self._happened.wait()
        except TimeoutError:
            pass
        if self._error is not None:
            raise self._error

    # The ears of the transport

    def about_to_read(self) -> None:
        """Note nothing: no gap is measured here."""

    def bytes_received(self, *, more: bool) -> None:
        """Note nothing, as above."""

    def bytes_taken(self, *, whole: bool) -> None:
        """Note nothing, as above."""

    def handshake_done(self, subprotocol: str | None) -> None:
        """Begin the session."""
        self.subprotocol = subprotocol
        try:
            self._codec = self._plan.make_codec(subprotocol)
            self._codec.open()
        except ConfigurationError as error:
            self._unwritable = error

    def message_received(self, data: bytes) -> None:
        """Take a whole message."""
        if self._codec is not None:
            self._codec.receive_data(data)
            for event in self._codec.events_received():
                self._take(event)
            self._flush()

    def stream_broken(self, *, oversized: bool) -> None:
        """End it: nothing of what follows is ever read."""
        if oversized:
            size = self._plan.options.max_size
            self._end(ConnectError(self._url, f"a message above max_size ({size} bytes) came"))
        else:
            self._end(ConnectError(self._url, "the server sent what is no WebSocket frame"))

    def connection_lost(self) -> None:
        """End it, and say why as far as can be told."""
        code = self._transport.close_code if self._transport is not None else None
        how = "broke" if code is None else f"was closed by the server, with code {code}"
        due = self._codec.unconfirmed if self._codec is not None else ()
        about = f" when asked for {due[0]}; its log may say why" if due and self.opened else ""
        self._end(ConnectError(self._url, f"the connection {how}{about}"))

    # What the codec says

    def _take(self, event: WireEvent) -> None:
        match event:
            case EventReceived():
                self._count(event)
            case SessionOpened():
                self.opened = event
            case SubscriptionConfirmed():
                self.confirmed.append(event.destination)
            case SubscriptionDenied():
                words = f"{event.destination} is refused: {self._discreet(event.detail)}"
                self._end(RefusedError(self._url, f"{words}; is it the right one? See --topic"))
            case SessionDenied():
                self._end(
                    RefusedError(
                        self._url,
                        f"{self._discreet(event.detail)}; are login and passcode right (CTI_LOGIN,"
                        " CTI_PASSCODE), and the virtual host (vhost)?",
                    )
                )
            case SessionEnded():
                self._end(SessionError(self._url, self._discreet(event.detail)))
            case MessageBad():
                self.bad[event.reason] += event.count
        self._happened.set()

    def _count(self, event: EventReceived) -> None:
        payload, destination = event
        self.came[destination] += 1
        if self._interest.wants(payload, routing_key(payload), destination):
            self.wanted[destination] += 1

    def _end(self, error: ConnectError) -> None:
        self._error = self._error or error
        self._happened.set()

    def _discreet(self, text: str) -> str:
        """Take out of the server's words what we told it in confidence."""
        return self._plan.discretion.words(text)

    def _flush(self) -> None:
        """Send what the codec asks to have sent."""
        if self._transport is not None and self._codec is not None:
            for data in self._codec.data_to_send():
                self._transport.post(data)
