"""The server, by a plain WebSocket client on both wires."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import islice
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from cti_listener.errors import ConfigurationError
from cti_listener.simulator import Centre, Faults, Ledger, SimulatorServer, serve_forever
from cti_listener.testing import ManualClock
from cti_listener.wire.stomp_frames import Frame
from tests.simulator.clients import (
    BIG,
    ELSEWHERE,
    EVERYBODY,
    HELD,
    LOGGED_ON,
    Stomp,
    closing_code,
    received,
    stomp,
)

# STOMP


async def test_a_session_from_connect_to_disconnect() -> None:
    async with SimulatorServer(heartbeat=(0, 0)) as server, connect(server.stomp_url) as websocket:
        client = Stomp(websocket)
        await client.say("CONNECT", accept_version="1.0,1.1,1.2", host="/", heart_beat="0,0")
        connected = Frame(
            "CONNECTED",
            {
                "version": "1.2",
                "server": "cti-simulator",
                "session": "session-1",
                "heart-beat": "0,0",
            },
        )
        assert await client.frame() == connected
        assert await client.subscribe() == Frame("RECEIPT", {"receipt-id": "r"})
        assert await server.send(HELD) == 1
        message = await client.frame()
        assert (message.command, message.headers) == (
            "MESSAGE",
            {
                "subscription": "0",
                "message-id": "session-1@@1",
                "destination": "/topic/event.agent.csta.8002@zhen04_cc",
                "content-type": "application/json",
                "content-length": str(len(message.body)),
            },
        )
        assert json.loads(message.body) == {
            **HELD,
            "params": {"_amqpTopic": "event.csta.zhen04.cc", "agent": None, "subscriptionId": "0"},
            "_type": "component.cti.event.HeldEvent",
            "topics": ["held", "device:8002@zhen04.cc", "csta", "router-1"],
        }
        await client.say("UNSUBSCRIBE", id="0", receipt="u")
        assert await client.frame() == Frame("RECEIPT", {"receipt-id": "u"})
        assert await server.send(HELD) == 0
        await client.say("DISCONNECT", receipt="d")
        assert await client.frame() == Frame("RECEIPT", {"receipt-id": "d"})
        assert await closing_code(websocket) == 1000


@pytest.mark.parametrize(
    ("offered", "chosen"), [("1.0,1.1,1.2", "1.2"), ("1.1", "1.1"), ("1.0", "1.0"), (None, "1.0")]
)
async def test_the_best_version_in_common_is_spoken(offered: str | None, chosen: str) -> None:
    async with SimulatorServer() as server, connect(server.stomp_url) as websocket:
        client = Stomp(websocket)
        await client.say("STOMP", **({} if offered is None else {"accept_version": offered}))
        assert (await client.frame()).headers["version"] == chosen


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(["v10.stomp", "v12.stomp"], "v12.stomp"), (["v11.stomp"], "v11.stomp"), (["mqtt"], None)],
)
async def test_the_best_sub_protocol_is_chosen(offered: list[str], chosen: str | None) -> None:
    protocols = [Subprotocol(one) for one in offered]
    async with (
        SimulatorServer() as server,
        connect(server.stomp_url, subprotocols=protocols) as over_stomp,
        connect(server.json_url, subprotocols=protocols) as over_json,
    ):
        assert over_stomp.subprotocol == chosen
        assert over_json.subprotocol is None


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([b"SUBSCRIBE\nid:0\ndestination:/topic/a\n\n\0"], "Not connected"),
        ([b"CONNECT\naccept-version:2.0\n\n\0"], "Version mismatch"),
        ([b"CONNECT\nheart-beat:soon\n\n\0"], "Bad CONNECT"),
        ([b"nonsense\0"], "Invalid frame"),
        ([b"CONNECT\n\n\0", b"CONNECT\n\n\0"], "Unknown command"),
        ([b"CONNECT\naccept-version:1.2\n\n\0", b"SUBSCRIBE\nid:0\n\n\0"], "Missing header"),
        (
            [b"CONNECT\naccept-version:1.2\n\n\0", b"SUBSCRIBE\ndestination:/topic/a\n\n\0"],
            "Missing header",
        ),
        ([b"CONNECT\n\n\0", b"UNSUBSCRIBE\nid:0\n\n\0"], "Subscription not found"),
        ([b"CONNECT\n\n\0", b"SUBSCRIBE\nid:0\ndestination:/queue/a\n\n\0"], "Invalid destination"),
    ],
)
async def test_what_is_wrong_draws_an_error_and_the_end(frames: list[bytes], message: str) -> None:
    async with SimulatorServer() as server, connect(server.stomp_url) as websocket:
        client = Stomp(websocket)
        for frame in frames:
            await websocket.send(frame)
        for _ in frames[1:]:
            assert (await client.frame()).command == "CONNECTED"
        error = await client.frame()
        assert (error.command, error.headers["message"]) == ("ERROR", message)
        assert await closing_code(websocket) == 1000


async def test_a_refused_destination_draws_an_error_after_earlier_receipts() -> None:
    async with SimulatorServer(refuse=["/topic/secret"]) as server, stomp(server) as client:
        assert (await client.subscribe()).command == "RECEIPT"
        error = await client.subscribe("/topic/secret", id="1", receipt="s")
        assert (error.command, error.headers["receipt-id"]) == ("ERROR", "s")
        assert error.body == b"'/topic/secret'"
        assert await closing_code(client.websocket) == 1000


async def test_a_login_is_checked_where_one_is_asked_for() -> None:
    async with SimulatorServer(credentials=("agent", "secret")) as server:
        async with stomp(server, login="agent", passcode="secret"):
            pass
        async with connect(server.stomp_url) as websocket:
            client = Stomp(websocket)
            await client.say("CONNECT", login="agent", passcode="guess")
            error = await client.frame()
        assert (error.command, error.body) == ("ERROR", b"Access refused for user 'agent'")
        assert "secret" not in repr(server.rules)


async def test_some_brokers_send_no_receipts() -> None:
    async with SimulatorServer(receipts=False) as server, stomp(server) as client:
        await client.say("SUBSCRIBE", id="0", destination=EVERYBODY, receipt="r")
        await server.wait_for_subscribers()
        await server.send(HELD)
        assert (await client.frame()).command == "MESSAGE"


async def test_frames_may_span_messages_and_share_one() -> None:
    async with SimulatorServer() as server, connect(server.stomp_url) as websocket:
        client = Stomp(websocket)
        await websocket.send("CONNECT\naccept-ver")
        await websocket.send("sion:1.2\n\n\0\nSUBSCRIBE\nid:0\ndestination:/topic/#\n\n\0\n")
        assert (await client.frame()).command == "CONNECTED"
        await server.wait_for_subscribers()


async def test_what_a_client_sends_goes_nowhere_but_is_confirmed() -> None:
    async with SimulatorServer() as server, stomp(server) as client:
        await client.subscribe()
        await client.say("SEND", destination="/topic/event.agent.csta.x", receipt="s")
        assert await client.frame() == Frame("RECEIPT", {"receipt-id": "s"})
        await client.say("ACK", id="1", receipt="a")
        assert await client.frame() == Frame("RECEIPT", {"receipt-id": "a"})


async def test_messages_to_be_acknowledged_say_how() -> None:
    async with SimulatorServer() as server, stomp(server) as client:
        await client.subscribe(ack="client-individual")
        await server.send(HELD)
        headers = (await client.frame()).headers
        assert headers["ack"] == headers["message-id"]


async def test_an_agents_topic_carries_their_own_events_and_those_of_their_device() -> None:
    for topic in ("/topic/event.agent.*.5002@zhen04_cc", "/topic/csta/agent/5002@zhen04.cc"):
        async with SimulatorServer() as server, stomp(server) as client:
            await client.subscribe(topic)
            assert [await server.send(e) for e in (HELD, LOGGED_ON, HELD, ELSEWHERE)] == [
                0,
                1,
                1,
                0,
            ]
            bodies = [json.loads((await client.frame()).body) for _ in range(2)]
            assert [body["eventName"] for body in bodies] == ["agentLoggedOn", "held"]
            assert bodies[1]["params"]["agent"] == "5002@zhen04.cc"
            assert "agent:5002@zhen04.cc" in bodies[1]["topics"]


async def test_two_subscriptions_that_want_an_event_get_it_each() -> None:
    async with SimulatorServer() as server, stomp(server) as client:
        await client.subscribe(id="a")
        await client.subscribe("/topic/event.#", id="b")
        assert await server.send(HELD) == 2
        assert [(await client.frame()).headers["subscription"] for _ in "ab"] == ["a", "b"]


async def test_what_an_event_brings_along_of_the_relays_fields_stands() -> None:
    async with SimulatorServer() as server, stomp(server) as client:
        await client.subscribe()
        await server.send({**HELD, "params": {"mine": 1}, "topics": []})
        body = json.loads((await client.frame()).body)
        assert (body["params"], body["topics"]) == ({"mine": 1}, [])


async def test_heart_beats_are_sent_as_agreed() -> None:
    async with SimulatorServer(heartbeat=(20, 0)) as server, stomp(server, heart_beat="0,10") as c:
        for _ in range(3):
            assert await c.websocket.recv() == "\n"


async def test_a_client_that_breaks_its_promise_of_heart_beats_is_dropped() -> None:
    async with SimulatorServer(heartbeat=(0, 20)) as server, stomp(server, heart_beat="10,0") as c:
        assert await closing_code(c.websocket) is None


async def test_a_client_that_keeps_its_promise_of_heart_beats_is_not() -> None:
    async with (
        SimulatorServer(heartbeat=(25, 50)) as server,
        stomp(server, heart_beat="50,25") as c,
    ):
        for _ in range(10):  # ten times 20 ms, far beyond twice 50
            await c.websocket.recv()
            await c.websocket.send("\n")
        assert len(server.sessions) == 1


# JSON


async def test_events_come_one_a_message_as_they_were_sent() -> None:
    event = {**HELD, "reason": "小休", "a": {"nested": [1, None]}}
    async with SimulatorServer() as server, connect(server.json_url) as websocket:
        await server.wait_for_subscribers()
        await server.send(event)
        text = await websocket.recv()
        assert text == json.dumps(event, ensure_ascii=False, separators=(",", ":"))


async def test_a_url_says_what_is_wanted() -> None:
    async with SimulatorServer() as server:
        url = f"{server.json_url}?namespace=zhen04.cc&device=8003&agent=5002@zhen04.cc"
        async with connect(url) as websocket:
            await server.wait_for_subscribers()
            assert [await server.send(e) for e in (HELD, LOGGED_ON, HELD, ELSEWHERE)] == [
                0,
                1,
                1,
                1,
            ]
            assert [await received(websocket) for _ in range(3)] == [LOGGED_ON, HELD, ELSEWHERE]
            assert server.sessions[0].path.endswith("agent=5002@zhen04.cc")


async def test_a_client_may_say_what_it_wants_after_connecting() -> None:
    async with SimulatorServer() as server, connect(server.json_url) as websocket:
        await websocket.send("gibberish")
        await websocket.send('{"namespace": "zhen04.cc", "device": ["8003"]}')
        await (await websocket.ping())  # answered behind what was said before
        assert [await server.send(event) for event in (HELD, ELSEWHERE)] == [0, 1]


# The handshake


async def test_other_paths_do_not_exist() -> None:
    async with SimulatorServer() as server:
        with pytest.raises(InvalidStatus) as caught:
            await connect(server.json_url.replace("/events", "/other"))
        assert caught.value.response.status_code == 404
        assert server.stats.rejected == 1


@pytest.mark.parametrize(
    ("headers", "admitted"),
    [
        ({}, False),
        ({"Authorization": "Bearer guess"}, False),
        ({"Authorization": "Bearer secret"}, True),
        ({"sessionId": "secret"}, True),
        ({"Cookie": "a=b; SESSION=secret"}, True),
    ],
)
async def test_a_token_is_asked_for_in_any_of_the_usual_ways(
    headers: dict[str, str],
    admitted: bool,  # noqa: FBT001 - a table of cases
) -> None:
    async with SimulatorServer(token="secret") as server:
        if admitted:
            async with connect(server.stomp_url, additional_headers=headers):
                (session,) = server.sessions
                assert {name.lower() for name in headers} <= set(session.headers)
            return
        with pytest.raises(InvalidStatus) as caught:
            await connect(server.stomp_url, additional_headers=headers)
        assert caught.value.response.status_code == 401


# Sending by hand


async def test_an_event_may_be_sent_several_times() -> None:
    async with SimulatorServer(ledger=Ledger()) as server, connect(server.json_url) as websocket:
        await server.wait_for_subscribers()
        assert await server.send(HELD, times=3) == 3
        assert [await received(websocket) for _ in range(3)] == [HELD] * 3
        assert (server.stats.sent, server.stats.repeated) == (3, 2)
        assert server.ledger is not None
        assert [entry.repeat for entry in server.ledger.sent] == [False, True, True]


async def test_raw_messages_go_to_everybody_as_they_are() -> None:
    async with (
        SimulatorServer() as server,
        connect(server.json_url) as first,
        connect(server.stomp_url) as second,
    ):
        await server.send_raw("{ no json")
        await server.send_raw(b"\xff\x00")
        for websocket in (first, second):
            assert [await websocket.recv(), await websocket.recv()] == ["{ no json", b"\xff\x00"]


async def test_what_nobody_asked_for_is_counted() -> None:
    async with SimulatorServer() as server:
        assert await server.send(HELD) == 0
        assert (server.stats.published, server.stats.unwanted, server.stats.sent) == (1, 1, 0)


# Ends and beginnings


async def test_disconnecting_without_a_code_ends_tcp_without_a_word() -> None:
    async with SimulatorServer() as server, connect(server.json_url) as websocket:
        await server.wait_for_subscribers()
        await server.disconnect()
        assert not server.sessions
        assert await closing_code(websocket) is None
        async with connect(server.json_url):
            await server.wait_for_subscribers()


async def test_disconnecting_with_a_code_says_so() -> None:
    async with SimulatorServer() as server, connect(server.json_url) as websocket:
        await server.wait_for_subscribers()
        await server.disconnect(1012)
        assert await closing_code(websocket) == 1012


async def test_what_was_sent_before_a_disconnection_has_arrived() -> None:
    async with SimulatorServer() as server, connect(server.json_url) as websocket:
        await server.wait_for_subscribers()
        for _ in range(200):
            await server.send(HELD)
        await server.disconnect()
        for _ in range(200):
            assert await received(websocket) == HELD
        assert await closing_code(websocket) is None


async def test_a_stopped_server_refuses_tcp_and_starts_again_on_its_port() -> None:
    async with SimulatorServer() as server:
        async with connect(server.json_url) as websocket:
            port = server.port
            await server.stop()
            assert await closing_code(websocket) == 1001
        with pytest.raises(OSError, match=r"refused|Connect call failed"):
            await connect(server.json_url)
        assert repr(server) == "<SimulatorServer stopped, 0 sessions>"
        await server.start()
        assert server.port == port
        async with connect(server.json_url):
            await server.wait_for_subscribers()
            assert repr(server) == f"<SimulatorServer on 127.0.0.1:{port}, 1 sessions>"
            assert repr(server.sessions[0]) == "<Session 2 json subscribed, 0 queued>"


async def test_starting_and_stopping_twice_does_no_harm() -> None:
    async with SimulatorServer() as server:
        await server.start()
        await server.stop()
        await server.stop()


async def test_a_port_in_use_is_a_clear_error() -> None:
    async with SimulatorServer() as server:
        with pytest.raises(ConfigurationError, match=f"cannot listen on .*{server.port}"):
            await SimulatorServer(port=server.port).start()


async def test_serving_for_ever_ends_when_cancelled() -> None:
    server = SimulatorServer()
    await server.start()
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(serve_forever(server))
        async with connect(server.json_url) as websocket:
            serving.cancel()
            assert await closing_code(websocket) == 1001
    assert serving.cancelled()


# Playing


def _of(n: int, centre: Centre | None = None) -> Iterator[tuple[float, dict[str, Any]]]:
    return islice(centre or Centre(1, rate=1000), n)


def _soon(n: int) -> list[tuple[float, dict[str, Any]]]:
    """Events that leave time to connect before them."""
    return [(0.3, event) for _, event in _of(n)]


async def test_without_pace_everybody_gets_all_of_it_as_fast_as_they_take_it() -> None:
    expected = [event for _, event in _of(2000)]
    async with (
        SimulatorServer(centre=_of(2000), speed=0, queue_limit=100) as server,
        connect(server.json_url) as websocket,
    ):
        assert [await received(websocket) for _ in expected] == expected
        await server.wait_played()
        assert server.stats.sent == server.stats.published == 2000


async def test_without_pace_the_play_waits_for_whoever_lags() -> None:
    stream = [(0.0, {**BIG, "serial": n}) for n in range(200)]
    async with (
        SimulatorServer(centre=stream, speed=0, queue_limit=5) as server,
        connect(server.json_url, max_queue=None) as websocket,
    ):
        for n in range(200):
            assert (await received(websocket))["serial"] == n
            assert all(session.queued <= 6 for session in server.sessions)
        assert server.stats.slow == 0


async def test_without_pace_the_play_does_not_wait_for_ever() -> None:
    stream = [(0.0, {**BIG, "serial": n}) for n in range(200)]
    async with SimulatorServer(centre=stream, speed=0, queue_limit=5, slow_after=0.1) as server:
        async with _reads_nothing(server):
            await server.wait_for_subscribers()
            await server.sessions[0].over.wait()
        async with connect(server.json_url, max_queue=None) as websocket:
            assert (await received(websocket))["serial"] > 0
        assert server.stats.slow == 1


async def test_a_play_in_time_takes_its_time() -> None:
    expected = [event for _, event in Centre(1).run(5.0)]
    async with SimulatorServer(
        centre=Centre(1).run(5.0), speed=25.0, await_subscriber=True
    ) as server:
        began = asyncio.get_running_loop().time()
        async with connect(server.json_url) as websocket:
            assert [await received(websocket) for _ in expected] == expected
            await server.wait_played()
        assert 0.15 < asyncio.get_running_loop().time() - began < 2.0


async def test_a_play_in_time_goes_on_with_nobody_there() -> None:
    async with SimulatorServer(centre=_of(100), speed=10) as server:
        await server.wait_played()
        assert server.stats.unwanted == 100


async def test_a_play_pauses_while_the_server_is_stopped_and_loses_nothing() -> None:
    expected = [event for _, event in _of(300)]
    async with SimulatorServer(centre=_of(300), speed=2, await_subscriber=True) as server:
        async with connect(server.json_url) as websocket:
            found = [await received(websocket) for _ in range(20)]
            await server.stop()
            with suppress(ConnectionClosed):
                while True:
                    found.append(await received(websocket))
        assert len(found) < 300
        await server.start()
        async with connect(server.json_url) as websocket:
            found += [await received(websocket) for _ in expected[len(found) :]]
    assert found == expected


async def test_a_play_that_fails_says_so() -> None:
    def broken() -> Iterator[tuple[float, dict[str, Any]]]:
        yield 0.0, HELD
        raise LookupError("the play is broken")

    server = SimulatorServer(centre=broken())
    await server.start()
    with pytest.raises(LookupError, match="broken"):
        await server.wait_played()
    with pytest.raises(LookupError, match="broken"):
        await server.stop()
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await connect(server.json_url)


async def test_a_negative_speed_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="speed"):
        SimulatorServer(speed=-1)


# Faults, slow clients, the ledger


async def test_faults_are_what_the_client_sees() -> None:
    faults = Faults(repeat=1, malformed=1)
    async with (
        SimulatorServer(centre=_of(50), speed=0, faults=faults) as server,
        stomp(server) as client,
    ):
        await client.subscribe()
        await server.wait_played()
        stats = server.stats
        assert (stats.sent, stats.malformed, stats.repeated) == (200, 100, 50)
        bodies = [(await client.frame()).body for _ in range(200)]
        good = [json.loads(body)["serial"] for body in bodies if body.endswith(b"}")]
        assert len(good) == 100
        assert len(set(good)) == 50


async def test_a_bomb_is_small_on_the_wire_and_only_for_those_who_take_compression() -> None:
    faults = Faults(bomb=(1, 2))
    async with (
        SimulatorServer(faults=faults, centre=_soon(1)) as server,
        connect(server.json_url, compression=None) as plain,
        connect(server.json_url, max_size=2**22) as deflating,
    ):
        assert len(await deflating.recv()) == 2 * 2**20
        assert await received(deflating) == await received(plain)
        await server.wait_played()
        assert server.stats.malformed == 1


async def test_a_bomb_ends_the_connection_of_who_limits_what_it_takes() -> None:
    faults = Faults(bomb=(1, 2))
    async with (
        SimulatorServer(centre=_of(1), speed=0, faults=faults) as server,
        connect(server.json_url) as websocket,
    ):
        with pytest.raises(ConnectionClosed) as caught:
            await websocket.recv()
        assert caught.value.sent is not None
        assert caught.value.sent.code == 1009


async def test_split_events_go_to_one_session_each() -> None:
    faults = Faults(split=1)
    async with (
        SimulatorServer(faults=faults, centre=_soon(200), ledger=Ledger()) as server,
        connect(server.json_url, max_queue=None),
        connect(server.json_url, max_queue=None),
    ):
        await server.wait_for_subscribers(2)
        await server.wait_played()
        assert server.ledger is not None
        by = [one.session for one in server.ledger.sent]
        assert len(by) == 200
        assert min(by.count(1), by.count(2)) > 50


async def test_hostile_messages_reach_a_client_on_either_wire_as_they_are() -> None:
    faults = Faults(invalid_utf8=1, deep=(1, 5), oversized=(1, 2000))
    async with (
        SimulatorServer(faults=faults, centre=_soon(1)) as server,
        stomp(server) as client,
        connect(server.json_url) as websocket,
    ):
        await client.subscribe()
        bodies = [await websocket.recv(decode=False) for _ in range(8)]
        frames = [(await client.frame()).body for _ in range(8)]
        assert frames[:3] == bodies[:3]
        assert b"[[[[[]]]]]" in bodies
        assert 2000 in map(len, bodies)


async def test_connections_are_dropped_by_a_fault_and_new_ones_taken() -> None:
    async with SimulatorServer(faults=Faults(drop_every=0.02)) as server:
        for _ in range(3):
            server.calm = True  # until it is connected, however slow the machine is
            async with connect(server.json_url) as websocket:
                server.calm = False
                assert await closing_code(websocket) is None
        assert server.stats.dropped == 3


@asynccontextmanager
async def _reads_nothing(server: SimulatorServer) -> AsyncIterator[ClientConnection]:
    async with connect(server.json_url, max_queue=1, ping_interval=None) as websocket:
        yield websocket
        websocket.transport.abort()


async def test_a_slow_client_is_disconnected_and_harms_nobody() -> None:
    clock = ManualClock()
    stream = ((n, {**BIG, "serial": n}) for n in range(1, 401))
    async with (
        SimulatorServer(centre=stream, queue_limit=50, speed=1.0, clock=clock) as server,
        connect(server.json_url, max_queue=None) as quick,
        _reads_nothing(server),
    ):
        await server.wait_for_subscribers(2)
        for n in range(1, 401):  # in the time of the quick one, however slow the machine is
            await clock.advance(1.0)
            assert (await received(quick))["serial"] == n
        assert (server.stats.slow, len(server.sessions)) == (1, 1)


async def test_who_sends_by_hand_waits_for_a_slow_client_but_not_for_ever() -> None:
    async with SimulatorServer(queue_limit=5, slow_after=0.1) as server, _reads_nothing(server):
        await server.wait_for_subscribers()
        while server.sessions:
            await server.send(BIG)
        assert server.stats.slow == 1


async def test_the_ledger_says_what_was_sent_to_whom_and_when_anybody_was_there() -> None:
    ledger = Ledger()
    async with SimulatorServer(ledger=ledger) as server:
        await server.send(ELSEWHERE)
        async with stomp(server) as client:
            await client.subscribe()
            await server.send(HELD)
            await server.disconnect()
    (sent,) = ledger.sent
    (life,) = ledger.lives
    assert (sent.session, sent.event) == (life.session, HELD) == (1, HELD)
    assert life.until is not None
    assert life.since <= sent.at <= life.until
