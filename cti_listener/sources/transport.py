"""One WebSocket connection, and how it is opened; `meanings` says what its errors mean.

`Transport` takes plain messages before `websockets` sees them (`frames`), and other data frames
before it queues them, so that no message wakes a task. What that bypasses is done here: fragments
are joined, and reading is paused when the listener asks for it, or while the peer does not read
what we answer.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, Literal, Protocol

from websockets.asyncio.client import (  # type: ignore[attr-defined]  # they moved; here in all
    ClientConnection,
    connect,
    get_proxy,
    parse_proxy,
)
from websockets.exceptions import (
    InvalidProxy,
    InvalidURI,
)
from websockets.frames import DATA_OPCODES, CloseCode, Frame
from websockets.protocol import OPEN, Event
from websockets.typing import Origin, Subprotocol
from websockets.uri import parse_uri

from cti_listener.discretion import Discretion, in_url
from cti_listener.errors import ConfigurationError
from cti_listener.sources.frames import Frames
from cti_listener.sources.meanings import (
    Seen,
    discreet,
    meaning_at_proxy,
    meaning_of,
    printable,
    without_secrets,
)
from cti_listener.sources.options import ConnectionOptions, Credentials
from cti_listener.sources.patience import turning
from cti_listener.sources.tls import context_for
from cti_listener.wire.stomp import SUBPROTOCOLS

READ_SIZE = 32 * 1024
"""How much is read at once, in bytes."""

HEAD_END: Final = b"\r\n\r\n"
"""Behind the head of an HTTP response."""

_TCP_INFO: Final[int | None] = getattr(socket, "TCP_INFO", None)
_LAST_DATA_RECV: Final = slice(52, 56)
"""Where Linux tells in it how many milliseconds ago the last data came (`tcp_info`, tcp(7))."""

_Hold = Literal["asked", "unsent"]


class Ears(Protocol):
    """Who listens to a transport."""

    def about_to_read(self) -> None:
        """Note that the socket is read now."""

    def bytes_received(self, *, more: bool) -> None:
        """Note a sign of life, and whether there may be more, unread."""

    def handshake_done(self, subprotocol: str | None) -> None:
        """Note that messages may come from now on."""

    def message_received(self, data: bytes) -> None:
        """Take a whole message."""

    def bytes_taken(self, *, whole: bool) -> None:
        """Note that what was read is taken, and whether no message came in part."""

    def stream_broken(self, *, oversized: bool) -> None:
        """Note that what follows is not read: a message is too large, or no frame."""

    def connection_lost(self) -> None:
        """Note that nothing more will come."""


class Transport(ClientConnection, asyncio.BufferedProtocol):
    """A connection that hands whole messages over as they arrive.

    It reads into a buffer of its own: what one read brings is taken before a handler runs, and the
    quarter of a megabyte that asyncio reads otherwise is some 500 events alive at once, which the
    garbage collector then goes over again and again.
    """

    ears: Ears
    max_size: int
    beginning = b""  # of what came; enough to tell what answers
    broken_by: Exception | None = None  # what ended the TCP connection, if nobody closed it
    _heard = b""  # last, as long as the response's head may end within it
    _frames: Frames | None = None  # once hands are shaken; a redirect's connection never does
    _fragments: bytearray | None = None
    _buffer: memoryview | None = None  # asyncio's TLS fills slices of it, which must not be copies
    _holds: frozenset[_Hold] = frozenset()  # why nothing is read

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take what `websockets` hands over; lines logged of what comes are about this life."""
        super().__init__(*args, **kwargs)
        self._context = contextvars.copy_context()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Say where to read to."""
        del sizehint  # what asyncio would like is more than is good for us
        if self._buffer is None:
            self._buffer = memoryview(bytearray(READ_SIZE))
        self.ears.about_to_read()
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take bytes from the socket."""
        self.ears.bytes_received(more=nbytes == READ_SIZE)
        if self._buffer is not None:
            data = bytes(self._buffer[:nbytes])
            self.beginning = self.beginning or data[:8]
            if self._frames is None:
                self._receive_head(data)
            else:
                self._frames.receive_data(data)
            self._mind_what_was_read()

    def _receive_head(self, data: bytes) -> None:
        """Have hands shaken; what comes behind the head of the response are frames."""
        heard = self._heard + data
        end = heard.find(HEAD_END)
        size = len(data) if end < 0 else end + len(HEAD_END) - len(self._heard)
        self._heard = heard[1 - len(HEAD_END) :]
        self.data_received(data[:size])
        if size < len(data):
            receive = self.data_received if self._frames is None else self._frames.receive_data
            receive(data[size:])

    def _leave(self, data: bytes) -> bool:
        """Have `websockets` read other frames; tell whether plain ones may follow."""
        self.data_received(data)
        ended = self.protocol.close_rcvd is not None or self.protocol.parser_exc is not None
        return self._fragments is None and not ended

    def _mind_what_was_read(self) -> None:
        """Tell whether there is more to come of it."""
        if self._frames is None:
            return
        if self.protocol.parser_exc is not None:
            # From here on all is discarded, for as long as the peer goes on.
            self.ears.stream_broken(oversized=self._was_oversized)
        else:
            ended = self.protocol.close_rcvd is not None  # nothing behind is read
            whole = self._fragments is None and self._frames.whole
            self.ears.bytes_taken(whole=whole or ended)

    def connection_lost(self, exc: Exception | None) -> None:
        """Learn that the TCP connection is gone."""
        self.broken_by = exc
        if not hasattr(self, "transport"):
            return  # TLS failed on the far side of a proxy: it never was a connection
        super().connection_lost(exc)
        if self._frames is not None:
            self.ears.connection_lost()

    def process_event(self, event: Event) -> None:
        """Take frames, after the handshake's response."""
        if self._frames is None:
            super().process_event(event)
            if self.response is not None and self.protocol.handshake_exc is None:
                take = self.ears.message_received
                self._frames = Frames(take, self._leave, max_size=self.max_size)
                self.ears.handshake_done(self.protocol.subprotocol)
        elif not isinstance(event, Frame) or event.opcode not in DATA_OPCODES:
            super().process_event(event)
        elif event.fin and self._fragments is None:
            data = event.data
            self.ears.message_received(data if type(data) is bytes else bytes(data))
        else:
            self._take_fragment(event)

    def _take_fragment(self, frame: Frame) -> None:
        """Join fragments; the protocol has checked their order and their total size."""
        if self._fragments is None:
            self._fragments = bytearray()
        self._fragments += frame.data
        if frame.fin:
            whole, self._fragments = bytes(self._fragments), None
            self.ears.message_received(whole)

    def pause(self) -> None:
        """Read nothing until `resume()`."""
        self._hold("asked")

    def resume(self) -> None:
        """Read on, once the peer has also taken what is unsent."""
        self._release("asked")

    def pause_writing(self) -> None:
        """Read nothing while the peer does not: each ping we read would add a pong to send."""
        super().pause_writing()
        self._hold("unsent")

    def resume_writing(self) -> None:
        """Read on, unless we were asked not to."""
        super().resume_writing()
        self._release("unsent")

    def _hold(self, why: _Hold) -> None:
        self._holds |= {why}
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def _release(self, why: _Hold) -> None:
        self._holds -= {why}
        if not self._holds and not self.transport.is_closing():
            # What comes is read in the context of this call, which may be some handler's.
            self._context.run(self.transport.resume_reading)

    def post(self, data: bytes) -> None:
        """Send a text message now; it is dropped if the connection is closing."""
        if self.protocol.state is OPEN:
            self.protocol.send_text(data)
            self.send_data()

    def post_ping(self) -> None:
        """Send a ping now; any byte that comes back counts as its answer."""
        if self.protocol.state is OPEN:
            self.protocol.send_ping(b"")
            self.send_data()

    @property
    def silent_for(self) -> float:
        """For how long the system has had nothing from the peer, in seconds.

        0 where it does not say: on other systems than Linux, and once the socket is closed.
        """
        connection = self.transport.get_extra_info("socket")
        if connection is None or _TCP_INFO is None:
            return 0.0
        with suppress(OSError):
            info = connection.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _LAST_DATA_RECV.stop)
            return int.from_bytes(info[_LAST_DATA_RECV], sys.byteorder) / 1000
        return 0.0

    def abort(self) -> None:
        """Drop the connection without a word."""
        self.transport.abort()

    @property
    def _was_oversized(self) -> bool:
        """Whether we ended it for a message above `max_size` (RFC 6455, 7.4.1: code 1009)."""
        sent = self.protocol.close_sent
        return sent is not None and sent.code == CloseCode.MESSAGE_TOO_BIG


