from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wcwidth import wcswidth

from cti_listener.derived import CallEnded
from cti_listener.events import CATALOGUE, parse_event
from cti_listener.notices import Connected, Disconnected, Gap, Overflow, SubscriptionRefused
from cti_listener.ops import terminal
from cti_listener.ops.pretty import Pretty
from cti_listener.records import CallRecord
from cti_listener.values import china

OWN = "8002@zhen04.cc"
AT = datetime(2017, 3, 18, 14, 13, 24, tzinfo=china())
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")

FIELDS = st.dictionaries(
    st.sampled_from(
        [
            "callId",
            "namespace",
            "agentId",
            "callingDevice",
            "calledDevice",
            "eventTime",
            "cause",
            "srcDeviceId",
            "reason",
            "agentMode",
            "fileName",
            "failedMsg",
            "releasingDevice",
        ]
    ),
    st.text(st.characters()) | st.integers() | st.none(),
)


def pretty(
    *, namespace: str | None = "zhen04.cc", colour: bool = False, columns: int = 0
) -> Pretty:
    return Pretty(zone=china(), namespace=namespace, colour=colour, columns=lambda: columns)


def event(name: str, **fields: Any) -> Any:
    base = {
        "eventName": name,
        "eventType": "agent" if name.startswith("agent") else "csta",
        "eventTime": "2017.03.18 14:13:24",
        "namespace": "zhen04.cc",
        "srcDeviceId": OWN,
    }
    return parse_event(base | fields)


def test_a_call_shows_time_device_name_parties_and_the_call_shortened() -> None:
    line = pretty().line(
        event(
            "established",
            callId="37db6efe-57cc-4053-b0ce-24c96eba66b0",
            callingDevice="8001@zhen04.cc",
            calledDevice="8002@zhen04.cc",
            answeringDevice="8002@zhen04.cc",
        )
    )
    assert line == "14:13:24  8002    established            8001        → 8002         37db6efe"


@pytest.mark.parametrize(
    ("name", "fields", "notable"),
    [
        ("connectionCleared", {"cause": "BUSY", "releasingDevice": OWN}, "BUSY"),
        ("connectionCleared", {"cause": "BUSY", "releasingDevice": "8001"}, "by 8001 · BUSY"),
        ("delivered", {"alertingDevice": "8003", "cause": "newCall"}, "at 8003 · newCall"),
        ("agentLoggedOn", {"agentMode": "Ready"}, "Ready"),
        ("agentNotReady", {"agentMode": "NotReady", "reason": "午餐"}, "午餐"),
        ("failed", {"failedCode": 8, "failedMsg": "空号"}, "空号"),
        ("recordStopped", {"fileName": "/mnt/a/b/20180724_1.wav"}, "20180724_1.wav"),
        ("recordStarted", {"fileName": "x.wav", "isSuccess": False}, "not successful · x.wav"),
        ("transferred", {"transferringDevice": OWN, "transferredToDevice": "8003"}, "to 8003"),
        ("conferenced", {"conferencingDevice": "8001", "addedParty": "4"}, "by 8001 · with 4"),
    ],
)
def test_what_is_notable_stands_last(name: str, fields: dict[str, Any], notable: str) -> None:
    assert re.split(r" {3,}", pretty().line(event(name, **fields)))[-1] == notable


def test_a_mode_that_the_name_tells_is_not_said_again() -> None:
    line = pretty().line(event("agentReady", agentMode="Ready", agentId="5002@zhen04.cc"))
    assert line == "14:13:24  8002    agentReady             5002"


def test_another_namespace_is_shown() -> None:
    assert "8002@other.cc" in pretty().line(event("held", srcDeviceId="8002@other.cc"))


def test_without_a_namespace_asked_for_the_device_is_shown_in_full() -> None:
    line = pretty(namespace=None).line(event("held", callingDevice="8001@zhen04.cc"))
    assert line.split() == ["14:13:24", "8002@zhen04.cc", "held", "8001", "→"]


@pytest.mark.parametrize("caller", ["8001", "张三", "＋86", "ａ", "é", "e\u0301", "13800138000"])
def test_columns_align_by_display_width(caller: str) -> None:
    form = pretty()
    form.line(event("held", callingDevice="13800138000"))  # the column has grown
    lines = [
        form.line(event("held", callId="12345678", callingDevice=who, calledDevice="8002"))
        for who in ("8001", caller)
    ]
    assert wcswidth(lines[0].partition("→")[0]) == wcswidth(lines[1].partition("→")[0])
    assert wcswidth(lines[0]) == wcswidth(lines[1])


def test_a_value_wider_than_any_column_is_cut_and_marked() -> None:
    form = pretty()
    line = form.line(event("held", callId="12345678", callingDevice="9" * 40, calledDevice="8002"))
    assert f"{'9' * 25}… → 8002" in line


def test_what_is_notable_is_cut_at_the_terminals_edge() -> None:
    line = pretty(columns=100).line(event("connectionCleared", cause="啊" * 100))
    assert 98 <= wcswidth(line) <= 100
    assert line.endswith("…")


def test_a_notice_is_never_cut() -> None:
    gap = Gap(at=AT, id=1, since=AT, until=AT, reason="half_open", devices=frozenset({"8" * 90}))
    assert "8" * 90 in pretty(columns=80).line(gap)


