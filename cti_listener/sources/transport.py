"""One WebSocket connection: how it is opened, and what its errors mean.

`Transport` takes whole data frames before `websockets` queues them, so that no message wakes a
task. What
that bypasses is done here: fragments are joined, and reading is paused when the listener asks for
it.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    InvalidHandshake,
    InvalidProxy,
    InvalidStatus,
    InvalidURI,
    ProxyError,
)
from websockets.frames import DATA_OPCODES, CloseCode, Frame
from websockets.protocol import OPEN, Event
from websockets.typing import Origin, Subprotocol

from cti_listener.errors import ConfigurationError, ConnectError, RefusedError
from cti_listener.sources.options import ConnectionOptions, Credentials
from cti_listener.wire.stomp import SUBPROTOCOLS

READ_SIZE = 32 * 1024
"""How much is read at once, in bytes."""

REFUSALS = frozenset({401, 403, 404})
"""HTTP statuses of the handshake that say no, rather than not now."""


class Ears(Protocol):
    """Who listens to a transport."""

    def bytes_received(self) -> None:
        """Note a sign of life."""

    def handshake_done(self, subprotocol: str | None) -> None:
        """Note that messages may come from now on."""

    def message_received(self, data: bytes) -> None:
        """Take a whole message."""

    def connection_lost(self) -> None:
        """Note that nothing more will come."""


class Transport(ClientConnection, asyncio.BufferedProtocol):
    """A connection that hands whole messages over as they arrive.

    It reads into a buffer of its own: what one read brings is taken before a handler runs, and the
    quarter of a megabyte that asyncio reads otherwise is some 500 events alive at once, which the
    garbage collector then goes over again and again.
    """

    ears: Ears
    _shaken = False  # hands; a redirect's connection never is
    _fragments: bytearray | None = None
    _buffer: memoryview | None = None  # asyncio's TLS fills slices of it, which must not be copies

    def get_buffer(self, sizehint: int) -> memoryview:
        """Say where to read to."""
        del sizehint  # what asyncio would like is more than is good for us
        if self._buffer is None:
            self._buffer = memoryview(bytearray(READ_SIZE))
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take bytes from the socket."""
        self.ears.bytes_received()
        if self._buffer is not None:
            self.data_received(bytes(self._buffer[:nbytes]))

    def connection_lost(self, exc: Exception | None) -> None:
        """Learn that the TCP connection is gone."""
        super().connection_lost(exc)
        if self._shaken:
            self.ears.connection_lost()

    def process_event(self, event: Event) -> None:
        """Take the handshake's response, then frames."""
        if self.response is None:
            super().process_event(event)
            if self.protocol.handshake_exc is None:
                self._shaken = True
                self.ears.handshake_done(self.protocol.subprotocol)
        elif isinstance(event, Frame) and event.opcode in DATA_OPCODES:
            self._data_frame(event)
        else:
            super().process_event(event)

    def _data_frame(self, frame: Frame) -> None:
        """Join fragments; the protocol has checked their order and their total size."""
        if self._fragments is None and frame.fin:
            self.ears.message_received(bytes(frame.data))
            return
        if self._fragments is None:
            self._fragments = bytearray()
        self._fragments += frame.data
        if frame.fin:
            whole, self._fragments = bytes(self._fragments), None
            self.ears.message_received(whole)

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

    def abort(self) -> None:
        """Drop the connection without a word."""
        self.transport.abort()

    @property
    def was_oversized(self) -> bool:
        """Whether we ended it for a message above `max_size` (RFC 6455, 7.4.1: code 1009)."""
        sent = self.protocol.close_sent
        return sent is not None and sent.code == CloseCode.MESSAGE_TOO_BIG


