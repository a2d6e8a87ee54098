"""The order in which a run ends, as each of those sees it that are around it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from cti_listener.wire.stomp_frames import Frame, FrameDecoder, encode
from tests.examples import make
from tests.manager import Manager
from tests.program import StoppedReader, listening, read_until
from tests.sources.receiver import url_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

EVENTS = 600
"""More than a pipe and a lane's first round hold."""


class Broker:
    """Sends its events at once after SUBSCRIBE, and notes what it hears.

    Attributes:
        heard: The commands.
        left: Set when a DISCONNECT came.
    """

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.left = asyncio.Event()

    async def talk(self, session: ServerConnection) -> None:
        decoder = FrameDecoder()
        async for data in session:
            decoder.receive_data(data if isinstance(data, bytes) else data.encode())
            for frame in decoder.frames_received():
                assert isinstance(frame, Frame)
                await self._take(session, frame)

    async def _take(self, session: ServerConnection, frame: Frame) -> None:
        self.heard.append(frame.command)
        match frame.command:
            case "CONNECT":
                await session.send(encode(Frame("CONNECTED", {"version": "1.2"})), text=True)
            case "SUBSCRIBE":
                receipt = Frame("RECEIPT", {"receipt-id": frame.headers["receipt"]})
                await session.send(encode(receipt), text=True)
                for serial in range(1, EVENTS + 1):
                    headers = {"subscription": frame.headers["id"], "message-id": str(serial)}
                    body = json.dumps(make("held", 8002, serial=serial)).encode()
                    await session.send(encode(Frame("MESSAGE", headers, body)), text=True)
            case "DISCONNECT":
                self.left.set()
                await session.close()
            case _:
                pass


@asynccontextmanager
async def broker_up() -> AsyncIterator[tuple[Broker, str]]:
    broker = Broker()
    protocols = [Subprotocol("v12.stomp")]
    async with serve(broker.talk, "127.0.0.1", 0, subprotocols=protocols) as server:
        yield broker, url_of(server, "/mvc/stomp/websocket")


async def read_to_the_end(reader: int) -> bytes:
    text = b""
    while chunk := await asyncio.to_thread(os.read, reader, 65_536):
        text += chunk
    return text


async def test_sigterm_says_so_then_goodbye_then_drains_then_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    manager = Manager(str(tmp_path / "notify"))
    health = tmp_path / "health.json"
    pipe = StoppedReader()
    async with (
        broker_up() as (broker, url),
        listening(
            *("--url", url, "--ns", "zhen04.cc", "--health-file", str(health), "--drain", "25"),
            stdout=pipe.writer,
            NOTIFY_SOCKET=manager.address,
        ) as process,
    ):
        await pipe.is_full()
        process.send_signal(signal.SIGTERM)
        await manager.told_of("STOPPING")
        await broker.left.wait()
        # Nobody reads, so what has come is not printed yet: the drain goes on behind the goodbye.
        assert process.returncode is None
        assert health.exists()
        os.close(pipe.writer)
        lines = (await read_to_the_end(pipe.reader)).splitlines()
        stopped = await read_until(process.stderr, "stopped")
        assert await process.wait() == 0
        pipe.writer = os.open(os.devnull, os.O_WRONLY)  # for it to close
    pipe.close()
    manager.close()
    assert broker.heard == ["CONNECT", "SUBSCRIBE", "DISCONNECT"]
    serials = [one["serial"] for one in map(json.loads, lines) if "serial" in one]
    assert serials == list(range(1, stopped["received"] + 1))
    assert len(serials) > 300
    assert not health.exists()
