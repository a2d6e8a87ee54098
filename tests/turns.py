"""Waiting by turns of the event loop, for what tells nobody when it is done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

PATIENCE = 10.0

QUICK = 50
"""After so many turns a thread may be what is waited for."""

PAUSE = 0.001
"""For so long the loop then rests each time, in seconds: it would keep the interpreter's lock from
the thread otherwise, which has to wait five milliseconds for it at each call of SQLite's."""


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until `condition()` holds."""
    turns = 0
    async with asyncio.timeout(PATIENCE):
        while not condition():
            turns += 1
            await asyncio.sleep(0 if turns < QUICK else PAUSE)
