"""A CTI server on a loopback port: both wires, whatever a `Centre` plays, and whatever goes wrong.

- `/mvc/stomp/websocket`: STOMP 1.0-1.2 in WebSocket messages (`stomp_door`, `topics`).
- `/events`: JSON, one event object a message; `?namespace=&device=&agent=`, keys repeated.
- anything else: 404.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable, Sequence
from itertools import count
from types import TracebackType
from typing import Final, Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from cti_listener.clock import Clock, SystemClock
from cti_listener.errors import ConfigurationError
from cti_listener.simulator import handshake
from cti_listener.simulator.audience import Audience
from cti_listener.simulator.doors import Door, JsonDoor
from cti_listener.simulator.faults import Faults
from cti_listener.simulator.player import Player
from cti_listener.simulator.records import Ledger, Stats
from cti_listener.simulator.sessions import Session
from cti_listener.simulator.stomp_door import StompDoor, StompRules
from cti_listener.simulator.stream_faults import Message
from cti_listener.values import Payload

_CLOSE_TIMEOUT: Final = 1.0


class SimulatorServer:
    """A simulated CTI server; `async with` it, or call `start()` and `stop()`.

    Args:
        centre: What happens: a `Centre`, or any stream of (seconds, event). None: only what is
            sent by hand.
        faults: What goes wrong with it. What is sent by hand is sent as it is.
        host: Where to listen.
        port: On which port; 0 picks a free one, which is kept from then on.
        speed: How many seconds of the centre pass in one of ours; 0 or infinite: as fast as the
            clients take it, and only while there are any.
        credentials: The STOMP login and passcode asked for; None: whatever comes.
        token: Asked for in the handshake, in any of the ways deployments have:
            `Authorization: Bearer`, a `sessionId` header, the value of a cookie. None: whatever
            comes.
        heartbeat: How often the server can send, and wants to receive, a STOMP heart-beat, in ms.
        receipts: Whether the server sends RECEIPTs.
        refuse: STOMP destinations refused with an ERROR.
        await_subscriber: Have the centre open when somebody is subscribed for the first time.
        seed: Decides what the faults leave to chance.
        ledger: Where to note what is sent to whom.
        queue_limit: How many messages may wait for one client. One that does not take them is
            disconnected: at once while the centre keeps time, else after `slow_after`.
        slow_after: How long to wait for a client where there is no hurry, in seconds.
        compression: Whether to agree to permessage-deflate (RFC 7692).
        ssl_context: Speak TLS, with this certificate.
        clock: Tells the time.

    Attributes:
        rules: How the STOMP side behaves; changes hold for what comes afterwards.
        token: As above; changes hold for the handshakes to come.
        faults: As above; changes hold for the connections to come, not for the stream.
        stats: Counters.
        ledger: As above.

    Raises:
        ConfigurationError: The speed is negative.
    """

    def __init__(
        self,
        *,
        centre: Iterable[tuple[float, Payload]] | None = None,
        faults: Faults | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        speed: float = 1.0,
        credentials: tuple[str, str] | None = None,
        token: str | None = None,
        heartbeat: tuple[int, int] = (10_000, 10_000),
        receipts: bool = True,
        refuse: Iterable[str] = (),
        await_subscriber: bool = False,
        seed: int = 0,
        ledger: Ledger | None = None,
        queue_limit: int = 10_000,
        slow_after: float = 10.0,
        compression: bool = False,
        ssl_context: ssl.SSLContext | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Prepare; nothing listens before `start()`."""
        self.rules = StompRules(credentials, heartbeat, frozenset(refuse), receipts=receipts)
        self.token = token
        self.faults = faults or Faults()
        self.stats = Stats()
        self.ledger = ledger
        self._host = host
        self._port = port
        self._seed = seed
        self._compression = "deflate" if compression else None
        self._ssl = ssl_context
        self._clock = clock or SystemClock()
        self._numbers = count(1)
        self._server: Server | None = None
        self._audience = Audience(self.stats, queue_limit=queue_limit, slow_after=slow_after)
        self._player = Player(
            self.faults.apply(() if centre is None else centre, seed=seed),
            speed=speed,
            clock=self._clock,
            publish=self._publish,
            subscribed=self._audience.wait_for_subscribers,
            await_subscriber=await_subscriber,
        )

    def __repr__(self) -> str:
        where = f"on {self._host}:{self._port}" if self._server else "stopped"
        return f"<SimulatorServer {where}, {len(self.sessions)} sessions>"

    # Starting and stopping

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen, on the port of the last time, and go on playing where it stopped.

        Raises:
            ConfigurationError: Host and port cannot be listened on.
        """
        if self._server is not None:
            return
        try:
            self._server = await serve(
                self._serve,
                self._host,
                self._port,
                process_request=self._judge,
                select_subprotocol=handshake.choose_subprotocol,
                compression=self._compression,
                ssl=self._ssl,
                ping_interval=None,  # as the server it stands for: STOMP has heart-beats
                close_timeout=_CLOSE_TIMEOUT,
            )
        except OSError as error:
            raise ConfigurationError(
                "host, port", f"cannot listen on {self._authority}: {error}"
            ) from None
        self._port = next(iter(self._server.sockets)).getsockname()[1]
        self._player.start()

    async def stop(self) -> None:
        """Close everything: the play pauses, clients get 1001, new ones meet a refused TCP port.

        Raises:
            Exception: Whatever the play failed with.
        """
        server, self._server = self._server, None
        if server is None:
            return
        try:
            await self._player.stop()
        finally:
            server.close()
            await server.wait_closed()

    async def disconnect(self, code: int | None = None) -> None:
        """End every session, and go on listening.

        Args:
            code: Close the WebSockets with this code. None: end the TCP connections without a word.
        """
        await self._audience.disconnect(code)

    # Where it is, and who is there

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port

    @property
    def stomp_url(self) -> str:
        """Where STOMP is spoken."""
        return f"{self._scheme}://{self._authority}{handshake.STOMP_PATH}"

    @property
    def json_url(self) -> str:
        """Where JSON is spoken, without a query."""
        return f"{self._scheme}://{self._authority}{handshake.JSON_PATH}"

    @property
    def sessions(self) -> Sequence[Session]:
        """The open sessions, the oldest first."""
        return self._audience.sessions

    async def wait_for_subscribers(self, n: int = 1) -> None:
        """Wait until so many sessions are subscribed to something."""
        await self._audience.wait_for_subscribers(n)

    async def wait_played(self) -> None:
        """Wait until the centre has no more to tell, and all of it is written.

        Raises:
            Exception: Whatever the play failed with.
        """
        await self._player.wait()
        await self._audience.settle()

    # Sending by hand

    async def send(self, event: Payload, *, times: int = 1) -> int:
        """Publish an event as it is, and wait until it is written.

        Args:
            event: The event; whoever is subscribed to its agent or device gets it.
            times: How often; all but the first are repeats.

        Returns:
            How many messages that made, over all subscriptions.
        """
        reached = 0
        for n in range(times):
            message = Message(0.0, event, repeat=n > 0)
            reached += await self._audience.offer_patiently(message)
        await self._audience.settle()
        return reached

    async def send_raw(self, data: bytes | str) -> None:
        """Send every session a WebSocket message as it is, and wait until it is written.

        Args:
            data: Text for `str`, binary for `bytes`.
        """
        for session in self.sessions:
            session.put_raw(data)
        await self._audience.settle()

    # Private

    @property
    def _scheme(self) -> str:
        return "ws" if self._ssl is None else "wss"

    @property
    def _authority(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{host}:{self._port}"

    async def _publish(self, message: Message) -> None:
        """Publish an event of the play; where it keeps time, who is too slow is out."""
        if self._player.keeps_time:
            self._audience.offer_in_time(message)
        else:
            await self._audience.offer_patiently(message)

    async def _serve(self, connection: ServerConnection) -> None:
        number = next(self._numbers)
        self.stats.connections += 1
        session = Session(
            connection,
            self._door(connection, number),
            number,
            clock=self._clock,
            stats=self.stats,
            ledger=self.ledger,
            on_change=self._audience.note_change,
        )
        await self._audience.attend(session, self.faults.cues(number, seed=self._seed))

    def _door(self, connection: ServerConnection, number: int) -> Door:
        if handshake.speaks_stomp(connection):
            return StompDoor(self.rules, f"session-{number}")
        return JsonDoor(handshake.target(connection))

    def _judge(self, connection: ServerConnection, request: Request) -> Response | None:
        response = handshake.refuse(connection, request, self.token)
        self.stats.rejected += response is not None
        return response


async def serve_forever(server: SimulatorServer) -> None:
    """Serve until cancelled."""
    async with server:
        await asyncio.Event().wait()
