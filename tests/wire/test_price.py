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


@pytest.mark.parametrize("half", [r"\ud800", r"\uDBFF", r"\udc00", r"\ud800\ud800", r"\ud83d"])
def test_names_have_a_price_where_half_a_character_is(half: str) -> None:
    text = b'{"a":[%s]}' % b",".join([b'{"a":0,":":1}'] * 3)
    odd = text.replace(b'"a":0', b'"a":"' + half.encode() + b'"', 1)
    assert price_of_json(odd * 20) == price_of_json(text * 20) + 20 * 7 * COLON


@pytest.mark.parametrize("whole", [r"\ud83d\ude00", r"\uDBFF\uDFFF", r"\u4e2d", r"\\n"])
def test_names_are_free_where_characters_are_whole(whole: str) -> None:
    text = b'{"a":[%s]}' % b",".join([b'{"a":0,":":1}'] * 3)
    odd = text.replace(b'"a":0', b'"a":"' + whole.encode() + b'"', 1)
    assert price_of_json(odd * 20) == price_of_json(text * 20)


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
