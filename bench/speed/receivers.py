"""The receivers: this project and its peers, each counting the same events until all are there.

Each returns how long it took from its first event to its last. Every one checks that all came,
typed, and each device's in order, unless it says that it does less.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import connect

from bench.speed.sender import FIRST_SERIAL, NAMESPACE, TOPIC, Load, event_of
from cti_listener import Delivered, Event, Listener, parse_event
from cti_listener.events import CATALOGUE
from cti_listener.sources import transport
from cti_listener.sources.frames import Frames

Receiver = Callable[[str, Load], Coroutine[None, None, float]]
"""Takes the sender's URL and what to ask it for; returns seconds."""


LOOKED_INTO = 500
"""Of so many events one is held to every value it was sent with."""


class Check:
    """Counts events, takes the time, and holds them to their class and their device's order.

    Now and then one is held to all it was sent with, too.

    It raises nothing where it is told, in a handler, a task or a thread that might swallow it: the
    first fault ends the race, and `seconds` raises it.

    Args:
        load: What is to come.
        repeats: Whether each repeat comes as well.
        of_calls: Whether all sorts of events come, in the order of their serials for each kind.

    Attributes:
        done: All came, or one that should not have.
    """

    def __init__(self, load: Load, *, repeats: bool = False, of_calls: bool = False) -> None:
        self.done = asyncio.Event()
        self.fault = ""
        self._events = self._left = load.events * (load.times if repeats else 1)
        self._of_calls = of_calls
        self._devices = load.devices
        self._stamped = bool(load.rate)  # its call is the time at which it was sent
        self._last: dict[str | None, int] = {}
        self._began = self._ended = 0.0

    def take(self, event: Event) -> None:
        serial = event.serial
        if type(event) is not (CATALOGUE.get(event.event_name) if self._of_calls else Delivered):
            self._fail(f"a {type(event).__name__} came")
        elif serial is None:
            self._fail("an event without a serial came")
        else:
            lane = f"{event.device} {event.event_type}" if self._of_calls else event.src_device_id
            if self._last.get(lane, -1) >= serial:
                self._fail(f"{serial} of {lane} came behind {self._last[lane]}")
            self._last[lane] = serial
            if not self._of_calls and self._left % LOOKED_INTO == 0:
                self._look_into(event, serial)
        self.count()

    def _look_into(self, event: Event, serial: int) -> None:
        call = event.call_id if self._stamped else None
        if event.as_received() != event_of(serial - FIRST_SERIAL, self._devices, call or ""):
            self._fail(f"{serial} came with other values")

    def count(self) -> None:
        if not self._began:
            self._began = time.perf_counter()
        self._left -= 1
        if not self._left:
            self._ended = time.perf_counter()
            self.done.set()

    def _fail(self, fault: str) -> None:
        self.fault = self.fault or fault
        self.done.set()

    @property
    def missing(self) -> int:
        """How many have yet to come; none once one came that should not have."""
        return 0 if self.fault else self._left

    @property
    def seconds(self) -> float:
        assert not self.fault, self.fault
        assert self._left == 0, f"{self._left} of {self._events} never came"
        return self._ended - self._began


# Bare loops


async def bare_websockets(sender: str, load: Load) -> float:
    """Receive, `parse_event`."""
    check = Check(load, repeats=True)
    async with connect(load.url(sender, "json"), compression=None) as websocket:
        while check.missing:
            check.take(parse_event(await websocket.recv(decode=False)))
    return check.seconds


async def json_loads_only(sender: str, load: Load) -> float:
    """Receive, `json.loads`: neither typed nor in order."""
    check = Check(load, repeats=True)
    async with connect(load.url(sender, "json"), compression=None) as websocket:
        while check.missing:
            json.loads(await websocket.recv(decode=False))
            check.count()
    return check.seconds


async def bare_aiohttp(sender: str, load: Load) -> float:
    """Receive with aiohttp's client, `parse_event`."""
    import aiohttp  # noqa: PLC0415 - a peer, which need not be installed

    check = Check(load, repeats=True)
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(load.url(sender, "json")) as websocket,
    ):
        while check.missing:
            check.take(parse_event(await websocket.receive_str()))
    return check.seconds


async def bare_picows(sender: str, load: Load) -> float:
    """Receive with picows, whose callback is given each frame, `parse_event`: no queue between."""
    import picows  # noqa: PLC0415 - a peer, which need not be installed

    check = Check(load, repeats=True)

    class Receiving(picows.WSListener):  # type: ignore[misc]  # untyped
        def on_ws_frame(self, _transport: Any, frame: Any) -> None:
            check.take(parse_event(frame.get_payload_as_bytes()))

    transport, _ = await picows.ws_connect(Receiving, load.url(sender, "json"))
    await check.done.wait()
    transport.disconnect()
    await transport.wait_disconnected()
    return check.seconds


# Other ways to hand events over


async def task_per_event(sender: str, load: Load) -> float:
    """Begin a task for each event, as python-socketio does; none waits here, so they keep order."""
    check = Check(load, repeats=True)
    tasks: set[asyncio.Task[None]] = set()

    async def handle(event: Event) -> None:
        check.take(event)

    async with connect(load.url(sender, "json"), compression=None) as websocket:
        for _ in range(load.events * load.times):
            event = parse_event(await websocket.recv(decode=False))
            task = asyncio.create_task(handle(event))  # noqa: TID251 - their way
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await check.done.wait()
    return check.seconds