@given(st.sampled_from([*CATALOGUE, "callEnd", "x\x1b[2J"]), FIELDS)
def test_nothing_received_steers_the_terminal(name: str, fields: dict[str, Any]) -> None:
    line = pretty().line(event(name, **fields))
    assert line == terminal.clean(line)
    line.encode()


def test_an_escape_sequence_is_shown_and_not_obeyed() -> None:
    line = pretty().line(event("agentNotReady", reason="\x1b]0;owned\x07\u202e\ud83d"))
    assert r"\x1b]0;owned\x07\u202e\ud83d" in line


def test_colour_tells_the_kind_and_takes_no_width() -> None:
    plain, coloured = pretty(), pretty(colour=True)
    for name in (*CATALOGUE, "callEnd"):
        one = event(name, callId="12345678", cause="newCall", agentId="5002@zhen04.cc")
        assert ESCAPES.sub("", coloured.line(one)) == plain.line(one)
    ringing, over = (coloured.line(event(name)) for name in ("delivered", "connectionCleared"))
    assert ESCAPES.findall(ringing) != ESCAPES.findall(over)


def test_a_time_in_no_year_of_ours_is_shown_as_it_came() -> None:
    line = pretty().line(event("held", eventTime="9999-12-31T23:59:59-10:00"))
    assert line.startswith("9999-12-31T23:59:59-10:00  8002    held")


@pytest.mark.parametrize("text", ["yesterday", "0001-01-01T00:00:00+10:00"])
def test_an_event_without_a_readable_time_or_device_still_has_its_line(text: str) -> None:
    line = pretty().line(parse_event({"eventName": "held", "eventTime": text}))
    assert re.fullmatch(r"\d\d:\d\d:\d\d {10}held", line)


@pytest.mark.parametrize(
    ("notice", "said"),
    [
        (Connected(at=AT, feed="a", url="ws://h/x", confirmed=True), "connected ws://h/x"),
        (
            Connected(at=AT, feed="a", url="ws://h/x", confirmed=False),
            "connected ws://h/x (unconfirmed)",
        ),
        (
            Disconnected(
                at=AT, feed="a", url="ws://h/x", since=AT, reason="half_open", detail="silence"
            ),
            "disconnected silence; last sign of life 14:13:24",
        ),
        (
            Gap(at=AT, id=1, since=AT - timedelta(seconds=4), until=AT, reason="disconnected"),
            "gap disconnected, 14:13:20 to 14:13:24 (4.0 s): events of all devices may be missing",
        ),
        (
            SubscriptionRefused(at=AT, feed="a", destination="/topic/x", since=AT, detail="no"),
            "subscriptionRefused /topic/x: no",
        ),
        (
            Overflow(at=AT, handler="output", device="8002", dropped=3, first=None, last=None),
            "overflow 3 events of 8002 dropped, the lane of output was full",
        ),
    ],
)
def test_a_notice_is_said_in_words(notice: Any, said: str) -> None:
    line = pretty().line(notice)
    assert line.split() == ["14:13:24", *said.split()]


@pytest.mark.parametrize(
    ("is_terminal", "environ", "wanted"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),
        (False, {"FORCE_COLOR": "1"}, True),
        (False, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        (True, {"TERM": "dumb"}, False),
    ],
)
def test_colour_is_for_terminals_unless_told_otherwise(
    is_terminal: object, environ: dict[str, str], wanted: object
) -> None:
    assert terminal.colour_wanted(terminal=bool(is_terminal), environ=environ) is wanted


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"])), st.integers(1, 40))
def test_a_cut_text_is_never_wider_than_asked(text: str, columns: int) -> None:
    assert terminal.width(terminal.cut(terminal.clean(text), columns)) <= columns


def record(**fields: Any) -> CallEnded:
    began = datetime(2026, 3, 2, 9, 0, 0, tzinfo=china())
    known: dict[str, Any] = {
        "id": "7daee17e-467b-4e60-a74e-f5fdce5ce4a9",
        "device": "8002@zhen04.cc",
        "direction": "inbound",
        "other_party": "138****1234@zhen04.cc",
        "started": began,
        "answered": began + timedelta(seconds=5),
        "ended": began + timedelta(seconds=70),
        "was_answered": True,
        "ring_seconds": 5.0,
        "talk_seconds": 65.0,
    }
    return CallEnded(at=began, device="8002@zhen04.cc", call=CallRecord(**{**known, **fields}))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "ring 5 s · talk 65 s"),
        ({"hold_seconds": 7.0, "wrap_up_seconds": 9.0}, "talk 65 s · hold 7 s · wrap-up 9 s"),
        ({"transferred_to": "8003@zhen04.cc"}, "talk 65 s · to 8003"),
        ({"transferred_from": "8003@zhen04.cc", "uncertain": True}, "· from 8003 · uncertain"),
        ({"cause": "NORMAL\x1b[2J"}, "talk 65 s · NORMAL"),
        ({"other_party": None, "direction": None, "talk_seconds": None}, "7daee17e  ring 5 s"),
    ],
)
def test_a_record_is_one_line_with_what_is_notable_last(fields: dict[str, Any], said: str) -> None:
    line = pretty().line(record(**fields))
    assert line.startswith("09:01:10  8002    callEnded")
    assert said in line
    assert "\x1b" not in line
