"""The STOMP session, as whole transcripts: what the server sends, what we say, what is told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cti_listener.errors import ConfigurationError
from cti_listener.wire.base import (
    Codec,
    EventReceived,
    MessageBad,
    SessionDenied,
    SessionEnded,
    SessionOpened,
    SubscriptionConfirmed,
    SubscriptionDenied,
    WireEvent,
)
from cti_listener.wire.stomp import SUBPROTOCOLS, StompCodec
from cti_listener.wire.stomp_frames import Frame, FrameDecoder, encode
from tests.examples import EXAMPLES
from tests.work import calls

A, B = "/topic/event.agent.*.5002@zhen04_cc", "/topic/event.agent.*.5003@zhen04_cc"


class Server:
    """The far end of a codec: reads what it says, and answers."""

    def __init__(self, codec: StompCodec, version: str | None = "1.2") -> None:
        self.codec = codec
        self.version = version
        self._decoder = FrameDecoder(version or "1.0")

    def heard(self) -> list[tuple[str, dict[str, str]]]:
        for data in self.codec.data_to_send():
            self._decoder.receive_data(data)
        frames = self._decoder.frames_received()
        return [(f.command, dict(f.headers)) for f in frames if isinstance(f, Frame)]

    def say(
        self, command: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> list[WireEvent]:
        frame = Frame(command, headers or {}, body)
        self.codec.receive_data(encode(frame, self.version or "1.0"))
        return self.codec.events_received()

    def connected(self, **headers: str) -> list[WireEvent]:
        version = {} if self.version is None else {"version": self.version}
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.say("CONNECTED", {**version, **told})


def session(*destinations: str, **options: Any) -> Server:
    """Return the server of a codec that has subscribed, with nothing left unread."""
    server = Server(StompCodec(destinations, **options))
    server.codec.open()
    server.connected()
    server.heard()
    return server


# A whole session


def test_a_session_from_connect_to_disconnect() -> None:
    server = Server(StompCodec([A, B], login="u", passcode="p", heartbeat=(10.0, 5.0)))
    codec: Codec = server.codec
    assert server.heard() == []
    codec.open()
    assert server.heard() == [
        (
            "CONNECT",
            {
                "accept-version": "1.0,1.1,1.2",
                "host": "/",
                "heart-beat": "10000,5000",
                "login": "u",
                "passcode": "p",
            },
        )
    ]
    assert list(codec.unconfirmed) == [A, B]
    assert server.connected(server="RabbitMQ/3.10", heart_beat="10000,10000") == [
        SessionOpened(10.0, 10.0, "RabbitMQ/3.10")
    ]
    assert server.heard() == [
        ("SUBSCRIBE", {"id": "0", "destination": A, "ack": "auto", "receipt": "subscribe-0"}),
        ("SUBSCRIBE", {"id": "1", "destination": B, "ack": "auto", "receipt": "subscribe-1"}),
    ]
    assert list(codec.unconfirmed) == [A, B]
    assert server.say("RECEIPT", {"receipt-id": "subscribe-0"}) == [SubscriptionConfirmed(A)]
    assert list(codec.unconfirmed) == [B]
    assert server.say("RECEIPT", {"receipt-id": "subscribe-1"}) == [SubscriptionConfirmed(B)]
    assert list(codec.unconfirmed) == []
    assert server.say("MESSAGE", {"subscription": "1", "destination": "/x"}, b'{"a":1}') == [
        EventReceived({"a": 1}, B)
    ]
    codec.heartbeat()
    assert codec.data_to_send() == [b"\n"]
    codec.close()
    codec.close()
    assert server.heard() == [("DISCONNECT", {})]


def test_every_message_we_send_is_one_frame_in_text() -> None:
    server = Server(StompCodec([A, B]))
    server.codec.open()
    server.connected()
    sent = server.codec.data_to_send()
    assert len(sent) == 3
    assert all(data.endswith(b"\n\n\0") and data.count(b"\0") == 1 for data in sent)
    assert all(data.decode() for data in sent)


def test_a_second_connected_changes_nothing() -> None:
    server = session(A)
    (told,) = server.connected(version="1.0")
    assert isinstance(told, MessageBad)
    assert told.reason == "not_a_frame"
    assert server.heard() == []
    server.codec.receive_data(b"MESSAGE\ndestination:/a\\cb\n\n{}\0")
    assert server.codec.events_received() == [EventReceived({}, "/a:b")]


def test_the_sub_protocols_are_offered_newest_first() -> None:
    assert SUBPROTOCOLS == ("v12.stomp", "v11.stomp", "v10.stomp")


# CONNECT


def connect_headers(**options: Any) -> dict[str, str]:
    server = Server(StompCodec([A], **options))
    server.codec.open()
    ((command, headers),) = server.heard()
    assert command == "CONNECT"
    return headers


def test_without_a_login_connect_has_none_as_the_vendors_own_client() -> None:
    assert connect_headers() == {
        "accept-version": "1.0,1.1,1.2",
        "host": "/",
        "heart-beat": "0,0",
    }


def test_connect_carries_what_it_is_given_unescaped() -> None:
    headers = connect_headers(
        vhost="cti:x",
        login="a\\b",
        passcode="",
        connect_headers={"sessionId": "1:2", "host": "override"},
        heartbeat=(0.0, 2.5),
    )
    assert headers == {
        "accept-version": "1.0,1.1,1.2",
        "host": "override",
        "heart-beat": "0,2500",
        "login": "a\\b",
        "passcode": "",
        "sessionId": "1:2",
    }


@pytest.mark.parametrize(
    "options",
    [
        {"login": "u\nx:y"},
        {"passcode": "p\r"},
        {"vhost": "\0"},
        {"connect_headers": {"a\nb": "c"}},
        {"connect_headers": {"a:b": "c"}},
        {"passcode": "\udcff"},
    ],
)
def test_a_header_that_would_write_another_is_refused(options: dict[str, Any]) -> None:
    codec = StompCodec([A], **options)
    with pytest.raises(ConfigurationError, match="STOMP header"):
        codec.open()
    assert codec.data_to_send() == []


def test_a_destination_that_would_write_a_header_is_escaped_or_refused() -> None:
    server = session()
    server.codec.subscribe(["/a\nack:client"])
    assert server.heard()[0][1]["destination"] == "/a\nack:client"
    old = Server(StompCodec([]), None)
    old.codec.open()
    old.connected()
    with pytest.raises(ConfigurationError, match="destination"):
        old.codec.subscribe(["/a\nack:client"])


# Versions


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2", None])
def test_each_version_is_spoken_with_its_escapes(version: str | None) -> None:
    server = Server(StompCodec(["/topic/a:b"]), version)
    server.codec.open()
    server.heard()
    assert server.connected() == [SessionOpened()]
    (subscribe,) = server.codec.data_to_send()
    escaped = b"/topic/a\\cb" if version in {"1.1", "1.2"} else b"/topic/a:b"
    assert b"destination:" + escaped + b"\n" in subscribe
    wire = b"MESSAGE\nsubscription:7\ndestination:" + escaped + b"\n\n{}\0"
    server.codec.receive_data(wire)
    assert server.codec.events_received() == [EventReceived({}, "/topic/a:b")]


@pytest.mark.parametrize("version", ["2.0", "", "1"])
def test_a_version_nobody_asked_for_ends_it(version: str) -> None:
    server = Server(StompCodec([A]))
    server.codec.open()
    server.heard()
    (denied,) = server.say("CONNECTED", {"version": version})
    assert isinstance(denied, SessionDenied)
    assert repr(version) in denied.detail
    assert server.heard() == []


# Heart-beats


@pytest.mark.parametrize(
    ("ours", "theirs", "agreed"),
    [
        ((10.0, 10.0), "0,0", (0.0, 0.0)),
        ((0.0, 0.0), "5000,5000", (0.0, 0.0)),
        ((10.0, 10.0), "5000,20000", (20.0, 10.0)),
        ((10.0, 10.0), "20000,5000", (10.0, 20.0)),
        ((10.0, 0.0), "5000,5000", (10.0, 0.0)),
        ((10.0, 10.0), "0,5000", (10.0, 0.0)),
        ((10.0, 10.0), " 5000 , 5000 ", (10.0, 10.0)),
        ((10.0, 10.0), "", (0.0, 0.0)),
        ((10.0, 10.0), "x,y", (0.0, 0.0)),
        ((10.0, 10.0), "1", (0.0, 0.0)),
        ((10.0, 10.0), "1,2,3", (0.0, 0.0)),
        ((10.0, 10.0), "-5,-5", (0.0, 0.0)),
        ((10.0, 10.0), "9" * 400 + ",0", (0.0, 0.0)),
    ],
)
def test_heart_beats_are_the_slower_of_what_each_wants(
    ours: tuple[float, float], theirs: str, agreed: tuple[float, float]
) -> None:
    server = Server(StompCodec([], heartbeat=ours))
    server.codec.open()
    (opened,) = server.connected(heart_beat=theirs)
    assert opened == SessionOpened(*agreed)


def test_a_server_that_says_nothing_of_heart_beats_wants_none() -> None:
    server = Server(StompCodec([], heartbeat=(1.0, 1.0)))
    server.codec.open()
    assert server.connected() == [SessionOpened(0.0, 0.0)]


def test_no_heart_beat_is_sent_before_the_session_stands() -> None:
    codec = StompCodec([A])
    codec.heartbeat()
    codec.close()
    assert codec.data_to_send() == []


def test_heart_beats_of_the_server_tell_nothing() -> None:
    server = session(A)
    server.codec.receive_data(b"\n")
    server.codec.receive_data(b"\r\n\n")
    assert server.codec.events_received() == []


# Refusals


@pytest.mark.parametrize(
    ("headers", "body", "detail"),
    [
        ({"message": "Bad CONNECT"}, b"Access refused for user 'x'\n\nmore", "Bad CONNECT: Access"),
        ({"message": " no "}, b"", "no"),
        ({}, b"only a body", "only a body"),
        ({}, b"", "ERROR"),
        ({}, b"\xff", "�"),
    ],
)
def test_an_error_before_connected_denies_the_session(
    headers: dict[str, str], body: bytes, detail: str
) -> None:
    server = Server(StompCodec([A]))
    server.codec.open()
    server.heard()
    (denied,) = server.say("ERROR", headers, body)
    assert isinstance(denied, SessionDenied)
    assert denied.detail.startswith(detail)
    assert server.heard() == []


def test_an_error_with_a_receipt_id_refuses_that_destination() -> None:
    server = session(A, B)
    told = server.say("ERROR", {"receipt-id": "subscribe-1", "message": "no such"})
    assert told == [SubscriptionDenied(B, "no such")]


def test_an_error_without_one_refuses_the_oldest_that_is_due() -> None:
    server = session(A, B)
    server.say("RECEIPT", {"receipt-id": "subscribe-0"})
    assert server.say("ERROR", {"message": "Invalid destination"}, b"'x' is not\nvalid") == [
        SubscriptionDenied(B, "Invalid destination: 'x' is not")
    ]


def test_an_error_once_all_is_confirmed_ends_the_session() -> None:
    server = session(A)
    server.say("RECEIPT", {"receipt-id": "subscribe-0"})
    assert server.say("ERROR", {"message": "shutting down"}) == [SessionEnded("shutting down")]


def test_an_error_about_something_else_ends_the_session() -> None:
    server = session(A)
    assert server.say("ERROR", {"receipt-id": "other", "message": "x"}) == [SessionEnded("x")]


def test_a_long_error_is_cut() -> None:
    server = session()
    (ended,) = server.say("ERROR", {"message": "m"}, b"x" * 10_000)
    assert isinstance(ended, SessionEnded)
    assert len(ended.detail) <= 310


# Subscriptions


def test_subscriptions_come_and_go_and_no_id_is_used_twice() -> None:
    server = session(A)
    server.codec.subscribe([B])
    assert server.heard() == [
        ("SUBSCRIBE", {"id": "1", "destination": B, "ack": "auto", "receipt": "subscribe-1"})
    ]
    server.codec.unsubscribe([A, "/never"])
    assert server.heard() == [("UNSUBSCRIBE", {"id": "0", "destination": A})]
    assert server.codec.unconfirmed == (B,)
    assert server.say("RECEIPT", {"receipt-id": "subscribe-0"}) == []
    server.codec.subscribe([A])
    assert [headers["id"] for _, headers in server.heard()] == ["2"]


def test_what_changes_before_connected_is_subscribed_right_after() -> None:
    server = Server(StompCodec([A]))
    server.codec.open()
    server.codec.subscribe([B, "/c"])
    server.codec.unsubscribe([A])
    assert len(server.heard()) == 1
    assert server.codec.unconfirmed == (B, "/c")
    server.connected()
    assert [headers["destination"] for _, headers in server.heard()] == [B, "/c"]


def test_a_receipt_nobody_waits_for_tells_nothing() -> None:
    server = session(A)
    assert server.say("RECEIPT", {"receipt-id": "x"}) == []
    assert server.say("RECEIPT") == []
    assert server.codec.unconfirmed == (A,)


# Messages


def test_a_message_of_no_subscription_of_ours_names_its_own_destination() -> None:
    server = session(A)
    assert server.say("MESSAGE", {"subscription": "9", "destination": "/d"}, b"{}") == [
        EventReceived({}, "/d")
    ]
    assert server.say("MESSAGE", {}, b"{}") == [EventReceived({}, None)]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not_json"),
        (b"{", "not_json"),
        (b"\xff", "not_utf8"),
        (b"[{}]", "not_an_object"),
        (b"3", "not_an_object"),
        (b"[" * 50_000, "too_deep"),
    ],
)
def test_a_body_that_is_no_event_is_told_and_the_session_lives(body: bytes, reason: str) -> None:
    server = session(A)
    (told,) = server.say("MESSAGE", {"subscription": "0"}, body)
    assert isinstance(told, MessageBad)
    assert told.reason == reason
    assert told.sample == body[:200]
    assert server.say("MESSAGE", {"subscription": "0"}, b"{}") == [EventReceived({}, A)]


@pytest.mark.parametrize("data", [b"rubbish\0", b"MESSAGE\nx\n\n\0", b"HELLO\n\n\0", b"SEND\n\n\0"])
def test_what_no_server_sends_is_told_and_the_session_lives(data: bytes) -> None:
    server = session(A)
    server.codec.receive_data(data)
    (told,) = server.codec.events_received()
    assert isinstance(told, MessageBad)
    assert told.reason == "not_a_frame"
    assert server.say("MESSAGE", {"subscription": "0"}, b"{}") == [EventReceived({}, A)]


def test_a_frame_above_the_limit_is_left_out() -> None:
    server = session(A, max_size=1000)
    big = json.dumps({"a": "x" * 2000}).encode()
    (told,) = server.say("MESSAGE", {"subscription": "0"}, big)
    assert isinstance(told, MessageBad)
    assert "1000" in told.detail
    assert server.say("MESSAGE", {"subscription": "0"}, b"{}") == [EventReceived({}, A)]


# What a message may hold


def test_a_mebibyte_of_real_events_is_taken_whole_however_it_is_cut() -> None:
    headers = {"subscription": "0", "message-id": "T_0@@session-w1@@1"}
    data = b"\n".join(
        encode(Frame("MESSAGE", headers, json.dumps(event).encode())) for event in EXAMPLES.values()
    )
    data *= 2**20 // len(data)
    for size in (len(data), 2**15, 700):
        server = session(A)
        for at in range(0, len(data), size):
            server.codec.receive_data(data[at : at + size])
        told = server.codec.events_received()
        assert len(told) == data.count(b"MESSAGE")
        assert {type(one) for one in told} == {EventReceived}


@pytest.mark.parametrize(
    "frame",
    [
        b"MESSAGE\nsubscription:0\n\n{}\0",
        b"MESSAGE\nsubscription:0\n\n\0",
        b"MESSAGE\nsubscription:0\n\n{\0",
        b"MESSAGE\nsubscription:0\n\n[]\0",
        b"MESSAGE\nsubscription:0\n\n\xff\0",
        b'MESSAGE\nsubscription:0\n\n{"a":[' + b"{}," * 1000 + b"0]}\0",
        b'MESSAGE\nsubscription:0\n\n{"a":[' + b"1.5," * 4000 + b"0]}\0",
        b"CONNECTED\nversion:1.2\n\n\0",
        b"RECEIPT\nreceipt-id:x\n\n\0",
        b"ERROR\n\n\0",
        b"HELLO\n\n\0",
        b"HELLO\0",
    ],
)
def test_a_flood_is_taken_up_to_what_its_length_pays_for_and_the_rest_told_once(
    frame: bytes,
) -> None:
    server = session(A)
    flood = frame * (2**20 // len(frame))
    with calls() as counted:
        server.codec.receive_data(flood)
    assert counted.total() < 400_000
    told = server.codec.events_received()
    (left_out,) = [one for one in told if isinstance(one, MessageBad) and one.reason == "too_large"]
    assert left_out.detail
    assert len(told) < 8000
    assert server.say("MESSAGE", {"subscription": "0"}, b"{}") == [EventReceived({}, A)]


@pytest.mark.parametrize("body", [b"{},", b"[],", b"0,"])
def test_a_body_full_of_little_is_left_out_and_the_events_around_it_are_taken(body: bytes) -> None:
    server = session(A)
    good = encode(Frame("MESSAGE", {"subscription": "0"}, json.dumps({"n": "x" * 300}).encode()))
    dear = b'{"a":[' + body * (2**19 // len(body)) + b"0]}"
    server.codec.receive_data(
        good * 30 + encode(Frame("MESSAGE", {"subscription": "0"}, dear)) + good * 30
    )
    told = server.codec.events_received()
    assert [one.reason for one in told if isinstance(one, MessageBad)] == ["too_large"]
    assert len(told) == 61


@pytest.mark.parametrize("size", [1000, 2**15, 2**20])
def test_one_event_of_many_values_is_taken_however_small_its_pieces(size: int) -> None:
    server = session(A)
    event = {"a": [f"value {number}" for number in range(30_000)]}
    data = encode(Frame("MESSAGE", {"subscription": "0"}, json.dumps(event).encode()))
    for at in range(0, len(data), size):
        server.codec.receive_data(data[at : at + size])
    assert server.codec.events_received() == [EventReceived(event, A)]


def test_an_error_may_be_as_long_as_it_likes() -> None:
    for body in (b"\n" * 2**20 + b"no", b"no" + b"\n" * 2**20, b"no\n" * 2**18):
        server = session()
        assert server.say("ERROR", {"message": "m"}, body) == [SessionEnded("m: no")]


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=6), st.data())
def test_events_come_in_order_however_the_bytes_are_cut(
    numbers: list[int], data: st.DataObject
) -> None:
    server = session(A)
    stream = b"\n".join(
        encode(Frame("MESSAGE", {"subscription": "0"}, json.dumps({"n": n}).encode()))
        for n in numbers
    )
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=5).map(sorted))
    told = []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        server.codec.receive_data(stream[begin:end])
        told += server.codec.events_received()
    assert told == [EventReceived({"n": n}, A) for n in numbers]


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_no_bytes_make_the_session_fail(pieces: list[bytes]) -> None:
    server = session(A)
    for piece in pieces:
        server.codec.receive_data(piece)
    assert isinstance(server.codec.events_received(), list)
    assert server.codec.events_received() == []


def test_an_error_after_waiting_no_longer_is_no_refusal_unless_it_names_its_receipt() -> None:
    def standing() -> StompCodec:
        codec = StompCodec(["/topic/a"])
        codec.open()
        codec.receive_data(b"CONNECTED\nversion:1.2\n\n\0")
        codec.wait_no_longer()
        assert codec.unconfirmed == ()
        codec.events_received()
        return codec

    codec = standing()
    codec.receive_data(b"ERROR\nmessage:Connection to broker closed.\n\n\0")
    assert codec.events_received() == [SessionEnded("Connection to broker closed.")]
    codec = standing()
    codec.receive_data(b"ERROR\nreceipt-id:subscribe-0\nmessage:no\n\n\0")
    assert codec.events_received() == [SubscriptionDenied("/topic/a", "no")]


# A lone event


def lone_frame(extra: str = "", body: str = '{"serial": 7}', end: str = "\0") -> bytes:
    head = f"MESSAGE\nsubscription:0\nmessage-id:1\ndestination:/other\n{extra}\n"
    return f"{head}{body}{end}".encode()


FROM_RABBITMQ = (
    b"MESSAGE\nsubscription:0\ndestination:/topic/event.agent.zhen04_cc.8002\n"
    b"message-id:T_0@@session-utgPNT2S7nFBLP-BEFzPcA@@3\nredelivered:false\nx-a:b\n"
    b'persistent:true\ncontent-type:application/json\ncontent-length:13\n\n{"serial": 7}\0\n'
)
FROM_SPRING = (
    b"MESSAGE\ndestination:/topic/a\ncontent-type:application/json\nsubscription:0\n"
    b'message-id:w1-7\ncontent-length:13\n\n{"serial": 7}\0'
)


@pytest.mark.parametrize(
    "data",
    [
        lone_frame(),
        lone_frame(end="\0\n"),
        lone_frame("content-length:13\n"),
        lone_frame("a:1\na:2\nsubscription:1\n"),
        lone_frame("a:1\ncontent-length:13\nb:2\ncontent-length:1\n"),
        lone_frame("content-length:0013\ncontent-length:\n"),
        lone_frame().replace(b"subscription:0\n", b"").replace(b"\n\n", b"\nsubscription:0\n\n"),
        FROM_RABBITMQ,
        FROM_SPRING,
    ],
)
def test_a_message_that_is_one_plain_event_is_read_at_once(data: bytes) -> None:
    server = session(A)
    assert server.codec.lone_event(data) == ({"serial": 7}, A, b'{"serial": 7}')


@pytest.mark.parametrize(
    "data",
    [
        lone_frame("a:\\c\n"),
        lone_frame("a:1\r\n"),
        lone_frame("a\n"),
        lone_frame("a:\u00e9\n"),
        lone_frame("content-length:12\n"),
        lone_frame("content-length:14\n"),
        lone_frame("content-length:14\n", end="\0\n"),
        lone_frame("content-length:12\ncontent-length:13\n"),
        lone_frame("content-length: 13\n"),
        lone_frame("content-length:+13\n"),
        lone_frame("content-length:1_3\n"),
        lone_frame("content-length:\n"),
        lone_frame("content-length:9999999999999\n"),
        lone_frame("content-length:13\ncontent-length:\u00e9\n"),
        lone_frame("subscription\n"),
        lone_frame("a:\0\n"),
        lone_frame("content-length:10\n", body='{"a": "\0"}'),
        lone_frame(end="\0\n\n"),
        lone_frame(end="\0\0"),
        lone_frame(end=""),
        lone_frame() + lone_frame(),
        lone_frame(body="[7]"),
        lone_frame(body="{"),
        lone_frame(body=' {"serial": 7}'),
        lone_frame(body=f'{{"a": "{"x" * 6000}"}}'),
        lone_frame().replace(b"MESSAGE", b"SEND"),
        lone_frame().replace(b"subscription:0", b"subscription:9"),
        lone_frame().replace(b"subscription:0", b"x:0"),
        lone_frame().replace(b"subscription:0", b"subscription:9\nsubscription:0"),
        lone_frame().replace(b"subscription:0", b"content-length:13\nsubscription:0"),
        lone_frame().replace(b"\n\n", b"\n"),
        b"\n" + lone_frame(),
        b'MESSAGE\nx:1\n\n"\xff"\0',
    ],
)
def test_what_is_not_plain_is_left_to_be_looked_at(data: bytes) -> None:
    assert session(A).codec.lone_event(data) is None


def test_a_text_that_is_recalled_is_not_read() -> None:
    server, asked = session(A), list[bytes]()

    def recall(text: bytes) -> bool:
        asked.append(text)
        return text == b"{"

    assert server.codec.lone_event(lone_frame(body="{"), recall) == (None, A, b"{")
    assert server.codec.lone_event(lone_frame(), recall) == ({"serial": 7}, A, b'{"serial": 7}')
    assert server.codec.lone_event(lone_frame(body="["), recall) is None
    assert server.codec.lone_event(lone_frame("a\n"), recall) is None
    assert asked == [b"{", b'{"serial": 7}']


def test_nothing_is_a_lone_event_in_the_middle_of_a_frame_or_in_version_1_0() -> None:
    server = session(A)
    server.codec.receive_data(b"MESSAGE\n")
    assert server.codec.lone_event(lone_frame()) is None
    server = Server(StompCodec([A]), version=None)
    assert server.codec.lone_event(lone_frame()) is None
    server.connected()
    assert server.codec.lone_event(lone_frame()) is None