async def single_queue(sender: str, load: Load) -> float:
    """Put each event into one queue for one consumer: a handler that waits holds up all."""
    check = Check(load, repeats=True)
    queue: asyncio.Queue[Event] = asyncio.Queue(1000)

    async def handle(event: Event) -> None:
        check.take(event)

    async def consume() -> None:
        while check.missing:
            await handle(await queue.get())

    async with connect(load.url(sender, "json"), compression=None) as websocket:
        consumer = asyncio.create_task(consume())  # noqa: TID251 - their way
        for _ in range(load.events * load.times):
            await queue.put(parse_event(await websocket.recv(decode=False)))
        await consumer
    return check.seconds


# This project


async def _listen(
    url: str,
    load: Load,
    *,
    begin: Callable[[Listener], None] = lambda _: None,
    **options: Any,
) -> float:
    check = Check(load, of_calls=bool(load.calls))
    listener = Listener(url, namespace=NAMESPACE, compression=False, proxy=None, **options)
    kinds = [Event] if load.calls else [Delivered]

    @listener.on(*kinds, name="count" if "journal" in options else None)
    async def count(event: Event) -> None:
        check.take(event)

    begin(listener)

    async with listener:
        await check.done.wait()
        ended = time.perf_counter()
        while load.apart and listener.stats().repeated < load.events:  # noqa: ASYNC110 - as below
            await asyncio.sleep(0.001)  # these come behind the last, and counters have no event
        seconds = check.seconds + (time.perf_counter() - ended if load.apart else 0.0)
        stats = listener.stats()
    assert stats.distinct == load.events
    assert stats.repeated == load.events * (load.times - 1)
    return seconds


async def ours_json(sender: str, load: Load) -> float:
    """The whole listener: filtered, held against repeats, typed, a lane for each device."""
    return await _listen(load.url(sender, "json"), load, wire="json", query="")


async def ours_by_websockets(sender: str, load: Load) -> float:
    """The same, whatever a read brings left to `websockets`."""
    vars(transport)["Frames"] = _Leaving
    try:
        return await ours_json(sender, load)
    finally:
        vars(transport)["Frames"] = Frames


class _Leaving(Frames):
    def receive_data(self, data: bytes) -> None:
        self._leave(data)


async def ours_of_calls(
    sender: str, load: Load, begin: Callable[[Listener], None] = lambda _: None
) -> float:
    """The same, of a centre in which calls go on; `begin` is given the listener."""
    return await _listen(load.url(sender, "json"), load, begin=begin, wire="json", query="")


async def with_journal(sender: str, load: Load, path: Path) -> float:
    """The same, each event on disk before the handler sees it."""
    return await _listen(load.url(sender, "json"), load, wire="json", query="", journal=path)


async def ours_stomp(sender: str, load: Load) -> float:
    """The same over STOMP."""
    return await _listen(load.url(sender, "stomp"), load, wire="stomp", topics=[TOPIC])


# STOMP by others, with `parse_event`


async def stompman_client(sender: str, load: Load) -> float:
    """`stompman` over WebSocket: a task for each message."""
    import stompman  # noqa: PLC0415 - as above
    from stompman.connection_ws import WebSocketConnection  # noqa: PLC0415 - as above

    check = Check(load, repeats=True)
    address = urlsplit(load.url(sender, "stomp"))
    assert address.hostname is not None
    assert address.port is not None
    server = stompman.ConnectionParameters(
        host=address.hostname,
        port=address.port,
        login="",
        passcode="",
        ws_uri_path=f"{address.path}?{address.query}",
    )

    async def handle(frame: stompman.MessageFrame) -> None:
        check.take(parse_event(frame.body))

    async with stompman.Client(
        [server], connection_class=WebSocketConnection, heartbeat=stompman.Heartbeat(60_000, 60_000)
    ) as client:
        subscription = await client.subscribe(
            TOPIC, handle, ack="auto", on_suppressed_exception=print
        )
        await check.done.wait()
        await subscription.unsubscribe()
    return check.seconds


async def stomp_py(sender: str, load: Load) -> float:
    """`stomp.py` over WebSocket: a thread of its own."""
    import stomp  # noqa: PLC0415 - as above

    check = Check(load, repeats=True)
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    address = urlsplit(load.url(sender, "stomp"))

    class Listening(stomp.ConnectionListener):  # type: ignore[misc]  # untyped
        def on_message(self, frame: Any) -> None:
            check.take(parse_event(frame.body))
            if not check.missing:
                loop.call_soon_threadsafe(done.set)

    connection = stomp.WSStompConnection(
        [(address.hostname, address.port)],
        ws_path=f"{address.path}?{address.query}",
        heartbeats=(0, 0),
    )
    connection.set_listener("", Listening())
    await asyncio.to_thread(connection.connect, wait=True)
    connection.subscribe(TOPIC, id="0", ack="auto")
    await done.wait()
    await asyncio.to_thread(connection.disconnect)
    connection.transport.disconnect_socket()  # else its thread waits for ever
    return check.seconds
