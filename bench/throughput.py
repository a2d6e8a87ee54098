"""The whole pipeline against a bare `websockets` loop, on the same frames from the same process.

    python -m bench.throughput [--events N] [--pairs N] [--devices N]

The bare loop receives and calls `parse_event`, no more. The pipeline filters, dedupes, routes by
device and runs a counting handler in lanes. Each is timed from connecting to its last event; the
two alternate, and the ratio is taken pair by pair. Every run checks that all events arrived, typed,
each device's in order.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import multiprocessing
import statistics
import time
from multiprocessing.connection import Connection

import structlog
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.frames import Frame, Opcode

from cti_listener import Delivered, Event, Listener, parse_event

NAMESPACE = "zhen04.cc"


def make_event(number: int, devices: int) -> bytes:
    """Return one `delivered` as the server sends it, of one device after the other."""
    device = f"{8000 + number % devices}@{NAMESPACE}"
    call = f"{number:08x}-3c92-11e8-bbcd-33878bfda0e8"
    event = {
        "eventName": "delivered",
        "eventSrc": device,
        "eventTime": "2018.04.10 15:39:56",
        "eventType": "csta",
        "serial": 121_000 + number,
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
    return json.dumps(event).encode()


def run_server(pipe: Connection, events: int, devices: int) -> None:
    """Send every client the same frames, encoded beforehand, as fast as it takes them."""
    frames = [
        Frame(Opcode.TEXT, make_event(number, devices)).serialize(mask=False)
        for number in range(events)
    ]
    chunks = [b"".join(frames[at : at + 100]) for at in range(0, events, 100)]

    async def send_all(connection: ServerConnection) -> None:
        for chunk in chunks:
            connection.transport.write(chunk)
            await connection.drain()
        await connection.wait_closed()

    async def main() -> None:
        async with serve(send_all, "127.0.0.1", 0, compression=None) as server:
            pipe.send(next(iter(server.sockets)).getsockname()[1])
            await asyncio.get_running_loop().create_future()

    asyncio.run(main())


async def time_bare(url: str, events: int) -> float:
    """Return the seconds a bare loop takes."""
    seen = Check()
    began = time.perf_counter()
    async with connect(url, compression=None) as websocket:
        for _ in range(events):
            seen.take(parse_event(await websocket.recv(decode=False)))
        took = time.perf_counter() - began
    seen.complete(events)
    return took


async def time_pipeline(url: str, events: int) -> float:
    """Return the seconds the whole pipeline takes."""
    seen = Check()
    done = asyncio.Event()
    listener = Listener(url, namespace=NAMESPACE, wire="json", compression=False, query="")

    @listener.on(Delivered)
    async def count(event: Delivered) -> None:
        seen.take(event)
        if seen.count == events:
            done.set()

    began = time.perf_counter()
    async with listener:
        await done.wait()
        took = time.perf_counter() - began
    seen.complete(events)
    return took


class Check:
    """Counts events and holds them to their class and their device's order."""

    def __init__(self) -> None:
        self.count = 0
        self.last: dict[str | None, int] = {}

    def take(self, event: Event) -> None:
        assert type(event) is Delivered
        assert event.serial is not None
        assert self.last.get(event.src_device_id, 0) < event.serial
        self.last[event.src_device_id] = event.serial
        self.count += 1

    def complete(self, events: int) -> None:
        assert self.count == events


def main() -> None:
    """Run the pairs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=5)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(
        target=run_server, args=(theirs, arguments.events, arguments.devices), daemon=True
    )
    server.start()
    url = f"ws://127.0.0.1:{ours.recv()}/events"
    bare, whole = [], []
    try:
        asyncio.run(time_bare(url, arguments.events))  # warm up, both ends
        for _ in range(arguments.pairs):
            bare.append(asyncio.run(time_bare(url, arguments.events)))
            whole.append(asyncio.run(time_pipeline(url, arguments.events)))
    finally:
        server.terminate()
    rates = {"bare websockets + parse_event": bare, "whole pipeline": whole}
    for name, seconds in rates.items():
        rate = arguments.events / statistics.median(seconds)
        spread = " ".join(f"{arguments.events / one:,.0f}" for one in sorted(seconds, reverse=True))
        print(f"{name:30} {rate:10,.0f} events/s   ({spread})")
    ratios = sorted(b / w for b, w in zip(bare, whole, strict=True))
    print(
        f"{'ratio, median of pairs':30} {statistics.median(ratios):10.2f}              "
        f"({' '.join(f'{ratio:.2f}' for ratio in ratios)})"
    )


if __name__ == "__main__":
    main()