class _Dial(connect):
    """Connects where it was told to and nowhere else."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Follow none: our credentials are for this server, and only its URL was checked."""
        return exc


class _DiscreetLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger without DEBUG, where `websockets` would show tokens, cookies and the query."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - logging's name
        """Tell whether to log at this level."""
        return level > logging.DEBUG and super().isEnabledFor(level)


_NOTHING_SECRET: Final = Discretion()

_LOGGER: Final = _DiscreetLogger(logging.getLogger("cti_listener.websockets"), {})


async def open_transport(
    url: str,
    *,
    ears: Ears,
    options: ConnectionOptions,
    credentials: Credentials,
    stomp: bool,
    discretion: Discretion = _NOTHING_SECRET,
) -> Transport:
    """Connect, through proxy and TLS as told, and shake hands.

    Raises:
        RefusedError: The server or its certificate said no, or sent us elsewhere.
        ConnectError: Anything else went wrong.
        ConfigurationError: The URL, a file or the proxy cannot be used.
    """
    made: Transport | None = None  # once the proxy, if any, has connected us

    def create(*args: Any, **kwargs: Any) -> Transport:
        nonlocal made
        made = Transport(*args, **kwargs)
        made.ears = ears
        made.max_size = options.max_size
        return made

    extra: dict[str, Any] = {}
    if url.startswith("wss:"):
        extra["ssl"] = options.ssl_context or context_for(options)
    proxy_url = proxy_for(url, options)
    discretion = discretion.about(in_url(proxy_url or ""))
    try:
        async with turning(options.open_timeout):
            return await _Dial(  # type: ignore[return-value]  # it is what `create` made
                url,
                create_connection=create,  # type: ignore[arg-type]  # a factory will do
                subprotocols=[Subprotocol(name) for name in SUBPROTOCOLS] if stomp else None,
                origin=Origin(options.origin) if options.origin else None,
                additional_headers=_headers(options, credentials),
                compression="deflate" if options.compression else None,
                proxy=proxy_url,
                logger=_LOGGER,
                open_timeout=None,
                close_timeout=options.close_timeout,
                max_size=options.max_size,
                ping_interval=None,  # liveness is judged by bytes, in `liveness`
                **extra,
            )
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told as one of ours
        seen = Seen(
            beginning=made.beginning if made else b"",
            broken_by=made.broken_by if made else None,
            certificate=bool(options.cert_file or options.ssl_context),
            printable=printable(error, discretion),
        )
        if proxy_url is not None and made is None:
            meaning = meaning_at_proxy(error, without_secrets(url), seen, parse_proxy(proxy_url))
        else:
            meaning = meaning_of(error, without_secrets(url), seen)
    try:
        # Out here, so that it carries no trace of theirs but what is fit to be printed.
        raise discreet(meaning, discretion) from seen.printable
    finally:
        del meaning, seen  # which hold this frame


def proxy_for(url: str, options: ConnectionOptions) -> str | None:
    """Return the URL of the proxy to go through, if any.

    Raises:
        ConfigurationError: It is none, or the server's URL is none.
    """
    why = None
    try:
        proxy: str | None = get_proxy(parse_uri(url)) if options.proxy is True else options.proxy
    except InvalidURI as error:
        raise meaning_of(error, without_secrets(url), Seen()) from None
    try:
        if proxy is not None:
            parse_proxy(proxy)
    except InvalidProxy as error:
        why = error.msg
    except ValueError:
        why = "it cannot be read"
    if why is not None:  # raised out here: theirs holds the password
        raise ConfigurationError(
            "proxy", f"is no proxy's URL: {why}; it looks like http://HOST:PORT"
        )
    return proxy


def _headers(options: ConnectionOptions, credentials: Credentials) -> Mapping[str, str]:
    return {**options.headers, **credentials.http_headers}
