"""Takes clients in: judges handshakes, gives each a door and a session, or turns them away."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import cast

from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from cti_listener.clock import Clock
from cti_listener.simulator import handshake
from cti_listener.simulator.audience import Audience
from cti_listener.simulator.doors import Door, JsonDoor
from cti_listener.simulator.faults import Faults
from cti_listener.simulator.mishaps import due
from cti_listener.simulator.outlet import Connection
from cti_listener.simulator.records import Ledger, Stats
from cti_listener.simulator.sessions import Session
from cti_listener.simulator.standings import CLIENT_STATE_PATH
from cti_listener.simulator.stomp_door import StompDoor, StompRules

_TRY_LATER = 1013


class Reception:
    """Where clients come in.

    Args:
        audience: Where they go.
        rules: How the STOMP side behaves.
        token: Asked for in the handshake; None: whatever comes.
        faults: What goes wrong with them.
        seed: Decides what the faults leave to chance.
        stats: Where to count.
        ledger: Where to note what is sent to whom.
        clock: Tells the time.

    Attributes:
        rules: As above.
        token: As above; changes hold for the handshakes to come.
        faults: As above; changes hold for the connections to come.
        flapping: Whether whoever is let in is thrown out at once.
        trouble: Set while faults of a connection, or of the server, may begin.
    """

    def __init__(
        self,
        audience: Audience,
        *,
        rules: StompRules,
        token: str | None,
        faults: Faults,
        seed: int,
        stats: Stats,
        ledger: Ledger | None,
        clock: Clock,
    ) -> None:
        """Wait for the first client."""
        self.rules = rules
        self.token = token
        self.faults = faults
        self.flapping = False
        self.trouble = asyncio.Event()
        self.trouble.set()
        self._audience = audience
        self._seed = seed
        self._stats = stats
        self._ledger = ledger
        self._clock = clock
        self._numbers = count(1)
        self._shown: set[str] = set()  # all that may have been credentials, since they expired
        self._expired: set[str] | None = None  # what is taken no more; None: all is taken

    def judge(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer a handshake that is refused, or a request that is none; None: go on."""
        if handshake.path(request) == CLIENT_STATE_PATH:
            return self._audience.standings.answer(connection, handshake.proofs(request))
        response = handshake.refuse(connection, request, self.token, self._expired)
        if response is None:
            self._shown |= handshake.proofs(request)
        self._stats.rejected += response is not None
        return response

    async def serve(self, connection: ServerConnection) -> None:
        """Take a connection, until it ends."""
        number = next(self._numbers)
        self._stats.connections += 1
        if self.flapping:
            await self._turn_away(connection, number)
            return
        session = Session(
            cast("Connection", connection),
            self._door(connection, number),
            number,
            clock=self._clock,
            stats=self._stats,
            ledger=self._ledger,
            on_change=self._audience.note_change,
        )
        scripts = self.faults.cues(number, seed=self._seed)
        cues = [due(script, self.trouble, self._clock) for script in scripts]
        await self._audience.attend(session, cues)

    def expire(self) -> None:
        """Take no more what was shown so far; who shows nothing is like who shows the same."""
        self._expired, self._shown = self._shown, set()

    def renew(self) -> None:
        """Take again what had expired."""
        self._expired = None

    def _door(self, connection: ServerConnection, number: int) -> Door:
        if handshake.speaks_stomp(connection):
            rules = self.faults.rules(self.rules, number, seed=self._seed)
            return StompDoor(rules, f"session-{number}")
        return JsonDoor(handshake.target(connection))

    async def _turn_away(self, connection: ServerConnection, number: int) -> None:
        """Throw a client out at once: one with a code, the next without a word."""
        self._stats.turned_away += 1
        if number % 2:
            await connection.close(_TRY_LATER)
        else:
            connection.transport.abort()
