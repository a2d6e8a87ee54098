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
from cti_listener.log import log

MOST: Final = 200
"""So many connections are taken at once."""

RESERVED: Final = 56
"""So many more are taken for probes: a keeper must hear of us however many others ask."""

AT_ONCE: Final = 16
"""So many are taken in a turn of the loop. A head that was sent at once is read two or three turns
later, so before as many more have come as there are places, and whoever sent it keeps its own."""

QUEUE: Final = 1024
"""So many wait with the system until they are taken."""

TELL: Final = 10.0
"""How often it is told how many found no room, in seconds."""

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
        if room:
            self._limit(HEAD_TIMEOUT)
        else:
            self.cut()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Make room."""
        self.unlimited()
        self._door.go(self)
        super().connection_lost(exc)

    def asked(self) -> None:
        """Note that a request is there, whole; from now on its answer is waited for."""
        self._door.asked(self)
        self._limit(ANSWER_TIMEOUT)

    def streams(self) -> None:
        """Let it take as long as it takes, and its place be its own.

        The system holds little of what is sent, so that who reads nothing costs little.
        """
        self._door.streams(self)
        self.unlimited()
        sock = None if self.transport is None else self.transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, STREAM_BUFFER)

    def unlimited(self) -> None:
        """Forget how long it may take."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    async def finish_response(self, *args: Any) -> Any:
        """Send the answer; then what comes next is limited as an idle connection."""
        try:
            return await super().finish_response(*args)
        finally:
            self._door.waits(self)
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
        self._deadline = asyncio.get_running_loop().call_later(seconds, self.cut)

    def cut(self) -> None:
        """End it, whatever it is at."""
        if isinstance(self.transport, asyncio.Transport):
            self.transport.abort()


class Door(web.Server):
    """Makes a `Connection` of each that comes, counts them, and knows whose place another gets.

    When all places are taken, whoever comes gets that of the one who has waited for the longest to
    ask something: who comes with a question has it read long before all others were put out.

    Attributes:
        refused: How many found no room, or lost theirs.
    """

    def __init__(self, handler: Any, **options: Any) -> None:
        """Have requests answered by this handler."""
        super().__init__(handler, request_factory=_request, handler_cancellation=True)
        self.refused = 0
        self._options = options
        self._there: set[Connection] = set()
        # The oldest first. Who is in neither reads a stream, and keeps its place.
        self._waiting: dict[Connection, None] = {}
        self._answered: dict[Connection, None] = {}
        self._told = 0
        self._telling: asyncio.TimerHandle | None = None

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
        """Take one more; tell whether there is room. The last places are for probes."""
        count = len(self._there)
        if count >= MOST:
            out = next(iter(self._waiting), None)
            if count >= MOST + RESERVED:
                out = out or next(iter(self._answered), None)
                if out is None:
                    self.turn_away()
                    return False
            elif out is not None and out.reserved:
                out = None
            one.reserved = out is None or out.reserved
            if out is not None:
                self.turn_away()
                self.go(out)
                out.cut()
        self._there.add(one)
        self._waiting[one] = None
        return True

    def asked(self, one: Connection) -> None:
        """Note that it has asked, and is being answered."""
        if self._waiting.pop(one, one) is None:
            self._answered[one] = None

    def streams(self, one: Connection) -> None:
        """Note that its answer has no end."""
        self._answered.pop(one, None)

    def waits(self, one: Connection) -> None:
        """Note that it was answered, and may ask again."""
        if self._answered.pop(one, one) is None:
            self._waiting[one] = None

    def go(self, one: Connection) -> None:
        """Make room."""
        self._there.discard(one)
        self._waiting.pop(one, None)
        self._answered.pop(one, None)

    def turn_away(self) -> None:
        """Count one that found no room, or lost its place to another."""
        self.refused += 1
        if self._telling is None:
            self._tell()

    def _tell(self) -> None:
        """Say how many found no room since the last time, and again as long as there are some."""
        refused, self._told = self.refused - self._told, self.refused
        self._telling = None
        if refused:
            log.warning("admin_crowded", refused=refused, connections=len(self._there))
            self._telling = asyncio.get_running_loop().call_later(TELL, self._tell)


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
