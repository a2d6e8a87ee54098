"""One life after another: subscribing, liveness, outages, refusals, and how it all ends."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

import pytest
from structlog.testing import capture_logs
from websockets.asyncio.server import ServerConnection, serve
from websockets.frames import Frame as WebSocketFrame
from websockets.frames import Opcode
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from cti_listener.errors import ConfigurationError, RefusedError, UnreachableError
from cti_listener.interest import Interest
from cti_listener.notices import GapReason
from cti_listener.simulator import SimulatorServer
from cti_listener.sources.endpoints import Endpoints
from cti_listener.sources.options import ConnectionOptions, Credentials
from cti_listener.sources.websocket import WebSocketSource
from cti_listener.testing import ManualClock
from cti_listener.values import china
from cti_listener.wire.stomp import StompCodec
from cti_listener.wire.stomp_frames import Frame, FrameDecoder, encode
from tests.elsewhere import simulator_elsewhere
from tests.examples import NAMESPACE, make
from tests.servers import free_ports
from tests.sources.receiver import (
    PATIENCE,
    Kept,
    running,
    shake_hands,
    source_of,
    tcp_server,
    url_of,
)
from tests.turns import until

EVERYBODY = "/topic/event.agent.*.*"
OTHER = "/topic/event.other"


# Both wires


@pytest.mark.parametrize(
    ("wire", "path", "spoken"),
    [
        ("auto", "stomp", "stomp"),
        ("stomp", "stomp", "stomp"),
        ("auto", "json", "json"),
        ("json", "json", "json"),
    ],
)
async def test_the_wire_is_what_was_asked_for_or_what_the_server_speaks(
    cti_server: SimulatorServer, wire: str, path: str, spoken: str
) -> None:
    url = cti_server.stomp_url if path == "stomp" else cti_server.json_url
    async with running(source_of(url, wire=wire)) as kept:
        await kept.until(lambda: kept.connected)
        event = make()
        await cti_server.send(event)
        await kept.until(lambda: kept.events)
        assert [session.wire for session in cti_server.sessions] == [spoken]
    assert kept.connected == [(url, spoken == "stomp", 1)]
    assert kept.destinations == [EVERYBODY if spoken == "stomp" else None]
    assert kept.serials == [event["serial"]]


async def test_a_server_that_chooses_stomp_is_spoken_to_in_stomp_whatever_its_path() -> None:
    first: list[bytes] = []

    async def talk(connection: ServerConnection) -> None:
        first.append(await connection.recv(decode=False))

    protocols = [Subprotocol("v11.stomp")]
    async with (
        serve(talk, "127.0.0.1", 0, subprotocols=protocols) as server,
        running(source_of(url_of(server, "/anything"))) as kept,
    ):
        await kept.until(lambda: kept.failed)
    assert first[0].startswith(b"CONNECT\n")


async def test_a_json_server_is_told_the_wish_by_url_and_by_message() -> None:
    said: list[object] = []

    async def talk(connection: ServerConnection) -> None:
        assert connection.request is not None
        said.extend((connection.request.path, await connection.recv()))
        await connection.wait_closed()

    interest = Interest(NAMESPACE, devices=["8002", "8003"])
    async with serve(talk, "127.0.0.1", 0) as server:
        source = source_of(url_of(server), wire="json", subscribe=['{"ns":"{namespace}"}'])
        async with running(source, interest) as kept:
            await kept.until(lambda: kept.connected)
    assert said == [
        "/events?namespace=zhen04.cc&device=8002@zhen04.cc&device=8003@zhen04.cc",
        '{"ns":"zhen04.cc"}',
    ]


async def test_a_broker_without_receipts_is_subscribed_to_unconfirmed() -> None:
    async with (
        SimulatorServer(receipts=False) as server,
        running(source_of(server.stomp_url, receipt_timeout=0.05)) as kept,
    ):
        await kept.until(lambda: kept.connected)
        await server.send(make())
        await kept.until(lambda: kept.events)
    assert [confirmed for _, confirmed, _ in kept.connected] == [False]


@pytest.mark.parametrize("wire", ["stomp", "json"])
@pytest.mark.parametrize(
    ("rubbish", "reason"),
    [
        ("<html>502</html>", "not_json"),
        ('"text"', "not_an_object"),
        (b'{"eventName": "\xff"}', "not_utf8"),
        ("[" * 100_000, "too_deep"),
    ],
)
async def test_a_bad_message_is_told_and_the_connection_lives(
    cti_server: SimulatorServer, wire: str, rubbish: str | bytes, reason: str
) -> None:
    body = rubbish if isinstance(rubbish, bytes) else rubbish.encode()
    data = encode(Frame("MESSAGE", {"subscription": "0"}, body)) if wire == "stomp" else body
    url = cti_server.stomp_url if wire == "stomp" else cti_server.json_url
    async with running(source_of(url)) as kept:
        await kept.until(lambda: kept.connected)
        await cti_server.send_raw(data)  # binary, as broken UTF-8 must be
        await cti_server.send(make())
        await kept.until(lambda: kept.events)
    assert [bad.reason for bad in kept.bad] == [reason]
    assert kept.lost_ == []


async def test_a_message_above_soft_size_is_left_out_and_the_connection_lives(
    cti_server: SimulatorServer,
) -> None:
    async with running(source_of(cti_server.json_url, soft_size=1000)) as kept:
        await kept.until(lambda: kept.connected)
        await cti_server.send(make(padding="x" * 2000))
        await cti_server.send(make())
        await kept.until(lambda: kept.events)
    assert [(bad.reason, len(bad.sample)) for bad in kept.bad] == [("too_large", 200)]
    assert (len(kept.events), kept.messages, kept.lost_) == (1, 2, [])


# Liveness


def test_by_default_a_dead_peer_is_noticed_within_15_seconds() -> None:
    tick = 1.0
    assert ConnectionOptions().silence_limit + tick <= 15


async def test_a_server_that_stops_answering_is_noticed_within_15_seconds() -> None:
    clock = ManualClock()

    async def go_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await shake_hands(reader, writer)
        await asyncio.sleep(3600)

    async with tcp_server(go_silent) as url, running(source_of(url, clock=clock)) as kept:
        await kept.until(lambda: kept.connected)
        connected_at = clock.now()
        for _ in range(11):
            await clock.advance(1.0)
        assert kept.lost_ == []
        for _ in range(4):
            await clock.advance(1.0)
        await kept.until(lambda: kept.lost_)
    (lost,) = kept.lost_
    assert (lost.reason, lost.since) == ("half_open", connected_at)
    assert "not even answers to pings" in lost.detail


@pytest.mark.parametrize("wire", ["stomp", "json"])
async def test_a_loop_held_up_during_the_handshake_has_the_time_left_that_it_had(
    wire: str,
) -> None:
    open_timeout = 0.4
    loop = asyncio.get_running_loop()

    async def log_in() -> Credentials:
        loop.call_soon(time.sleep, 2 * open_timeout)  # right after the connection was asked for
        return Credentials()

    async with simulator_elsewhere() as elsewhere:
        server = elsewhere.server
        url = server.stomp_url if wire == "stomp" else server.json_url
        async with running(source_of(url, auth=log_in, open_timeout=open_timeout)) as kept:
            await kept.until(lambda: kept.connected or kept.failed)
    assert kept.failed == []


async def test_a_quiet_server_is_asked_by_ping_and_any_byte_is_a_sign_of_life() -> None:
    clock = ManualClock()
    pings = asyncio.Queue[int]()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await shake_hands(reader, writer)
        while await reader.readexactly(6):  # a masked ping without content
            pings.put_nowait(1)
            writer.write(WebSocketFrame(Opcode.PONG, b"").serialize(mask=False))

    async with tcp_server(answer) as url, running(source_of(url, clock=clock)) as kept:
        await kept.until(lambda: kept.connected)
        for _ in range(10):
            for _ in range(5):
                await clock.advance(1.0)
            async with asyncio.timeout(PATIENCE):
                await pings.get()
        assert kept.lost_ == []


async def test_stomp_heart_beats_are_sent_as_agreed() -> None:
    clock = ManualClock()
    heard = asyncio.Queue[bytes]()

    async def talk(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(
            encode(Frame("CONNECTED", {"version": "1.2", "heart-beat": "0,8000"})), text=True
        )
        await connection.recv()
        receipt = Frame("RECEIPT", {"receipt-id": "subscribe-0"})
        await connection.send(encode(receipt), text=True)
        async for message in connection:
            heard.put_nowait(message if isinstance(message, bytes) else message.encode())

    protocols = [Subprotocol("v12.stomp")]
    async with serve(talk, "127.0.0.1", 0, subprotocols=protocols) as server:
        source = source_of(url_of(server), clock=clock, ping_interval=0, silence_limit=0)
        async with running(source) as kept:
            await kept.until(lambda: kept.connected)
            for _ in range(10):
                await clock.advance(1.0)
            async with asyncio.timeout(PATIENCE):
                assert await heard.get() == b"\n"


async def test_a_silent_destination_draws_one_warning_that_names_the_setting(
    cti_server: SimulatorServer,
) -> None:
    clock = ManualClock()
    source = source_of(
        cti_server.stomp_url,
        clock=clock,
        topics=[EVERYBODY, OTHER],
        ping_interval=0,
        silence_limit=0,
    )
    with capture_logs() as logs:
        async with running(source) as kept:
            await kept.until(lambda: kept.connected)
            await cti_server.send(make())
            await kept.until(lambda: kept.events)
            for _ in range(65):
                await clock.advance(10.0)
    warnings = [entry for entry in logs if entry["event"] == "destination_silent"]
    assert [entry["destination"] for entry in warnings] == [OTHER]
    assert "--topic" in warnings[0]["hint"]


async def test_a_json_server_has_no_destinations_to_be_silent(cti_server: SimulatorServer) -> None:
    clock = ManualClock()
    source = source_of(cti_server.json_url, clock=clock, ping_interval=0, silence_limit=0)
    with capture_logs() as logs:
        async with running(source) as kept:
            await kept.until(lambda: kept.connected)
            for _ in range(65):
                await clock.advance(10.0)
    assert [entry for entry in logs if entry["event"] == "destination_silent"] == []


async def test_a_paused_source_reads_nothing_and_holds_no_silence_against_the_peer(
    cti_server: SimulatorServer,
) -> None:
    clock = ManualClock()
    source = source_of(cti_server.json_url, clock=clock)
    async with running(source) as kept:
        await kept.until(lambda: kept.connected)
        source.pause()
        await cti_server.send(make())
        for _ in range(30):
            await clock.advance(1.0)
        assert kept.events == []
        source.resume()
        await kept.until(lambda: kept.events)
        assert kept.lost_ == []


async def test_a_connection_cut_while_paused_was_cut_for_a_slow_consumer(
    cti_server: SimulatorServer,
) -> None:
    source = source_of(cti_server.json_url)
    async with running(source) as kept:
        await kept.until(lambda: kept.connected)
        source.pause()
        await cti_server.disconnect()
        source.resume()
        await kept.until(lambda: kept.lost_)
        assert [lost.reason for lost in kept.lost_] == ["slow_consumer"]
        await kept.until(lambda: len(kept.connected) == 2)


async def test_a_message_above_max_size_ends_the_connection_as_oversized(
    cti_server: SimulatorServer,
) -> None:
    source = source_of(cti_server.json_url, max_size=2000, soft_size=1000)
    async with running(source) as kept:
        await kept.until(lambda: kept.connected)
        await cti_server.send(make(padding="x" * 3000))
        await kept.until(lambda: len(kept.connected) == 2)
    assert [lost.reason for lost in kept.lost_] == ["oversized"]


async def test_an_event_behind_an_oversized_message_in_the_same_bytes_lies_in_the_gap() -> None:
    def frame(text: str) -> bytes:
        return WebSocketFrame(Opcode.TEXT, text.encode()).serialize(mask=False)

    sent: list[datetime] = []

    async def serve_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await shake_hands(reader, writer, frame(json.dumps(make())))
        if sent:
            return  # this is the connection after
        await kept.until(lambda: kept.events)
        await asyncio.sleep(0)  # the listener has read all there is
        sent.append(datetime.now(UTC))
        writer.write(frame(json.dumps(make())) + frame("x" * 3000) + frame(json.dumps(make())))
        while True:  # for as long as the listener lets us: it is not to wait for our end
            writer.write(frame(json.dumps(make())))
            await writer.drain()
            await asyncio.sleep(0.01)

    async with tcp_server(serve_once) as url:
        source = source_of(url, max_size=2000, soft_size=2000)
        async with running(source) as kept:
            await kept.until(lambda: len(kept.connected) == 2)
    (lost,) = kept.lost_
    assert lost.reason == "oversized"
    assert len(kept.events) == 3
    assert lost.since <= sent[0]


@pytest.mark.parametrize("how", ["half a frame", "a fragment", "half a frame of STOMP"])
async def test_an_event_of_which_only_the_beginning_came_lies_in_the_gap(how: str) -> None:
    def frame(data: bytes, **options: Any) -> bytes:
        return WebSocketFrame(Opcode.TEXT, data, **options).serialize(mask=False)

    wire, greeting, event = "json", b"", json.dumps(make()).encode()
    if how == "half a frame of STOMP":
        wire, greeting = "stomp", frame(b"CONNECTED\nversion:1.2\n\n\0")
        event = encode(Frame("MESSAGE", {"subscription": "0"}, event))
    greeting += frame(event)
    if how == "half a frame":
        pieces = [frame(event)[:100], frame(event)[100:120]]
    else:
        ping = WebSocketFrame(Opcode.PING, b"").serialize(mask=False)
        pieces = [frame(event[:100], fin=how != "a fragment"), ping]
    sent: list[datetime] = []

    async def serve_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await shake_hands(reader, writer, greeting)
        if sent:
            return  # this is the connection after
        await kept.until(lambda: kept.events)
        sent.append(datetime.now(UTC))
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.1)
        writer.transport.abort()

    async with tcp_server(serve_once) as url, running(source_of(url, wire=wire)) as kept:
        await kept.until(lambda: len(kept.connected) == 2)
    (lost,) = kept.lost_
    assert lost.since <= sent[0]


@pytest.mark.parametrize("code", [None, 1011])
async def test_what_is_lost_while_the_loop_is_held_up_lies_in_the_gap(code: int | None) -> None:
    held_up = 0.2

    async def lose(server: SimulatorServer) -> datetime:
        await server.send(make())
        with suppress(TimeoutError):  # its goodbye is not answered
            async with asyncio.timeout(held_up / 4):
                await server.disconnect(code)
                await asyncio.sleep(held_up)
        at = datetime.now(UTC)
        await asyncio.sleep(held_up)
        return at

    async with (
        simulator_elsewhere() as elsewhere,
        running(source_of(elsewhere.server.json_url)) as kept,
    ):
        await kept.until(lambda: kept.connected)
        losing = asyncio.run_coroutine_threadsafe(lose(elsewhere.server), elsewhere.loop)
        at = losing.result(PATIENCE)  # holds the loop up
        await kept.until(lambda: kept.lost_)
    assert len(kept.events) == 1
    assert kept.lost_[0].since <= at


async def test_what_was_read_late_is_a_sign_of_life_of_when_it_came() -> None:
    """The loop was held up; nothing may have come since, and we may be killed any moment."""

    async def send(server: SimulatorServer) -> datetime:
        await server.send(make())
        at = datetime.now(UTC)
        await asyncio.sleep(0.2)
        return at

    async with simulator_elsewhere() as elsewhere:
        source = source_of(elsewhere.server.json_url)
        async with running(source) as kept:
            await kept.until(lambda: kept.connected)
            sending = asyncio.run_coroutine_threadsafe(send(elsewhere.server), elsewhere.loop)
            at = sending.result(PATIENCE)  # holds the loop up
            await kept.until(lambda: kept.events)
            assert source.last_signs["a"] < at + timedelta(seconds=0.1)


# Outages


@pytest.mark.slow
async def test_a_server_that_accepts_and_closes_is_met_at_most_12_times_in_10_seconds() -> None:
    met = {"at once": 0, "after subscribing": 0, "with an event": 0, "error": 0}

    def closing(how: str, then: Callable[[ServerConnection], Awaitable[object]]) -> Any:
        async def talk(connection: ServerConnection) -> None:
            met[how] += 1
            await then(connection)

        return serve(talk, "127.0.0.1", 0)

    async def subscribed(connection: ServerConnection) -> None:
        await asyncio.sleep(0.15)  # longer than the grace

    async def greet(connection: ServerConnection) -> None:
        await connection.send(json.dumps(make()))
        await asyncio.sleep(0.15)

    async def error(connection: ServerConnection) -> None:
        await connection.send("oops")

    async with (
        closing("at once", lambda _: asyncio.sleep(0)) as one,
        closing("after subscribing", subscribed) as two,
        closing("with an event", greet) as three,
        closing("error", error) as four,
    ):
        sources = [source_of(url_of(server)) for server in (one, two, three, four)]
        kept = Kept()
        async with asyncio.TaskGroup() as tasks:
            for source in sources:
                tasks.create_task(source.run(kept, Interest(NAMESPACE)))
            await asyncio.sleep(10)
            for source in sources:
                await source.stop()
    assert all(3 <= count <= 12 for count in met.values()), met


@pytest.mark.slow
async def test_a_server_away_for_2_seconds_is_subscribed_to_within_half_a_second() -> None:
    async def once() -> float:
        async with (
            SimulatorServer(port=free_ports(1)[0]) as server,
            running(source_of(server.stomp_url)) as kept,
        ):
            await kept.until(lambda: kept.connected)
            await server.stop()
            await asyncio.sleep(2)
            await server.start()
            back = time.monotonic()
            await kept.until(lambda: len(kept.connected) == 2)
            return time.monotonic() - back

    waits = await asyncio.gather(*(once() for _ in range(7)))
    assert statistics.median(waits) < 0.5


async def test_it_gives_up_after_max_attempts_and_says_why() -> None:
    (port,) = free_ports(1)
    source = source_of(f"ws://127.0.0.1:{port}/events", max_attempts=2, max_wait=0.01)
    with pytest.raises(UnreachableError, match=r"gave up after 2 attempts: .*nothing listens"):
        await source.run(Kept(), Interest(NAMESPACE))


async def test_an_endpoint_that_is_down_is_passed_over_for_the_next(
    cti_server: SimulatorServer,
) -> None:
    (port,) = free_ports(1)
    down = f"ws://127.0.0.1:{port}/events"
    source = source_of(down, cti_server.json_url, max_wait=0.01)
    assert source.endpoints == [down, cti_server.json_url]
    async with running(source) as kept:
        await kept.until(lambda: kept.connected)
    assert [error.url for error in kept.failed] == [down]
    assert kept.connected == [(cti_server.json_url, False, 2)]


async def test_credentials_are_asked_for_before_every_attempt() -> None:
    tokens = iter(["first", "stale", "renewed"])
    asked: list[str] = []

    async def auth() -> Credentials:
        asked.append(next(tokens))
        return Credentials(token=asked[-1])

    async with (
        SimulatorServer(token="first") as server,
        running(source_of(server.stomp_url, auth=auth, max_wait=0.01)) as kept,
    ):
        await kept.until(lambda: kept.connected)
        server.token = "renewed"
        await server.disconnect()
        await kept.until(lambda: len(kept.connected) == 2)
    assert asked == ["first", "stale", "renewed"]
    assert ["HTTP 401" in error.problem for error in kept.failed] == [True]


async def test_auth_that_fails_is_asked_again(cti_server: SimulatorServer) -> None:
    problems = iter([OSError("the vault is sealed")])

    async def auth() -> Credentials:
        for problem in problems:
            raise problem
        return Credentials()

    async with running(source_of(cti_server.stomp_url, auth=auth, max_wait=0.01)) as kept:
        await kept.until(lambda: kept.connected)
    assert [error.problem for error in kept.failed] == ["OSError: the vault is sealed"]


# Refusals


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_refusal_is_fatal_before_the_first_success_and_retried_after_it(
    status: int,
) -> None:
    refusing = True

    def judge(connection: ServerConnection, _: Request) -> Response | None:
        return connection.respond(HTTPStatus(status), "no\n") if refusing else None

    async def stay(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async with serve(stay, "127.0.0.1", 0, process_request=judge) as server:
        with pytest.raises(RefusedError, match=f"HTTP {status}"):
            await source_of(url_of(server)).run(Kept(), Interest(NAMESPACE))
        refusing = False
        async with running(source_of(url_of(server), max_wait=0.01)) as kept:
            await kept.until(lambda: kept.connected)
            refusing = True
            for connection in set(server.connections):
                connection.transport.abort()
            await kept.until(lambda: len(kept.failed) >= 3)
            refusing = False
            await kept.until(lambda: len(kept.connected) == 2)
    assert all(f"HTTP {status}" in error.problem for error in kept.failed)


async def test_a_refusal_of_one_endpoint_is_not_one_of_all(cti_server: SimulatorServer) -> None:
    wrong = cti_server.json_url.replace("/events", "/nothing")
    async with running(source_of(wrong, cti_server.json_url, max_wait=0.01)) as kept:
        await kept.until(lambda: kept.connected)
    assert [error.url for error in kept.failed] == [wrong]
    with pytest.raises(RefusedError, match="HTTP 404"):
        await source_of(wrong, wrong, max_wait=0.01).run(Kept(), Interest(NAMESPACE))


async def test_a_wrong_passcode_is_refused_without_showing_it() -> None:
    async with SimulatorServer(credentials=("me", "right")) as server:
        source = source_of(server.stomp_url, auth=Credentials(login="me", passcode="wr0ng"))
        with pytest.raises(RefusedError, match="Access refused") as raised:
            await source.run(Kept(), Interest(NAMESPACE))
        assert "wr0ng" not in f"{raised.value} {raised.value!r} {source!r}"
        right = Credentials(login="me", passcode="right")
        async with running(source_of(server.stomp_url, auth=right)) as kept:
            await kept.until(lambda: kept.connected)
            assert kept.failed == []


async def test_a_passcode_that_stomp_cannot_carry_is_an_error_and_not_retried(
    cti_server: SimulatorServer,
) -> None:
    source = source_of(cti_server.stomp_url, auth=Credentials(login="me", passcode="two\nlines"))
    with pytest.raises(ConfigurationError, match="passcode") as raised:
        await asyncio.wait_for(source.run(Kept(), Interest(NAMESPACE)), PATIENCE)
    assert "lines" not in str(raised.value)


@pytest.mark.parametrize("topics", [[OTHER, EVERYBODY], [EVERYBODY, OTHER]])
async def test_a_refused_destination_is_left_out_by_name_and_taken_up_again(
    topics: list[str],
) -> None:
    clock = ManualClock()
    async with SimulatorServer(refuse=[OTHER]) as server:
        source = source_of(server.stomp_url, topics=topics, max_wait=0.001, clock=clock)
        async with running(source) as kept:
            await kept.until(lambda: kept.refused)
            await clock.advance(1.0)
            await kept.until(lambda: kept.connected)
            await server.send(make())
            await kept.until(lambda: kept.events)
            assert (kept.refused, kept.failed, kept.accepted) == ([OTHER], [], [])

            await let_pass(clock, 300)  # still refused
            assert kept.accepted == []
            server.rules.refuse = frozenset()
            passing = asyncio.get_running_loop().create_task(let_pass(clock, 305))
            await kept.until(lambda: kept.accepted)
            passing.cancel()

            assert kept.accepted == [OTHER]
            (session,) = [one for one in server.sessions if len(one.subscriptions) == 2]
            assert {one.destination for one in session.subscriptions} == {EVERYBODY, OTHER}
            assert len(kept.connected) == 1
            assert kept.lost_ == []


async def test_what_was_refused_altogether_and_is_taken_later_is_accepted_by_name() -> None:
    async with SimulatorServer() as server:
        source = source_of(server.stomp_url, topics=[EVERYBODY, OTHER], max_wait=0.001)
        async with running(source) as kept:
            await kept.until(lambda: kept.connected)
            server.rules.refuse = frozenset({EVERYBODY, OTHER})
            await server.disconnect()
            await kept.until(lambda: {EVERYBODY, OTHER} <= set(kept.refused))
            assert len(kept.connected) == 1
            server.rules.refuse = frozenset({OTHER})
            await kept.until(lambda: len(kept.connected) == 2)
            assert kept.accepted == [EVERYBODY]
            server.rules.refuse = frozenset()
            await server.disconnect()
            await kept.until(lambda: len(kept.connected) == 3)
            (session,) = server.sessions
            assert [one.destination for one in session.subscriptions] == [EVERYBODY]


async def test_what_the_source_before_was_refused_is_told_once_it_is_taken() -> None:
    since = ManualClock().now()
    refused = {EVERYBODY: since, OTHER: since}
    options = ConnectionOptions(topics=[EVERYBODY, OTHER], max_wait=0.001, proxy=None)
    async with SimulatorServer(refuse=[OTHER]) as server:
        source = WebSocketSource([server.stomp_url], options=options, refused=refused)
        async with running(source) as kept:
            await kept.until(lambda: kept.connected)
    assert (kept.accepted, kept.refused) == ([EVERYBODY], [OTHER])
    assert refused == {OTHER: since}


async def test_what_stomp_refuses_is_not_missing_while_another_endpoint_brings_it_over_json() -> (
    None
):
    async with SimulatorServer(refuse=[EVERYBODY]) as server:
        source = source_of(server.stomp_url, server.json_url, max_wait=0.001)
        async with running(source) as kept:
            await kept.until(lambda: kept.accepted)
            assert kept.refused == kept.accepted == [EVERYBODY]
            assert [url for url, _, _ in kept.connected] == [server.json_url]


async def test_a_refused_destination_no_longer_wanted_is_asked_for_no_more() -> None:
    refused = "/topic/event.agent.*.5002@zhen04_cc"
    interest = Interest(NAMESPACE, agents=["5001", "5002"])
    async with SimulatorServer(refuse=[refused]) as server:
        source = source_of(server.stomp_url, max_wait=0.001, refused_retry=0.01)
        async with running(source, interest) as kept:
            await kept.until(lambda: kept.connected)
            assert kept.refused == [refused]
            interest.remove([], ["5002"])
            await source.update()
            assert kept.accepted == [refused]
            server.rules.refuse = frozenset()
            await asyncio.sleep(0.1)
            assert [len(session.subscriptions) for session in server.sessions] == [1]


async def test_a_wish_that_is_refused_is_followed_once_all_the_rest_stands_anew() -> None:
    refused = [f"/topic/event.agent.*.{agent}@zhen04_cc" for agent in ("5002", "5003")]
    interest = Interest(NAMESPACE, agents=["5001"])
    async with SimulatorServer(refuse=refused) as server:
        source = source_of(server.stomp_url, max_wait=0.001)
        async with running(source, interest) as kept:
            await kept.until(lambda: kept.connected)
            interest.add([], ["5002", "5003", "5004"])
            await source.update()
            assert sorted(kept.refused) == refused
            assert len(kept.connected) == 2
            (session,) = [one for one in server.sessions if len(one.subscriptions) == 2]
            asked = [one.destination.partition("*.")[2] for one in session.subscriptions]
    assert asked == ["5001@zhen04_cc", "5004@zhen04_cc"]


async def test_a_wish_that_cannot_be_written_changes_nothing() -> None:
    refused = "/topic/event.agent.*.5002@zhen04_cc"
    interest = Interest(NAMESPACE, devices=["8001"], agents=["5001", "5002"])
    async with SimulatorServer(refuse=[refused]) as server:
        topics = ["/topic/event.agent.*.{agent_}"]
        source = source_of(server.stomp_url, max_wait=0.001, topics=topics)
        async with running(source, interest) as kept:
            await kept.until(lambda: kept.refused and kept.connected)
            before = interest.asked
            interest.remove([], ["5001", "5002"])
            with pytest.raises(ConfigurationError, match="topics"):
                await source.update()
            interest.undo(before, interest.asked)
            assert kept.accepted == []
            csta = make(device=8005)
            assert interest.wants(csta, csta["srcDeviceId"], refused)


async def let_pass(clock: ManualClock, seconds: int) -> None:
    """Let time pass with a real turn of the loop a second, as sockets need one."""
    for _ in range(seconds):
        await clock.advance(1.0)
        await asyncio.sleep(0.001)


async def test_when_every_destination_is_refused_so_are_we() -> None:
    async with SimulatorServer(refuse=[EVERYBODY]) as server:
        with pytest.raises(RefusedError, match="is refused: Invalid destination"):
            await source_of(server.stomp_url).run(Kept(), Interest(NAMESPACE))


@pytest.mark.parametrize(
    "bad", [{"topics": ["/topic/{agnet}"]}, {"query": "who={who}"}, {"subscribe": ["{x}"]}]
)
async def test_a_template_that_cannot_be_filled_in_is_an_error_at_once(
    cti_server: SimulatorServer, bad: dict[str, Any]
) -> None:
    source = source_of(cti_server.json_url, wire="json", **bad)
    with pytest.raises(ConfigurationError, match="template"):
        await asyncio.wait_for(source.run(Kept(), Interest(NAMESPACE)), PATIENCE)


@pytest.mark.parametrize("url", ["http://x/", "ws://", "ws://x:port/", "zhen04.cc", ""])
def test_what_is_no_websocket_url_is_refused_by_name(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"url: .*is no WebSocket URL"):
        WebSocketSource([url])


# A changed interest


async def test_what_is_added_over_stomp_is_subscribed_to_on_the_same_connection(
    cti_server: SimulatorServer,
) -> None:
    interest = Interest(NAMESPACE, agents=["5001"])
    source = source_of(cti_server.stomp_url)
    async with running(source, interest) as kept:
        await kept.until(lambda: kept.connected)
        interest.add([], ["5002"])
        await source.update()
        (session,) = cti_server.sessions
        assert [one.destination[-14:] for one in session.subscriptions] == [
            "5001@zhen04_cc",
            "5002@zhen04_cc",
        ]
        interest.remove([], ["5001"])
        await source.update()
        await until(lambda: len(session.subscriptions) == 1)
        assert session.subscriptions[0].destination.endswith("5002@zhen04_cc")
    assert len(kept.connected) == 1


async def test_who_is_asked_for_again_while_it_waits_to_be_asked_for_no_more_stays() -> None:
    """It waits for the RECEIPT of what was added before; the wish changes meanwhile."""
    told: list[str] = []
    pending, confirm = asyncio.Event(), asyncio.Event()

    async def talk(connection: ServerConnection) -> None:
        async for message in connection:
            (frame,) = frames_in(message)
            told.append(f"{frame.command} {frame.headers.get('destination', '')[-14:-10]}".strip())
            if frame.command == "CONNECT":
                await connection.send("CONNECTED\nversion:1.2\n\n\0")
            if told[-1] == "SUBSCRIBE 5003":
                pending.set()
                await confirm.wait()
            if "receipt" in frame.headers:
                await connection.send(f"RECEIPT\nreceipt-id:{frame.headers['receipt']}\n\n\0")

    interest = Interest(NAMESPACE, agents=["5001", "5002"])
    protocols = [Subprotocol("v12.stomp")]
    async with serve(talk, "127.0.0.1", 0, subprotocols=protocols) as server:
        source = source_of(url_of(server, "/stomp"))
        async with running(source, interest) as kept, asyncio.TaskGroup() as tasks:
            await kept.until(lambda: kept.connected)
            interest.add([], ["5003"])
            tasks.create_task(source.update())
            await pending.wait()
            interest.remove([], ["5002"])
            tasks.create_task(source.update())
            await asyncio.sleep(0)
            interest.add([], ["5002"])
            tasks.create_task(source.update())
            confirm.set()
    assert sorted(told) == ["CONNECT", "DISCONNECT", *(f"SUBSCRIBE 500{n}" for n in (1, 2, 3))]


def frames_in(message: str | bytes) -> list[Frame]:
    decoder = FrameDecoder(max_size=1000)
    decoder.receive_data(message.encode() if isinstance(message, str) else message)
    return [frame for frame in decoder.frames_received() if isinstance(frame, Frame)]


@pytest.mark.parametrize("wire", ["auto", "json"])
async def test_what_is_added_over_json_is_asked_for_by_url_on_a_new_connection(
    cti_server: SimulatorServer, wire: str
) -> None:
    interest = Interest(NAMESPACE, devices=["8002"])
    source = source_of(cti_server.json_url, wire=wire)
    async with running(source, interest) as kept:
        await kept.until(lambda: kept.connected)
        interest.add(["8003"], [])
        await source.update()
        assert len(kept.connected) == 2
        assert await cti_server.send(make(device=8003)) == 1
        await kept.until(lambda: kept.events)
        (session,) = cti_server.sessions
        assert session.path.endswith("&device=8002@zhen04.cc&device=8003@zhen04.cc")
    assert [lost.reason for lost in kept.lost_] == ["disconnected"]
    assert kept.failed == []


async def test_what_is_added_is_told_by_message_where_the_url_says_nothing() -> None:
    said: list[str | bytes] = []
    enough = asyncio.Event()

    async def talk(connection: ServerConnection) -> None:
        async for message in connection:
            said.append(message)
            if len(said) == 2:
                enough.set()

    interest = Interest(NAMESPACE, devices=["8002"])
    async with serve(talk, "127.0.0.1", 0) as server:
        source = source_of(url_of(server), query="", subscribe=['{"device":"{device}"}'])
        async with running(source, interest) as kept:
            await kept.until(lambda: kept.connected)
            interest.add(["8003"], [])
            await source.update()
            await asyncio.wait_for(enough.wait(), PATIENCE)
    assert said == ['{"device":"8002@zhen04.cc"}', '{"device":"8003@zhen04.cc"}']
    assert len(kept.connected) == 1


@pytest.mark.parametrize(
    ("query", "own", "subscribe", "refused"),
    [
        ("", "?key=1", ['{"agent":"{agent}"}'], "subscribe"),
        ("agent={agent}", "", [], "query"),
        ("", "?key=1", ["all", '{"agent":"{agent}"}'], None),
        ("agent={agent}", "?device=8002", [], None),
        ("", "", [], None),  # the server tells what it likes
        ("&", "", [], None),
    ],
)
async def test_templates_that_tell_a_json_server_nothing_are_refused(
    query: str, own: str, subscribe: list[str], refused: str | None
) -> None:
    async def talk(connection: ServerConnection) -> None:
        await connection.wait_closed()

    interest = Interest(NAMESPACE, devices=["8002"])
    async with serve(talk, "127.0.0.1", 0) as server:
        source = source_of(f"{url_of(server)}{own}", query=query, subscribe=subscribe)
        if refused is None:
            async with running(source, interest) as kept:
                await kept.until(lambda: kept.connected)
        else:
            with pytest.raises(ConfigurationError, match=f"{refused}.*none such is listened to"):
                await source.run(Kept(), interest)


async def test_templates_for_json_are_nothing_to_a_server_that_turns_out_to_speak_stomp() -> None:
    options = ConnectionOptions(query="agent={agent}", subscribe=['{"agent":"{agent}"}'])
    endpoints = Endpoints(["ws://cti.test/ws"], "auto", None, options, "a", china())
    interest = Interest(NAMESPACE, devices=["8002"])
    endpoints.check(0, interest)
    plan = await endpoints.plan(0, interest, ["/topic/x"])
    assert isinstance(plan.make_codec("v12.stomp"), StompCodec)
    endpoints.check(0, interest)
    for begin in (lambda: plan.make_codec(None), lambda: endpoints.check(0, interest)):
        with pytest.raises(ConfigurationError, match="subscribe"):
            begin()


async def test_a_wish_that_no_message_tells_changes_nothing() -> None:
    async def talk(connection: ServerConnection) -> None:
        await connection.wait_closed()

    interest = Interest(NAMESPACE, devices=["8002"], agents=["5001"])
    async with serve(talk, "127.0.0.1", 0) as server:
        source = source_of(url_of(server), query="", subscribe=['{"agent":"{agent}"}'])
        async with running(source, interest) as kept:
            await kept.until(lambda: kept.connected)
            interest.remove([], ["5001"])
            with pytest.raises(ConfigurationError, match="subscribe"):
                await source.update()
            assert len(kept.connected) == 1
            assert kept.lost_ == []


# The end


async def stopped_within(source: WebSocketSource, kept: Kept, ready: Callable[[], object]) -> float:
    async with asyncio.TaskGroup() as tasks:
        run = tasks.create_task(source.run(kept, Interest(NAMESPACE)))
        await kept.until(ready)
        began = time.monotonic()
        await source.stop()
        await run
    return time.monotonic() - began


async def test_stop_is_bounded_where_the_server_never_closes() -> None:
    async def never_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await shake_hands(reader, writer)
        await asyncio.sleep(3600)

    async with tcp_server(never_close) as url:
        kept = Kept()
        took = await stopped_within(source_of(url, close_timeout=0.2), kept, lambda: kept.connected)
    assert took < 2.0
    assert kept.lost_ == []


async def test_what_comes_behind_a_stop_is_no_sign_of_life() -> None:
    """It is not taken: whoever asks what was missed has to hear of that time."""
    over = asyncio.Event()

    async def go_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await shake_hands(reader, writer)
        await over.wait()
        writer.close()

    clock = ManualClock()
    async with tcp_server(go_on) as url:
        source, kept = source_of(url, clock=clock, close_timeout=PATIENCE), Kept()
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
            run = tasks.create_task(source.run(kept, Interest(NAMESPACE)))
            await kept.until(lambda: kept.connected)
            before = source.last_signs["a"]
            tasks.create_task(source.stop())
            await until(lambda: source._life is None or source._life._closing)  # noqa: SLF001
            await clock.advance(3.0)
            life = source._life  # noqa: SLF001
            assert life is not None
            life.about_to_read()
            life.bytes_received(more=False)
            assert source.last_signs["a"] <= before
            over.set()
            await run


async def test_stop_does_not_wait_for_a_server_that_never_answers() -> None:
    arrived = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await reader.read()

    async with tcp_server(say_nothing) as url:
        source = source_of(url, open_timeout=30)
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
            run = tasks.create_task(source.run(Kept(), Interest(NAMESPACE)))
            await arrived.wait()
            await source.stop()
            await run
    assert run.done()


async def test_stop_does_not_wait_for_credentials_that_never_come(
    cti_server: SimulatorServer,
) -> None:
    asked = asyncio.Event()

    async def auth() -> Credentials:
        asked.set()
        await asyncio.sleep(3600)
        return Credentials()

    source = source_of(cti_server.stomp_url, auth=auth)
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
        run = tasks.create_task(source.run(Kept(), Interest(NAMESPACE)))
        await asked.wait()
        await source.stop()
        await run
    assert cti_server.stats.connections == 0


async def test_stop_between_two_connections_opens_no_further_one(
    cti_server: SimulatorServer,
) -> None:
    clock = ManualClock()
    source = source_of(cti_server.json_url, clock=clock)
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
        kept = Kept()
        run = tasks.create_task(source.run(kept, Interest(NAMESPACE)))
        await kept.until(lambda: kept.connected)
        await clock.advance(60.0)
        await cti_server.disconnect()
        await kept.until(lambda: kept.lost_)
        await asyncio.sleep(0)
        await source.stop()
        await run
    assert cti_server.stats.connections == 1


async def test_the_server_is_told_goodbye(cti_server: SimulatorServer) -> None:
    async with running(source_of(cti_server.stomp_url)) as kept:
        await kept.until(lambda: kept.connected)
        (session,) = cti_server.sessions
    async with asyncio.timeout(PATIENCE):
        await session.over.wait()
    assert kept.lost_ == []
    assert kept.failed == []


@pytest.mark.parametrize("code", [1001, 1011])
async def test_a_servers_goodbye_is_told_with_its_code(
    cti_server: SimulatorServer, code: int
) -> None:
    async with running(source_of(cti_server.json_url)) as kept:
        await kept.until(lambda: kept.connected)
        await cti_server.disconnect(code)
        await kept.until(lambda: len(kept.connected) == 2)
    (lost,) = kept.lost_
    reason: GapReason = "disconnected"
    assert lost.reason == reason
    assert str(code) in lost.detail


async def test_a_repr_tells_the_state_and_no_secret(cti_server: SimulatorServer) -> None:
    source = source_of(cti_server.json_url + "?token=s3cret")
    assert repr(source) == f"<WebSocketSource a {cti_server.json_url}: no connection>"
    async with running(source) as kept:
        await kept.until(lambda: kept.connected)
        assert repr(source) == (
            f"<WebSocketSource a {cti_server.json_url}: <Life {cti_server.json_url} standing>>"
        )


async def test_whom_is_added_while_a_connection_is_made_is_asked_for_on_it(
    cti_server: SimulatorServer,
) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slowly() -> Credentials:
        asked.set()
        await go_on.wait()
        return Credentials()

    interest = Interest(NAMESPACE, agents=["5001", "5002"])
    source = source_of(cti_server.stomp_url, auth=slowly)
    async with running(source, interest) as kept:
        await asked.wait()
        interest.add((), ["5009"])
        interest.remove((), ["5002"])
        await source.update()
        go_on.set()
        await kept.until(lambda: kept.connected)
        (session,) = cti_server.sessions
        assert sorted(one.destination for one in session.subscriptions) == [
            "/topic/event.agent.*.5001@zhen04_cc",
            "/topic/event.agent.*.5009@zhen04_cc",
        ]


async def test_an_event_that_comes_with_its_receipt_is_told_after_the_connection() -> None:
    async def talk(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send("CONNECTED\nversion:1.2\n\n\0")
        await connection.recv()
        event = b'{"eventName": "held", "serial": 1}'
        message = b"MESSAGE\nsubscription:0\n\n" + event + b"\0"
        await connection.send(message + b"RECEIPT\nreceipt-id:subscribe-0\n\n\0", text=True)
        await connection.wait_closed()

    async with (
        serve(talk, "127.0.0.1", 0, subprotocols=[Subprotocol("v12.stomp")]) as server,
        running(source_of(url_of(server, "/stomp"))) as kept,
    ):
        await kept.until(lambda: kept.events)
        assert kept.connected, "an event proves that its destination stands, and comes after that"


async def test_what_came_on_a_connection_that_never_stood_is_handled_and_its_loss_told() -> None:
    async def talk(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send("CONNECTED\nversion:1.2\n\n\0")
        await connection.recv()
        await connection.recv()
        event = b'{"eventName": "held", "serial": 1}'
        await connection.send(b"MESSAGE\nsubscription:0\n\n" + event + b"\0", text=True)

    topics = ["/topic/one", "/topic/two"]
    async with (
        serve(talk, "127.0.0.1", 0, subprotocols=[Subprotocol("v12.stomp")]) as server,
        running(source_of(url_of(server, "/stomp"), topics=topics)) as kept,
    ):
        await kept.until(lambda: kept.lost_)
        assert len(kept.events) == 1


async def test_what_is_early_when_stopped_is_handled_all_the_same() -> None:
    sent = asyncio.Event()

    async def talk(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send("CONNECTED\nversion:1.2\n\n\0")
        await connection.recv()
        await connection.recv()
        event = b'{"eventName": "held", "serial": 1}'
        await connection.send(b"MESSAGE\nsubscription:0\n\n" + event + b"\0", text=True)
        sent.set()
        await connection.wait_closed()

    topics = ["/topic/one", "/topic/two"]
    async with serve(talk, "127.0.0.1", 0, subprotocols=[Subprotocol("v12.stomp")]) as server:
        source = source_of(url_of(server, "/stomp"), topics=topics, receipt_timeout=30.0)
        async with running(source) as kept:
            await sent.wait()
            await until(lambda: kept.messages == 2)
            assert not kept.events, "the other destination is not confirmed yet"
        assert len(kept.events) == 1


async def test_a_connection_made_while_reading_is_paused_stands_before_it_pauses(
    cti_server: SimulatorServer,
) -> None:
    source = source_of(cti_server.stomp_url)
    source.pause()
    async with running(source) as kept:
        await kept.until(lambda: kept.connected)
        await cti_server.send(make("held"))
        source.resume()
        await kept.until(lambda: kept.events)
    assert len(kept.connected) == 1
    assert not kept.failed
