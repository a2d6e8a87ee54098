"""CloudEvents: valid whatever an event holds, and the same for the same."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cti_listener.derived import CallEnded, CallRevised
from cti_listener.event_base import Delivery
from cti_listener.events import parse_event
from cti_listener.notices import Connected, Gap
from cti_listener.records import CallRecord
from cti_listener.router import Happening
from cti_listener.sinks.cloud_events import cloud_event
from tests.examples import EXAMPLES, device_id, make

NOW = datetime(2026, 3, 1, 10, 0, 0, 250_000, tzinfo=UTC)
RECORD = CallRecord(id="call-1", device=device_id(8002), started=NOW, ended=NOW)
ENDED = CallEnded(at=NOW, device=device_id(8002), call=RECORD)
GAP = Gap(at=NOW, id=1, since=NOW, until=NOW, reason="disconnected")

RFC3339 = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"
URI_REFERENCE = r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+"


def told(happening: Happening, namespace: str | None = "zhen04.cc") -> dict[str, Any]:
    """Return it as a receiver reads it, held to what the specification asks."""
    event = cloud_event(happening, namespace=namespace)
    body: dict[str, Any] = json.loads(event.text.encode())
    assert body["specversion"] == "1.0"
    assert body["id"] == event.id
    assert re.fullmatch(URI_REFERENCE, body["source"])
    assert body.get("time") is None or re.fullmatch(RFC3339, body["time"])
    for name in body.keys() - {"data"}:
        assert re.fullmatch("[a-z0-9]+", name)
        assert isinstance(body[name], str)
        assert body[name]
        assert not re.search("[\x00-\x1f\x7f-\x9f\ud800-\udfff]", body[name])
    return body


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_every_event_of_the_catalogue(example: dict[str, Any]) -> None:
    body = told(parse_event(example))
    assert body["data"] == example
    assert body["type"] == f"cti.event.{example['eventName']}"
    assert body["datacontenttype"] == "application/json"
    assert (body["source"], "@" in body["subject"]) == (f"/cti/{example['namespace']}", True)


def test_the_time_is_the_servers_with_its_zone() -> None:
    assert told(parse_event(make()))["time"] == "2017-03-18T14:13:36+08:00"
    assert told(GAP)["time"] == "2026-03-01T10:00:00.250Z"
    assert "time" not in told(parse_event(make(eventTime="soon")))


@given(st.dictionaries(st.text(), st.text(st.characters()) | st.integers() | st.none()))
def test_whatever_an_event_holds_it_is_valid_and_whole(fields: dict[str, Any]) -> None:
    event = parse_event(fields)
    assert told(event)["data"] == fields
    assert told(event)["id"] == told(parse_event(fields))["id"]


@given(st.text(st.characters(), min_size=1), st.text(st.characters()), st.text(st.characters()))
def test_names_that_no_attribute_may_hold(name: str, device: str, namespace: str) -> None:
    told(
        parse_event({"eventName": name, "srcDeviceId": device, "namespace": namespace, "serial": 1})
    )


def test_the_same_event_has_the_same_id_however_it_came() -> None:
    one = make()
    again = Delivery(NOW, "b", redelivered=True, late=True)
    ids = {
        told(parse_event(one))["id"],
        told(parse_event({**one, "params": {"trace": "other"}}))["id"],  # no part of its identity
        told(parse_event(one, device=device_id(8002), delivery=again))["id"],
    }
    assert len(ids) == 1
    assert told(parse_event(make()))["id"] not in ids


def test_a_record_has_another_id_with_each_revision_and_the_same_when_told_again() -> None:
    revised = [
        CallRevised(at=NOW, device=ENDED.device, call=replace(RECORD, revision=n)) for n in (2, 3)
    ]
    again = replace(ENDED, redelivered=True)
    ids = [told(one)["id"] for one in (ENDED, *revised)]
    assert len({*ids}) == 3
    assert told(again)["id"] == ids[0]
    assert told(ENDED)["type"] == "cti.listener.callEnded"
    assert told(ENDED)["subject"] == device_id(8002)
    assert told(ENDED)["data"] == json.loads(json.dumps(ENDED.as_wire()))


def test_a_notice_is_the_namespaces_and_of_no_device() -> None:
    body = told(GAP)
    assert (body["source"], "subject" in body) == ("/cti/zhen04.cc", False)
    assert told(GAP, namespace=None)["source"] == "/cti"
    assert told(replace(GAP, id=2))["id"] != body["id"]
    connected = Connected(at=NOW, feed="a", url="wss://x/", confirmed=True)
    assert told(connected)["type"] == "cti.listener.connected"


def test_half_a_character_is_sent_as_json_has_it() -> None:
    text = cloud_event(parse_event(make(reason="\ud83d"))).text
    assert r"\ud83d" in text
    assert json.loads(text.encode())["data"]["reason"] == "\ud83d"
