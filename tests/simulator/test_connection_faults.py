"""What goes wrong with a connection or the server, by a plain client; and what the ledger says.

A server is calm until its client is where the test wants it; a fault that lasts ends when the test
moves the clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from cti_listener.simulator import Faults, Ledger, SimulatorServer
from cti_listener.simulator.records import Life
from cti_listener.testing import ManualClock
from tests.simulator.clients import HELD, closing_code, received, stomp

SOON = 0.05


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - counters have no event
            await asyncio.sleep(0.005)


async def stays_silent(websocket: ClientConnection, seconds: float = 0.1) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await websocket.recv()
    except TimeoutError:
        return True
    return False


async def answers_no_ping(websocket: ClientConnection) -> bool:
    pong = await websocket.ping()
    try:
        async with asyncio.timeout(0.05):
            await pong
    except TimeoutError:
        return True
    return False


@asynccontextmanager
async def calm(server: SimulatorServer) -> AsyncIterator[SimulatorServer]:
    """Run a server on which no fault begins until the test lets it."""
    server.calm = True
    async with server:
        yield server


async def begins(server: SimulatorServer, clock: ManualClock) -> None:
    """Let the fault begin that is due by now."""
    await clock.advance(1)
    server.calm = False
    await clock.advance(0)


async def ends(server: SimulatorServer, clock: ManualClock) -> None:
    """Let it end, and no other begin."""
    server.calm = True
    await clock.advance(30)


def the_life(server: SimulatorServer) -> Life:
    assert server.ledger is not None
    (life,) = server.ledger.lives
    return life


# Half-open


async def test_a_half_open_session_neither_reads_nor_writes_and_its_connection_stands() -> None:
    faults = Faults(half_open_every=SOON)
    async with (
        calm(SimulatorServer(faults=faults, ledger=Ledger())) as server,
        connect(server.json_url, ping_interval=None) as websocket,
    ):
        await server.wait_for_subscribers()
        assert await server.send(HELD) == 1
        assert await received(websocket) == HELD
        server.calm = False
        await until(lambda: server.stats.frozen)
        assert await server.send(HELD) == 0
        await websocket.send('{"device": "8009"}')
        assert await stays_silent(websocket)
        assert await answers_no_ping(websocket)
        (session,) = server.sessions
        assert repr(session) == "<Session 1 json frozen, 0 queued>"
        websocket.transport.abort()
        await session.over.wait()


async def test_the_ledger_ends_a_half_open_life_with_the_last_byte_that_got_out() -> None:
    faults = Faults(half_open_every=SOON)
    async with (
        calm(SimulatorServer(faults=faults, ledger=Ledger())) as server,
        connect(server.json_url, ping_interval=None) as websocket,
    ):
        await server.wait_for_subscribers()
        await server.send(HELD)
        await received(websocket)
        server.calm = False
        await until(lambda: server.stats.frozen)
        await server.send(HELD)
        assert server.ledger is not None
        (sent,) = server.ledger.sent
        assert the_life(server).until == sent.at
        assert (server.stats.sent, server.stats.unwanted) == (1, 1)
        websocket.transport.abort()


async def test_a_half_open_session_is_not_dropped_for_its_clients_silence() -> None:
    faults = Faults(half_open_every=SOON)
    async with (
        calm(SimulatorServer(faults=faults, heartbeat=(0, 30))) as server,
        stomp(server, heart_beat="30,0") as client,
    ):
        server.calm = False
        await until(lambda: server.stats.frozen)
        assert await stays_silent(client.websocket, 0.2)
        assert len(server.sessions) == 1
        client.websocket.transport.abort()


# Stalls and drips


async def test_a_stalled_session_is_wholly_silent_and_then_goes_on() -> None:
    clock = ManualClock()
    faults = Faults(stall_every=(0.01, 30))
    async with (
        calm(SimulatorServer(faults=faults, clock=clock)) as server,
        connect(server.json_url) as websocket,
        asyncio.TaskGroup() as tasks,
    ):
        await server.wait_for_subscribers()
        await begins(server, clock)
        sending = [tasks.create_task(server.send({**HELD, "serial": n})) for n in range(3)]
        assert await stays_silent(websocket, 0.05)
        assert await answers_no_ping(websocket)
        assert not any(task.done() for task in sending)
        await ends(server, clock)
        assert [(await received(websocket))["serial"] for _ in range(3)] == [0, 1, 2]
        await (await websocket.ping())


async def test_what_a_stalled_session_holds_when_it_ends_was_not_sent() -> None:
    faults = Faults(stall_every=(0.01, 30))
    async with (
        SimulatorServer(faults=faults, ledger=Ledger()) as server,
        connect(server.json_url) as websocket,
    ):
        await server.wait_for_subscribers()
        session = server.sessions[0]
        sent = 0
        async with asyncio.TaskGroup() as tasks:
            while not session.backlog:
                tasks.create_task(server.send(HELD))
                sent += 1
                await asyncio.sleep(0.01)
            websocket.transport.abort()
            await session.over.wait()
        assert server.ledger is not None
        assert server.stats.lost == sent - len(server.ledger.sent) > 0
        life = the_life(server)
        assert life.until is not None
        assert all(life.since <= one.at <= life.until for one in server.ledger.sent)


async def test_a_subscription_lives_from_when_its_answer_is_out() -> None:
    clock = ManualClock()
    faults = Faults(stall_every=(0.01, 30))
    async with (
        calm(SimulatorServer(faults=faults, ledger=Ledger(), clock=clock)) as server,
        stomp(server) as client,
        asyncio.TaskGroup() as tasks,
    ):
        await begins(server, clock)
        assert server.ledger is not None
        subscribing = tasks.create_task(client.subscribe())
        await server.wait_for_subscribers()
        assert server.ledger.lives == []
        await ends(server, clock)
        await subscribing
        await until(lambda: server.ledger and server.ledger.lives)


async def test_a_message_drips_out_in_small_pieces() -> None:
    faults = Faults(drip_every=(0.001, 5))
    async with calm(SimulatorServer(faults=faults)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(
            b"GET /events HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
        server.calm = False
        await asyncio.sleep(0.1)  # by now it drips
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.send(HELD))
            pieces = [await reader.read(10_000)]
            while not pieces[-1].endswith(b"}"):
                pieces.append(await reader.read(10_000))
        assert len(pieces) > 5
        assert b"".join(pieces).endswith(b'"serial":7}')
        writer.transport.abort()


# Ends


async def test_a_reset_is_a_reset() -> None:
    async with (
        calm(SimulatorServer(faults=Faults(reset_every=SOON))) as server,
        connect(server.json_url) as websocket,
    ):
        server.calm = False
        with pytest.raises(ConnectionClosed) as caught:
            await websocket.recv()
        assert isinstance(caught.value.__cause__, ConnectionResetError)
        assert server.stats.dropped == 1


async def test_a_session_may_end_with_an_error_behind_what_it_was_sent() -> None:
    async with (
        calm(SimulatorServer(faults=Faults(error_every=SOON))) as server,
        stomp(server) as client,
    ):
        await client.subscribe()
        await server.send(HELD)
        server.calm = False
        assert (await client.frame()).command == "MESSAGE"
        error = await client.frame()
        assert (error.command, error.headers["message"]) == ("ERROR", "Internal error")
        assert await closing_code(client.websocket) == 1000
        assert await server.send(HELD) == 0


async def test_where_there_is_no_error_frame_a_code_says_it() -> None:
    async with (
        calm(SimulatorServer(faults=Faults(error_every=SOON))) as server,
        connect(server.json_url) as websocket,
    ):
        server.calm = False
        assert await closing_code(websocket) == 1011


# The rules of a session


async def test_a_session_may_get_no_receipt() -> None:
    async with (
        SimulatorServer(faults=Faults(no_receipts=1)) as server,
        stomp(server) as client,
    ):
        await client.say("SUBSCRIBE", id="0", destination="/topic/#", receipt="r")
        await server.wait_for_subscribers()
        await server.send(HELD)
        assert (await client.frame()).command == "MESSAGE"


async def test_a_session_may_have_its_destinations_refused() -> None:
    async with SimulatorServer(faults=Faults(refuse=1)) as server, stomp(server) as client:
        error = await client.subscribe()
        assert (error.command, error.headers["message"]) == ("ERROR", "Invalid destination")
        assert await closing_code(client.websocket) == 1000


@pytest.mark.parametrize(
    "faults", [Faults(no_heartbeats=1), Faults(slow_heartbeats=1), Faults(zero_heartbeats=1)]
)
async def test_heart_beats_that_were_promised_may_never_come(faults: Faults) -> None:
    async with (
        SimulatorServer(faults=faults, heartbeat=(30, 0)) as server,
        connect(server.stomp_url) as websocket,
    ):
        await websocket.send("CONNECT\naccept-version:1.2\nheart-beat:0,30\n\n\0")
        promised = b"0,0" if faults.zero_heartbeats else b"30,0"
        assert b"heart-beat:" + promised in await websocket.recv(decode=False)
        assert await stays_silent(websocket, 0.15)


async def test_slow_heart_beats_come_in_the_end() -> None:
    async with (
        SimulatorServer(faults=Faults(slow_heartbeats=(1, 3)), heartbeat=(20, 0)) as server,
        stomp(server, heart_beat="0,20") as client,
    ):
        assert await client.websocket.recv() == "\n"


# Calm


async def test_while_it_is_calm_no_fault_begins_and_then_all_that_are_due_do() -> None:
    async with calm(SimulatorServer(faults=Faults(drop_every=0.01), ledger=Ledger())) as server:
        async with connect(server.json_url) as websocket:
            await server.wait_for_subscribers()
            assert await stays_silent(websocket)  # for ten times as long as it would have lived
            assert server.stats.dropped == 0
            server.calm = False
            assert await closing_code(websocket) is None
        assert server.stats.dropped == 1


async def test_what_has_begun_when_calm_comes_ends_and_nothing_else_begins() -> None:
    clock = ManualClock()
    async with (
        calm(SimulatorServer(faults=Faults(stall_every=(0.01, 30)), clock=clock)) as server,
        connect(server.json_url) as websocket,
    ):
        await server.wait_for_subscribers()
        await begins(server, clock)
        assert await answers_no_ping(websocket)
        server.calm = True
        await clock.advance(1000)
        await server.send(HELD)
        assert await received(websocket) == HELD
        await (await websocket.ping())
