"""The sender: a process that sends every client the same frames, as JSON or as STOMP.

What is sent is in the URL: `ws://.../json?events=50000&devices=1000&times=2`. With `rate`, so many
events a second are sent; else they go as fast as they are taken. They are made beforehand, but for
those at a rate that are of no calls: each of these has the time at which it was sent.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from multiprocessing.connection import Connection
from typing import Any, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.typing import Subprotocol

from cti_listener.simulator import Centre
from cti_listener.wire.stomp_frames import Frame as StompFrame
from cti_listener.wire.stomp_frames import FrameDecoder, encode

NAMESPACE = "zhen04.cc"
TOPIC = "/topic/events"
CHUNK = 100
"""How many frames are written at once."""

FIRST_SERIAL = 121_000

TICK = 0.001
"""How often those are sent that are due, in seconds, where there is a rate."""


@dataclass(frozen=True, slots=True)
class Load:
    """What to send.

    Attributes:
        events: How many.
        devices: Of how many devices, one after the other.
        times: How often each is sent.
        apart: How many frames later each is sent again; 0: at once.
        rate: How many a second; 0: as fast as they are taken.
        calls: 1: of a simulated centre of so many agents, in which all sorts of calls go on.
    """

    events: int = 50_000
    devices: int = 1000
    times: int = 1
    apart: int = 0
    rate: int = 0
    calls: int = 0

    def url(self, sender: str, wire: Literal["json", "stomp"]) -> str:
        """Return where it is sent."""
        named = {name: getattr(self, name) for name in self.__slots__}
        return f"{sender}/{wire}?{urlencode(named)}"


def event_of(number: int, devices: int, call: str = "") -> dict[str, Any]:
    """Return one `delivered` as the server sends it, of one device after the other."""
    device = f"{8000 + number % devices}@{NAMESPACE}"
    call = call or f"{number:08x}-3c92-11e8-bbcd-33878bfda0e8"
    return {
        "eventName": "delivered",
        "eventSrc": device,
        "eventTime": "2018.04.10 15:39:56",
        "eventType": "csta",
        "serial": FIRST_SERIAL + number,
        "namespace": NAMESPACE,
        "srcDeviceId": device,
        "callId": call,
        "deviceId": device,
        "localState": "Alerting",
        "connectionId": f"{device}|{call}",
        "cause": "newCall",
        "alertingDevice": device,
        "callingDevice": f"33255500@{NAMESPACE}",
        "calledDevice": device,
        "trunkGroup": "1",
        "trunkMember": "172.30.10.8",
        "split": f"7000@{NAMESPACE}",
    }


def make_event(number: int, devices: int) -> bytes:
    """Return it as JSON."""
    return json.dumps(event_of(number, devices)).encode()


@contextmanager
def sending() -> Iterator[str]:
    """Run a sender; give its URL, without a path."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=_run, args=(ours, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield f"ws://127.0.0.1:{ours.recv()}"
    finally:
        process.terminate()
        process.join()


def _run(far: Connection, pipe: Connection) -> None:
    """Send until asked to end, or until nobody is left at the far end of the pipe."""
    far.close()

    async def main() -> None:
        left = asyncio.Event()
        asyncio.get_running_loop().add_reader(pipe.fileno(), left.set)
        protocols = [Subprotocol("v12.stomp")]
        async with serve(
            _send, "127.0.0.1", 0, compression=None, subprotocols=protocols, select_subprotocol=_any
        ) as server:
            pipe.send(next(iter(server.sockets)).getsockname()[1])
            await left.wait()

    asyncio.run(main())


