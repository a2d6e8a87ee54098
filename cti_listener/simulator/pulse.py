"""STOMP heart-beats, the server's side: sending them, and missing them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cti_listener.clock import Clock

HEARTBEAT: Final = b"\n"

_EARLY: Final = 0.8
"""Heart-beats go out this much sooner than promised, since timers are late and never early."""

_GRACE: Final = 2.0
"""How many times its interval a client may be silent."""


async def beat(every: float, send: Callable[[bytes], None], clock: Clock) -> None:
    """Send a heart-beat as often as was agreed; 0: never."""
    while every:
        await clock.sleep(every * _EARLY)
        send(HEARTBEAT)


async def watch(
    every: float, heard: Callable[[], float], drop: Callable[[], None], clock: Clock
) -> None:
    """Drop a client that is silent for longer than was agreed; 0: never.

    Args:
        every: How often it has promised to say something, in seconds.
        heard: Tells when it last did.
        drop: Ends it.
        clock: Tells the time.
    """
    while every:
        silent = clock.monotonic() - heard()
        if silent > every * _GRACE:
            drop()
            return
        await clock.sleep(every * _GRACE - silent + 0.001)
