"""A service with a listener that does as it is told, a line at a time. Run by `test_watchdog`.

`blocked`: say how often the loop was. `block`: do that until it is noticed, then say it.
`exit`: leave from within. `abandon`: leave the loop as it is, and end.
"""

from __future__ import annotations

import asyncio
import sys
import time

from cti_listener.listener import Listener
from cti_listener.testing import FakeSource

LIMIT = 0.2
PATIENCE = 10.0


def block(listener: Listener) -> None:
    """Hold up the loop, as no service should, until that is noticed."""
    before, began = listener.stats().blocked, time.monotonic()
    while listener.stats().blocked == before and time.monotonic() < began + PATIENCE:
        time.sleep(0.001)


async def serve(listener: Listener) -> None:
    await listener.__aenter__()
    while (told := (await asyncio.to_thread(sys.stdin.readline)).strip()) != "abandon":
        if told == "exit":
            sys.exit(3)
        if told == "block":
            block(listener)
        print(listener.stats().blocked, flush=True)  # noqa: T201 - its answer


if __name__ == "__main__":
    loop = asyncio.new_event_loop()
    loop.run_until_complete(serve(Listener(FakeSource(), namespace="zhen04.cc", block_limit=LIMIT)))