def _any(_: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return Subprotocol("v12.stomp") if "v12.stomp" in offered else None


async def _send(connection: ServerConnection) -> None:
    with suppress(ConnectionClosed):
        await _serve(connection)


async def _serve(connection: ServerConnection) -> None:
    assert connection.request is not None
    address = urlsplit(connection.request.path)
    load = Load(**{name: int(value) for name, value in parse_qsl(address.query)})
    subscriptions = await _subscribe(connection) if address.path.endswith("stomp") else None
    if load.rate:
        await _send_at_rate(connection, load, subscriptions)
    else:
        for chunk in _chunks(load, None if subscriptions is None else subscriptions[0]):
            connection.transport.write(chunk)
            await connection.drain()
    await connection.wait_closed()


async def _subscribe(connection: ServerConnection) -> list[str]:
    """Be a broker until the client has subscribed; return its subscriptions' ids."""
    decoder = FrameDecoder()
    found: list[str] = []
    while True:
        try:
            async with asyncio.timeout(0.2 if found else None):
                decoder.receive_data(await connection.recv(decode=False))
        except TimeoutError:  # a thousand may come one behind the other
            return found
        for frame in decoder.frames_received():
            assert isinstance(frame, StompFrame)
            match frame.command:
                case "CONNECT" | "STOMP":
                    await connection.send(
                        b"CONNECTED\nversion:1.2\nheart-beat:60000,60000\n\n\0", text=True
                    )
                case "SUBSCRIBE":
                    found.append(frame.headers["id"])
                    if receipt := frame.headers.get("receipt"):
                        answer = f"RECEIPT\nreceipt-id:{receipt}\n\n\0"
                        await connection.send(answer.encode(), text=True)
                case "DISCONNECT":  # it wanted no events
                    return found
                case other:
                    raise AssertionError(other)


def as_frame(body: bytes, number: int, subscription: str | None) -> bytes:
    """Return the WebSocket frame of an event, in STOMP if there is a subscription."""
    if subscription is not None:
        headers = {
            "subscription": subscription,
            "destination": TOPIC,
            "message-id": f"T_{subscription}@@session-bX0zL9@@{number}",
            "redelivered": "false",
            "content-type": "application/json",
        }
        body = encode(StompFrame("MESSAGE", headers, body))
    return Frame(Opcode.TEXT, body).serialize(mask=False)


@lru_cache(maxsize=8)
def _chunks(load: Load, subscription: str | None) -> list[bytes]:
    frames = _frames(load, subscription)
    return [b"".join(frames[at : at + CHUNK]) for at in range(0, len(frames), CHUNK)]


@lru_cache(maxsize=1)
def _frames(load: Load, subscription: str | None) -> list[bytes]:
    frames = [as_frame(body, number, subscription) for number, body in enumerate(_bodies(load))]
    if not load.apart:
        return [frame for frame in frames for _ in range(load.times)]
    first, again = frames + [b""] * load.apart, [b""] * load.apart + frames
    return [frame for both in zip(first, again, strict=True) for frame in both if frame]


def _bodies(load: Load) -> Iterator[bytes]:
    if load.calls:
        centre = Centre(1, agents=load.devices, rate=load.devices * 0.1, namespace=NAMESPACE)
        for _, event in islice(centre, load.events):
            yield json.dumps(event).encode()
    else:
        for number in range(load.events):
            yield make_event(number, load.devices)


async def _send_at_rate(
    connection: ServerConnection, load: Load, subscriptions: list[str] | None
) -> None:
    """Send what is due every tick.

    It ends when the client has left: what is written goes nowhere then, and says nothing of it.
    """
    subscription = None if subscriptions is None else subscriptions[0]
    frames = _frames(load, subscription) if load.calls else None
    began = time.monotonic()
    sent = 0
    while sent < load.events and connection.state is State.OPEN:
        due = min(load.events, int((time.monotonic() - began) * load.rate))
        for number in range(sent, due):
            frame = frames[number] if frames else _stamped(number, load, subscription)
            connection.transport.write(frame)
        sent = due
        await asyncio.sleep(TICK)


def _stamped(number: int, load: Load, subscription: str | None) -> bytes:
    """Return the frame of an event whose `callId` is the time, by the clock all processes have."""
    event = event_of(number, load.devices, call=str(time.monotonic_ns()))
    return as_frame(json.dumps(event).encode(), number, subscription)
