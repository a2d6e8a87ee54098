"""What a message may hold: nothing real is too dear, no text costs less than what it holds."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cti_listener.wire.price import (
    CHEAP,
    COLON,
    COMMA,
    CONTAINER,
    EVENT,
    FRAME,
    FREE,
    HEADER,
    NAMES,
    allowance,
    price_of_json,
)
from tests.examples import EXAMPLES

HEAD = (
    b"MESSAGE",
    b"subscription:0",
    b"destination:/topic/event.agent.*.5002@zhen04_cc",
    b"message-id:T_0@@session-w1@@1",
)
"""The least that a server writes above an event."""


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def walked(value: Any) -> int:
    """Return the price of what is there, found the long way."""
    if not isinstance(value, dict | list):
        return 0
    inner = value.values() if isinstance(value, dict) else value
    return CONTAINER + COMMA * max(0, len(value) - 1) + sum(map(walked, inner))


def test_a_message_holds_what_its_length_pays_for_and_a_little_in_any_case() -> None:
    assert allowance(0) == allowance(FREE) == FREE
    assert allowance(2**20) == 2**20


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_real_event_costs_less_than_its_length(name: str) -> None:
    event = compact(EXAMPLES[name])
    price = EVENT + COMMA + price_of_json(event)
    assert price < 0.9 * len(event + b",")
    head = b"\n".join(HEAD) + b"\n\n"
    price = FRAME + HEADER * (len(HEAD) - 1) + price_of_json(event)
    assert price < 0.9 * len(head + event + b"\0")


@pytest.mark.parametrize("text", ["{[,", ",", '"', '"{', '\\"[', "\\", '\\"', '"",[', "中,"])
def test_what_a_string_holds_costs_nothing(text: str) -> None:
    event = {"a": text * 100_000, "b": [text, {text: text}]}
    assert price_of_json(compact(event)) <= max(len(compact(event)), walked(event))
    array = [text] * 100_000
    assert price_of_json(compact(array)) == walked(array)


@pytest.mark.parametrize("unit", [b"{},", b"[],", b"[[]],", b'{"":{}},', b"0,", b'"",', b'"{",'])
def test_what_a_message_is_full_of_is_above_its_length(unit: bytes) -> None:
    text = b"[" + unit * (2**17 // len(unit)) + b"0]"
    assert price_of_json(text) == walked(json.loads(text)) > allowance(len(text))


def named(names: int, text: str) -> bytes:
    """Return an object of so many names, of which the last is this text's."""
    some = [b'"%d":0' % n for n in range(names - 1)]
    return b'{%s,"":"%s"}' % (b",".join(some), text.encode())


HALVES = [r"\ud800", r"\uDBFF", r"\udc00", r"\ud800\ud800", r"\ud83d\\\ude00", r"\\\ude00"]
WHOLE = [r"\ud83d\ude00", r"\uDBFF\uDFFF", r"\u4e2d", r"\\n", r"\\ud800"]


@pytest.mark.parametrize("half", HALVES)
def test_more_names_than_are_real_have_a_price_where_half_a_character_is(half: str) -> None:
    free = CONTAINER + COMMA * (NAMES - 1)
    assert price_of_json(named(NAMES, half)) == free
    assert price_of_json(named(NAMES + 5, half)) == free + 5 * (COMMA + COLON)


@pytest.mark.parametrize("whole", WHOLE)
def test_names_are_free_where_characters_are_whole(whole: str) -> None:
    assert price_of_json(named(NAMES + 5, whole)) == CONTAINER + COMMA * (NAMES + 4)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_batch_of_real_events_is_taken_though_half_a_character_is_in_it(name: str) -> None:
    short = {
        key: value.replace("zhen04.cc", "a.cc") if isinstance(value, str) else value
        for key, value in EXAMPLES[name].items()
    }
    event = compact({**short, "agentName": "half"}).replace(b"half", b"\\ud83d")
    for count in (600, 5000):
        array = b"[" + b",".join([event] * count) + b"]"
        assert EVENT * count + price_of_json(array) < allowance(len(array))


def test_what_is_short_is_free_whatever_it_holds() -> None:
    assert price_of_json(b"[" * CHEAP) <= FREE


TEXT = st.text(st.sampled_from('"\\{[,:a中\n')) | st.text(max_size=5)
VALUES = st.recursive(
    st.none() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(TEXT, inner, max_size=20),
    max_leaves=50,
)


@given(VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_the_price_is_that_of_what_is_there(value: Any, ascii_only: bool, indent: int) -> None:  # noqa: FBT001
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    price, there = price_of_json(text), walked(value)
    assert price >= there
    assert price == there or price <= max(200, len(text))
