"""A receiver of webhooks: a real server by aiohttp, which fails in every way it is told to.

What it accepts was verified by the public library of Standard Webhooks before.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

KEY = "whsec_" + base64.b64encode(b"made up, for the tests only.").decode()
OTHER_KEY = "whsec_" + base64.b64encode(b"another one, as much made up").decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a request is answered with.

    Attributes:
        status: The status; nothing is accepted but by 2xx.
        headers: Beside the usual ones.
        cut: `before`: the connection is closed instead; `within`: with half of the answer sent.
        stall: Nothing is answered until the receiver goes away.
        endless: The body goes on for as long as it is read.
    """

    status: int = 204
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: str = ""
    stall: bool = False
    endless: bool = False


ACCEPTED = Answer()


class Receiver:
    """Serves `/hook`; begins as one that accepts everything.

    Attributes:
        keys: One of these must have signed; empty: nobody asks.
        answers: What the next requests are answered with; then `answer`.
        answer: See above.
        accepted: The CloudEvents, in order, each once: a repeat is told by its id, as it should be.
        repeats: How many were accepted before.
        headers: The headers of every request.
        signed_by: By which of the keys each request verified.
        ids: The id of every request, accepted or not.
        at_once: How many requests went on at once, at most.
        elsewhere: Requests to other paths than `/hook`.
        port: Where it is; the same after it went away and came back.
    """

    def __init__(self, *keys: str, context: ssl.SSLContext | None = None) -> None:
        self.keys = keys
        self.answers: deque[Answer] = deque()
        self.answer = ACCEPTED
        self.accepted: list[dict[str, Any]] = []
        self.repeats = 0
        self.headers: list[Mapping[str, str]] = []
        self.signed_by: list[list[str]] = []
        self.ids: list[str] = []
        self.at_once = 0
        self.elsewhere = 0
        self.port = 0
        self.stalling = 0
        self._context = context
        self._going_on = 0
        self._away = asyncio.Event()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        scheme = "http" if self._context is None else "https"
        return f"{scheme}://localhost:{self.port}/hook"

    @property
    def serials(self) -> list[int]:
        return [one["data"]["serial"] for one in self.accepted if "serial" in one["data"]]

    async def start(self) -> None:
        self._away.clear()
        app = web.Application(client_max_size=2**24)
        app.router.add_post("/hook", self._take)
        app.router.add_route("*", "/{other:.*}", self._strayed)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(
            self._runner, "localhost", self.port, ssl_context=self._context, reuse_address=True
        )
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def go_away(self) -> None:
        """Close every connection, and the port; `start()` comes back."""
        self._away.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _strayed(self, _: web.Request) -> web.Response:
        self.elsewhere += 1
        return web.Response()

    async def _take(self, request: web.Request) -> web.StreamResponse:
        self._going_on += 1
        self.at_once = max(self.at_once, self._going_on)
        try:
            return await self._answer(request)
        finally:
            self._going_on -= 1

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.text()
        self.headers.append(dict(request.headers))
        self.signed_by.append(verifying(self.keys, body, request.headers))
        if self.keys and not self.signed_by[-1]:
            return web.Response(status=401)
        event = json.loads(body)
        self.ids.append(event["id"])
        answer = self.answers.popleft() if self.answers else self.answer
        if answer.stall:
            self.stalling += 1
            await self._away.wait()
        if answer.cut or answer.stall:
            if request.transport is not None:  # who asks may have left
                if answer.cut == "within":
                    request.transport.write(b"HTTP/1.1 204 No Con")
                request.transport.close()
            return web.Response(status=500)
        if answer.status in range(200, 300):
            if any(one["id"] == event["id"] for one in self.accepted):
                self.repeats += 1
            else:
                self.accepted.append(event)
        if answer.endless:
            return await endless(request, answer)
        return web.Response(status=answer.status, headers=dict(answer.headers))


def verifying(keys: tuple[str, ...], body: str, headers: Mapping[str, str]) -> list[str]:
    """Return by which of these keys it verifies; one will do for a receiver."""
    found = []
    for key in keys:
        with suppress(WebhookVerificationError):
            Webhook(key).verify(body, dict(headers))
            found.append(key)
    return found


async def endless(request: web.Request, answer: Answer) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status)
    await response.prepare(request)
    while True:
        await response.write(b"x" * 2**16)


@asynccontextmanager
async def receiving(*keys: str, **options: Any) -> AsyncIterator[Receiver]:
    receiver = Receiver(*keys, **options)
    await receiver.start()
    try:
        yield receiver
    finally:
        await receiver.go_away()
