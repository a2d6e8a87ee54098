"""A listener to be killed: handles events in every way there is, and tells a ledger what it did.

    python -m tests.killed LIFE URL JOURNAL LEDGER LOG

The ledger has a line of JSON for each fact, written before the journal can hear of it: `["life",
LIFE]` at the start, `["handled", HANDLER, KIND, DEVICE, SERIAL, REDELIVERED]` before a handler
returns, and, of what the handler of everything is told, `["gap", REASON, SINCE, UNTIL]` and
`["disconnected"]`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from pathlib import Path

from cti_listener import Disconnected, Event, Gap, Listener

FUSSY_ABOUT = 41
"""The handler `fussy` fails on every serial that this divides, until there is a pardon."""

SLOW_ABOUT = 3
"""The handler `slow` wants every serial that this divides."""


def is_slow_about(event: Event) -> bool:
    return event.serial is not None and event.serial % SLOW_ABOUT == 0


def is_fussy_about(event: Event) -> bool:
    return event.serial is not None and event.serial % FUSSY_ABOUT == 0


def make_listener(url: str, path: Path, told: int) -> Listener:
    listener = Listener(url, namespace="zhen04.cc", journal=path, lane_size=50)
    pardon = path.with_name("pardon")

    def tell(*fact: object) -> None:
        os.write(told, f"{json.dumps(fact)}\n".encode())

    def tell_of(handler: str, event: Event) -> None:
        redelivered = event.delivery.redelivered
        tell("handled", handler, event.event_type, event.device, event.serial, redelivered)

    @listener.on(name="each")
    async def each(event: Event) -> None:
        await asyncio.sleep(0)
        tell_of("each", event)

    @listener.on(Event, Gap, Disconnected, name="all", order="all")
    async def everything(happening: Event | Gap | Disconnected) -> None:
        match happening:
            case Event():
                tell_of("all", happening)
            case Gap(reason=reason, since=since, until=until):
                assert until is not None
                tell("gap", reason, since.timestamp(), until.timestamp())
            case _:
                tell("disconnected")

    @listener.on(name="slow", lane_size=5, where=is_slow_about)
    async def slow(event: Event) -> None:
        await asyncio.sleep(0.15)
        tell_of("slow", event)

    @listener.on(name="fussy")
    async def fussy(event: Event) -> None:
        if is_fussy_about(event) and not pardon.exists():
            raise ValueError(event.serial)
        tell_of("fussy", event)

    return listener


def main(life: str, url: str, journal: str, ledger: str, log: str) -> None:
    logging.basicConfig(filename=log, level=logging.INFO)
    told = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(told, f'["life", {life}]\n'.encode())
    asyncio.run(make_listener(url, Path(journal), told).run())


if __name__ == "__main__":
    main(*sys.argv[1:])
