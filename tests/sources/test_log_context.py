"""What is logged of a connection says which one it is about."""

from __future__ import annotations

import contextvars
from dataclasses import dataclass, field
from typing import Any

import structlog

from cti_listener.simulator import SimulatorServer
from cti_listener.wire.base import MessageBad
from tests.program import listening, read_until
from tests.sources.receiver import Kept, running, source_of


@dataclass
class Noting(Kept):
    """A `Receiver` that notes what lines logged at its calls would be about."""

    about: list[dict[str, Any]] = field(default_factory=list)

    def message_bad(self, bad: MessageBad) -> None:
        self.about.append(structlog.contextvars.get_contextvars())
        super().message_bad(bad)


async def test_each_connection_is_told_from_the_one_before(
    cti_server: SimulatorServer,
) -> None:
    kept = Noting()
    source = source_of(cti_server.json_url)
    async with running(source, kept=kept):
        for number in (1, 2):
            await kept.until(lambda: len(kept.connected) == number)  # noqa: B023 - it waits here
            await cti_server.send_raw("nonsense")
            await kept.until(lambda: len(kept.about) == number)  # noqa: B023 - as above
            await cti_server.disconnect()
    assert kept.about == [{"feed": "a", "connection": number} for number in (1, 2)]
    assert structlog.contextvars.get_contextvars() == {}


async def test_reading_that_is_resumed_elsewhere_is_about_the_connection_still(
    cti_server: SimulatorServer,
) -> None:
    kept = Noting()
    source = source_of(cti_server.json_url)
    async with running(source, kept=kept):
        await kept.until(lambda: kept.connected)
        source.pause()
        contextvars.Context().run(source.resume)  # as a handler does whose lane has room again
        await cti_server.send_raw("nonsense")
        await kept.until(lambda: kept.about)
    assert kept.about == [{"feed": "a", "connection": 1}]


async def test_the_programs_lines_say_it() -> None:
    async with (
        SimulatorServer() as server,
        listening("--url", server.json_url, "--ns", "zhen04.cc") as process,
    ):
        connected = await read_until(process.stderr, "connected")
        await server.send_raw("nonsense")
        bad = await read_until(process.stderr, "message_bad")
        await server.disconnect()
        lost = await read_until(process.stderr, "disconnected")
        again = await read_until(process.stderr, "connected")
    lines = [(line["feed"], line["connection"]) for line in (connected, bad, lost, again)]
    assert lines == [("a", 1), ("a", 1), ("a", 1), ("a", 2)]
