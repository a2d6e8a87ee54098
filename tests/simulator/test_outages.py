"""What goes wrong with the whole server, by a plain client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from cti_listener.simulator import Faults, SimulatorServer
from tests.simulator.clients import closing_code


async def test_a_flapping_server_accepts_and_closes_at_once_for_a_while() -> None:
    async with SimulatorServer(faults=Faults(flap_every=(0.4, 0.5))) as server:
        async with connect(server.json_url) as websocket:
            assert await closing_code(websocket) is None
        codes = []
        while server.stats.turned_away < 2:
            async with connect(server.json_url) as websocket:
                codes.append(await closing_code(websocket))
        assert {1013, None} <= set(codes)


async def _stands(url: str) -> bool:
    try:
        async with connect(url) as websocket:
            await (await websocket.ping())
    except (OSError, ConnectionClosed, InvalidHandshake):
        return False
    return True


async def _eventually(attempt: Callable[[], Awaitable[bool]], wanted: bool) -> None:  # noqa: FBT001 - either
    async with asyncio.timeout(10):
        while await attempt() is not wanted:  # noqa: ASYNC110 - a server tells nobody it is there
            await asyncio.sleep(0.01)


async def test_a_server_is_away_for_a_while_and_comes_back_on_its_port() -> None:
    faults = Faults(away_every=(0.3, 0.2))
    async with SimulatorServer(faults=faults) as server:
        port = server.port
        for _ in range(2):
            async with connect(server.json_url) as websocket:
                assert await closing_code(websocket) in (None, 1001)
            with pytest.raises(OSError, match=r"refused|Connect call failed"):
                await connect(server.json_url)
            await _eventually(lambda: _stands(server.json_url), wanted=True)
        assert server.port == port


async def test_a_server_may_be_stopped_and_started_while_it_is_away() -> None:
    async with SimulatorServer(faults=Faults(away_every=(0.02, 30))) as server:
        await _eventually(lambda: _stands(server.json_url), wanted=False)
        await server.stop()
        server.faults = Faults()
        await server.start()
        assert await _stands(server.json_url)


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer old"}, {"Cookie": "S=old"}])
async def test_credentials_expire_sessions_end_and_the_same_draw_401(
    headers: dict[str, str],
) -> None:
    async with SimulatorServer(faults=Faults(expire_every=(0.2, 30))) as server:
        async with connect(server.json_url, additional_headers=headers) as websocket:
            assert await closing_code(websocket) == 1008
        with pytest.raises(InvalidStatus) as caught:
            await connect(server.json_url, additional_headers=headers)
        assert caught.value.response.status_code == 401
        async with connect(server.json_url, additional_headers={"sessionId": "new"}):
            await server.wait_for_subscribers()


async def test_expired_credentials_are_taken_again_after_a_while() -> None:
    async with SimulatorServer(faults=Faults(expire_every=(0.3, 0.1)), token="t") as server:
        headers = {"sessionId": "t"}
        async with connect(server.json_url, additional_headers=headers) as websocket:
            assert await closing_code(websocket) == 1008

        async def admitted() -> bool:
            try:
                async with connect(server.json_url, additional_headers=headers):
                    return True
            except InvalidStatus:
                return False

        await _eventually(admitted, wanted=True)


async def test_while_it_is_calm_the_server_has_no_outage() -> None:
    async with SimulatorServer(faults=Faults(flap_every=(0.01, 5), away_every=(0.01, 5))) as server:
        server.calm = True
        async with connect(server.json_url) as websocket:
            await asyncio.sleep(0.1)  # for five times as long as until both are due
            await (await websocket.ping())
            assert server.stats.outages == 0
            server.calm = False
            assert await closing_code(websocket) is None
        assert server.stats.outages == 1
