"""Lives with a durable subscription, against a broker that does as the test says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from cti_listener.errors import ConfigurationError
from cti_listener.interest import Interest
from cti_listener.simulator import SimulatorServer
from cti_listener.sources.past import OUTLIVES, held_by
from cti_listener.testing import ManualClock
from cti_listener.wire.stomp_frames import Frame, FrameDecoder, encode
from cti_listener.wire.stomp_terms import Terms, queue_name
from tests.examples import NAMESPACE, make
from tests.sources.receiver import PATIENCE, Kept, running, source_of, url_of
from tests.turns import until

EVERYBODY = "/topic/event.agent.*.*"
TERMS = Terms(name="cti-1.a", expires=60.0, max_length=1000, prefetch=1000)
ID = TERMS.id_for(EVERYBODY)
DURABLE: dict[str, Any] = {"durable": "cti-1", "durable_expires": 60.0, "durable_max_length": 1000}


class Broker:
    """A broker that says what it is told to, and keeps what it hears.

    Attributes:
        heard: The frames of each session, CONNECT left out.
        answer: What it answers to a SUBSCRIBE; None: it hangs up.
        down: Whether it hangs up at CONNECT.
    """

    def __init__(self) -> None:
        self.url = ""
        self.heard: list[list[Frame]] = []
        self.answer: Callable[[Frame], Frame | None] = self.receipt
        self.down = False
        self._sessions: list[ServerConnection] = []
        self._sent = 0

    @staticmethod
    def receipt(subscribe: Frame) -> Frame:
        return Frame("RECEIPT", {"receipt-id": subscribe.headers.get("receipt", "none")})

    async def talk(self, session: ServerConnection) -> None:
        decoder, heard = FrameDecoder(), list[Frame]()
        self.heard.append(heard)
        self._sessions.append(session)
        async for data in session:
            decoder.receive_data(data if isinstance(data, bytes) else data.encode())
            for frame in decoder.frames_received():
                assert isinstance(frame, Frame)
                if not await self._take(session, frame):
                    return
                if frame.command != "CONNECT":
                    heard.append(frame)

    async def _take(self, session: ServerConnection, frame: Frame) -> bool:
        answer: Frame | None = None
        match frame.command:
            case "CONNECT" if self.down:
                await session.close(1011)
                return False
            case "CONNECT":
                answer = Frame("CONNECTED", {"version": "1.2", "server": "RabbitMQ/3.10.8"})
            case "SUBSCRIBE":
                answer = self.answer(frame)
                if answer is None:
                    await session.close(1000, "STOMP died")
                    return False
            case "BEGIN":
                answer = self.receipt(frame)
            case _:
                pass
        if answer is not None:
            await session.send(encode(answer), text=True)
        return True

    async def bring(
        self, *events: dict[str, Any], destination: str = EVERYBODY, twin: bool = False
    ) -> None:
        """Bring events to the newest session, all in one message."""
        frames, subscription = [], TERMS.id_for(destination) + (".twin" if twin else "")
        for event in events:
            self._sent += 1
            headers = {"subscription": subscription, "ack": f"m-{self._sent}"}
            headers["persistent"] = "true"
            frames.append(encode(Frame("MESSAGE", headers, json.dumps(event).encode())))
        await self._sessions[-1].send(b"".join(frames), text=True)

    async def drop(self) -> None:
        self._sessions[-1].transport.abort()

    def hear_nothing(self) -> None:
        self._sessions[-1].transport.pause_reading()

    def acks(self, session: int = -1) -> list[str]:
        return [one.headers["id"] for one in self.heard[session] if one.command == "ACK"]

    def commands(self, session: int = -1) -> list[str]:
        asked = {"BEGIN", "ABORT"}  # whether it is there
        return [one.command for one in self.heard[session] if one.command not in asked]


@asynccontextmanager
async def broker_up() -> AsyncIterator[Broker]:
    broker = Broker()
    protocols = [Subprotocol("v12.stomp")]
    async with serve(broker.talk, "127.0.0.1", 0, subprotocols=protocols) as server:
        broker.url = url_of(server, "/mvc/stomp/websocket")
        yield broker


async def test_what_came_is_acknowledged_once_it_is_committed_and_disconnect_ends_it() -> None:
    async with broker_up() as broker:
        async with running(source_of(broker.url, **DURABLE)) as kept:
            kept.uncommitted = []
            await kept.until(lambda: kept.connected)
            await broker.bring(make(), make(), make())
            await kept.until(lambda: len(kept.events) == 3)
            assert broker.acks() == []
            kept.uncommitted.pop()()
            await until(broker.acks)
            assert broker.acks() == ["m-1", "m-2", "m-3"]
            kept.uncommitted = None
        assert kept.backlogs == [True]
        await until(lambda: "DISCONNECT" in broker.commands())
    assert broker.commands() == ["SUBSCRIBE", "ACK", "ACK", "ACK", "DISCONNECT"]


async def test_an_ack_is_never_sent_on_another_connection() -> None:
    async with broker_up() as broker, running(source_of(broker.url, **DURABLE)) as kept:
        kept.uncommitted = []
        await kept.until(lambda: kept.connected)
        await broker.bring(make())
        await kept.until(lambda: kept.events)
        await broker.drop()
        await kept.until(lambda: len(kept.connected) == 2)
        calls, kept.uncommitted = kept.uncommitted, None
        for call in calls:
            call()
        await broker.bring(make())
        await until(broker.acks)
    assert (broker.acks(0), broker.acks(1)) == ([], ["m-2"])


async def test_the_end_waits_for_a_commit_under_way_but_not_for_long() -> None:
    async with broker_up() as broker:
        source = source_of(broker.url, **{**DURABLE, "close_timeout": 10.0})
        async with running(source) as kept:
            kept.uncommitted = []
            await kept.until(lambda: kept.connected)
            await broker.bring(make())
            await kept.until(lambda: kept.events)
            stopping = asyncio.get_running_loop().create_task(source.stop())
            await until(lambda: len(kept.uncommitted or ()) == 2)  # its ack, and the end
            assert broker.acks() == []
            for call in kept.uncommitted:
                call()
            await stopping
        await until(lambda: "DISCONNECT" in broker.commands())
        assert broker.commands() == ["SUBSCRIBE", "ACK", "DISCONNECT"]

        async with running(source_of(broker.url, **DURABLE)) as kept:
            kept.uncommitted = []
            await kept.until(lambda: kept.connected)
            await broker.bring(make())
            await kept.until(lambda: kept.events)
        await until(lambda: "DISCONNECT" in broker.commands())
        assert broker.commands() == ["SUBSCRIBE", "DISCONNECT"]


async def test_what_came_before_all_stands_is_acknowledged_when_it_was_handed_over() -> None:
    other = "/topic/event.other"
    async with broker_up() as broker:
        broker.answer = lambda frame: (
            broker.receipt(frame) if frame.headers["destination"] == other else Frame("NONE")
        )
        topics = [EVERYBODY, other, "/topic/late"]
        source = source_of(broker.url, topics=topics, receipt_timeout=0.5, **DURABLE)
        async with running(source) as kept:
            await until(lambda: broker.heard and len(broker.heard[0]) == 3)
            await broker.bring(make())
            await kept.until(lambda: kept.messages)
            assert (kept.events, broker.acks()) == ([], [])
            await kept.until(lambda: kept.connected)  # once RECEIPTs are waited for no longer
            await until(broker.acks)
        assert len(kept.events) == 1


async def test_a_backlog_is_told_to_be_in_and_a_loss_after_it_to_be_made_up_for() -> None:
    clock = ManualClock()
    async with broker_up() as broker:
        source = source_of(broker.url, clock=clock, **DURABLE)
        async with running(source) as kept:
            for _ in range(2):
                count = len(kept.connected)
                while len(kept.connected) == count:
                    await clock.advance(0.1)
                kept.events.clear()
                await broker.bring(make())
                await kept.until(lambda: kept.events)
                for _ in range(3):
                    await clock.advance(1.0)
                await broker.drop()
                while len(kept.lost_) == count:
                    await clock.advance(0.1)
            assert kept.recovered == [False, True]
            (name,) = kept.queues_emptied
    assert name == f"{ID} at {broker.url}, /"


async def test_what_an_earlier_run_knew_is_relied_on() -> None:
    clock = ManualClock()
    known: dict[str, datetime] = {}
    async with broker_up() as broker:
        for recovered in (False, True):
            source = source_of(broker.url, clock=clock, **DURABLE)
            async with running(source, queues_emptied=known) as kept:
                await kept.until(lambda: kept.connected)
                await broker.bring(make())
                await kept.until(lambda: kept.events)
                for _ in range(3):
                    await clock.advance(1.0)
                assert kept.recovered == [recovered]
                known = {**kept.queues_emptied, **kept.known}


async def test_who_leaves_in_order_leaves_no_connection_that_the_broker_takes_for_alive() -> None:
    async with broker_up() as broker:
        async with running(source_of(broker.url, **DURABLE)) as kept:
            await kept.until(lambda: kept.connected)
            assert list(kept.held) == [held_by(TERMS.name)]
        assert kept.held == {}


async def test_who_leaves_without_an_answer_may_leave_one() -> None:
    async with broker_up() as broker:
        async with running(source_of(broker.url, **DURABLE)) as kept:
            await kept.until(lambda: kept.connected)
            broker.hear_nothing()
        assert list(kept.held) == [held_by(TERMS.name)]
        await broker.drop()


async def test_a_connection_that_a_killed_process_left_is_waited_for() -> None:
    clock = ManualClock()
    async with broker_up() as broker:
        known = await known_of(broker, clock)
        known[held_by(TERMS.name)] = clock.now() + timedelta(seconds=20)
        source = source_of(broker.url, clock=clock, **DURABLE)
        async with running(source, queues_emptied=known) as kept:
            await kept.until(lambda: kept.connected)
            for _ in range(19):
                await clock.advance(1.0)
            assert kept.recovered == []
            while not kept.recovered:
                await clock.advance(0.1)
        assert kept.recovered == [True]


# Whether a queue is still there


def gone(frame: Frame) -> Frame | None:
    return None if frame.headers["destination"].startswith("/amq/") else Broker.receipt(frame)


async def known_of(broker: Broker, clock: ManualClock, **options: Any) -> dict[str, datetime]:
    """Return what a run knows at its end, which had its backlogs in."""
    async with running(source_of(broker.url, clock=clock, **DURABLE, **options)) as kept:
        await kept.until(lambda: kept.connected)
        await broker.bring(make())
        await kept.until(lambda: kept.events)
        for _ in range(3):
            await clock.advance(1.0)
        assert kept.recovered == [False]
        return {**kept.queues_emptied, **kept.known}


async def test_queues_known_to_be_empty_are_looked_for_by_one_connection_and_then_asked_for() -> (
    None
):
    topics = [EVERYBODY, "/topic/event.other"]
    clock = ManualClock()
    async with broker_up() as broker:
        known = await known_of(broker, clock, topics=topics)
        source = source_of(broker.url, clock=clock, topics=topics, **DURABLE)
        async with running(source, queues_emptied=known) as kept:
            await kept.until(lambda: kept.connected)
        looked, asked = broker.heard[1:]
    assert [one.headers.get("destination") for one in looked] == [
        *(f"/amq/queue/{queue_name(topic, TERMS.id_for(topic))}" for topic in topics),
        None,
    ]
    assert looked[-1].command == "DISCONNECT"  # so that nothing is on its way there any more
    assert [one.headers.get("destination") for one in asked][:2] == topics


@pytest.mark.parametrize("answer", [gone, lambda _: Frame("NONE")], ids=["gone", "silence"])
async def test_a_queue_that_is_not_found_is_never_relied_on_again(
    answer: Callable[[Frame], Frame | None],
) -> None:
    clock = ManualClock()
    async with broker_up() as broker:
        known = await known_of(broker, clock)
        broker.answer = answer
        source = source_of(broker.url, clock=clock, receipt_timeout=0.05, **DURABLE)
        async with running(source, queues_emptied=known) as kept:
            await until(lambda: len(broker.heard) == 3 and broker.heard[2])
            # Already when it is asked for, which makes it.
            assert all(name.endswith(OUTLIVES[True]) for name in kept.queues_emptied)
            await broker.drop()
            broker.answer = broker.receipt
            while not kept.recovered:
                await clock.advance(0.1)
            assert kept.recovered == [False]


async def test_a_broker_that_lets_nobody_look_has_lost_nothing_yet() -> None:
    clock = ManualClock()
    async with broker_up() as broker:
        known = await known_of(broker, clock)
        broker.down = True
        source = source_of(broker.url, clock=clock, **DURABLE)
        async with running(source, queues_emptied=known) as kept:
            await kept.until(lambda: kept.failed)
            broker.down = False
            with capture_logs() as logs:
                while not kept.recovered:
                    await clock.advance(0.1)
        (doubts,) = [one["doubts"] for one in logs if one["event"] == "backlog_in"]
        assert doubts == []
        assert [len(heard) for heard in broker.heard[1:3]] == [0, 2]  # it was not asked for blindly


async def test_a_removed_destination_is_heard_on_and_never_unsubscribed_from() -> None:
    interest = Interest(NAMESPACE, agents=["5002", "5003"])
    async with broker_up() as broker, running(source_of(broker.url, **DURABLE), interest) as kept:
        await kept.until(lambda: kept.connected)
        source_topics = [one.headers["destination"] for one in broker.heard[0]]
        assert len(source_topics) == 2
        interest.remove([], ["5003"])
        await broker.bring(make(), destination=source_topics[1])
        await until(broker.acks)
        assert "UNSUBSCRIBE" not in broker.commands()


# Refusals


async def ended(url: str, kept: Kept | None = None) -> ConfigurationError:
    """Run a source until it ends by itself; return why."""
    source = source_of(url, **DURABLE)
    with pytest.raises(ConfigurationError) as raised:
        await asyncio.wait_for(source.run(kept or Kept(), Interest(NAMESPACE)), PATIENCE)
    assert raised.value.what == "durable"
    return raised.value


async def test_other_arguments_end_the_run_by_name_even_after_a_success() -> None:
    detail = b"PRECONDITION_FAILED - inequivalent arg 'x-expires' for queue 'q'"
    kept = Kept()
    async with broker_up() as broker, asyncio.TaskGroup() as tasks:
        ending = tasks.create_task(ended(broker.url, kept))
        await kept.until(lambda: kept.connected)
        broker.answer = lambda _: Frame("ERROR", {"message": "precondition_failed"}, detail)
        await broker.drop()
        error = await ending
    for word in (ID, "x-expires (durable_expires)", "another id", str(queue_name(EVERYBODY, ID))):
        assert word in error.problem


async def test_so_do_those_that_are_refused_without_a_word_if_the_queue_is_there() -> None:
    async with broker_up() as broker:
        broker.answer = lambda frame: None if "durable" in frame.headers else broker.receipt(frame)
        error = await ended(broker.url)
        looked = broker.heard[-1][0].headers
    assert looked["destination"] == f"/amq/queue/{queue_name(EVERYBODY, ID)}"
    assert (looked["ack"], looked["prefetch-count"]) == ("client-individual", "1")
    for word in (ID, "x-expires", "x-max-length", "STOMP died"):
        assert word in error.problem


async def test_what_is_refused_without_a_word_is_tried_again_if_there_is_no_such_queue() -> None:
    async with broker_up() as broker:
        broker.answer = lambda _: None
        async with running(source_of(broker.url, **DURABLE)) as kept:
            await kept.until(lambda: kept.failed)
            broker.answer = broker.receipt
            await kept.until(lambda: kept.connected)
    assert EVERYBODY in kept.failed[0].problem


async def test_a_queue_that_nobody_says_is_there_is_not_taken_to_be() -> None:
    async with broker_up() as broker:
        broker.answer = lambda frame: None if "durable" in frame.headers else Frame("NONE")
        async with running(source_of(broker.url, receipt_timeout=0.05, **DURABLE)) as kept:
            await kept.until(lambda: kept.failed)
            broker.answer = broker.receipt
            await kept.until(lambda: kept.connected)


async def test_a_server_without_stomp_ends_the_run() -> None:
    async with SimulatorServer() as server:
        error = await ended(server.json_url)
    assert error.problem.startswith("needs STOMP")


async def test_a_queue_that_overflows_while_reading_is_paused_is_a_loss_to_a_slow_consumer() -> (
    None
):
    clock = ManualClock()
    async with broker_up() as broker:
        source = source_of(broker.url, clock=clock, **DURABLE)
        async with running(source) as kept:
            await kept.until(lambda: kept.connected)
            for _ in range(3):
                await clock.advance(1.0)
            before = clock.now()
            source.pause()
            await clock.advance(2.0)
            source.resume()
            for _ in range(10):
                await broker.bring(*(make() for _ in range(100)))
            await kept.until(lambda: len(kept.events) == 1000)
            while not kept.lost_:
                await clock.advance(1.0)
    (lost,) = kept.lost_
    assert lost.reason == "slow_consumer"
    assert lost.since <= before
    assert "dropped" in lost.detail


async def test_what_its_twin_shows_counts_though_a_queue_has_to_wait_at_every_look() -> None:
    clock = ManualClock()
    async with broker_up() as broker:
        source = source_of(broker.url, clock=clock, **DURABLE | {"prefetch": 2})
        async with running(source) as kept:
            await kept.until(lambda: kept.connected)
            for _ in range(3):
                await clock.advance(1.0)
            await broker.bring(make(), make())
            for _ in range(8):
                await kept.until(lambda: kept.events)
                await clock.advance(1.0)
                kept.events.clear()
                shown = make()
                await broker.bring(shown, twin=True)
                await broker.bring(shown, make(), make())
            now = clock.now()
            await broker.drop()
            await kept.until(lambda: kept.lost_)
    assert kept.lost_[0].since >= now - timedelta(seconds=3)
