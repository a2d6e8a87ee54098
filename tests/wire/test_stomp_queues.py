"""Durable subscriptions, as transcripts: how they are asked for, acknowledged, found empty."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cti_listener.wire.base import (
    EventReceived,
    LateEvent,
    MessageBad,
    SubscriptionDenied,
    WireEvent,
)
from cti_listener.wire.stomp import StompCodec
from cti_listener.wire.stomp_frames import Frame, encode
from cti_listener.wire.stomp_queues import (
    ACKS_A_MESSAGE,
    MUTE,
    QUESTION,
    TWIN_AGAIN,
    TWIN_EVERY,
    TWIN_HOLDS,
    TWIN_WAITS,
    Queues,
)
from cti_listener.wire.stomp_terms import Terms, differing_argument, queue_name
from tests.examples import make
from tests.wire.test_stomp import A, B, Server

TERMS = Terms(name="cti-1.a", expires=60.0, max_length=1000, prefetch=5)
ID = TERMS.id_for(A)
TWIN = f"{ID}.twin"
HALF = 3  # of `prefetch`


class Broker(Server):
    """A broker that keeps queues, and counts what it brings."""

    def __init__(
        self, *destinations: str, version: str = "1.2", server: str = "RabbitMQ/3.10.8"
    ) -> None:
        super().__init__(StompCodec(destinations, terms=TERMS), version)
        assert self.codec.queues is not None
        self.queues: Queues = self.codec.queues
        self.brought = 0
        self.now = datetime(2026, 3, 1, 10, 0, tzinfo=UTC)
        self.codec.open()
        self.heard()
        self.connected(server=server)

    def bring(
        self, event: dict[str, Any] | bytes, subscription: str = ID, **headers: str
    ) -> list[WireEvent]:
        self.brought += 1
        number = f"T_{subscription}@@s@@{self.brought}"
        ack = {"ack": number} if self.version == "1.2" else {}
        body = event if isinstance(event, bytes) else json.dumps(event).encode()
        told = {"subscription": subscription, "message-id": number, **ack, **headers}
        return self.say("MESSAGE", told, body)

    def bring_both(self) -> None:
        """Bring an event by the twin, and by the queue."""
        live = make()
        self.bring(live, TWIN)
        self.bring(live)

    def acknowledge(self) -> None:
        self.queues.acknowledge(self.queues.acks_due())

    def heard(self) -> list[tuple[str, dict[str, str]]]:
        """Return what was sent, but for the question whether it is there."""
        return [one for one in super().heard() if one[0] not in {"BEGIN", "ABORT"}]

    def look(self) -> None:
        self.now += timedelta(seconds=1)
        self.queues.look(self.now)
        self.answer()

    def answer(self) -> None:
        """Answer what was asked, if anything."""
        self.say("RECEIPT", {"receipt-id": QUESTION})

    @property
    def empty(self) -> bool:
        return self.queues.is_empty(ID)


def standing(**options: Any) -> Broker:
    """Return a broker whose queue is subscribed to, confirmed, and looked at once."""
    broker = Broker(A, **options)
    broker.heard()
    broker.say("RECEIPT", {"receipt-id": f"subscribe-{ID}"})
    broker.look()
    return broker


# How it is asked for


def test_a_durable_subscription_says_what_the_broker_is_to_keep() -> None:
    broker = Broker(A, B)
    assert broker.heard() == [
        (
            "SUBSCRIBE",
            {
                "id": TERMS.id_for(destination),
                "destination": destination,
                "durable": "true",
                "auto-delete": "false",
                "ack": "client-individual",
                "prefetch-count": "5",
                "x-expires": "60000",
                "x-max-length": "1000",
                "receipt": f"subscribe-{TERMS.id_for(destination)}",
            },
        )
        for destination in (A, B)
    ]


def test_its_id_is_the_same_in_every_run_and_another_for_each_feed_and_destination() -> None:
    other_feed = Terms(name="cti-1.b", expires=60.0, max_length=1000, prefetch=5)
    assert ID == "cti-1.a.765a1f524830"
    assert len({ID, TERMS.id_for(B), other_feed.id_for(A), other_feed.id_for(B)}) == 4


def test_the_broker_calls_its_queue_as_rabbitmq_does() -> None:
    name = "stomp-subscription-SYn0-ILid_nLYwv9kS626g"  # as RabbitMQ 3.10 made it
    assert queue_name("/topic/event.agent.*.*", "x.a.1") == name
    assert queue_name("/exchange/amq.topic/event.agent.*.*", "x.a.1") == name
    assert queue_name("/queue/x", "x.a.1") is None
    assert queue_name("/exchange/amq.fanout", "x.a.1") is None


def test_it_is_never_unsubscribed_from_and_goes_on_when_it_is_asked_for_again() -> None:
    broker = standing()
    broker.codec.unsubscribe([A])
    assert list(broker.codec.destinations) == []
    assert broker.bring({"a": 1}, destination="/topic/x") == [EventReceived({"a": 1}, "/topic/x")]
    broker.codec.subscribe([A])
    assert list(broker.codec.destinations) == [A]
    assert list(broker.codec.unconfirmed) == []
    assert broker.bring({"a": 2}) == [EventReceived({"a": 2}, A)]
    broker.codec.close()
    assert [command for command, _ in broker.heard()] == ["DISCONNECT"]


def test_other_arguments_than_the_queue_has_are_known_by_the_brokers_words() -> None:
    broker = Broker(A)
    (denied,) = broker.say(
        "ERROR",
        {"message": "precondition_failed"},
        b"PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'q' in vhost '/': "
        b"received '11' but current is '10'",
    )
    assert isinstance(denied, SubscriptionDenied)
    assert denied.destination == A
    assert differing_argument(denied.detail) == "x-max-length (durable_max_length)"
    assert differing_argument("inequivalent arg 'auto_delete' for queue") == "auto_delete"
    assert differing_argument("access refused") is None


def test_a_look_whether_a_queue_is_there_takes_nothing_out_of_it() -> None:
    server = Server(StompCodec(["/amq/queue/q"], look_only=True))
    server.codec.open()
    server.connected()
    assert server.heard()[1] == (
        "SUBSCRIBE",
        {
            "id": "0",
            "destination": "/amq/queue/q",
            "ack": "client-individual",
            "prefetch-count": "1",
            "receipt": "subscribe-0",
        },
    )
    assert server.say("MESSAGE", {"subscription": "0", "ack": "1"}, b"{}") == []
    assert server.say("MESSAGE", {"subscription": "0", "ack": "1"}, b"{") == []
    server.codec.close()
    assert server.heard() == [("DISCONNECT", {})]


# Acknowledgements


@pytest.mark.parametrize(
    ("version", "headers"),
    [
        ("1.2", {"id": f"T_{ID}@@s@@1"}),
        ("1.1", {"subscription": ID, "message-id": f"T_{ID}@@s@@1"}),
        ("1.0", {"subscription": ID, "message-id": f"T_{ID}@@s@@1"}),
    ],
)
def test_a_message_is_acknowledged_as_its_version_has_it(
    version: str, headers: dict[str, str]
) -> None:
    broker = standing(version=version)
    broker.bring({})
    assert broker.heard() == []  # not before it is asked for
    broker.acknowledge()
    assert broker.heard() == [("ACK", headers)]
    broker.acknowledge()
    assert broker.heard() == []


def test_what_is_no_event_is_acknowledged_as_well() -> None:
    broker = Broker(A)
    broker.codec = StompCodec([A], terms=TERMS, max_size=1000)
    assert broker.codec.queues is not None
    broker.queues = broker.codec.queues
    broker.codec.open()
    broker.connected(server="RabbitMQ")
    broker.heard()
    for body in (b"{", b"[]", b"\xff", b'"' + b"x" * 2000 + b'"', b'"' + b"y" * 2000 + b'"'):
        (told,) = broker.bring(body)
        assert isinstance(told, MessageBad)
    broker.acknowledge()
    acknowledged = [headers["id"] for _, headers in broker.heard()]
    assert acknowledged == [f"T_{ID}@@s@@{number}" for number in range(1, 6)]


def test_too_large_messages_in_one_are_each_acknowledged() -> None:
    codec = StompCodec([A], terms=TERMS, max_size=100)
    codec.open()
    codec.receive_data(b"CONNECTED\nversion:1.2\n\n\0")
    bodies = [b"x" * 200, b"{}", b"y" * 200, b"z" * 200]
    frames = [
        encode(Frame("MESSAGE", {"subscription": ID, "ack": str(number)}, body))
        for number, body in enumerate(bodies)
    ]
    codec.receive_data(b"\n".join(frames))
    assert codec.queues is not None
    assert [ack.message for ack in codec.queues.acks_due()] == ["0", "1", "2", "3"]


def test_what_a_message_holds_too_much_of_is_acknowledged_as_well() -> None:
    codec = StompCodec([A], terms=TERMS)
    codec.open()
    codec.receive_data(b"CONNECTED\nversion:1.2\n\n\0")
    bodies = [b"[" + b"{}," * 200_000 + b"{}]", b"{" * 50_000, b"{}"]
    frames = [
        encode(Frame("MESSAGE", {"subscription": ID, "ack": str(number)}, body))
        for number, body in enumerate(bodies)
    ]
    codec.receive_data(b"\n".join([*frames, *(b"X\n\n\0" for _ in range(20_000)), frames[-1]]))
    told = codec.events_received()
    assert {one.reason for one in told if isinstance(one, MessageBad)} >= {"too_large"}
    assert codec.queues is not None
    assert [ack.message for ack in codec.queues.acks_due()][:3] == ["0", "1", "2"]


def test_many_acks_go_in_few_messages() -> None:
    terms = Terms(name="x", expires=1.0, max_length=1, prefetch=10_000)
    codec = StompCodec([A], terms=terms)
    codec.open()
    codec.receive_data(b"CONNECTED\nversion:1.2\n\n\0")
    codec.data_to_send()
    for number in range(2 * ACKS_A_MESSAGE + 1):
        headers = {"subscription": terms.id_for(A), "ack": str(number)}
        codec.receive_data(encode(Frame("MESSAGE", headers, b"{}")))
    assert codec.queues is not None
    codec.queues.acknowledge(codec.queues.acks_due())
    sent = codec.data_to_send()
    assert [data.count(b"ACK\n") for data in sent] == [ACKS_A_MESSAGE, ACKS_A_MESSAGE, 1]
    assert sent[0].startswith(b"ACK\nid:0\n\n\0ACK\nid:1\n\n\0")


# Empty or not


def test_a_queue_is_empty_when_it_is_quiet_and_all_is_acknowledged() -> None:
    broker = standing()
    broker.bring({})
    broker.look()
    assert not broker.empty  # it was not quiet
    broker.look()
    assert not broker.empty  # it has something to acknowledge
    broker.acknowledge()
    for _ in range(2):
        assert not broker.empty
        broker.look()
    assert broker.empty
    assert broker.queues.count(ID) == 1


def test_silence_says_nothing_while_nothing_is_read() -> None:
    broker = standing()
    broker.queues.look_away()
    broker.look()
    assert not broker.empty
    broker.look()
    assert broker.empty


def test_the_broker_is_asked_whether_it_is_there_and_nothing_changes_by_that() -> None:
    broker = Broker(A)
    Server.heard(broker)
    question = {"transaction": "look"}
    asked = [("BEGIN", {**question, "receipt": "look"}), ("ABORT", question)]
    for _ in range(3):
        broker.look()
        assert Server.heard(broker) == asked
    assert broker.empty
    broker.queues.look(broker.now)
    broker.queues.look(broker.now)
    broker.answer()
    broker.queues.look(broker.now)
    assert Server.heard(broker) == asked  # once, and no more behind an answer that took long
    broker.queues.look(broker.now)
    assert Server.heard(broker) == asked


def test_silence_says_nothing_while_the_broker_does_not_answer() -> None:
    broker = Broker(A)
    for _ in range(5):
        broker.queues.look(broker.now)
        assert not broker.empty
    broker.answer()  # what it held back may follow
    broker.look()
    assert not broker.empty
    broker.look()
    assert broker.empty


def test_a_broker_that_never_answers_is_taken_at_its_silence_and_known_for_it() -> None:
    broker = Broker(A)
    for _ in range(MUTE):
        broker.queues.look(broker.now)
        assert not broker.queues.mute
    for _ in range(2):
        assert not broker.empty
        broker.queues.look(broker.now)
        assert broker.queues.mute
    assert broker.empty
    broker.bring({})
    broker.answer()
    assert not broker.queues.mute
    assert not broker.empty  # that was a guess
    assert broker.queues.count(ID) == 1


def test_what_is_acknowledged_since_the_last_look_may_have_been_all_that_was_on_its_way() -> None:
    broker = standing()
    broker.bring({})
    for _ in range(2):
        broker.look()
    broker.acknowledge()
    broker.look()
    assert not broker.empty
    broker.look()
    assert broker.empty


def test_a_queue_has_to_wait_for_a_slow_link_though_all_that_was_read_is_acknowledged() -> None:
    broker = standing()
    broker.look()
    for count in (HALF - 1, HALF):
        assert broker.empty
        broker.queues.look(broker.now)
        for _ in range(count):
            broker.bring({})
            broker.acknowledge()
        broker.answer()
    assert not broker.empty
    assert broker.queues.was_full(ID)
    assert broker.queues.count(ID) == HALF - 1 + HALF  # since the question before


def test_what_waits_to_be_acknowledged_when_the_broker_is_asked_is_on_its_way_too() -> None:
    broker = standing()
    broker.look()
    broker.bring({})
    broker.queues.look(broker.now)
    broker.acknowledge()
    for _ in range(HALF - 1):
        broker.bring({})
        broker.acknowledge()
    broker.answer()
    assert broker.queues.was_full(ID)


@pytest.mark.parametrize("seconds", [1, 2, 3])
def test_a_queue_is_empty_though_each_answer_takes_long(seconds: int) -> None:
    broker = Broker(A)
    for _ in range(2):
        assert not broker.empty
        for _ in range(seconds):
            broker.queues.look(broker.now)
        broker.answer()
    broker.queues.look(broker.now)
    broker.queues.look(broker.now)
    assert broker.empty


def test_how_many_it_held_is_not_forgotten_where_it_has_to_wait_before_anybody_asks() -> None:
    broker = standing()
    for number in range(20):
        broker.bring({"number": number})
        broker.acknowledge()
        if number < TWIN_EVERY:
            broker.look()
    broker.bring_both()
    broker.bring_both()
    assert broker.empty
    for number in range(TERMS.prefetch):
        broker.bring({"later": number})
    assert not broker.empty
    assert broker.queues.count(ID) == 22
    broker.queues.forget_count(ID)
    assert broker.queues.count(ID) == 10 + 2 + TERMS.prefetch  # since the last question
    assert broker.queues.was_full(ID)


@pytest.mark.parametrize(("destination", "told"), [(A, True), ("/queue/x", False)])
def test_without_a_twin_a_queue_is_judged_when_it_is_empty(destination: str, *, told: bool) -> None:
    broker = Broker(destination)
    one = TERMS.id_for(destination)
    for _ in range(2):
        broker.look()
    for number in range(TERMS.max_length + TERMS.prefetch):
        broker.bring({"number": number}, one)
        if number >= TERMS.prefetch:
            broker.acknowledge()
    assert broker.queues.was_full(one)
    assert broker.queues.overflowed(one) is told
    for _ in range(3):
        broker.look()
    assert broker.queues.is_empty(one)
    assert broker.queues.overflowed(one)


def test_what_was_acknowledged_just_before_a_stall_was_on_its_way_with_the_question() -> None:
    broker = standing()
    broker.look()
    for _ in range(TERMS.prefetch):
        broker.bring({})
        broker.acknowledge()
    for _ in range(2):
        broker.queues.look(broker.now)
    broker.answer()
    assert broker.queues.was_full(ID)


@pytest.mark.parametrize(("count", "waited"), [(0, False), (1, True)])
def test_of_an_answer_that_took_long_what_came_from_the_question_before_on_counts(
    count: int, *, waited: bool
) -> None:
    broker = standing()
    broker.look()
    broker.bring({})
    broker.queues.look(broker.now)  # with one to acknowledge
    broker.acknowledge()
    broker.answer()
    for _ in range(count):
        broker.bring({})
        broker.acknowledge()
    broker.queues.look(broker.now)
    broker.queues.look(broker.now)
    broker.bring({})
    broker.acknowledge()
    broker.answer()
    assert broker.queues.was_full(ID) is waited


def test_a_server_that_keeps_nothing_has_no_backlog() -> None:
    for server in ("ActiveMQ", ""):
        broker = Broker(A, server=server)
        broker.bring({})
        broker.look()
        assert broker.empty
        assert not broker.queues.keeps


def test_a_busy_queue_is_empty_once_it_brings_what_its_twin_shows() -> None:
    broker = standing()
    kept, live, later = make(), make(), make()
    broker.bring(kept)
    broker.acknowledge()
    broker.look()
    assert broker.heard()[1:] == [
        (
            "SUBSCRIBE",
            {
                "id": TWIN,
                "destination": A,
                "ack": "client-individual",
                "prefetch-count": "1",
                "x-max-length": "0",
            },
        )
    ]
    # What the twin shows is not for others; how a copy travelled makes no difference.
    assert broker.bring({**live, "params": {"subscriptionId": 7}}, TWIN) == []
    broker.bring(make())
    assert not broker.empty
    broker.bring({**live, "params": {"subscriptionId": 8}})
    assert not broker.empty  # what it dropped may have lain behind that one
    broker.bring_both()
    assert broker.empty
    broker.bring(later)
    assert broker.queues.count(ID) == 4  # until then


def test_a_twin_may_come_after_its_queue() -> None:
    broker = standing()
    broker.bring(make())
    broker.look()
    live = make()
    broker.bring(live)
    broker.bring(live, TWIN)
    broker.bring_both()
    assert broker.empty


def test_a_destination_that_gives_no_copies_gets_no_twin() -> None:
    destination = "/queue/events"
    broker = Broker(destination)
    broker.heard()
    for _ in range(2 * TWIN_EVERY):
        broker.bring(make(), TERMS.id_for(destination))
        broker.look()
    broker.acknowledge()
    for _ in range(2 * TWIN_AGAIN):
        broker.look()
    assert {command for command, _ in broker.heard()} == {"ACK"}


def test_what_came_before_the_twin_was_asked_for_proves_nothing() -> None:
    broker = standing()
    kept = make()
    broker.bring(kept)
    broker.look()
    broker.bring(kept, TWIN)
    assert not broker.empty


def test_a_twin_that_showed_nothing_useful_is_asked_again() -> None:
    broker = standing()
    first, second = make(), make()
    broker.bring(make())
    broker.look()
    broker.bring(first, TWIN)
    broker.heard()
    for _ in range(TWIN_EVERY):
        broker.bring(make())
        broker.look()
    assert broker.heard() == [("ACK", {"id": f"T_{TWIN}@@s@@2"})]
    broker.bring(second, TWIN)
    broker.bring(first)
    broker.bring_both()
    assert not broker.empty
    broker.bring(second)
    broker.bring_both()
    assert broker.empty


def test_what_is_dropped_while_a_mark_is_on_its_way_counts_with_what_lay_behind_it() -> None:
    broker = standing()
    for _ in range(2):
        broker.look()
    known = broker.queues.covered(ID)
    for _ in range(TERMS.prefetch):
        broker.bring(make())
    broker.look()  # it waits: the twin is asked
    mark = make()
    broker.bring(mark, TWIN)
    for _ in range(TERMS.max_length // 2):
        broker.bring(make())
    broker.bring(mark)
    for _ in range(TERMS.max_length // 2):
        broker.bring(make())
    broker.bring_both()
    assert broker.empty
    assert broker.queues.overflowed(ID)
    assert broker.queues.covered(ID) == known


def test_a_twin_is_shown_another_before_the_broker_takes_us_for_stuck() -> None:
    broker = standing()
    broker.bring(make())
    broker.look()
    broker.bring(make(), TWIN)
    broker.heard()
    for _ in range(TWIN_HOLDS):
        broker.look()
    assert broker.heard()[-1] == ("ACK", {"id": f"T_{TWIN}@@s@@2"})


def test_a_twin_that_shows_what_is_no_event_is_asked_on() -> None:
    broker = standing()
    broker.bring(make())
    broker.look()
    broker.heard()
    assert broker.bring(b"{", TWIN) == []
    assert broker.heard() == [("ACK", {"id": f"T_{TWIN}@@s@@2"})]


def test_a_quiet_queue_that_never_brought_what_its_twin_did_is_shared() -> None:
    broker = standing()
    broker.bring(make())
    broker.acknowledge()
    broker.look()
    broker.bring(make(), TWIN)
    for _ in range(2):  # its own copy may be on its way
        assert not broker.empty
        broker.look()
    assert broker.empty
    assert broker.queues.is_shared(ID)


def compared() -> Broker:
    """Return a broker whose queue is in, and is being compared with its twin all the same."""
    broker = standing()
    broker.look()
    broker.bring(make())
    broker.acknowledge()
    broker.heard()
    for _ in range(TWIN_AGAIN):
        broker.look()
    assert [headers["id"] for _, headers in broker.heard()] == [TWIN]
    return broker


def show(broker: Broker, *, brought: bool) -> None:
    """Have the twin show an event, and the queue bring it or not."""
    live = make()
    broker.bring(live, TWIN)
    if brought:
        broker.bring(live)
    for _ in range(TWIN_WAITS):
        broker.bring(make())
        broker.acknowledge()
        broker.look()


def test_a_queue_that_is_in_and_twice_lacks_what_its_twin_shows_is_shared() -> None:
    broker = compared()
    show(broker, brought=False)
    assert not broker.queues.is_shared(ID)  # its copy may have come before
    show(broker, brought=False)
    assert broker.queues.is_shared(ID)
    assert broker.empty


def test_one_that_lacks_it_once_is_not() -> None:
    broker = compared()
    for brought in (False, True, False):
        show(broker, brought=brought)
    assert not broker.queues.is_shared(ID)
    assert broker.queues.count(ID) == 0  # what it held when it was found to be in


def test_nor_is_one_that_may_have_dropped_it_while_it_waited_for_us() -> None:
    broker = compared()
    broker.bring(make(), TWIN)
    broker.queues.look_away()
    for _ in range(2 * TWIN_WAITS):
        broker.look()
    assert broker.empty
    assert not broker.queues.is_shared(ID)


def test_only_the_busiest_is_compared_and_none_that_brought_nothing() -> None:
    broker = Broker(A, B)
    broker.heard()
    for _ in range(TWIN_AGAIN):
        broker.look()
    assert broker.heard() == []
    broker.bring(make())
    for _ in range(2):
        broker.bring(make(), TERMS.id_for(B))
    broker.acknowledge()
    broker.heard()
    for _ in range(TWIN_AGAIN):
        broker.look()
    assert [headers["id"] for _, headers in broker.heard()] == [f"{TERMS.id_for(B)}.twin"]


def test_a_queue_that_had_to_wait_for_us_counts_anew() -> None:
    broker = standing()
    broker.look()
    assert broker.empty
    for _ in range(TERMS.prefetch):
        assert not broker.queues.was_full(ID)
        broker.bring(make())
    assert broker.queues.was_full(ID)
    assert not broker.empty
    broker.bring(make())
    assert broker.queues.count(ID) == TERMS.prefetch + 1
    broker.acknowledge()
    broker.look()
    broker.look()
    assert broker.empty
    assert broker.queues.was_full(ID)
    broker.queues.forget_count(ID)
    assert (broker.queues.was_full(ID), broker.queues.count(ID)) == (False, 0)


def test_what_does_not_outlive_the_broker_is_known_by_its_header() -> None:
    broker = standing()
    assert broker.queues.is_persistent(ID) is None
    broker.bring(make(), persistent="true")
    assert broker.queues.is_persistent(ID) is True
    broker.bring(make())
    assert broker.queues.is_persistent(ID) is False
    broker.bring(make(), persistent="true")
    assert broker.queues.is_persistent(ID) is False


def test_what_was_taken_back_is_late_at_once_if_newer_ones_came_by_an_earlier_connection() -> None:
    broker = standing()
    broker.queues.overtaken = True
    (first,) = broker.bring({"n": 1}, redelivered="true")
    (second,) = broker.bring({"n": 2}, redelivered="false")
    assert [type(first), type(second)] == [LateEvent, EventReceived]


def test_what_the_broker_took_back_from_a_dead_connection_comes_late() -> None:
    broker = standing()
    (first,) = broker.bring({"n": 1}, redelivered="true")  # left by the connection before
    (second,) = broker.bring({"n": 2}, redelivered="false")
    (third,) = broker.bring({"n": 3}, redelivered="true")
    (fourth,) = broker.bring({"n": 4}, redelivered="false")
    assert [type(one) for one in (first, second, third, fourth)] == [
        EventReceived,
        EventReceived,
        LateEvent,
        EventReceived,
    ]


def test_a_receipt_that_came_late_confirms_as_well() -> None:
    broker = Broker(A)
    broker.codec.wait_no_longer()
    assert not broker.queues.is_confirmed(ID)
    broker.say("RECEIPT", {"receipt-id": f"subscribe-{ID}"})
    assert broker.queues.is_confirmed(ID)


@given(st.lists(st.sampled_from(["bring", "look", "ack", "twin", "away", "live"]), max_size=60))
def test_whatever_happens_each_message_is_acknowledged_once_and_none_shown_twice(
    course: list[str],
) -> None:
    broker = standing()
    shown: list[WireEvent] = []
    brought: list[dict[str, Any]] = []
    said: list[tuple[str, dict[str, str]]] = []
    live = make()
    for act in course:
        match act:
            case "bring" | "live":
                brought.append(live if act == "live" else make())
                shown += broker.bring(brought[-1])
            case "twin":
                said += broker.heard()
                if any(command == "SUBSCRIBE" and h["id"] == TWIN for command, h in said):
                    shown += broker.bring(live, TWIN)
            case "look":
                broker.look()
            case "away":
                broker.queues.look_away()
            case _:
                broker.acknowledge()
    broker.acknowledge()
    assert shown == [EventReceived(event, A) for event in brought]
    said += broker.heard()
    acks = [h["id"] for command, h in said if command == "ACK" and TWIN not in h["id"]]
    assert len(acks) == len(set(acks)) == len(brought)
