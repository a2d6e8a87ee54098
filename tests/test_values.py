"""What a wire value means, and that nothing off the wire makes reading it fail."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cti_listener.values import (
    EventKey,
    _read_time,
    canonical_id,
    china,
    content_digest,
    full_id,
    identity,
    plain_bool,
    plain_int,
    plain_text,
    read_time,
    routing_key,
)
from tests.examples import SEVEN

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -1, 0, 1])
    | st.floats()
    | st.text(st.characters(), max_size=6),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


# Ids


@pytest.mark.parametrize(
    ("text", "collapsed"),
    [
        ("8003@x.cc@x.cc", "8003@x.cc"),
        ("8003@x.cc@x.cc@x.cc", "8003@x.cc"),
        ("8003@x.cc", "8003@x.cc"),
        ("8003", "8003"),
        ("8003@x.cc@y.cc", "8003@x.cc@y.cc"),
        ("139****0000@x.cc", "139****0000@x.cc"),
        ("", ""),
        ("@", "@"),
    ],
)
def test_only_a_doubled_domain_collapses(text: str, collapsed: str) -> None:
    assert canonical_id(text) == collapsed


def test_what_is_no_id_costs_no_more_than_its_length() -> None:
    longest = "1@" + "a" * 100_000 + "@" * 100_000  # ten gigabytes, if it were built
    assert canonical_id(longest) == longest
    assert canonical_id("1" + "@a" * 100_000) == "1@a"


@pytest.mark.parametrize(
    ("text", "namespace", "full"),
    [
        ("8002", "zhen04.cc", "8002@zhen04.cc"),
        ("8002@a.cc", "zhen04.cc", "8002@a.cc"),
        ("8002@a.cc@a.cc", "zhen04.cc", "8002@a.cc"),
        ("8002", None, "8002"),
        ("8002", "", "8002"),
    ],
)
def test_a_short_id_is_completed_with_its_namespace(
    text: str, namespace: str | None, full: str
) -> None:
    assert full_id(text, namespace) == full


@given(st.text(max_size=12), st.none() | st.text(max_size=5))
def test_an_id_completed_twice_is_completed_once(text: str, namespace: str | None) -> None:
    once = full_id(text, namespace)
    if namespace is None or "@" not in namespace:
        assert full_id(once, namespace) == once


@given(st.dictionaries(st.sampled_from([*SEVEN, "eventSrc", "deviceId", "x"]), ANYTHING))
def test_the_routing_key_of_anything_is_a_text_or_nothing(payload: dict[str, Any]) -> None:
    device = routing_key(payload)
    assert device is None or len(device) > 0


# Identity


@given(st.dictionaries(st.sampled_from([*SEVEN, "params", "x"]), ANYTHING))
def test_the_identity_of_anything_can_be_hashed(payload: dict[str, Any]) -> None:
    key = identity(payload, routing_key(payload))
    assert len(key) == len(EventKey._fields)
    assert isinstance(hash(key), int)


def test_the_identity_is_the_seven_values() -> None:
    payload = dict(zip(SEVEN, ["a.cc", "csta", "1@a.cc", 5, "held", "t", "c"], strict=True))
    seven = ("a.cc", "csta", "1@a.cc", 5, "held", "t", "c")
    assert identity(payload, "1@a.cc") == (*seven, None)
    assert identity({**payload, "cause": "x"}, "1@a.cc") == (*seven, None)
    assert EventKey(*identity(payload, "1@a.cc")).serial == 5


@pytest.mark.parametrize(
    ("one", "other"), [(-1, -2), (0, 2**61 - 1), (1, True), (5, 5.0), (-1.0, -2.0), (-1, "-0x1")]
)
def test_two_serials_never_pass_for_one(one: object, other: object) -> None:
    first, second = identity({"serial": one}, None), identity({"serial": other}, None)
    assert first != second
    assert hash(first) != hash(second)
    assert (first[3], second[3]) == (one, other)
    assert hash(first) == hash(identity({"serial": one}, None))


@pytest.mark.parametrize("name", ["callId", "eventTime", "namespace"])
@pytest.mark.parametrize(
    ("one", "other"), [(-1, -2), (1, True), (5, 5.0), (0, 2**61 - 1), (5, "5")]
)
def test_two_odd_values_never_pass_for_one(name: str, one: object, other: object) -> None:
    keys = [identity({"serial": 5, name: value}, None) for value in (one, other)]
    assert keys[0] != keys[1]
    assert hash(keys[0]) != hash(keys[1])


@pytest.mark.parametrize("name", ["callId", "serial", "eventName"])
def test_what_is_no_number_is_the_same_twice(name: str) -> None:
    first, second = (identity({"serial": 5, name: float("nan")}, None) for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)


@pytest.mark.parametrize("odd", [["x"], {"a": 1}])
def test_a_value_that_cannot_be_hashed_makes_the_content_count(odd: object) -> None:
    payload = {"serial": 5, "callId": odd, "eventName": "held"}
    first, second = identity(payload, None), identity({**payload, "cause": "x"}, None)
    assert first != second
    assert first == identity(dict(payload), None)
    assert first[3] == 5


def test_the_content_is_compared_without_what_tells_of_the_copy() -> None:
    said = {"eventName": "held", "a": {"b": [1]}}
    travelled = {"params": {"subscriptionId": 3}, "topics": ["csta"], "_type": "x"}
    assert content_digest(said) == content_digest({**travelled, **said})
    assert content_digest(said) != content_digest({**said, "a": {"b": [1.0]}})
    assert content_digest(said) != content_digest({**said, "a": {"b": ["1"]}})
    assert content_digest({"a": "\ud800"}) != content_digest({"a": "\ud801"})


@given(st.dictionaries(st.text(max_size=3), ANYTHING, max_size=5), st.randoms())
def test_the_order_of_names_says_nothing(payload: dict[str, Any], chance: Any) -> None:
    names = list(payload)
    chance.shuffle(names)
    assert content_digest(payload) == content_digest({name: payload[name] for name in names})


# Times


def test_the_servers_clock_hangs_in_china_by_default() -> None:
    read = read_time("2017.03.18 14:13:24")
    assert read == datetime(2017, 3, 18, 6, 13, 24, tzinfo=UTC)
    assert read is not None
    assert read.tzinfo is china()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2017.03.18 14:13:24", datetime(2017, 3, 18, 14, 13, 24, tzinfo=UTC)),
        ("2017-03-18T14:13:24", datetime(2017, 3, 18, 14, 13, 24, tzinfo=UTC)),
        ("2017-03-18 14:13:24.250", datetime(2017, 3, 18, 14, 13, 24, 250_000, tzinfo=UTC)),
        ("2017-03-18T14:13:24Z", datetime(2017, 3, 18, 14, 13, 24, tzinfo=UTC)),
        ("2017-03-18T14:13:24+08:00", datetime(2017, 3, 18, 6, 13, 24, tzinfo=UTC)),
    ],
)
def test_a_zone_in_the_text_wins_over_the_setting(text: str, expected: datetime) -> None:
    assert read_time(text, ZoneInfo("UTC")) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "now", "2017.03.18", "2017.13.18 14:13:24", "2017.03.18 25:00:00", "1710000000000"),
        *("0001.01.01 00:00:00", "1969-12-31T23:59:59"),
    ],
)
def test_what_is_no_time_is_none(text: str) -> None:
    assert read_time(text) is None


@pytest.mark.parametrize("digits", ["1712123101015", "1712123000", "20170318"])
def test_a_bare_number_is_no_time_of_the_wrong_century(digits: str) -> None:
    assert read_time(digits) is None


def test_a_text_too_long_for_a_time_is_not_kept() -> None:
    _read_time.cache_clear()
    assert read_time("2017-03-18T14:13:24." + "0" * 60) is None
    assert _read_time.cache_info().currsize == 0
    assert read_time("2017-03-18T14:13:24." + "0" * 40) is not None


@given(st.text(max_size=25))
def test_any_text_is_a_time_with_a_zone_or_none(text: str) -> None:
    read = read_time(text)
    assert read is None or isinstance(read.utcoffset(), timedelta)


# Plain readings


@pytest.mark.parametrize(
    ("value", "text"),
    [("x", "x"), (5, "5"), (1.5, "1.5"), (True, None), (None, None), ([], None), ({}, None)],
)
def test_a_number_may_stand_where_text_was_due(value: object, text: str | None) -> None:
    assert plain_text(value) == text


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (5, 5),
        ("8343300", 8343300),
        ("007", 7),
        (12.0, 12),
        (12.5, None),
        (float("nan"), None),
        (float("inf"), None),
        ("-5", None),
        ("1_000", None),
        ("٣", None),
        ("", None),
        ("9" * 21, None),
        (True, None),
        (None, None),
        ([5], None),
    ],
)
def test_a_whole_number_may_be_written_as_text(value: object, number: int | None) -> None:
    assert plain_int(value) == number


@pytest.mark.parametrize(
    ("value", "truth"),
    [
        (True, True),
        (False, False),
        ("true", True),
        ("FALSE", False),
        (1, True),
        (0, False),
        ("1", True),
        (2, None),
        ("yes", None),
        (None, None),
        ([], None),
        (1.0, None),
    ],
)
def test_a_truth_may_be_written_as_text_or_number(value: object, truth: bool | None) -> None:  # noqa: FBT001
    assert plain_bool(value) is truth


@given(ANYTHING | st.just(10**5000))
def test_a_plain_reading_never_fails(value: object) -> None:
    assert isinstance(plain_text(value), str | None)
    assert isinstance(plain_int(value), int | None)
    assert isinstance(plain_bool(value), bool | None)
