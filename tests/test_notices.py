"""What the listener says itself, and how the command line prints it."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, fields, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import get_args

import pytest

from cti_listener.notices import (
    Connected,
    Disconnected,
    Gap,
    GapReason,
    Notice,
    Overflow,
    SubscriptionRefused,
)
from cti_listener.values import EventKey

AT = datetime(2024, 5, 1, 12, 0, 0, 123_456, tzinfo=UTC)
KEY = EventKey("a.cc", "csta", "1@a.cc", 5, "held", "2024.05.01 20:00:00", "c")

CONNECTED = Connected(at=AT, feed="a", url="wss://x/y", confirmed=True)
DISCONNECTED = Disconnected(
    at=AT, feed="a", url="wss://x/y", since=AT, reason="half_open", detail="silent"
)
REFUSED = SubscriptionRefused(
    at=AT, feed="a", destination="/topic/x", devices=frozenset({"1@a.cc"}), since=AT, detail="no"
)
GAP = Gap(
    at=AT,
    id=3,
    since=AT - timedelta(seconds=2),
    until=AT,
    reason="disconnected",
    devices=frozenset({"2@a.cc", "1@a.cc"}),
    last_before=KEY,
)
OVERFLOW = Overflow(at=AT, handler="h", device="1@a.cc", dropped=2, first=KEY, last=None)
ALL = (CONNECTED, DISCONNECTED, REFUSED, GAP, OVERFLOW)


@pytest.mark.parametrize("notice", ALL, ids=lambda notice: notice.event_name)
def test_a_notice_is_printed_as_a_listener_event_in_plain_json(notice: Notice) -> None:
    wire = notice.as_wire()
    assert wire["eventType"] == "listener"
    assert wire["eventName"] == notice.event_name
    assert json.loads(json.dumps(wire)) == wire
    assert len(wire) == len(fields(notice)) + 2
    assert not [name for name in wire if "_" in name]


def test_a_gap_is_printed_with_times_that_have_a_zone_and_sorted_devices() -> None:
    assert GAP.as_wire() == {
        "eventType": "listener",
        "eventName": "gap",
        "at": "2024-05-01T12:00:00.123+00:00",
        "id": 3,
        "since": "2024-05-01T11:59:58.123+00:00",
        "until": "2024-05-01T12:00:00.124+00:00",
        "reason": "disconnected",
        "devices": ["1@a.cc", "2@a.cc"],
        "destination": None,
        "recovered": False,
        "lastBefore": {
            "namespace": "a.cc",
            "eventType": "csta",
            "device": "1@a.cc",
            "serial": 5,
            "eventName": "held",
            "eventTime": "2024.05.01 20:00:00",
            "callId": "c",
        },
        "firstAfter": None,
    }


@pytest.mark.parametrize(
    ("microsecond", "until"),
    [(0, "00.000"), (123_000, "00.123"), (123_001, "00.124"), (999_001, "01.000")],
)
def test_a_printed_gap_is_no_shorter_than_it_is(microsecond: int, until: str) -> None:
    end = AT.replace(microsecond=microsecond)
    wire = replace(GAP, since=end, until=end).as_wire()
    assert wire["until"] == f"2024-05-01T12:00:{until}+00:00"
    assert datetime.fromisoformat(wire["since"]) <= end <= datetime.fromisoformat(wire["until"])
    assert replace(GAP, until=None).as_wire()["until"] is None


def test_another_zone_is_printed_as_it_is() -> None:
    there = AT.astimezone(timezone(timedelta(hours=8)))
    wire = Connected(at=there, feed="a", url="x", confirmed=False, attempts=4).as_wire()
    assert wire["at"] == "2024-05-01T20:00:00.123+08:00"
    assert wire["confirmed"] is False
    assert wire["attempts"] == 4


def test_a_notice_concerns_its_devices_or_everybody() -> None:
    assert CONNECTED.concerns == frozenset()
    assert DISCONNECTED.concerns == frozenset()
    assert REFUSED.concerns == {"1@a.cc"}
    assert GAP.concerns == {"1@a.cc", "2@a.cc"}
    assert OVERFLOW.concerns == {"1@a.cc"}
    of_all = Overflow(at=AT, handler="h", device=None, dropped=1, first=None, last=None)
    assert of_all.concerns == frozenset()


def test_the_names_are_those_the_interface_promises() -> None:
    assert [notice.event_name for notice in ALL] == [
        "connected",
        "disconnected",
        "subscriptionRefused",
        "gap",
        "overflow",
    ]


@pytest.mark.parametrize("notice", ALL, ids=lambda notice: notice.event_name)
def test_a_notice_is_frozen_and_takes_no_further_attributes(notice: Notice) -> None:
    with pytest.raises(FrozenInstanceError):
        notice.at = AT  # type: ignore[misc]  # as a user who does not check types might
    assert not hasattr(notice, "__dict__")
    assert hash(notice) == hash(notice)


def test_every_reason_of_a_gap_is_explained() -> None:
    assert set(get_args(GapReason)) == {
        "disconnected",
        "half_open",
        "listener_down",
        "server_restarted",
        "oversized",
        "slow_consumer",
        "refused",
    }
