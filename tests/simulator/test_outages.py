"""What goes wrong with the whole server, by a plain client."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from cti_listener.simulator import Faults, SimulatorServer
from cti_listener.testing import ManualClock
from tests.simulator.clients import closing_code


async def test_a_flapping_server_accepts_and_closes_at_once_for_a_while() -> None:
    clock = ManualClock()
    async with SimulatorServer(faults=Faults(flap_every=(10, 30)), clock=clock) as server:
        async with connect(server.json_url) as websocket:
            await clock.advance(15)  # the longest it may take to begin
            assert await closing_code(websocket) is None
        for code in (None, 1013):  # by turns
            async with connect(server.json_url) as websocket:
                assert await closing_code(websocket) == code
        assert server.stats.turned_away == 2
        while not await _stands(server.json_url):
            await clock.advance(1)


async def _stands(url: str) -> bool:
    try:
        async with connect(url) as websocket:
            await (await websocket.ping())
    except (OSError, ConnectionClosed, InvalidHandshake):
        return False
    return True


async def _answer(url: str, headers: Mapping[str, str]) -> int:
    try:
        async with connect(url, additional_headers=headers):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


async def test_a_server_is_away_for_a_while_and_comes_back_on_its_port() -> None:
    clock = ManualClock()
    async with SimulatorServer(faults=Faults(away_every=(10, 30)), clock=clock) as server:
        port = server.port
        for _ in range(2):
            async with connect(server.json_url) as websocket:
                await clock.advance(15)
                assert await closing_code(websocket) in (None, 1001)
            with pytest.raises(OSError, match=r"refused|Connect call failed"):
                await connect(server.json_url)
            while not await _stands(server.json_url):
                await clock.advance(1)
        assert server.port == port


async def test_a_server_may_be_stopped_and_started_while_it_is_away() -> None:
    clock = ManualClock()
    async with SimulatorServer(faults=Faults(away_every=(10, 30)), clock=clock) as server:
        await clock.advance(15)
        assert not await _stands(server.json_url)
        await server.stop()
        server.faults = Faults()
        await server.start()
        assert await _stands(server.json_url)


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer old"}, {"Cookie": "S=old"}])
async def test_credentials_expire_sessions_end_and_the_same_draw_401(
    headers: dict[str, str],
) -> None:
    clock = ManualClock()
    async with SimulatorServer(faults=Faults(expire_every=(10, 30)), clock=clock) as server:
        async with connect(server.json_url, additional_headers=headers) as websocket:
            await clock.advance(15)
            assert await closing_code(websocket) == 1008
        assert await _answer(server.json_url, headers) == 401
        async with connect(server.json_url, additional_headers={"sessionId": "new"}):
            await server.wait_for_subscribers()


async def test_expired_credentials_are_taken_again_after_a_while() -> None:
    clock = ManualClock()
    faults = Faults(expire_every=(10, 30))
    async with SimulatorServer(faults=faults, token="t", clock=clock) as server:
        headers = {"sessionId": "t"}
        async with connect(server.json_url, additional_headers=headers) as websocket:
            await clock.advance(15)
            assert await closing_code(websocket) == 1008
        assert await _answer(server.json_url, headers) == 401
        while await _answer(server.json_url, headers) != 101:
            await clock.advance(1)


async def test_while_it_is_calm_the_server_has_no_outage() -> None:
    clock = ManualClock()
    faults = Faults(flap_every=(10, 30), away_every=(10, 30))
    async with SimulatorServer(faults=faults, clock=clock) as server:
        server.calm = True
        async with connect(server.json_url) as websocket:
            await clock.advance(15)
            await (await websocket.ping())
            assert server.stats.outages == 0
            server.calm = False
            assert await closing_code(websocket) is None
        assert server.stats.outages == 1
