"""A server that is away: how soon everybody is back, and how little they crowd."""

from __future__ import annotations

import asyncio
import logging
import statistics
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator

import websockets
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

from bench.speed.ratios import Row, over, row
from bench.speed.sender import NAMESPACE
from cti_listener import Connected, ConnectionOptions, Listener

LISTENERS = 500
AWAY = 60.0
"""For how long the server is away from all of them, in seconds."""

SETTLED = 15.0
"""After so long, in seconds, they must not come in crowds any more; at first they all do."""

CLIENTS = 20
OUTAGE = 2.0


def reconnecting(rounds: int, *, crowd: bool = True) -> Iterator[Row]:
    """Compare waits; watch a crowd for a minute."""
    ours = [asyncio.run(_median_wait(_listen)) for _ in range(rounds)]
    theirs = [asyncio.run(_median_wait(_reconnect)) for _ in range(rounds)]
    yield row(
        f"Median wait after an outage of {OUTAGE:g} s: to websockets' own reconnecting",
        over(ours, theirs),
        at_most=0.3,
        detail=f"{statistics.median(ours):.2f} s to {statistics.median(theirs):.2f} s",
    )
    if crowd:
        share, slowest = asyncio.run(_crowd())
        yield row(
            f"{LISTENERS} listeners, away {AWAY:g} s: most of the attempts after the first"
            f" {SETTLED:g} s in one second, %",
            [100 * share],
            at_most=10,
        )
        cap = ConnectionOptions().max_wait
        yield row(
            "  the last one back after, s (max_wait, and a second)", [slowest], at_most=cap + 1
        )


async def _crowd() -> tuple[float, float]:
    """Return the largest share of settled attempts in a second, and when the last was back."""
    attempts: list[float] = []
    back: list[float] = []

    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        attempts.append(time.monotonic())
        writer.transport.abort()

    port = await _free_port()
    url = f"ws://127.0.0.1:{port}/json"
    async with asyncio.TaskGroup() as tasks:
        listeners = []
        async with serve(_greet, "127.0.0.1", port) as server:
            for _ in range(LISTENERS):
                listener = Listener(url, namespace=NAMESPACE, wire="json", query="", proxy=None)

                @listener.on(Connected)
                async def note(_: Connected) -> None:
                    back.append(time.monotonic())

                listeners.append(listener)
                tasks.create_task(listener.run())
            await _until(back, LISTENERS)
            for connection in list(server.connections):
                connection.transport.abort()
        gone = time.monotonic()
        async with await asyncio.start_server(refuse, "127.0.0.1", port, backlog=LISTENERS):
            await asyncio.sleep(AWAY)
        back.clear()
        returned = time.monotonic()
        async with serve(_greet, "127.0.0.1", port, backlog=LISTENERS):
            await _until(back, LISTENERS)
            slowest = max(back) - returned
            for listener in listeners:
                tasks.create_task(listener.stop())
            await asyncio.sleep(1)
    late = [at for at in attempts if at > gone + SETTLED]
    seconds = Counter(int(at - gone) for at in late)
    return max(seconds.values()) / len(late), slowest


Client = Callable[[str, Callable[[float], None]], Coroutine[None, None, None]]


async def _listen(url: str, connected: Callable[[float], None]) -> None:
    listener = Listener(url, namespace=NAMESPACE, wire="json", query="", proxy=None)

    @listener.on(Connected)
    async def note(_: Connected) -> None:
        connected(time.monotonic())

    await listener.run()


async def _reconnect(url: str, connected: Callable[[float], None]) -> None:
    async for websocket in connect(url, proxy=None):
        connected(time.monotonic())
        try:
            async for _ in websocket:
                pass
        except websockets.ConnectionClosed:
            continue


async def _median_wait(client: Client) -> float:
    """Return how long after the server was back half of the clients were."""
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
    port = await _free_port()
    url = f"ws://127.0.0.1:{port}/json"
    came: list[float] = []
    tasks = [
        asyncio.create_task(client(url, came.append))  # noqa: TID251 - cancelled below
        for _ in range(CLIENTS)
    ]
    async with serve(_greet, "127.0.0.1", port) as server:
        await _until(came, CLIENTS)
        for connection in list(server.connections):
            connection.transport.abort()
    await asyncio.sleep(OUTAGE)
    came.clear()
    back = time.monotonic()
    async with serve(_greet, "127.0.0.1", port):
        await _until(came, CLIENTS)
        waits = sorted(at - back for at in came)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return waits[len(waits) // 2]


async def _greet(connection: websockets.ServerConnection) -> None:
    await connection.wait_closed()


async def _until(came: list[float], count: int) -> None:
    while len(came) < count:  # noqa: ASYNC110 - two libraries append to it
        await asyncio.sleep(0.01)


async def _free_port() -> int:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port
