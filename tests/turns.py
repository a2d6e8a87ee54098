"""Waiting by turns of the event loop, for what tells nobody when it is done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

PATIENCE = 10.0


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until `condition()` holds."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if condition():
                return
            await asyncio.sleep(0)
