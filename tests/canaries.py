"""Secrets that can be told from all else, a search for them, and a server that repeats them.

Used by `test_secrets`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from urllib.parse import quote, unquote

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from tests.sources.receiver import tcp_server, url_of

TAG = "c4n4ry"
"""Stands at both ends of every secret, so that a piece of one is found too."""

_WHOLE = re.compile(rf"{TAG}\S{{1,90}}?{TAG}")
_PIECE = re.compile(rf"[^\s\"']{{0,30}}{TAG}[^\s\"']{{0,30}}", re.IGNORECASE)
_BASE64 = re.compile(r"[\w+/-]{8,}", re.ASCII)


def canary(name: str) -> str:
    """Return a secret that is like no other."""
    return f"{TAG}-{name}-{TAG}"


def found_in(text: str) -> list[str]:
    """Return the canaries in a text, whole or in part: plain, quoted for a URL, or in base64."""
    return sorted({piece for one in readings(text) for piece in _PIECE.findall(one)})


def readings(text: str) -> Iterator[str]:
    """Yield what a person could read out of a text."""
    yield text
    yield unquote(text)
    for run in _BASE64.findall(text):
        plain = run.replace("-", "+").replace("_", "/")
        for begin in range(4):  # it may begin in the midst of other such letters
            whole = plain[begin:] + "=" * (-len(plain[begin:]) % 4)
            with contextlib.suppress(binascii.Error):
                yield base64.b64decode(whole).decode("latin-1")


class Parrot:
    """A server that repeats what it was sent, wherever the protocol lets it.

    The last part of the path tells where: see `WAYS`.

    Attributes:
        url: Where it listens, without a path.
        heard: All that it was sent.
    """

    def __init__(self) -> None:
        self.url = ""
        self.heard = ""
        self._echo: dict[ServerConnection, str] = {}

    def judge(self, connection: ServerConnection, request: Request) -> Response | None:
        """Hear a handshake; answer it if the way is one of HTTP's."""
        self._hear(connection, f"{request.path} {list(request.headers.raw_items())}")
        echo = self._echo[connection]
        way = _way(request)
        if way in {"401", "400"}:
            body = echo.encode()
            headers = Headers({"WWW-Authenticate": echo, "Content-Length": str(len(body))})
            return Response(int(way), echo, headers, body)
        if way == "302":
            place = f"https://u:{canary('theirs')}@sso.test/?ticket={canary('ticket')}"
            return Response(302, echo, Headers({"Location": place, "Set-Cookie": echo}), b"")
        return None

    def choose(self, connection: ServerConnection, _: object) -> Subprotocol | None:
        """Choose what nobody offered."""
        assert connection.request is not None
        return Subprotocol(canary("header")) if _way(connection.request) == "protocol" else None

    async def talk(self, connection: ServerConnection) -> None:
        """Speak STOMP or JSON, each its way."""
        assert connection.request is not None
        way = _way(connection.request)
        if way in HTTP_WAYS:
            return  # the client has gone
        self._hear(connection, str(await connection.recv()))
        if connection.request.path.startswith("/stomp/"):
            await self._talk_stomp(connection, way)
        else:
            await self._say_goodbye(connection, way)

    async def _talk_stomp(self, connection: ServerConnection, way: str) -> None:
        if way == "denied":
            await connection.send(self._error(connection))
            return
        await connection.send(f"CONNECTED\nversion:1.2\nserver:{self._echo[connection]}\n\n\0")
        self._hear(connection, str(await connection.recv()))
        if way == "refused":
            await connection.send(self._error(connection, receipt="receipt-id:subscribe-0\n"))
            return
        await connection.send("RECEIPT\nreceipt-id:subscribe-0\n\n\0")
        if way == "ended":
            await connection.send(self._error(connection))
            return
        await self._say_goodbye(connection, way)

    async def _say_goodbye(self, connection: ServerConnection, way: str) -> None:
        echo = self._echo[connection]
        if way == "garbled":
            for bad in (
                f"{echo}\0",
                f"MESSAGE\nsubscription:0\n\n{echo}\0",
                f"[{json.dumps(echo)}]",
            ):
                await connection.send(bad)
            for word in echo.split():
                await connection.send(f"{word}\n\n\0")
        await connection.close(1008, echo[:120])

    def _error(self, connection: ServerConnection, receipt: str = "") -> str:
        echo = self._echo[connection]
        middle = echo.index(" ", len(echo) // 2)
        return f"ERROR\n{receipt}message:{echo[:middle]}\n\n{echo[middle:]}\0"

    def _hear(self, connection: ServerConnection, text: str) -> None:
        self.heard += text + "\n"
        basic = re.findall(r"Basic (\S+?)'", text)
        plain = [secret for one in (text, unquote(text)) for secret in _WHOLE.findall(one)]
        other = [form for one in plain for form in (quote(one, safe=""), _base64(one))]
        words = dict.fromkeys((*self._echo.get(connection, "").split(), *plain, *basic, *other))
        self._echo[connection] = " ".join(words)


def _way(request: Request) -> str:
    return re.split(r"[;?]", request.path)[0].rpartition("/")[2]


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


HTTP_WAYS = ("401", "400", "302", "protocol")
"""Answers to a handshake."""

STOMP_WAYS = ("denied", "refused", "ended", "closed", "garbled", *HTTP_WAYS)
"""An ERROR at each step of a session, the reason of a close, bad messages; and those."""

JSON_WAYS = ("closed", "garbled")


@asynccontextmanager
async def parrot() -> AsyncIterator[Parrot]:
    """Serve a parrot on a loopback port."""
    bird = Parrot()
    async with serve(
        bird.talk, "127.0.0.1", 0, process_request=bird.judge, select_subprotocol=bird.choose
    ) as server:
        bird.url = url_of(server, "")
        yield bird


@asynccontextmanager
async def raw_parrot(answer: Callable[[str], str]) -> AsyncIterator[Parrot]:
    """Answer the head of a request with text of one's own: for proxies, and for no server at all.

    Args:
        answer: Makes the answer from the request.
    """
    bird = Parrot()

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        bird.heard += request
        writer.write(answer(request).encode())
        await writer.drain()
        writer.close()

    async with tcp_server(reply) as url:
        bird.url = url.removesuffix("/events")
        yield bird
