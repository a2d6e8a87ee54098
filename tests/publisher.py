"""Publishes to a broker as the server does, and knows what the broker accepted."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from cti_listener.wire.stomp_frames import Frame, FrameDecoder, encode
from cti_listener.wire.stomp_terms import Terms
from tests.rabbitmq import LOGIN, PASSCODE, Broker


class Publisher:
    """A client of a broker that publishes.

    Attributes:
        accepted: The serials of the events that the broker has said it has, in the order told.
        gone: Whether the broker ended the connection.
    """

    def __init__(self, websocket: ClientConnection) -> None:
        self.accepted: list[int] = []
        self.gone = False
        self._websocket = websocket
        self._decoder = FrameDecoder()
        self._receipts: list[str] = []

    async def publish(
        self, event: dict[str, Any], agent: str = "5002", *, persistent: bool = False
    ) -> None:
        """Publish one event, and wait until the broker has it."""
        await self.publish_all([event], agent, persistent=persistent)

    async def publish_all(
        self,
        events: Iterable[dict[str, Any]],
        agent: str = "5002",
        *,
        persistent: bool = True,
    ) -> None:
        """Publish events, and wait until the broker has them all, or is gone."""
        due: dict[str, int] = {}
        try:
            for event in events:
                receipt = f"sent-{event['serial']}"
                due[receipt] = event["serial"]
                topic = f"/topic/event.agent.{event['eventType']}.{agent}@zhen04_cc"
                headers = {"destination": topic, "receipt": receipt}
                if persistent:
                    headers["persistent"] = "true"
                await self._say("SEND", headers, event)
            while due:
                self.accepted.append(due.pop(await self._receipt()))
        except ConnectionClosed:
            self.gone = True

    async def publish_raw(self, body: bytes) -> None:
        """Publish anything, and wait until the broker has it."""
        topic = "/topic/event.agent.csta.5002@zhen04_cc"
        await self._say(
            "SEND", {"destination": topic, "receipt": "raw", "persistent": "true"}, body
        )
        await self._receipt()

    async def queue_is_there(self, name: str) -> bool:
        """Tell whether the broker has such a queue; the session ends if it has not."""
        destination = f"/amq/queue/{name}"
        how = {"id": name, "destination": destination, "ack": "client", "prefetch-count": "1"}
        await self._say("SUBSCRIBE", {**how, "receipt": name})
        try:
            return await self._receipt() == name
        except ConnectionClosed:
            return False

    async def delete_queue(self, terms: Terms, destination: str) -> None:
        """Delete the queue of a durable subscription, as UNSUBSCRIBE does."""
        headers = {**terms.headers(destination), "receipt": "subscribed"}
        await self._say("SUBSCRIBE", headers)
        await self._receipt()
        headers = {"id": headers["id"], "durable": "true", "receipt": "deleted"}
        await self._say("UNSUBSCRIBE", headers)
        await self._receipt()

    async def _receipt(self) -> str:
        while not self._receipts:
            self._decoder.receive_data(await self._websocket.recv(decode=False))
            for frame in self._decoder.frames_received():
                if isinstance(frame, Frame) and frame.command == "RECEIPT":
                    self._receipts.append(frame.headers["receipt-id"])
        return self._receipts.pop(0)

    async def _say(self, command: str, headers: dict[str, str], body: Any = b"") -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        await self._websocket.send(encode(Frame(command, headers, data)), text=True)

    async def connect(self) -> None:
        await self._say(
            "CONNECT",
            {"accept-version": "1.2", "host": "/", "login": LOGIN, "passcode": PASSCODE},
        )
        assert (await self._websocket.recv(decode=False)).startswith(b"CONNECTED\n")


@asynccontextmanager
async def publisher(broker: Broker) -> AsyncIterator[Publisher]:
    """Connect to a broker to publish."""
    protocols = [Subprotocol("v12.stomp")]
    # Unread receipts must not hold up the broker, which would read no further event.
    async with connect(broker.url, subprotocols=protocols, proxy=None, max_queue=None) as websocket:
        one = Publisher(websocket)
        await one.connect()
        yield one
