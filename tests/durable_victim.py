"""A program to be killed: a listener with a durable subscription and a journal.

    python -m tests.durable_victim URL JOURNAL LEDGER

The ledger has a line for each event handled, `SERIAL REDELIVERED`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from cti_listener.event_base import Event
from cti_listener.listener import Listener
from cti_listener.sources.options import Credentials
from tests.examples import NAMESPACE
from tests.rabbitmq import LOGIN, PASSCODE


async def main(url: str, journal: str, ledger: str) -> None:
    told = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    listener = Listener(
        url,
        namespace=NAMESPACE,
        auth=Credentials(login=LOGIN, passcode=PASSCODE),
        proxy=None,
        journal=journal,
        durable=Path(journal).parent.name,
        durable_expires=60.0,
        durable_max_length=10_000,
        heartbeat_send=2.0,  # so it is not waited for long that the broker misses us
    )

    @listener.on(Event, name="work", order="all")
    async def work(event: Event) -> None:
        os.write(told, f"{event.serial} {event.delivery.redelivered:d}\n".encode())

    await listener.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
