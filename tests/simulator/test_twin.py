"""Two servers that tell of one centre: the same events, faults and ledgers of their own."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import pytest
from websockets.asyncio.client import connect

from cti_listener.errors import ConfigurationError
from cti_listener.simulator import Centre, Faults, Ledger, Life, SimulatorServer, Twin, uncovered
from cti_listener.simulator.stream_faults import Message
from tests.simulator.clients import received


def events(n: int = 300) -> list[tuple[float, dict[str, Any]]]:
    return list(islice(Centre(1, rate=1000), n))


def sent(server: SimulatorServer) -> list[dict[str, Any]]:
    assert server.ledger is not None
    return [dict(one.event) for one in server.ledger.sent if not one.repeat]


@pytest.mark.parametrize("speed", [0.0, 10.0])
async def test_both_tell_the_same_in_step(speed: float) -> None:
    servers = [SimulatorServer(ledger=Ledger(), seed=n) for n in range(2)]
    expected = [event for _, event in events()]
    async with (
        Twin(*servers, centre=events(), speed=speed, await_subscriber=True) as twin,
        connect(servers[0].json_url) as first,
        connect(servers[1].json_url) as second,
    ):
        for event in expected:
            assert await received(first) == await received(second) == event
        await twin.wait_played()
    assert [sent(server) for server in servers] == [expected, expected]
    assert repr(twin).startswith("<Twin <SimulatorServer stopped")


async def test_each_has_faults_of_its_own() -> None:
    whole = SimulatorServer(ledger=Ledger())
    broken = SimulatorServer(ledger=Ledger(), faults=Faults(repeat=1, reorder=0.3))
    async with (
        Twin(whole, broken, centre=events(), speed=0, await_subscriber=True) as twin,
        connect(whole.json_url, max_queue=None),
        connect(broken.json_url, max_queue=None),
    ):
        await twin.wait_played()
    expected = [event for _, event in events()]
    assert sent(whole) == expected
    assert sent(broken) != expected
    assert sorted(map(str, sent(broken))) == sorted(map(str, expected))
    assert (whole.stats.repeated, broken.stats.repeated) == (0, 300)


async def test_the_centres_own_faults_are_seen_by_both() -> None:
    servers = [SimulatorServer(ledger=Ledger()) for _ in range(2)]
    faults = Faults(restart_every=0.05)
    async with (
        Twin(*servers, centre=events(), faults=faults, speed=0, await_subscriber=True) as twin,
        connect(servers[0].json_url, max_queue=None),
        connect(servers[1].json_url, max_queue=None),
    ):
        await twin.wait_played()
    assert sent(servers[0]) == sent(servers[1]) != [event for _, event in events()]


async def test_the_ledgers_keep_the_numbers_that_a_stream_was_given() -> None:
    servers = [SimulatorServer(ledger=Ledger(), faults=Faults(repeat=1)) for _ in range(2)]
    numbered = [Message(at, event, number=n) for n, (at, event) in enumerate(events())]
    async with (
        Twin(*servers, centre=numbered, speed=0, await_subscriber=True) as twin,
        connect(servers[0].json_url, max_queue=None),
        connect(servers[1].json_url, max_queue=None),
    ):
        await twin.wait_played()
    for server in servers:
        assert server.ledger is not None
        assert len(server.ledger.sent) == 2 * len(numbered)
        for one in server.ledger.sent:
            assert one.number is not None
            assert numbered[one.number].event == one.event


async def test_split_events_go_to_one_server_only() -> None:
    servers = [SimulatorServer(ledger=Ledger()) for _ in range(2)]
    async with (
        Twin(
            *servers, centre=events(), faults=Faults(split=1), speed=0, await_subscriber=True
        ) as twin,
        connect(servers[0].json_url, max_queue=None),
        connect(servers[1].json_url, max_queue=None),
    ):
        await twin.wait_played()
    first, second = (sent(server) for server in servers)
    assert len(first) > 100 < len(second)
    assert sorted(map(str, first + second)) == sorted(str(event) for _, event in events())


async def test_without_pace_it_goes_on_while_anybody_listens_anywhere() -> None:
    servers = [SimulatorServer(ledger=Ledger()) for _ in range(2)]
    async with Twin(*servers, centre=events(), speed=0) as twin:
        await asyncio.sleep(0.05)
        assert not servers[0].stats.published
        async with connect(servers[1].json_url, max_queue=None):
            await twin.wait_played()
    assert [len(sent(server)) for server in servers] == [0, 300]


async def test_none_starts_where_one_cannot() -> None:
    async with SimulatorServer() as other:
        first, second = SimulatorServer(), SimulatorServer(port=other.port)
        with pytest.raises(ConfigurationError, match="cannot listen"):
            await Twin(first, second, centre=()).start()
        assert repr(first) == "<SimulatorServer stopped, 0 sessions>"


# When nobody was there


def at(seconds: float) -> datetime:
    return datetime(2026, 1, 5, tzinfo=UTC) + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("lives", "gaps"),
    [
        ([], [(0, 10)]),
        ([(0, None)], []),
        ([(2, 4)], [(0, 2), (4, 10)]),
        ([(0, 3), (2, 5), (4, 4.5), (7, None)], [(5, 7)]),
        ([(6, 8), (1, 2)], [(0, 1), (2, 6), (8, 10)]),
        ([(-5, -1), (12, None)], [(0, 10)]),
        ([(-5, 20)], []),
    ],
)
def test_what_no_life_covers_is_found(
    lives: list[tuple[float, float | None]], gaps: list[tuple[float, float]]
) -> None:
    found = [Life(1, at(since), None if until is None else at(until)) for since, until in lives]
    assert uncovered(found, at(0), at(10)) == [(at(since), at(until)) for since, until in gaps]
