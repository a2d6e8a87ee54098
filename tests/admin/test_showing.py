from __future__ import annotations

import json
from time import perf_counter
from typing import Any

import pytest

from cti_listener.admin.showing import Shown
from cti_listener.ops.masking import Masker
from tests.admin.support import reading, served
from tests.examples import EXAMPLES, device_id, make

OUTSIDE = "13800138000"

HIDING_PLACES: dict[str, Any] = {
    "a number": 13800138000,
    "a number of the other kind": 13800138000.0,
    "a number within": {"customerPhone": 13800138000},
    "a number far within": {"a": [{"b": [[13800138000]]}]},
    "a text far within": {"a": [{"b": [["13800138000"]]}]},
    "a name": {"13800138000": True},
    "a name far within": {"a": [{"x13800138000": {}}]},
    "a file": "/rec/13800138000_8002_20261128.wav",
    "an id's name that holds more": {"callId": {"phone": 13800138000}},
    "a name of ours among what is not": {"serial": 13800138000, "newCall": "13800138000"},
}

READABLE: dict[str, Any] = {
    "callId": "1511234567",
    "recordId": 15112345678,
    "serial": 11050819,
    "eventTime": "2017.03.18 14:13:24",
    "agentId": "50021234@zhen04.cc",
    "srcDeviceId": "8002@zhen04.cc",
    "trunkMember": "172.30.10.8",
    "userData": {"data": {"originalCallId": "1511234567", "visits": 999_999, "share": 0.25}},
    "isSuccess": True,
    "cause": None,
}


@pytest.mark.parametrize("place", HIDING_PLACES)
def test_an_outside_number_is_shown_nowhere_in_an_event(place: str) -> None:
    shown = Shown(Masker())
    event = {"userData": HIDING_PLACES[place], "odd": HIDING_PLACES[place], "userdata": 1}
    if place == "a name of ours among what is not":
        del event["odd"]
    for one in (shown.body(event), shown.ours({"calls": [event], **event})):
        assert "13800138000" not in json.dumps(one)
        assert "8000" in json.dumps(one)  # the last four are


def test_what_an_operator_needs_stays_as_it_came() -> None:
    assert Shown(Masker()).body(READABLE) == READABLE


@pytest.mark.parametrize("example", EXAMPLES)
def test_of_the_catalogues_examples_outside_numbers_alone_are_masked(example: str) -> None:
    text = json.dumps(EXAMPLES[example]).replace("33255500", "****00")
    assert Shown(Masker()).body(EXAMPLES[example]) == json.loads(text)


def test_what_the_listener_counts_is_no_number_to_call() -> None:
    notice = {
        "eventName": "overflow",
        "dropped": 1_234_567,
        "device": device_id(OUTSIDE),
        "first": {"serial": 11050819, "callId": "1511234567", "device": device_id(OUTSIDE)},
    }
    masked = device_id("138****8000")
    assert Shown(Masker()).ours(notice) == {
        **notice,
        "device": masked,
        "first": {"serial": 11050819, "callId": "1511234567", "device": masked},
    }


def test_names_that_are_alike_when_masked_stay_apart() -> None:
    names = {f"1380{n}8000": n for n in range(100, 200)}
    assert sorted(Shown(Masker()).body({"by": names})["by"].values()) == sorted(names.values())


def test_secrets_are_masked_however_deep_and_numbers_left_alone_when_asked() -> None:
    event = {"userData": {"token": "x", "phone": 13800138000, "deep": [{"passcode": 1234}]}}
    assert Shown(Masker(numbers=False)).body(event) == {
        "userData": {"token": "********", "phone": 13800138000, "deep": [{"passcode": "********"}]}
    }
    assert Shown(None).body(event) == event


def test_two_thousand_events_a_second_cost_little() -> None:
    shown = Shown(Masker())
    events = [
        {**READABLE, "callingDevice": device_id(13800138000 + number // 5)}
        for number in range(2000)
    ]
    began = perf_counter()
    for event in events:
        shown.body(event)
    assert perf_counter() - began < 0.5


def test_a_message_full_of_numbers_holds_up_nobody() -> None:
    texts = ["0755-2688-1234 xx " * 50] * 1000
    began = perf_counter()
    shown = Shown(Masker()).body({"userData": texts, "13800138000": 1})
    assert perf_counter() - began < 1
    assert shown["userData"][0].startswith("075****1234 xx ")
    assert "26" not in "".join(shown["userData"])
    assert "13800138000" not in shown


async def test_neither_stream_nor_state_shows_an_outside_number() -> None:
    who = {
        "callingDevice": device_id("0755-26881234"),
        "calledDevice": device_id(8002),
        "alertingDevice": device_id(8002),
    }
    event = make(userData=HIDING_PLACES, fileName=f"{OUTSIDE}_8002_20261128.wav", **who)
    async with served(admin={"masker": Masker()}) as it, reading(it.client) as reader:
        await reader.of("hello")
        it.source.send(event)
        sent = (await reader.of("message")).data
        state = await it.json("/v1/state")
    assert sent["fileName"] == "138****8000_8002_20261128.wav"
    assert sent["callId"] == event["callId"] == state["calls"][0]["id"]
    for shown in (json.dumps(sent), json.dumps(state)):
        assert OUTSIDE not in shown
        assert "26881234" not in shown
        assert "8002@zhen04.cc" in shown
