"""A listener with its admin endpoint, and whoever asks it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from cti_listener import Listener
from cti_listener.admin import make_admin
from cti_listener.admin.server import AdminServer
from cti_listener.testing import FakeSource
from tests.examples import NAMESPACE

PATIENCE = 10.0
"""The longest a test waits for what must happen, in seconds."""

TOKEN = "a-token-of-the-tests"

EVERYWHERE = "0.0.0.0"  # noqa: S104 - nothing is bound to it without a token


@dataclass(frozen=True)
class Served:
    """What a test holds."""

    listener: Listener
    admin: AdminServer
    source: FakeSource
    client: aiohttp.ClientSession

    async def get(self, path: str, **options: Any) -> tuple[int, str]:
        """Ask; return the status and the body."""
        async with self.client.get(path, **options) as answer:
            return answer.status, await answer.text()

    async def json(self, path: str) -> Any:
        return json.loads((await self.get(path))[1])

    async def metrics(self) -> dict[str, float]:
        return samples((await self.get("/metrics"))[1])


@asynccontextmanager
async def served(
    *,
    admin: dict[str, Any] | None = None,
    register: Callable[[Listener], object] = lambda _listener: None,
    **options: Any,
) -> AsyncIterator[Served]:
    """Run a listener on a `FakeSource`, with its endpoint, and a client that asks it."""
    source = FakeSource(options.get("clock"))
    listener = Listener(source, namespace=NAMESPACE, **options)
    register(listener)
    async with (
        asyncio.timeout(150),
        make_admin(listener, **(admin or {})) as server,
        listener,
        aiohttp.ClientSession(server.url) as client,
    ):
        yield Served(listener, server, source, client)


def samples(text: str) -> dict[str, float]:
    """Parse an exposition; return each series' value by its name and labels as it is written."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(one.labels.items()))
            name = f"{one.name}{{{labels}}}" if labels else one.name
            assert name not in found
            found[name] = one.value
    return found


@dataclass(frozen=True)
class Message:
    """One server-sent event.

    Attributes:
        name: What kind it is.
        id: As it came.
        data: What it says.
        seq: The place in the journal that the id tells.
    """

    name: str
    id: str | None
    data: Any

    @property
    def seq(self) -> int | None:
        return None if self.id is None else int(self.id.rpartition("-")[2])


class Reader:
    """Reads server-sent events; comments are kept apart."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.comments: list[str] = []
        self._answer = answer

    async def next(self) -> Message:
        name, place, data = "message", None, ""
        async with asyncio.timeout(PATIENCE):
            while True:
                line = (await self._answer.content.readline()).decode()
                assert line, "the stream ended"
                field, _, value = line.rstrip("\n").partition(": ")
                if field == "event":
                    name = value
                elif field == "id":
                    place = value
                elif field == "data":
                    data = value
                elif line.startswith(":"):
                    self.comments.append(line[1:].strip())
                elif data:
                    return Message(name, place, json.loads(data))

    async def of(self, name: str) -> Message:
        """Return the next of this name."""
        while (message := await self.next()).name != name:
            pass
        return message

    async def until_comment(self) -> str:
        before = len(self.comments)
        async with asyncio.timeout(PATIENCE):
            while len(self.comments) == before:
                line = (await self._answer.content.readline()).decode()
                if line.startswith(":"):
                    self.comments.append(line[1:].strip())
        return self.comments[-1]


@asynccontextmanager
async def reading(
    client: aiohttp.ClientSession, query: str = "", after: int | str | None = None
) -> AsyncIterator[Reader]:
    """Read `/v1/events`, from behind a place if one is given."""
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    async with client.get(f"/v1/events{query}", headers=headers) as answer:
        assert answer.status == 200
        assert answer.content_type == "text/event-stream"
        yield Reader(answer)
