"""The ready-made snapshot, against the simulator, and against servers that answer oddly."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import pytest

from cti_listener import (
    AgentStateChanged,
    CallSnapshot,
    CallStarted,
    ClientState,
    ConfigurationError,
    ConnectError,
    Credentials,
    DeviceSnapshot,
    Listener,
    RefusedError,
    Stats,
    client_state,
    parse_event,
)
from cti_listener.simulator import Centre, SimulatorServer
from cti_listener.tracking import Tracking
from cti_listener.values import china
from tests.simulator.clients import HELD, LOGGED_ON

DEVICE = "8002@zhen04.cc"
SESSION = Credentials(cookie="JSESSIONID=5002")
AGENT = {**LOGGED_ON, "agentMode": "NotReady", "serial": 1}


# The simulator


@pytest.mark.parametrize("seed", range(4))
async def test_what_the_simulator_answers_is_what_its_events_came_to(seed: int) -> None:
    tracking = Tracking(wanted=())
    async with SimulatorServer() as server:
        for n, (_, payload) in enumerate(islice(Centre(seed, agents=8, rate=20), 600)):
            await server.send(payload)
            tracking.apply(parse_event(payload))
            if n % 60 == 59:
                for agent in tracking.agents:
                    await same(server, tracking, agent)


async def same(server: SimulatorServer, tracking: Tracking, agent: str) -> None:
    """Hold an answer against what was tracked."""
    known = tracking.agents[agent]
    device, session = known.device, Credentials(headers={"sessionId": agent.partition("@")[0]})
    found = await ClientState(server.http_url, device=device, auth=session)(device)
    assert found is not None
    assert (found.agent, found.mode) == (known.id, known.mode)
    calls = {name: tracking.calls[name].party(device) for name in known.calls}
    assert bool(found.calls) == bool(calls)
    for call in found.calls:
        party = calls[call.id]
        assert party is not None
        assert call.state == party.state


async def test_a_listener_that_comes_late_is_told_how_the_agent_stands() -> None:
    ringing = {
        **HELD,
        "eventName": "delivered",
        "eventTime": "2017.03.18 14:13:24",
        "alertingDevice": DEVICE,
        "callingDevice": "13800138000@zhen04.cc",
        "calledDevice": DEVICE,
        "callId": "c1",
    }
    heard: list[Any] = []
    async with SimulatorServer() as server:
        for event in (AGENT, ringing):
            await server.send(event)
        ask = ClientState(server.http_url, device=DEVICE, auth=SESSION)
        listener = Listener(
            server.json_url, namespace="zhen04.cc", devices=["8002"], snapshot=ask, proxy=None
        )

        @listener.on(CallStarted, AgentStateChanged)
        async def hear(notice: CallStarted | AgentStateChanged) -> None:
            heard.append(notice)

        async with listener:
            started = await listener.wait_for(CallStarted, timeout=10)
            assert listener.calls["c1"].alerted == datetime(2017, 3, 18, 14, 13, 24, tzinfo=china())
            assert listener.agents["5002"].mode == "NotReady"
            assert started.call.direction == "inbound"
            stats: Stats = listener.stats()
    assert [(one.event_name, one.inferred) for one in heard] == [
        ("agentStateChanged", True),
        ("callStarted", True),
    ]
    assert stats.snapshots is not None
    assert (stats.snapshots.asked, stats.snapshots.answered) == (1, 1)


async def test_who_has_no_session_is_told_so() -> None:
    async with SimulatorServer() as server:
        await server.send(AGENT)
        ask = ClientState(server.http_url, device=DEVICE, auth=Credentials(token="none"))
        with pytest.raises(RefusedError, match=r"client-state: answers with HTTP 401$"):
            await ask(DEVICE)


async def test_credentials_are_asked_for_every_time_and_the_others_not_at_all() -> None:
    asked: list[None] = []

    async def session() -> Credentials:
        asked.append(None)
        return SESSION

    async with SimulatorServer() as server:
        await server.send(AGENT)
        ask = ClientState(server.http_url, device=DEVICE, auth=session)
        assert await ask("8003@zhen04.cc") is None
        assert not asked
        for _ in range(2):
            found = await ask(DEVICE)
            assert found is not None
            assert found.mode == "NotReady"
    assert len(asked) == 2


# Any server


@asynccontextmanager
async def answering(answer: bytes, status: str = "200 OK") -> AsyncIterator[tuple[str, list[str]]]:
    """Serve one answer to everything; yield the URL, and what is asked."""
    asked: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(f"HTTP/1.1 {status}\r\nConnection: close\r\n\r\n".encode() + answer)
        await writer.drain()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/cti", asked


async def ask(answer: Any, **options: Any) -> DeviceSnapshot | None:
    text = answer if isinstance(answer, bytes) else json.dumps({"agent": answer}).encode()
    async with answering(text) as (url, _):
        return await ClientState(url, **{"device": DEVICE, "auth": SESSION, **options})(DEVICE)


async def test_what_it_sends_is_a_request_with_the_session() -> None:
    async with answering(b'{"agent": {}}') as (url, asked):
        assert await ClientState(url, device=DEVICE, auth=SESSION)(DEVICE) == DeviceSnapshot()
    assert asked[0].startswith("GET /cti/api/csta/agent/client-state HTTP/1.1\r\n")
    assert "Cookie: JSESSIONID=5002\r\n" in asked[0].replace("cookie", "Cookie")


ACTIVE: list[tuple[dict[str, Any], CallSnapshot | None]] = [
    ({"callId": "c1", "state": "Connect"}, CallSnapshot(id="c1", state="connected")),
    (
        {"callId": "c1", "state": "Hold", "ani": 138},
        CallSnapshot(id="c1", state="held", calling="138@zhen04.cc"),
    ),
    ({"callId": "c1", "state": "Idle"}, None),
    ({"callId": "0", "state": "Connect"}, None),
    ({"state": "Connect"}, None),
    (
        {"callId": "c1", "state": "Alerting", "ringTime": "2017.03.18 14:13:24"},
        CallSnapshot(
            id="c1", state="alerting", alerted=datetime(2017, 3, 18, 14, 13, 24, tzinfo=china())
        ),
    ),
    (
        {"callId": "c1", "state": "Initiate", "ringTime": 1_500_000_000_000, "answerTime": 1e300},
        CallSnapshot(id="c1", state="initiated", alerted=datetime(2017, 7, 14, 2, 40, tzinfo=UTC)),
    ),
]


@pytest.mark.parametrize(("active", "call"), ACTIVE)
async def test_the_active_call_is_read(active: Any, call: CallSnapshot | None) -> None:
    found = await ask({"agentId": "5002", "agentMode": "Ready", "activeCall": active})
    assert found == DeviceSnapshot(
        agent="5002@zhen04.cc", mode="Ready", calls=() if call is None else (call,)
    )


async def test_a_number_is_read_in_seconds_too() -> None:
    found = await ask(
        {"activeCall": {"callId": "c1", "state": "Alerting", "ringTime": 1_500_000_000}}
    )
    assert found is not None
    assert found.calls[0].alerted == datetime(2017, 7, 14, 2, 40, tzinfo=UTC)


async def test_an_agent_who_sits_elsewhere_tells_nothing_of_this_device() -> None:
    assert await ask({"agentId": "5002", "agentMode": "Ready", "extensionId": "8003"}) is None


@pytest.mark.parametrize("answer", [b"", b"<html>", b"[]", b'{"agent": 7}', b"[" * 100_000])
async def test_an_answer_that_is_none_is_an_error(answer: bytes) -> None:
    with pytest.raises(ConnectError, match="the answer is no JSON object with an agent"):
        await ask(answer)


async def test_a_redirect_is_not_followed_for_the_session_is_for_nobody_else() -> None:
    async with (
        answering(b'{"agent": {}}') as (there, asked),
        answering(b"", f"302 Found\r\nLocation: {there}") as (url, _),
    ):
        with pytest.raises(ConnectError, match="answers with HTTP 302"):
            await ClientState(url, device=DEVICE, auth=SESSION)(DEVICE)
    assert not asked


async def test_a_server_that_is_away_is_an_error_without_the_session() -> None:
    async with answering(b"") as (url, _):
        pass
    with pytest.raises(ConnectError, match="Cannot connect to host") as caught:
        await ClientState(url, device=DEVICE, auth=SESSION)(DEVICE)
    assert "5002" not in f"{caught.value!r}"


@asynccontextmanager
async def dripping(text: bytes) -> AsyncIterator[str]:
    """Serve the beginning of an answer, and then a byte now and then, for ever."""
    over = asyncio.Event()

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            writer.write(text)
            while True:
                await writer.drain()
                await asyncio.sleep(0.01)
                writer.write(b"a")
        writer.close()
        over.set()

    async with await asyncio.start_server(serve, "127.0.0.1") as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await over.wait()


@pytest.mark.parametrize(
    "text", [b"HTTP/1.1 200 ", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n\r\n"]
)
async def test_a_server_that_comes_to_no_end_is_waited_for_so_long(text: bytes) -> None:
    async with dripping(text) as url:
        with pytest.raises(ConnectError, match=r"no answer within 0.1 s"):
            await ClientState(url, device=DEVICE, auth=SESSION, timeout=0.1)(DEVICE)


async def test_an_answer_without_end_is_cut() -> None:
    with pytest.raises(ConnectError, match="answers with more than 1048576 bytes"):
        await ask(b"x" * 2**21)


async def test_a_session_with_a_line_break_is_refused_and_not_shown() -> None:
    with pytest.raises(RefusedError, match="holds a line break") as caught:
        await ask({}, auth=Credentials(token="s3cret\n"))
    assert "s3cret" not in f"{caught.value!r}{caught.value}"


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_state, "aiohttp", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'cti-listener\[http\]'"):
        ClientState("https://cti.example.com", device=DEVICE, auth=SESSION)


def test_no_time_at_all_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="timeout: must be more than 0"):
        ClientState("https://cti.example.com", device=DEVICE, auth=SESSION, timeout=0)


@pytest.mark.parametrize(
    ("url", "device", "what"),
    [
        ("wss://cti.example.com", DEVICE, "url: is no URL of HTTP"),
        ("https://", DEVICE, "url: is no URL of HTTP"),
        ("http://[::1", DEVICE, "url: is no URL of HTTP"),
        ("http://cti.example.com:port", DEVICE, "url: is no URL of HTTP"),
        ("https://me:secret@cti.example.com", DEVICE, "url: holds more than a server and a path"),
        ("https://cti.example.com?a=b", DEVICE, "url: holds more than a server and a path"),
        ("https://cti.example.com", "8002", "device: '8002' is no full id"),
        ("https://cti.example.com", "@zhen04.cc", "device: '@zhen04.cc' is no full id"),
    ],
)
def test_what_cannot_be_asked_is_refused(url: str, device: str, what: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ClientState(url, device=device, auth=SESSION)
    assert what in str(caught.value)
    assert "secret" not in str(caught.value)


def test_its_repr_shows_no_session() -> None:
    made = ClientState("https://cti.example.com/", device=DEVICE, auth=SESSION)
    assert repr(made) == (
        "<ClientState of 8002@zhen04.cc at https://cti.example.com/api/csta/agent/client-state>"
    )
