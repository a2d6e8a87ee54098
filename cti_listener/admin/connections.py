"""Connections to the admin endpoint, bounded in number and in the time they may take.

aiohttp limits the length of headers, and idle connections; how many there are, how slowly the first
head may come and how long an answer may be read is limited here.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Final

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage

from cti_listener.admin.replies import ALWAYS, refused

MOST: Final = 200
"""So many connections are taken at once."""

RESERVED: Final = 20
"""So many more are taken for probes: a keeper must hear of us however many others ask."""

HEAD_TIMEOUT: Final = 5.0
"""How long the head of the first request may take, in seconds."""

ANSWER_TIMEOUT: Final = 30.0
"""How long an answer may take to be read, in seconds; streams have limits of their own."""

STREAM_BUFFER: Final = 64 * 1024
"""How much of a stream the system may hold for a reader, in bytes."""

IDLE: Final = 15.0
"""How long a connection is kept for the next request, in seconds."""

LONGEST_LINE: Final = 4096
MOST_HEADERS: Final = 64
MOST_BODY: Final = 4096


class Connection(web.RequestHandler):
    """One connection.

    Attributes:
        reserved: It is one of those for probes only.
    """

    __slots__ = ("_deadline", "_door", "reserved")

    def __init__(self, door: Door, **options: Any) -> None:
        """Belong to this door."""
        super().__init__(door, **options)
        self.reserved = False
        self._door = door
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take it, if there is room."""
        room = self._door.come(self)
        super().connection_made(transport)
        self._limit(HEAD_TIMEOUT if room else 0.0)
        if not room and isinstance(transport, asyncio.Transport):
            transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Make room."""
        self.unlimited()
        self._door.go(self)
        super().connection_lost(exc)

    def asked(self) -> None:
        """Note that a head is there; from now on its answer is waited for."""
        self._limit(ANSWER_TIMEOUT)

    def keep_little(self) -> None:
        """Have the system hold little of what is sent, so that who reads nothing costs little."""
        sock = None if self.transport is None else self.transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, STREAM_BUFFER)

    def unlimited(self) -> None:
        """Let it take as long as it takes."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    async def finish_response(self, *args: Any) -> Any:
        """Send the answer; then what comes next is limited as an idle connection."""
        try:
            return await super().finish_response(*args)
        finally:
            self.unlimited()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what cannot be read, without a word of how we read, or of what it was."""
        del exc, message
        if request.writer.output_size > 0:
            raise ConnectionError  # an answer is under way; it cannot be made another
        response = refused(status, "this cannot be read, or is more than is read")
        response.headers.update(ALWAYS)
        response.force_close()
        return response

    def _limit(self, seconds: float) -> None:
        self.unlimited()
        self._deadline = asyncio.get_running_loop().call_later(seconds, self._expire)

    def _expire(self) -> None:
        if isinstance(self.transport, asyncio.Transport):
            self.transport.abort()


class Door(web.Server):
    """Makes a `Connection` of each that comes, and counts them.

    Attributes:
        refused: How many found no room.
    """

    def __init__(self, handler: Any, **options: Any) -> None:
        """Have requests answered by this handler."""
        super().__init__(handler, request_factory=_request, handler_cancellation=True)
        self.refused = 0
        self._options = options
        self._there: set[Connection] = set()

    def __repr__(self) -> str:
        return f"<Door {len(self._there)} connections, {self.refused} refused>"

    def __call__(self) -> Connection:
        """Make one."""
        return Connection(
            self,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=IDLE,
            lingering_time=1.0,
            max_line_size=LONGEST_LINE,
            max_field_size=LONGEST_LINE,
            max_headers=MOST_HEADERS,
            access_log=None,
            **self._options,
        )

    def come(self, one: Connection) -> bool:
        """Tell whether there is room for one more; the last places are for probes."""
        count = len(self._there)
        one.reserved = count >= MOST
        if count >= MOST + RESERVED:
            self.refused += 1
            return False
        self._there.add(one)
        return True

    def go(self, one: Connection) -> None:
        """Make room."""
        self._there.discard(one)


def _request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: web.RequestHandler,
    writer: AbstractStreamWriter,
    task: asyncio.Task[None],
) -> web.BaseRequest:
    """Make a request of which no more than a form is read."""
    loop = asyncio.get_running_loop()
    return web.BaseRequest(
        message, payload, protocol, writer, task, loop, client_max_size=MOST_BODY
    )