async def open_transport(
    url: str,
    *,
    ears: Ears,
    options: ConnectionOptions,
    credentials: Credentials,
    stomp: bool,
) -> Transport:
    """Connect, through proxy and TLS as told, and shake hands.

    Raises:
        RefusedError: The server or its certificate said no.
        ConnectError: Anything else went wrong.
        ConfigurationError: The URL, a file or the proxy cannot be used.
    """

    def create(*args: Any, **kwargs: Any) -> Transport:
        transport = Transport(*args, **kwargs)
        transport.ears = ears
        return transport

    extra: dict[str, Any] = {}
    if url.startswith("wss:"):
        extra["ssl"] = options.ssl_context or _tls(options)
    try:
        return await connect(  # type: ignore[return-value]  # it is what `create` made
            url,
            create_connection=create,  # type: ignore[arg-type]  # a factory will do
            subprotocols=[Subprotocol(name) for name in SUBPROTOCOLS] if stomp else None,
            origin=Origin(options.origin) if options.origin else None,
            additional_headers=_headers(options, credentials),
            compression="deflate" if options.compression else None,
            proxy=options.proxy,
            open_timeout=options.open_timeout,
            close_timeout=options.close_timeout,
            max_size=options.max_size,
            ping_interval=None,  # liveness is judged by bytes, in sources.websocket
            **extra,
        )
    except Exception as error:
        raise _meaning_of(error, without_secrets(url)) from error


def _headers(options: ConnectionOptions, credentials: Credentials) -> Mapping[str, str]:
    headers = {**options.headers, **credentials.headers}
    if credentials.token:
        headers["Authorization"] = f"Bearer {credentials.token}"
    if credentials.cookie:
        headers["Cookie"] = credentials.cookie
    return headers


def _tls(options: ConnectionOptions) -> ssl.SSLContext:
    """Build a context that verifies, always; certificates are read afresh for each attempt."""
    try:
        context = ssl.create_default_context(cafile=options.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            "ca_file", f"cannot be read: {options.ca_file}: {error}"
        ) from error
    if options.cert_file:
        try:
            context.load_cert_chain(options.cert_file, options.key_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(
                "cert_file", f"cannot be read with its key: {options.cert_file}: {error}"
            ) from error
    return context


def without_secrets(url: str) -> str:
    """Return a URL without user, password and query values, fit for a log."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def _meaning_of(error: Exception, url: str) -> Exception:  # noqa: C901, PLR0911, PLR0912 - a table
    """Turn what `websockets`, TLS and the system raise into this package's errors."""
    match error:
        case ConfigurationError() | ConnectError():
            return error
        case InvalidURI():
            return ConfigurationError(
                "url", f"{url!r} is no WebSocket URL; it begins with ws:// or wss://"
            )
        case InvalidProxy() | ImportError():
            return ConfigurationError("proxy", str(error))
        case InvalidStatus():
            return _meaning_of_status(error, url)
        case ssl.SSLCertVerificationError():
            return RefusedError(
                url, f"its certificate is not trusted: {error.verify_message}; see ca_file"
            )
        case ssl.SSLError():
            return ConnectError(
                url, f"TLS failed: {error.reason or error}; does it speak TLS (wss)?"
            )
        case ProxyError():
            return ConnectError(url, f"the proxy failed: {error}")
        case InvalidHandshake():
            return ConnectError(url, f"no WebSocket handshake: {error}; is the path right?")
        case TimeoutError():
            return ConnectError(url, "no answer in time (open_timeout)")
        case socket.gaierror():
            return ConnectError(url, f"the host name cannot be resolved: {error.strerror}")
        case OSError() if _nobody_listens(error):
            return ConnectError(url, "nothing listens on that port", no_listener=True)
        case ConnectionError():
            hint = "; does it speak TLS (wss)?" if url.startswith("wss:") else ""
            return ConnectError(url, f"the server hung up while the connection was opened{hint}")
        case OSError():
            return ConnectError(url, f"cannot connect: {error.strerror or error}")
        case _:
            return error


def _nobody_listens(error: OSError) -> bool:
    """Tell a refused TCP connection, also where several addresses were tried."""
    return error.errno == errno.ECONNREFUSED or (
        error.errno is None and f"[Errno {errno.ECONNREFUSED}]" in str(error)
    )


def _meaning_of_status(error: InvalidStatus, url: str) -> ConnectError:
    status = error.response.status_code
    hints = {
        401: "who are you? Give credentials (token, cookie, login), or renew them",
        403: "these credentials may not",
        404: "no such path; STOMP is at /mvc/stomp/websocket",
    }
    if status in REFUSALS:
        return RefusedError(url, f"HTTP {status}: {hints[status]}")
    return ConnectError(url, f"HTTP {status} instead of a WebSocket handshake")
