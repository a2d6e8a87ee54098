"""Repeats told by their text: nothing that is counted or told differs from having read them."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from datetime import datetime
from math import inf
from pathlib import Path
from typing import Any, Literal

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from cti_listener import Event, Listener
from cti_listener.dedupe import KEPT, LONGEST, LOOK, REST, UNTRIED, Dedupe, Texts
from cti_listener.dispatcher import Dispatcher
from cti_listener.event_base import Delivery
from cti_listener.feeds import Feeds
from cti_listener.handover import Handover
from cti_listener.interest import Interest
from cti_listener.notices import Notice
from cti_listener.pipeline import Pipeline
from cti_listener.testing import ManualClock
from cti_listener.wire import json_frames, stomp
from cti_listener.wire.base import Codec, EventReceived, MessageBad
from cti_listener.wire.json_frames import JsonCodec
from cti_listener.wire.stomp import StompCodec
from cti_listener.wire.stomp_frames import Frame, FrameDecoder, encode
from tests.examples import NAMESPACE, device_id, make, make_agent
from tests.sources.receiver import url_of

TOPICS = ("/topic/a", "/topic/b")


# The same, whether or not texts are kept


class Keeping(Handover):
    """Keeps what is handed over, in order."""

    def __init__(self, told: list[object]) -> None:
        super().__init__()
        self._told = told

    def give(self, event: Event, device: str | None, handlers: Sequence[Any], seq: int = 0) -> None:
        self._told.append((event.model_dump(by_alias=True), event.key, event.delivery))
        super().give(event, device, handlers, seq)

    def tell(self, notice: Notice, but: Any = None) -> None:
        self._told.append(notice)
        super().tell(notice, but)


class Watch(ManualClock):
    """Moves on at once: nobody sleeps by it."""

    def move_on(self, seconds: float) -> None:
        self._elapsed += seconds


class Journal:
    """Stands in for commits: keeps what is to be written."""

    def __init__(self, told: list[object]) -> None:
        self._told = told

    def append(self, payload: Any, device: Any, delivery: Any, **known: Any) -> None:
        self._told.append((dict(payload), device, delivery, known["text"]))

    def behind(self, call: Callable[[], None]) -> None:
        call()

    def keep(self, gap: object) -> None:
        self._told.append(gap)

    def note_life(self, sign: datetime) -> None:
        del sign

    def seated(self, agent: str, seat: tuple[str, str] | None) -> None:
        del agent, seat

    def stats(self) -> None:
        return None


class Gate:
    """Stands in for the inquiry: one device is asked about, and its events wait."""

    holding = False
    holding_since = None

    def __init__(self) -> None:
        self.closed: set[str] = set()
        self._held: list[Callable[[], None]] = []

    def is_closed(self, device: str) -> bool:
        return device in self.closed

    def hold(self, device: str, event: Callable[[], None], at: datetime | None) -> None:
        del device, at
        self._held.append(event)

    def open(self) -> None:
        self.closed.clear()
        held, self._held = self._held, []
        for one in held:
            one()

    def want(self, devices: object) -> None: ...

    def doubt(self, devices: object = ()) -> None: ...

    def stats(self) -> None:
        return None


class Way:
    """A pipeline and the codecs before it, as a life puts them together."""

    def __init__(
        self, texts: Texts, *, journal: bool = False, feeds: Feeds | None = None, window: int = 6
    ) -> None:
        self.clock = Watch()
        self.told: list[object] = []
        self.gate = Gate()
        self.recalled = 0
        commits: Any = Journal(self.told) if journal else None
        gate: Any = None if feeds else self.gate
        handover = Keeping(self.told)
        self.pipeline = Pipeline(
            Interest(NAMESPACE),
            Dedupe(window=window, max_age=30.0),
            self.clock,
            handover,
            commits=commits,
            feeds=feeds,
            later=lambda *_: None,
            inquiry=gate,
            texts=texts,
        )
        handover.attach(
            Dispatcher(
                now=self.clock.now,
                tell=handover.tell,
                pressure=lambda _: None,
                crashed=lambda _: None,
            )
        )
        subscribed = StompCodec(TOPICS)
        subscribed.open()
        subscribed.receive_data(b"CONNECTED\nversion:1.2\n\n\0")
        subscribed.events_received()
        self.codecs: dict[str, Codec] = {"json": JsonCodec(), "stomp": subscribed}

    def take(self, data: bytes, wire: Literal["json", "stomp"], feed: str = "a") -> None:
        """Do as `Life.message_received` does."""
        delivery, codec = Delivery(self.clock.now(), feed), self.codecs[wire]
        recall = self.pipeline.message_received(delivery, wire)
        lone = codec.lone_event(data, recall)
        if lone is None:
            codec.receive_data(data)
            for one in codec.events_received():
                if isinstance(one, EventReceived):
                    self.pipeline.event_received(one.payload, one.destination, delivery)
                elif isinstance(one, MessageBad):
                    self.pipeline.message_bad(one)
        elif lone[0] is None:
            self.recalled += 1
        else:
            self.pipeline.event_received(lone[0], lone[1], delivery, lone[2])


def kept() -> Texts:
    return Texts(share=0.0, look=1)


def never_kept() -> Texts:
    return Texts(share=inf)


def any_event(chance: random.Random) -> dict[str, Any]:
    """Return an event that may be the like of another, and odd in one way or another."""
    pick = chance.choice
    return make(
        pick(["delivered", "held", "agentLoggedOn", "unheardOf"]),
        pick([8002, 8003, 8004]),
        serial=pick([1, 2, 3, 4, 50, 51, 52, 5000, "7", 5.0, -1, None, 2**70]),
        eventType=pick(["csta", "csta", "csta", "agent", 1]),
        eventTime=f"2017.03.18 12:0{chance.randrange(10)}:00",
        namespace=pick([NAMESPACE] * 9 + ["elsewhere.cc", None, ["odd"]]),
        agentId=device_id(pick([5002, 5003])),
        params={"subscriptionId": chance.randrange(2)},
    )


STEPS: dict[str, int] = {
    "event": 100,
    "several": 5,
    "new": 10,
    "later": 3,
    "much later": 1,
    "add device": 1,
    "add agent": 1,
    "remove agent": 3,
    "stand": 1,
    "lose": 1,
    "bad": 1,
    "close": 2,
    "open": 2,
}
"""What happens, and how often."""


def put(way: Way, step: str, bodies: Sequence[bytes], number: int) -> None:  # noqa: C901 - a table
    """Let something happen; of these bodies the first is the one to come."""
    interest = way.pipeline.interest
    match step:
        case "event":
            way.take(bodies[0], "json")
        case "stomp":
            head = {"subscription": str(number % 2), "message-id": str(number)}
            way.take(encode(Frame("MESSAGE", head, bodies[0])), "stomp")
        case "several":
            way.take(b"[%s]" % b",".join(bodies), "json")
        case "bad":
            way.take(bodies[0][:-1], "json")
        case "later" | "much later":
            way.clock.move_on(0.1 if step == "later" else 20.0)
        case "add device":
            interest.add(["8003"], [])
        case "add agent":
            interest.add([], ["5002"])
        case "remove agent" if interest.agents and interest.devices:
            interest.remove([], interest.agents)
        case "close":
            way.gate.closed.add(device_id(8002))
        case "open":
            way.gate.open()
        case _:
            connect(way, step)


def connect(way: Way, step: str) -> None:
    if step == "stand":
        way.pipeline.subscribed("ws://cti.test/", feed="a", confirmed=True, attempts=1)
    elif step == "lose" and way.pipeline.standing.stands:
        way.pipeline.lost(
            "ws://cti.test/", feed="a", since=way.clock.now(), reason="half_open", detail=""
        )


@pytest.mark.parametrize("journal", [False, True])
@pytest.mark.parametrize("seed", range(30))
def test_all_that_is_told_and_counted_is_the_same(seed: int, journal: bool) -> None:  # noqa: FBT001 - parametrized
    chance = random.Random(seed)
    read, recalled = Way(never_kept(), journal=journal), Way(kept(), journal=journal)
    bodies = [json.dumps(any_event(chance)).encode() for _ in range(4)]
    for number in range(300):
        (step,) = chance.choices(list(STEPS), list(STEPS.values()))
        if step == "new":
            bodies[chance.randrange(len(bodies))] = json.dumps(any_event(chance)).encode()
        elif step == "event" and seed % 2:
            step = "stomp"
        chance.shuffle(bodies)
        for way in (read, recalled):
            put(way, step, bodies, number)
        assert recalled.told == read.told
    assert recalled.pipeline.stats() == read.pipeline.stats()
    assert read.recalled == 0
    assert 0 < recalled.recalled <= read.pipeline.stats().repeated


@pytest.mark.parametrize("seed", range(4))
def test_a_long_stream_with_restarts_repeats_and_disorder_is_told_the_same(seed: int) -> None:
    chance = random.Random(seed)
    read, recalled = Way(never_kept()), Way(kept())
    serial, sent = 1000, [json.dumps(make(eventTime="2017.03.18 11:59:00", serial=999)).encode()]
    for minute in range(1500):
        if chance.random() < 0.4:
            serial = chance.randrange(900) if chance.random() < 0.02 else serial + 1
            stamp = f"2017.03.18 {12 + minute // 3600:02}:{minute // 60 % 60:02}:{minute % 60:02}"
            sent.append(json.dumps(make(serial=serial, eventTime=stamp)).encode())
        data = sent[-1 - min(len(sent) - 1, int(chance.expovariate(0.7)))]
        for way in (read, recalled):
            way.take(data, "json")
    assert recalled.pipeline.stats() == read.pipeline.stats()
    assert recalled.told == read.told
    assert "server_restarted" in {gap.reason for gap in read.pipeline.stats().gaps}
    assert recalled.recalled > 500


def test_what_the_window_has_forgotten_is_new_though_its_text_is_kept() -> None:
    way = Way(kept())
    data = json.dumps(make()).encode()
    for _ in range(3):
        way.take(data, "json")
    way.clock.move_on(100.0)
    way.take(data, "json")
    stats = way.pipeline.stats()
    assert (stats.distinct, stats.repeated, way.recalled) == (2, 2, 1)


def test_with_agents_every_copy_is_read_since_it_may_move_a_seat() -> None:
    way = Way(kept())
    way.pipeline.interest.add([], ["5002"])
    data = json.dumps(make_agent("agentLoggedOn")).encode()
    for _ in range(4):
        way.take(data, "json")
    assert (way.pipeline.stats().repeated, way.recalled) == (3, 0)


def test_with_several_feeds_every_copy_is_read() -> None:
    way = Way(kept(), feeds=Feeds(("a", "b")))
    data = json.dumps(make()).encode()
    for feed in "abab":
        way.take(data, "json", feed)
    assert (way.pipeline.stats().repeated, way.recalled) == (3, 0)


def test_a_long_text_is_not_kept() -> None:
    way = Way(kept())
    data = json.dumps(make(cause="x" * LONGEST)).encode()
    for _ in range(4):
        way.take(data, "json")
    assert (way.pipeline.stats().repeated, way.recalled) == (3, 0)


# When they are kept


def test_texts_are_kept_once_so_many_of_the_latest_events_were_repeats() -> None:
    texts = Texts(share=0.25)
    assert texts.due == LOOK
    assert not texts.look(LOOK, LOOK // 4 - 1, 0, 0.0)
    assert not texts.look(2 * LOOK, LOOK // 4, 0, 0.0)
    assert texts.look(3 * LOOK, LOOK // 2, 0, 0.0)
    assert texts.due == 3 * LOOK + KEPT


def test_they_are_kept_no_more_and_not_at_once_again_when_few_come_again_to_the_byte() -> None:
    texts, events, recalled = Texts(share=0.24), LOOK, 0
    few = 3 * KEPT // 25
    said = "8001@a.cc", "held", 0

    def look(more: int, told: int, now: float) -> bool:
        nonlocal events, recalled
        events, recalled = events + more, recalled + told
        return texts.look(events, events, recalled, now)

    assert look(0, 0, 5.0)
    for _ in range(UNTRIED):  # their originals may have come before
        texts.keep(b"{}", said)
        assert look(KEPT, 0, 6.0)
    texts.keep(b"[]", said)
    assert (texts.said(b"{}"), texts.said(b"[]"), texts.said(b"")) == (said, said, None)
    assert look(KEPT, few, 6.0)
    assert (texts.said(b"{}"), texts.said(b"[]")) == (None, said)
    assert not look(KEPT, few - 1, 7.0)
    assert repr(texts) == "<Texts 0 kept>"
    assert not look(LOOK, 0, 6.9 + REST)
    assert look(LOOK, 0, 7.0 + REST)
    assert look(KEPT, 0, 7.0 + REST)  # it is tried anew


def test_repeats_that_come_thousands_of_events_later_are_told_by_their_texts() -> None:
    way = Way(Texts(), window=100_000)
    bodies = [json.dumps(make(serial=number)).encode() for number in range(5 * KEPT)]
    apart = KEPT // 2 - LOOK  # and as many repeats lie between
    for number, body in enumerate(bodies):
        way.take(body, "json")
        if number >= apart:
            way.take(bodies[number - apart], "json")
    repeated = way.pipeline.stats().repeated
    assert repeated == len(bodies) - apart
    assert way.recalled >= repeated - KEPT


def test_no_more_are_kept_than_twice_the_number_and_what_one_read_brings() -> None:
    texts = Texts()
    way = Way(texts, window=100_000)
    for number in range(2 * KEPT):
        data = json.dumps(make(serial=number)).encode()
        way.take(data, "json")
        way.take(data, "json")
    kept = int(repr(texts).split()[1])
    assert KEPT // 2 <= kept <= 2 * KEPT
    assert way.recalled >= 2 * KEPT - LOOK


# From a socket


def stream(bodies: Sequence[bytes]) -> Callable[[ServerConnection], Any]:
    async def send(connection: ServerConnection) -> None:
        stomp_wanted = connection.subprotocol is not None
        if stomp_wanted:
            decoder = FrameDecoder()
            while True:
                decoder.receive_data(await connection.recv(decode=False))
                frames = [one for one in decoder.frames_received() if isinstance(one, Frame)]
                if any(frame.command == "SUBSCRIBE" for frame in frames):
                    break
                await connection.send("CONNECTED\nversion:1.2\n\n\0")
            await connection.send("RECEIPT\nreceipt-id:subscribe-0\n\n\0")
        for number, body in enumerate(bodies):
            head = {"subscription": "0", "destination": TOPICS[0], "message-id": str(number)}
            data = encode(Frame("MESSAGE", head, body)) if stomp_wanted else body
            await connection.send(data, text=True)
        await connection.wait_closed()

    return send


@pytest.mark.parametrize("wire", ["json", "stomp"])
@pytest.mark.parametrize("journal", [False, True])
async def test_most_repeats_of_a_stream_full_of_them_are_never_read(
    wire: Literal["json", "stomp"],
    journal: bool,  # noqa: FBT001 - parametrized
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    room = json_frames if wire == "json" else stomp
    reads = 0
    read = room.from_json

    def count(*args: Any, **how: Any) -> Any:
        nonlocal reads
        reads += 1
        return read(*args, **how)

    monkeypatch.setattr(room, "from_json", count)
    events = 1500
    bodies = [json.dumps(make(serial=number)).encode() for number in range(events)]
    sent = [body for body in bodies for _ in range(2)][:-1]  # once the last is there, all are
    serials: list[int | None] = []
    done = asyncio.Event()
    protocols = {"subprotocols": [Subprotocol("v12.stomp")]} if wire == "stomp" else {}
    async with serve(stream(sent), "127.0.0.1", 0, compression=None, **protocols) as server:  # type: ignore[arg-type]
        listener = Listener(
            url_of(server),
            namespace=NAMESPACE,
            wire=wire,
            proxy=None,
            topics=TOPICS[:1],
            journal=tmp_path / "j.db" if journal else None,
        )

        @listener.on(Event, name="all")
        async def take(event: Event) -> None:
            serials.append(event.serial)
            if event.serial == events - 1:
                done.set()

        async with listener, asyncio.timeout(20):
            await done.wait()
            stats = listener.stats()
    assert serials == list(range(events))
    assert stats.frames - 2 * (wire == "stomp") == len(sent)
    assert stats.received == stats.received_by_name["delivered"] == len(sent)
    assert (stats.distinct, stats.repeated, stats.not_asked_for) == (events, events - 1, 0)
    assert stats.gaps == ()
    assert reads < events + 2 * LOOK
