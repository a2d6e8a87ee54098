"""`cti-listen check --connect`: the way to each server, step by step, each with its time.

Name, TCP and TLS are tried on a connection that says nothing else; then the WebSocket handshake,
CONNECT, the subscriptions and some seconds of events, on another. The first step that fails ends
the way to that server, with what to do about it. `app` calls it.
"""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from cti_listener.errors import ConfigurationError, ConnectError, RefusedError
from cti_listener.ops import terminal
from cti_listener.ops.exits import ExitCode
from cti_listener.ops.probing import Session
from cti_listener.sources.meanings import Seen, meaning_of, without_secrets
from cti_listener.sources.patience import turning
from cti_listener.sources.tls import certificate_in_words, context_for
from cti_listener.sources.transport import proxy_for
from cti_listener.wire.json_frames import JsonCodec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cti_listener.interest import Interest
    from cti_listener.sources.endpoints import Endpoints
    from cti_listener.sources.options import ConnectionOptions

_PORTS: Final = {"ws": 80, "wss": 443}

_FAILED: Final = "FAILED"


class _FailedError(Exception):
    """A step failed and was told; never leaves this module."""

    def __init__(self, code: ExitCode) -> None:
        super().__init__(code)
        self.code = code


class Connecting:
    """Goes the way to each endpoint.

    Args:
        endpoints: Where to connect, and as whom.
        options: How.
        interest: Who is asked for.
        seconds: For how long events are counted.
        say: Takes a line for the user.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        options: ConnectionOptions,
        interest: Interest,
        *,
        seconds: float,
        say: Callable[[str], None],
    ) -> None:
        """Prepare; nothing is opened yet."""
        self._endpoints = endpoints
        self._options = options
        self._interest = interest
        self._seconds = seconds
        self._say = say

    async def check(self) -> ExitCode:
        """Go all ways, in turn; return the code for the first that failed, or OK."""
        code = ExitCode.OK
        for index in range(len(self._endpoints)):
            try:
                await self._go(index)
            except _FailedError as failed:
                code = code or failed.code
        return code

    async def _go(self, index: int) -> None:
        self._say(self._endpoints.shown[index])
        destinations = self._interest.destinations(self._options.topics)
        with self._step("settings", quiet=True):
            plan = await self._endpoints.plan(index, self._interest, destinations)
            proxy = proxy_for(plan.url, self._options)
        await self._reach(plan.url, proxy)
        session = Session(plan, without_secrets(plan.url), self._interest)
        try:
            await self._talk(session)
        finally:
            await session.close()

    # As far as a connection

    async def _reach(self, url: str, proxy: str | None) -> None:
        """Resolve the name, connect, set TLS up; a proxy does that itself, in the handshake."""
        if proxy is not None:
            parts = urlsplit(proxy)
            self._say(f"  {'proxy':9}  {'':8}  {parts.scheme}://{parts.hostname}:{parts.port}")
            return
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        with self._step("DNS", url) as said:
            async with turning(self._options.open_timeout):
                found = await asyncio.get_running_loop().getaddrinfo(
                    host, port, type=socket.SOCK_STREAM
                )
            addresses = dict.fromkeys(str(address[0]) for *_, address in found)
            said.append(f"{host}: {', '.join(addresses)}")
        with self._step("TCP", url) as said:
            async with turning(self._options.open_timeout):
                _, writer = await asyncio.open_connection(host, port)
            address = writer.get_extra_info("peername")
            said.append(f"{address[0]} port {address[1]}")
        try:
            if parts.scheme == "wss":
                await self._encrypt(writer, url, host)
        finally:
            writer.transport.abort()

    async def _encrypt(self, writer: asyncio.StreamWriter, url: str, host: str) -> None:
        with self._step("TLS", url) as said:
            context = self._options.ssl_context or context_for(self._options)
            async with turning(self._options.open_timeout):
                await writer.start_tls(context, server_hostname=host)
            tls = writer.get_extra_info("ssl_object")
            said.append(f"{tls.version()}; {certificate_in_words(tls.getpeercert() or {})}")

    # As a listener

    async def _talk(self, session: Session) -> None:
        with self._step("handshake") as said:
            await session.connect()
            wire = "JSON" if isinstance(session.codec, JsonCodec) else "STOMP"
            said.append(f"{wire}, {session.subprotocol or 'no sub-protocol'}")
        if wire == "STOMP":
            with self._step("CONNECT") as said:
                opened = await session.be_opened()
                sends, expects = opened.heartbeat_receive, opened.heartbeat_send
                server = opened.server or "a server without a name"
                said.append(f"{server}; heart-beats every {sends:g} s, wanted every {expects:g} s")
        destinations = list(session.codec.destinations)
        for number, destination in enumerate(destinations, 1):
            with self._step("SUBSCRIBE") as said:
                said.append(await self._subscribed(session, destination, number))
        with self._step("events", measured=False) as said:
            await session.listen(self._seconds)
            said.extend(self._came(session, destinations if wire == "STOMP" else [None]))

    @staticmethod
    async def _subscribed(session: Session, destination: str, number: int) -> str:
        if not session.codec.confirms:
            return "asked for; over JSON nothing confirms it"
        if await session.be_confirmed(number):
            return f"{session.confirmed[number - 1]}: confirmed by a RECEIPT"
        return f"{destination}: no RECEIPT in time (receipt_timeout), so not confirmed"

    def _came(self, session: Session, destinations: list[str] | list[None]) -> Iterator[str]:
        """Say how many events came by each destination, and what that may mean."""
        for destination in destinations:
            by = f"by {destination}" if destination else "by this connection"
            count, wanted = session.came[destination], session.wanted[destination]
            if not count:
                hint = "; quiet, or not the right one? See --topic" if destination else ""
                yield f"none {by} in {self._seconds:g} s{hint}"
            elif not wanted:
                yield f"{count} {by}, none of them asked for; are --ns, --device, --agent right?"
            else:
                yield f"{count} {by}, {wanted} of them asked for"
        for reason, count in session.bad.items():
            yield f"{count} messages were no events: {reason}"

    # Telling

    @contextmanager
    def _step(
        self, name: str, url: str = "", *, quiet: bool = False, measured: bool = True
    ) -> Iterator[list[str]]:
        """Tell what the block says of this step, with its time; or why it failed.

        Args:
            name: The step.
            url: Where a foreign error arises.
            quiet: Tell only of a failure.
            measured: Whether its time says something.
        """
        said: list[str] = []
        began = time.monotonic()
        try:
            yield said
        except (ConfigurationError, ConnectError, OSError, TimeoutError) as error:
            shown = without_secrets(url) if url else ""
            seen = Seen(certificate=bool(self._options.cert_file))
            meaning = meaning_of(error, shown, seen)
            problem = meaning.problem if isinstance(meaning, ConnectError) else str(meaning)
            self._line(name, began, f"{_FAILED}: {problem}", measured=measured)
            raise _FailedError(_code_of(meaning)) from None
        if not quiet:
            for text in said:
                self._line(name, began, text, measured=measured)

    def _line(self, name: str, began: float, text: str, *, measured: bool) -> None:
        took = f"{(time.monotonic() - began) * 1000:.0f} ms" if measured else ""
        self._say(f"  {name:9}  {took:>8}  {terminal.clean(text)}")


def _code_of(error: Exception) -> ExitCode:
    match error:
        case ConfigurationError():
            return ExitCode.CONFIGURATION
        case RefusedError():
            return ExitCode.REFUSED
        case _:
            return ExitCode.UNREACHABLE
