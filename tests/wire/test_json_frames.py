"""JSON messages: an object, an array of them, and whatever else, in order."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cti_listener.wire.base import Codec, EventReceived, MessageBad, SessionOpened, WireEvent
from cti_listener.wire.json_frames import SAMPLE, JsonCodec
from tests.examples import EXAMPLES


def received(*messages: bytes) -> list[WireEvent]:
    codec = JsonCodec()
    for message in messages:
        codec.receive_data(message)
    return codec.events_received()


def test_it_is_a_codec() -> None:
    codec: Codec = JsonCodec()
    assert codec.unconfirmed == ()


def test_an_object_is_an_event_and_an_array_several() -> None:
    assert received(b'{"a": 1}', b'[{"b": 2}, {"c": 3}]', b"[]", b"{}") == [
        EventReceived({"a": 1}, None),
        EventReceived({"b": 2}, None),
        EventReceived({"c": 3}, None),
        EventReceived({}, None),
    ]


@pytest.mark.parametrize(
    ("message", "lone"),
    [
        (b'{"a": 1}', ({"a": 1}, None, b'{"a": 1}')),
        (b'[{"a": 1}]', None),
        (b' {"a": 1}', None),
        (b'{"a": 1', None),
        (b"", None),
        (b'{"a": "' + b"x" * 6000 + b'"}', None),
    ],
)
def test_a_short_message_that_is_one_object_is_read_at_once(message: bytes, lone: object) -> None:
    assert JsonCodec().lone_event(message) == lone


def test_a_text_that_is_recalled_is_not_read() -> None:
    assert JsonCodec().lone_event(b"{", lambda text: text == b"{") == (None, None, b"{")
    assert JsonCodec().lone_event(b"{}", lambda _: False) == ({}, None, b"{}")
    assert JsonCodec().lone_event(b"[]", lambda _: True) is None


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "not_json"),
        (b"hello", "not_json"),
        (b'{"a": 1', "not_json"),
        (b"\xff\xfe", "not_utf8"),
        (b'{"a": "\xff"}', "not_utf8"),
        (b"3", "not_an_object"),
        (b"null", "not_an_object"),
        (b'"x"', "not_an_object"),
        (b"[3]", "not_an_object"),
        (b"[[{}]]", "not_an_object"),
        (b"[" * 5000, "too_deep"),
        (b"[" * 100_000, "too_deep"),
        (b'{"a":' * 100_000, "too_deep"),
        (b'[{"a":"\\ud800"},' + b'{"a":' * 300 + b"1" + b"}" * 300 + b"]", "too_deep"),
    ],
)
def test_a_bad_message_is_told_with_its_beginning_and_the_next_is_read(
    message: bytes, reason: str
) -> None:
    told, good = received(message, b'{"a": 1}')
    assert isinstance(told, MessageBad)
    assert told.reason == reason
    assert told.sample == message[:SAMPLE]
    assert told.detail
    assert good == EventReceived({"a": 1}, None)


def test_what_is_no_event_in_an_array_spoils_no_other() -> None:
    first, last, told = received(b'[{"a": 1}, 5, {"b": 2}, 6]')
    assert first == EventReceived({"a": 1}, None)
    assert last == EventReceived({"b": 2}, None)
    assert isinstance(told, MessageBad)
    assert told.count == 2


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (rb"\ud800", "\ud800"),
        (rb"\uDFFF!", "\udfff!"),
        (rb"\ud83d\ude00\ud83d", "\U0001f600\ud83d"),
        (rb"\\ud800 \ud800", "\\ud800 \ud800"),
        (rb"\\\ud800", "\\\ud800"),
    ],
)
def test_half_a_character_is_kept_as_it_is(text: bytes, meant: str) -> None:
    assert received(b'{"a":"' + text + b'"}') == [EventReceived({"a": meant}, None)]


# What a message may hold


def array_of(size: int, *more: object) -> tuple[bytes, int]:
    """Return an array of real events of about so many bytes, and how many are in it."""
    real = [json.dumps(event, separators=(",", ":")) for event in EXAMPLES.values()]
    times = size // (len(",".join(real)) + 1)
    items = real * times + [json.dumps(item) for item in more]
    return f"[{','.join(items)}]".encode(), len(items)


@pytest.mark.parametrize("size", [2**17, 2**20])
def test_an_array_of_real_events_is_taken_whole(size: int) -> None:
    message, events = array_of(size)
    assert 0.9 * size < len(message) <= size
    told = received(message)
    assert len(told) == events
    assert all(isinstance(one, EventReceived) for one in told)


def test_one_odd_thing_among_real_events_costs_none_of_them() -> None:
    message, items = array_of(2**19, 5, {"a": "\ud800"}, {"a": '{[,"' * 50_000}, {})
    told = received(message)
    assert [one.count for one in told if isinstance(one, MessageBad)] == [1]
    assert len(told) == items


FLOODS = [b"{},", b"[],", b'{"a":1},', b"[[[]]],", b"1,", b"1.5,", b'"",', b'"{",', b"null,"]


@pytest.mark.parametrize("unit", FLOODS)
@pytest.mark.parametrize(
    ("begin", "end"), [(b"[", b"0]"), (b'{"a":[', b"0]}"), (b"[", b"0"), (b"[", b'"\\ud800"]')]
)
def test_a_message_full_of_little_is_left_out_as_a_whole(
    unit: bytes, begin: bytes, end: bytes
) -> None:
    message = begin + unit * (2**18 // len(unit)) + end
    told, good = received(message, b'{"a": 1}')
    assert isinstance(told, MessageBad)
    assert (told.reason, told.count, told.sample) == ("too_large", 1, message[:SAMPLE])
    assert good == EventReceived({"a": 1}, None)


@pytest.mark.parametrize("unit", [b"{},", b"[],", b'{"a":1},', b"[[[]]],"])
def test_a_message_full_of_little_is_not_even_built(unit: bytes) -> None:
    message = b"[" + unit * (2**20 // len(unit)) + b"0]"
    tracemalloc.start()
    try:
        received(message)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 6 * 2**20  # what it holds is some 20 MiB and more


def test_a_short_message_may_hold_a_thousand_events_however_small() -> None:
    assert len(received(b"[" + b"{}," * 999 + b"{}]")) == 1000
    (told,) = received(b"[" + b"{}," * 1999 + b"{}]")
    assert isinstance(told, MessageBad)
    assert told.reason == "too_large"


def test_the_session_opens_at_once_and_subscribes_with_its_messages() -> None:
    codec = JsonCodec(['{"subscribe": "中"}', "second"])
    assert codec.data_to_send() == []
    codec.open()
    assert codec.events_received() == [SessionOpened()]
    assert codec.data_to_send() == ['{"subscribe": "中"}'.encode(), b"second"]
    assert codec.data_to_send() == []
    codec.subscribe(["third"])
    assert codec.data_to_send() == [b"third"]
    assert codec.unconfirmed == ()


def test_there_is_no_heart_beat_no_unsubscribing_and_no_goodbye() -> None:
    codec = JsonCodec()
    codec.open()
    codec.events_received()
    codec.heartbeat()
    codec.unsubscribe(["x"])
    codec.close()
    assert codec.data_to_send() == []
    assert codec.events_received() == []


def test_events_are_handed_over_once() -> None:
    codec = JsonCodec()
    codec.receive_data(b"{}")
    assert len(codec.events_received()) == 1
    assert codec.events_received() == []


OBJECTS = st.dictionaries(
    st.text(max_size=4),
    st.none() | st.booleans() | st.integers() | st.text(st.characters(), max_size=4),
    max_size=4,
)


@given(st.lists(OBJECTS, max_size=5))
def test_every_object_of_an_array_comes_in_order(objects: list[dict[str, Any]]) -> None:
    wanted = [EventReceived(one, None) for one in json.loads(json.dumps(objects))]
    assert received(json.dumps(objects).encode()) == wanted
    assert received(*(json.dumps(one).encode() for one in objects)) == wanted


@given(st.binary(max_size=40))
def test_any_bytes_are_an_event_or_a_bad_message(message: bytes) -> None:
    events = received(message)
    assert all(isinstance(event, EventReceived | MessageBad) for event in events)
    assert events or message.strip().startswith(b"[")
