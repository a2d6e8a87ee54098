"""Plain WebSocket clients for both wires, and events to send them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from cti_listener.simulator import SimulatorServer
from cti_listener.wire.stomp_frames import Frame, FrameDecoder, encode

NS = "zhen04.cc"
EVERYBODY = "/topic/event.agent.*.*"
LOGGED_ON = {
    "eventName": "agentLoggedOn",
    "eventType": "agent",
    "namespace": NS,
    "srcDeviceId": "8002@zhen04.cc",
    "agentId": "5002@zhen04.cc",
}
HELD = {
    "eventName": "held",
    "eventType": "csta",
    "namespace": NS,
    "srcDeviceId": "8002@zhen04.cc",
    "serial": 7,
}
ELSEWHERE = {**HELD, "srcDeviceId": "8003@zhen04.cc"}
BIG = {**HELD, "padding": "x" * 100_000}


class Stomp:
    """A STOMP client that says what it is told to and shows the frames it gets."""

    def __init__(self, websocket: ClientConnection) -> None:
        self.websocket = websocket
        self._decoder = FrameDecoder()
        self._frames: list[Any] = []

    async def say(self, command: str, /, **headers: str) -> None:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        await self.websocket.send(encode(Frame(command, names)), text=True)

    async def frame(self) -> Frame:
        while not self._frames:
            self._decoder.receive_data(await self.websocket.recv(decode=False))
            self._frames += self._decoder.frames_received()
        frame = self._frames.pop(0)
        assert isinstance(frame, Frame)
        return frame

    async def subscribe(self, destination: str = EVERYBODY, **headers: str) -> Frame:
        await self.say(
            "SUBSCRIBE", destination=destination, **{"id": "0", "receipt": "r"} | headers
        )
        return await self.frame()


@asynccontextmanager
async def stomp(server: SimulatorServer, **headers: str) -> AsyncIterator[Stomp]:
    protocols = [Subprotocol("v12.stomp")]
    async with connect(server.stomp_url, subprotocols=protocols, compression=None) as websocket:
        client = Stomp(websocket)
        await client.say("CONNECT", **{"accept_version": "1.0,1.1,1.2", "host": "/"} | headers)
        assert (await client.frame()).command == "CONNECTED"
        yield client


async def received(websocket: ClientConnection) -> Any:
    return json.loads(await websocket.recv())


async def closing_code(websocket: ClientConnection) -> int | None:
    """Read to the end; None for a connection that ended without a closing handshake."""
    try:
        while True:
            await websocket.recv()
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else None
