"""A CTI server on a loopback port: both wires, whatever a `Centre` plays, and whatever goes wrong.

- `/mvc/stomp/websocket`: STOMP 1.0-1.2 in WebSocket messages (`stomp_door`, `topics`).
- `/events`: JSON, one event object a message; `?namespace=&device=&agent=`, keys repeated.
- anything else: 404.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable, Iterator, Sequence
from typing import Self

from cti_listener.clock import Clock, SystemClock
from cti_listener.simulator import handshake
from cti_listener.simulator.audience import Audience
from cti_listener.simulator.faults import Faults
from cti_listener.simulator.outages import Outages
from cti_listener.simulator.player import Player
from cti_listener.simulator.port import Port
from cti_listener.simulator.reception import Reception
from cti_listener.simulator.records import Ledger, Stats
from cti_listener.simulator.sessions import Session
from cti_listener.simulator.stomp_door import StompRules
from cti_listener.simulator.stream_faults import Message
from cti_listener.values import Payload


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
        compression: Whether to agree to permessage-deflate (RFC 7692), as the fault `bomb` does.
        ssl_context: Speak TLS, with this certificate.
        clock: Tells the time.

    Attributes:
        rules: How the STOMP side behaves; changes hold for what comes afterwards.
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
        self.stats = Stats()
        self.ledger = ledger
        self._seed = seed
        self._compression = compression
        self._running = False
        clock = clock or SystemClock()
        faults = faults or Faults()
        self._audience = Audience(self.stats, queue_limit=queue_limit, slow_after=slow_after)
        self._reception = Reception(
            self._audience,
            rules=self.rules,
            token=token,
            faults=faults,
            seed=seed,
            stats=self.stats,
            ledger=ledger,
            clock=clock,
        )
        self._port = Port(
            host,
            port,
            handle=self._reception.serve,
            judge=self._reception.judge,
            ssl_context=ssl_context,
        )
        self._outages = Outages(
            self._port,
            opens=self._open,
            reception=self._reception,
            audience=self._audience,
            stats=self.stats,
            clock=clock,
        )
        self._player = Player(
            self.told(() if centre is None else centre),
            speed=speed,
            clock=clock,
            publish=self._publish,
            subscribed=self._audience.wait_for_subscribers,
            await_subscriber=await_subscriber,
        )

    def __repr__(self) -> str:
        where = f"on {self._port.authority}" if self._port.is_open else "stopped"
        return f"<SimulatorServer {where}, {len(self.sessions)} sessions>"

    # Starting and stopping

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen, on the port of the last time, and go on playing where it stopped.

        Raises:
            ConfigurationError: Host and port cannot be listened on.
        """
        if self._running:
            return
        await self._open()
        self._running = True
        self._player.start()
        self._outages.start(self.faults.server_cues(seed=self._seed))

    async def stop(self) -> None:
        """Close everything: the play pauses, clients get 1001, new ones meet a refused TCP port.

        Raises:
            Exception: Whatever the play failed with.
        """
        if not self._running:
            return
        self._running = False
        try:
            await self._player.stop()
            await self._outages.stop()
        finally:
            await self._port.close()

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
        return self._port.number

    @property
    def stomp_url(self) -> str:
        """Where STOMP is spoken."""
        return self._port.url(handshake.STOMP_PATH)

    @property
    def json_url(self) -> str:
        """Where JSON is spoken, without a query."""
        return self._port.url(handshake.JSON_PATH)

    @property
    def http_url(self) -> str:
        """Where `/api/csta/agent/client-state` is, without that path.

        It answers to a session of an agent's short id, given as any cookie, as `sessionId` or as a
        bearer token, by what the server has told so far.
        """
        return self._port.url("").replace("ws", "http", 1)

    @property
    def token(self) -> str | None:
        """The token asked for; changes hold for the handshakes to come."""
        return self._reception.token

    @token.setter
    def token(self, token: str | None) -> None:
        self._reception.token = token

    @property
    def faults(self) -> Faults:
        """What goes wrong; changes hold for the connections to come, not for the stream."""
        return self._reception.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._reception.faults = faults

    @property
    def calm(self) -> bool:
        """Whether no fault of a connection or of the server begins; what has begun ends."""
        return not self._reception.trouble.is_set()

    @calm.setter
    def calm(self, calm: bool) -> None:
        trouble = self._reception.trouble
        (trouble.clear if calm else trouble.set)()

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

    # A stream from elsewhere

    def told(self, stream: Iterable[tuple[float, Payload] | Message]) -> Iterator[Message]:
        """Make of a stream what this server tells of it: with its faults."""
        return self.faults.apply(stream, seed=self._seed)

    async def publish(self, message: Message, *, in_time: bool) -> None:
        """Publish a message; if the play keeps time, who is too slow is out, else waited for."""
        if in_time:
            self._audience.offer_in_time(message)
        else:
            await self._audience.offer_patiently(message)

    async def settle(self) -> None:
        """Wait until all that was published is written; who takes too long is out."""
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
        """Send each session a message as it is, text for `str`; return when it is written."""
        for session in self.sessions:
            session.put_raw(data)
        await self._audience.settle()

    # Private

    async def _open(self) -> None:
        await self._port.open(compression=self._compression or bool(self.faults.bomb))

    async def _publish(self, message: Message) -> None:
        await self.publish(message, in_time=self._player.keeps_time)


async def serve_forever(server: SimulatorServer) -> None:
    """Serve until cancelled."""
    async with server:
        await asyncio.Event().wait()
