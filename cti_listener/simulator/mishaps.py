"""Does to one session what the scripts of its faults say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Final, Protocol

from cti_listener.clock import Clock
from cti_listener.simulator.connection_faults import Act, Cue
from cti_listener.simulator.outlet import Outlet
from cti_listener.simulator.records import Stats

_DRIP: Final = 7
"""How many bytes drip out at a time: no frame fits."""

_DRIP_PAUSE: Final = 0.002
"""How long it takes until the next, in seconds."""


class Victim(Protocol):
    """A session, as far as anything can be done to it."""

    def abort(self) -> None:
        """End the TCP connection at once."""

    def reset(self) -> None:
        """End the TCP connection by a reset."""

    def freeze(self) -> None:
        """Neither read nor write any more."""

    async def throw_out(self, why: str) -> None:
        """Send an ERROR and close."""


async def due(cues: Iterator[Cue], allowed: asyncio.Event, clock: Clock) -> AsyncIterator[Cue]:
    """Yield each cue of a script when its time has come, and trouble is allowed."""
    for cue in cues:
        await clock.sleep(cue.after)
        await allowed.wait()
        yield cue


async def perform(
    cues: AsyncIterator[Cue], victim: Victim, outlet: Outlet, *, stats: Stats, clock: Clock
) -> None:
    """Do what a script says, when it says so."""
    async for cue in cues:
        match cue.act:
            case Act.DROP:
                stats.dropped += 1
                victim.abort()
            case Act.RESET:
                stats.dropped += 1
                victim.reset()
            case Act.FREEZE:
                stats.frozen += 1
                victim.freeze()
            case Act.ERROR:
                stats.dropped += 1
                await victim.throw_out("Internal error")
            case Act.STALL:
                await _stall(outlet, cue.amount, clock)
            case Act.DRIP:
                await _drip(outlet, cue.amount, clock)
            case Act.FLAP | Act.LEAVE | Act.EXPIRE:
                raise ValueError(cue.act)  # the whole server's


async def _stall(outlet: Outlet, seconds: float, clock: Clock) -> None:
    outlet.hold()
    try:
        await clock.sleep(seconds)
    finally:
        outlet.resume()


async def _drip(outlet: Outlet, seconds: float, clock: Clock) -> None:
    until = clock.monotonic() + seconds
    outlet.hold()
    try:
        while clock.monotonic() < until:
            outlet.release(_DRIP)
            await clock.sleep(_DRIP_PAUSE)
    finally:
        outlet.resume()
