"""Where the server listens: opened, closed, and opened again under the same number."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import Final

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from cti_listener.errors import ConfigurationError
from cti_listener.simulator import handshake
from cti_listener.simulator.outlet import Connection

_CLOSE_TIMEOUT: Final = 1.0

_WRITE_LIMIT: Final = 1
"""How many bytes wait in a transport before it says that its peer is slow."""


class Port:
    """A TCP port that speaks WebSocket, now and then.

    Args:
        host: Where to listen.
        number: On which port; 0 picks a free one, which is kept from then on.
        handle: Takes a connection that has been accepted.
        judge: Answers a handshake; None: go on.
        ssl_context: Speak TLS, with this certificate.
    """

    def __init__(
        self,
        host: str,
        number: int,
        *,
        handle: Callable[[ServerConnection], Awaitable[None]],
        judge: Callable[[ServerConnection, Request], Response | None],
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        """Prepare; nothing listens before `open()`."""
        self.number = number
        self._host = host
        self._handle = handle
        self._judge = judge
        self._ssl = ssl_context
        self._server: Server | None = None

    @property
    def is_open(self) -> bool:
        """Whether it listens."""
        return self._server is not None

    @property
    def authority(self) -> str:
        """Host and port, as in a URL."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{host}:{self.number}"

    def url(self, path: str) -> str:
        """Return the URL of a path here."""
        return f"{'ws' if self._ssl is None else 'wss'}://{self.authority}{path}"

    async def open(self, *, compression: bool) -> None:
        """Listen.

        Raises:
            ConfigurationError: Host and port cannot be listened on.
        """
        try:
            self._server = await serve(
                self._handle,
                self._host,
                self.number,
                process_request=self._judge,
                select_subprotocol=handshake.choose_subprotocol,
                compression="deflate" if compression else None,
                ssl=self._ssl,
                ping_interval=None,  # as the server it stands for: STOMP has heart-beats
                close_timeout=_CLOSE_TIMEOUT,
                write_limit=_WRITE_LIMIT,
                create_connection=Connection,
            )
        except (OSError, ValueError, OverflowError) as error:  # the latter two: no host, no port
            raise ConfigurationError(
                "host, port", f"cannot listen on {self.authority}: {error}"
            ) from None
        self.number = next(iter(self._server.sockets)).getsockname()[1]

    def refuse(self) -> None:
        """Refuse TCP from now on; to be followed by `close()`, which then waits for who is in."""
        if self._server is not None:
            self._server.close(close_connections=False)

    async def close(self) -> None:
        """Refuse TCP, close whatever is connected with 1001, and wait until all is over."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            await server.wait_closed()
