"""The catalogue's events: nothing received is lost, and each is what its section says."""

from __future__ import annotations

import copy
import json
import pickle
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cti_listener import events
from cti_listener.errors import BadMessageError
from cti_listener.event_base import Delivery, Event, WireObject
from cti_listener.events import CATALOGUE, OriginCallInfo, UnknownEvent, parse_event
from tests.examples import SEVEN

EXAMPLES = sorted((Path(__file__).parent / "events").glob("*.json"))
NS = "zhen04.cc"


def load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def dump(event: Event) -> dict[str, Any]:
    return event.model_dump(by_alias=True, exclude_unset=True)


# The catalogue's examples


def test_the_catalogue_has_eighteen_examples_of_its_seventeen_events() -> None:
    assert len(EXAMPLES) == 18
    assert {load(path)["eventName"] for path in EXAMPLES} == set(CATALOGUE) - {"failed"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_becomes_its_class_and_the_same_object_again(path: Path) -> None:
    payload = load(path)
    event = parse_event(path.read_bytes())
    assert type(event).__name__.lower() == payload["eventName"].lower()
    assert type(event) is CATALOGUE[payload["eventName"]]
    assert dump(event) == payload
    assert event.as_received() == payload
    assert json.loads(event.model_dump_json(by_alias=True, exclude_unset=True)) == payload


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_field_of_an_example_is_a_field_of_its_class(path: Path) -> None:
    assert parse_event(load(path)).model_extra == {}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_stable_fields_are_read(path: Path) -> None:
    payload = load(path)
    event = parse_event(payload)
    assert event.event_name == payload["eventName"]
    assert event.call_id == payload.get("callId")
    assert event.namespace == payload["namespace"]
    assert event.agent_id == payload.get("agentId")
    assert event.calling_device == payload.get("callingDevice")
    assert event.called_device == payload.get("calledDevice")
    assert event.event_type == payload["eventType"]
    assert event.event_time_text == payload["eventTime"]
    assert event.serial == payload["serial"]
    assert event.event_time is not None
    assert event.event_time.strftime("%Y.%m.%d %H:%M:%S") == payload["eventTime"]


# Nothing is lost

NAMES = sorted(CATALOGUE)
KINDS: list[type[WireObject]] = [*CATALOGUE.values(), OriginCallInfo]
FIELDS = sorted(
    {
        text
        for kind in KINDS
        for name, field in kind.model_fields.items()
        for text in (name, field.alias or name)
    }
)
ATTRIBUTES = sorted(
    {name for name in dir(events.Delivered) if len(name) > 1}
    | {"_x", "_type", "params", "topics", "__class__", "__dict__", "self", "", "@", "a.b"}
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SURROGATES = st.sampled_from(["\ud800", "a\udfff", "\udc80b"])
NUMBERS = st.one_of(
    st.integers(),
    st.sampled_from([0, 1, -1, 2**63, 2**64, -(2**70), 10**30, 10**400]),
    st.floats(allow_nan=False, allow_infinity=False),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXT)
KEYS = st.one_of(st.sampled_from(FIELDS), st.sampled_from(ATTRIBUTES), TEXT)


def json_values(scalars: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
        max_leaves=6,
    )


def event_objects(scalars: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    names = st.one_of(st.sampled_from(NAMES), st.just("somethingNew"), json_values(scalars))
    values = json_values(scalars)
    origin = st.dictionaries(KEYS, values, max_size=3)
    return st.builds(
        lambda name, some, more: {**more, **some, **name},
        st.fixed_dictionaries({"eventName": names}) | st.just({}),
        st.fixed_dictionaries({}, optional={"originCallInfo": origin, "userData": origin}),
        st.dictionaries(KEYS, values, max_size=8),
    )


@settings(max_examples=300)
@given(event_objects(SCALARS))
@example({"eventName": "held", "call_id": 3})
@example({"eventName": "held", "callId": 1, "call_id": 3})
@example({"eventName": "held", "event_time_text": "x", "device": 1, "key": 2, "delivery": 3})
@example({"eventName": "held", "originCallInfo": {"callId": 5, "call_id": 6}})
def test_any_object_is_the_same_again(payload: dict[str, Any]) -> None:
    before = copy.deepcopy(payload)
    event = parse_event(payload)
    assert exactly(dump(event)) == exactly(before)
    assert payload == before
    text = event.model_dump_json(by_alias=True, exclude_unset=True)
    assert exactly(json.loads(text)) == exactly(before)


@settings(max_examples=300)
@given(event_objects(SCALARS | SURROGATES))
@example({"eventName": "held", "callId": "\ud800"})
@example({"eventName": "held", "serial": {"a": "\ud800"}})
def test_any_object_with_half_characters_is_the_same_again(payload: dict[str, Any]) -> None:
    assert exactly(dump(parse_event(payload))) == exactly(payload)
    assert exactly(parse_event(json.dumps(payload)).as_received()) == exactly(payload)


@pytest.mark.parametrize(
    "payload",
    [
        {"\ud800": 1},
        {"eventName": "held", "\ud800": [1], "event_name": 2, "serial": "7"},
        {"eventName": "held", "originCallInfo": {"\ud800": 1, "call_id": 1}},
        {"eventName": "delivered", "userData": {"\ud800": {"\udfff": 1}}},
    ],
)
def test_even_a_name_of_half_a_character_is_kept(payload: dict[str, Any]) -> None:
    event = parse_event(json.dumps(payload))
    assert event.as_received() == payload
    assert event.key == parse_event(payload).key


@settings(max_examples=300)
@given(event_objects(SCALARS))
def test_whatever_is_read_off_any_object_never_fails(payload: dict[str, Any]) -> None:
    event = parse_event(payload, delivery=Delivery(feed="b"))
    assert isinstance(event.device, str | None)
    assert isinstance(event.own_device, bool)
    assert isinstance(event.event_time, datetime | None)
    assert isinstance(event.serial, int | None)
    assert isinstance(event.call_id, str | None)
    assert hash(event) == hash(parse_event(payload))
    assert event == parse_event(payload)
    assert hash(event.key) == hash(parse_event(dump(event)).key)
    assert repr(event).startswith(type(event).__name__ + "(")
    assert event.delivery.feed == "b"
    assert dump(event) == payload


def exactly(value: object) -> str:
    """Return a text that tells 1 from 1.0 and from true, whatever the order of names."""
    return json.dumps(value, sort_keys=True)


# The routing key


@pytest.mark.parametrize(
    ("fields", "device"),
    [
        ({"srcDeviceId": "1@a.cc", "eventSrc": "2@a.cc", "deviceId": "3@a.cc"}, "1@a.cc"),
        ({"eventSrc": "2@a.cc", "deviceId": "3@a.cc"}, "2@a.cc"),
        ({"eventSrc": {"id": "2@a.cc"}, "deviceId": "3@a.cc"}, "3@a.cc"),
        ({"eventSrc": None, "deviceId": "3@a.cc"}, "3@a.cc"),
        ({"srcDeviceId": "", "deviceId": "3@a.cc"}, "3@a.cc"),
        ({"srcDeviceId": None, "eventSrc": "2@a.cc"}, "2@a.cc"),
        ({"srcDeviceId": "1", "namespace": "a.cc"}, "1@a.cc"),
        ({"srcDeviceId": 8002, "namespace": "a.cc"}, "8002@a.cc"),
        ({"srcDeviceId": "1"}, "1"),
        ({"srcDeviceId": "1@a.cc@a.cc"}, "1@a.cc"),
        ({"srcDeviceId": "1@a.cc@b.cc"}, "1@a.cc@b.cc"),
        ({"srcDeviceId": ["1@a.cc"]}, None),
        ({}, None),
    ],
)
def test_a_call_event_is_routed_by_whose_copy_it_is(
    fields: dict[str, Any], device: str | None
) -> None:
    event = parse_event({"eventName": "held", "eventType": "csta", **fields})
    assert event.device == device
    assert event.key.device == device


@pytest.mark.parametrize(
    ("fields", "device"),
    [
        ({"srcDeviceId": "1@a.cc", "deviceId": "3@a.cc"}, "1@a.cc"),
        ({"eventSrc": "2@a.cc", "deviceId": "3@a.cc"}, "3@a.cc"),
        ({"eventSrc": "2@a.cc"}, None),
    ],
)
def test_an_agent_event_is_routed_by_its_device(fields: dict[str, Any], device: str | None) -> None:
    assert parse_event({"eventName": "agentReady", "eventType": "agent", **fields}).device == device


def test_a_device_known_already_is_not_read_again() -> None:
    assert parse_event({"eventName": "held"}, device="8002@a.cc").device == "8002@a.cc"


# The own device

OWN_FIELDS = {
    "delivered": "alertingDevice",
    "established": "answeringDevice",
    "connectionCleared": "releasingDevice",
    "serviceInitiated": "initiatedDevice",
    "originated": "callingDevice",
    "held": "holdingDevice",
    "retrieved": "retrievingDevice",
    "transferred": "transferringDevice",
    "conferenced": "conferencingDevice",
}


@pytest.mark.parametrize(("name", "field"), OWN_FIELDS.items())
def test_a_call_event_is_the_devices_own_where_its_field_names_it(name: str, field: str) -> None:
    copy_of = {"eventName": name, "eventType": "csta", "namespace": NS, "srcDeviceId": f"1@{NS}"}
    assert parse_event({**copy_of, field: f"1@{NS}"}).own_device
    assert parse_event({**copy_of, field: "1"}).own_device
    assert parse_event({**copy_of, field: 1}).own_device
    assert parse_event({**copy_of, field: f"1@{NS}@{NS}"}).own_device
    assert parse_event({**copy_of, "srcDeviceId": "1", field: f"1@{NS}"}).own_device
    assert not parse_event({**copy_of, field: f"2@{NS}"}).own_device
    assert not parse_event({**copy_of, field: None}).own_device
    assert not parse_event({**copy_of, field: "1@other.cc"}).own_device
    assert not parse_event(copy_of).own_device


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(("agent", "record"))])
def test_agent_and_record_events_are_always_the_devices_own(name: str) -> None:
    assert parse_event(
        {"eventName": name, "srcDeviceId": "1@a.cc", "deviceId": "2@a.cc"}
    ).own_device


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_its_devices_own_step(path: Path) -> None:
    assert parse_event(load(path)).own_device


def test_the_conferenced_example_is_routed_by_its_source_not_by_what_changed() -> None:
    event = parse_event((Path(__file__).parent / "events" / "conferenced.json").read_text())
    assert event.device == "8001@zhen04.cc"
    assert event.device_id == "8003@zhen04.cc"
    assert event.own_device


def test_only_one_of_two_hang_ups_is_the_devices_own() -> None:
    base = {"eventName": "connectionCleared", "eventType": "csta", "srcDeviceId": f"1@{NS}"}
    copies = [parse_event({**base, "releasingDevice": who}) for who in (f"1@{NS}", "139****0000")]
    assert [event.own_device for event in copies] == [True, False]


# What is ours about it


def test_the_time_is_chinas_unless_told_otherwise() -> None:
    payload = {"eventName": "held", "eventTime": "2017.03.18 14:13:24"}
    event = parse_event(payload)
    assert event.event_time == datetime(2017, 3, 18, 6, 13, 24, tzinfo=UTC)
    assert event.event_time.utcoffset() == timedelta(hours=8)
    berlin = parse_event(payload, delivery=Delivery(zone=ZoneInfo("Europe/Berlin")))
    assert berlin.event_time == datetime(2017, 3, 18, 13, 13, 24, tzinfo=UTC)


@pytest.mark.parametrize("odd", ["yesterday", "", None, 17, "2017.13.45 99:00:00", ["x"], {}])
def test_a_time_that_cannot_be_read_is_kept_and_fails_nothing(odd: object) -> None:
    payload = {"eventName": "held", "eventTime": odd}
    event = parse_event(payload)
    assert event.event_time is None
    assert dump(event) == payload


def test_what_is_ours_is_never_dumped_with_it() -> None:
    payload = load(EXAMPLES[0])
    delivery = Delivery(received_at=datetime(2024, 1, 1, tzinfo=UTC), feed="b", late=True)
    event = parse_event(payload, delivery=delivery)
    assert event.delivery is delivery
    assert (event.device, event.own_device, event.key.serial) == (
        payload["srcDeviceId"],
        True,
        payload["serial"],
    )
    assert dump(event) == payload
    assert event == parse_event(payload)


def test_an_event_made_by_hand_has_no_delivery_of_its_own() -> None:
    assert parse_event({"eventName": "held"}).delivery == Delivery()


def test_an_event_is_frozen() -> None:
    event = parse_event({"eventName": "held"})
    with pytest.raises(ValidationError, match="frozen"):
        event.call_id = "x"  # type: ignore[misc]  # as a user who does not check types might


def test_copies_keep_the_delivery_and_the_object() -> None:
    payload = {**load(EXAMPLES[0]), "serial": "8343300", "call_id": 1, "extra": [1]}
    delivery = Delivery(received_at=datetime(2024, 1, 1, tzinfo=UTC), zone=ZoneInfo("UTC"))
    event = parse_event(payload, delivery=delivery)
    for again in (
        pickle.loads(pickle.dumps(event)),  # noqa: S301 - our own bytes
        copy.copy(event),
        copy.deepcopy(event),
        event.model_copy(),
        event.model_copy(deep=True),
    ):
        assert type(again) is type(event)
        assert again == event
        assert hash(again) == hash(event)
        assert again.delivery == delivery
        assert again.as_received() == payload
        assert again.key == event.key


# Equality


def test_equal_events_have_equal_hashes_though_one_says_null_and_one_nothing() -> None:
    said, unsaid = (
        parse_event({"eventName": "held", "callId": None}),
        parse_event({"eventName": "held"}),
    )
    assert said == unsaid
    assert hash(said) == hash(unsaid)


def test_having_been_read_from_makes_no_difference_to_equality() -> None:
    payload = load(EXAMPLES[0])
    read, unread = parse_event(payload), parse_event(payload)
    assert read.device == read.key.device
    assert read.event_time is not None
    assert read == unread
    assert len({read, unread}) == 1


def test_another_name_or_field_is_another_event() -> None:
    payload = load(EXAMPLES[0])
    event = parse_event(payload)
    assert event != parse_event({**payload, "serial": 1})
    assert event != parse_event({**payload, "eventName": "x"})
    assert event != parse_event({**payload, "new": 1})


def test_the_key_is_the_seven_values() -> None:
    payload = load(Path(__file__).parent / "events" / "held.json")
    key = parse_event(payload).key
    assert tuple(key[:7]) == tuple(payload[name] for name in SEVEN)
    assert key.content is None
    assert parse_event({**payload, "params": {"x": 1}, "cause": "other"}).key == key


@given(st.sampled_from(["namespace", "eventType", "srcDeviceId", "eventTime", "callId", "serial"]))
def test_each_of_the_seven_tells_events_apart(name: str) -> None:
    payload = load(Path(__file__).parent / "events" / "held.json")
    assert parse_event({**payload, name: "0"}).key != parse_event(payload).key


def test_without_a_serial_the_content_tells_events_apart() -> None:
    event = parse_event({"eventName": "held", "a": 1})
    assert event.key == parse_event({"a": 1, "eventName": "held", "topics": [], "_type": "x"}).key
    assert event.key != parse_event({"eventName": "held", "a": 2}).key
    assert event.key != parse_event({"eventName": "held", "a": True}).key
    assert event.key.content is not None


# Odd values


@pytest.mark.parametrize(
    ("name", "field", "odd", "taken"),
    [
        ("held", "serial", "8343300", 8343300),
        ("held", "serial", 12.0, 12),
        ("held", "serial", 12.5, None),
        ("held", "serial", True, None),
        ("held", "serial", "", None),
        ("held", "serial", None, None),
        ("held", "serial", [1], None),
        ("held", "callId", 77, "77"),
        ("held", "callId", 1.5, "1.5"),
        ("held", "callId", {"id": 1}, None),
        ("held", "callId", False, None),
        ("held", "cause", 3, "3"),
        ("agentReady", "devices", None, None),
        ("agentReady", "devices", [], None),
        ("agentReady", "agentMode", "Brand New", "Brand New"),
        ("agentReady", "propertyNames", "x", None),
        ("recordStopped", "isSuccess", "true", True),
        ("recordStopped", "isSuccess", 0, False),
        ("recordStopped", "isSuccess", "perhaps", None),
        ("delivered", "userData", "text", None),
        ("delivered", "origin_dnis", 5484, "5484"),
        ("delivered", "originCallInfo", "text", None),
        ("failed", "failedCode", "11", "11"),
        ("failed", "failedCode", 11, 11),
    ],
)
def test_an_odd_value_is_taken_where_plain_and_kept_as_received(
    name: str, field: str, odd: object, taken: object
) -> None:
    payload = {"eventName": name, field: odd}
    event = parse_event(payload)
    python_name = next(
        own
        for own, described in type(event).model_fields.items()
        if (described.alias or own) == field
    )
    assert getattr(event, python_name) == taken
    assert type(getattr(event, python_name)) is type(taken)
    assert exactly(dump(event)) == exactly(payload)


def test_each_of_several_odd_values_is_taken_by_itself() -> None:
    payload = {
        "eventName": "delivered",
        "serial": "7",
        "callId": "\ud800",
        "cause": 3,
        "userData": "text",
        "split": "1@a.cc",
        "new": 1,
    }
    event = parse_event(payload)
    assert isinstance(event, events.Delivered)
    assert (event.serial, event.call_id, event.cause) == (7, "\ud800", "3")
    assert (event.user_data, event.split) == (None, "1@a.cc")
    assert exactly(event.as_received()) == exactly(payload)


def test_the_origin_of_a_call_is_read_too() -> None:
    event = parse_event({"eventName": "held", "originCallInfo": {"callId": 5, "new": 1}})
    assert isinstance(event, events.Held)
    assert event.origin_call_info is not None
    assert event.origin_call_info.call_id == "5"
    assert event.origin_call_info.as_received() == {"callId": 5, "new": 1}


def test_the_repr_shows_what_is_set_and_nothing_else() -> None:
    event = parse_event({"eventName": "held", "serial": 7, "holdingDevice": "1@a.cc", "new": 1})
    assert repr(event) == "Held(event_name='held', serial=7, holding_device='1@a.cc', new=1)"


# Unknown events


@pytest.mark.parametrize("name", ["callEnd", "ChannelStateChangedEvent", "Held", "", None, 5, []])
def test_any_other_name_is_an_unknown_event(name: object) -> None:
    payload = {"eventName": name, "eventType": "csta", "srcDeviceId": "1@a.cc", "serial": 4}
    event = parse_event(payload)
    assert type(event) is UnknownEvent
    assert dump(event) == payload
    assert event.device == "1@a.cc"
    assert event.serial == 4
    assert not event.own_device


def test_an_unknown_agent_event_is_about_its_device() -> None:
    assert parse_event({"eventName": "agentBored", "eventType": "agent"}).own_device


def test_an_object_without_a_name_is_an_unknown_event() -> None:
    assert type(parse_event({})) is UnknownEvent
    assert parse_event({}).event_name == ""
    assert dump(parse_event({})) == {}


# Text that is no event


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("", "not_json"),
        (b"", "not_json"),
        ("{", "not_json"),
        ("\0", "not_json"),
        ("{'a': 1}", "not_json"),
        ('{"a": 1} x', "not_json"),
        ('{"a": "\x01"}', "not_json"),
        ('{"a": ' + "9" * 5000 + "}", "not_json"),
        (b"\xff", "not_utf8"),
        (b'{"a": "\xff"}', "not_utf8"),
        (b'{"a": "\xed\xa0\x80"}', "not_utf8"),
        ("[]", "not_an_object"),
        (b"[{}]", "not_an_object"),
        ("3", "not_an_object"),
        ("null", "not_an_object"),
        ('"{}"', "not_an_object"),
        ('{"a":' * 1000 + "1" + "}" * 1000, "too_deep"),
        (b"[" * 100_000, "too_deep"),
        ('{"s":"\\ud800","a":' + "[" * 100_000, "too_deep"),
    ],
)
def test_text_that_is_no_event_is_refused_by_reason(raw: str | bytes, reason: str) -> None:
    with pytest.raises(BadMessageError) as refused:
        parse_event(raw)
    assert refused.value.reason == reason
    assert refused.value.detail
    assert len(str(refused.value)) < 300


@given(st.binary(max_size=40) | st.text(max_size=40) | json_values(SCALARS).map(json.dumps))
def test_any_text_is_an_event_or_a_bad_message(raw: str | bytes) -> None:
    try:
        outcome = type(parse_event(raw)).__name__
    except BadMessageError as bad:
        outcome = bad.reason
    known = {kind.__name__ for kind in CATALOGUE.values()}
    assert outcome in {"UnknownEvent", "not_json", "not_utf8", "not_an_object"} | known


@pytest.mark.parametrize("raw", [None, 3, [], object()])
def test_what_is_neither_text_nor_an_object_is_refused(raw: Any) -> None:
    with pytest.raises(BadMessageError, match="not_an_object"):
        parse_event(raw)


def test_text_and_bytes_and_any_mapping_are_the_same_event() -> None:
    payload = load(EXAMPLES[0])
    text = json.dumps(payload)
    for raw in (text, text.encode(), bytearray(text.encode()), MappingProxyType(payload)):
        assert parse_event(raw) == parse_event(payload)  # type: ignore[arg-type]  # bytearray


def test_half_a_character_in_text_is_kept() -> None:
    assert parse_event('{"a":"\ud800"}').as_received() == {"a": "\ud800"}
    assert parse_event(b'{"a":"\\ud800"}').as_received() == {"a": "\ud800"}


def test_nesting_as_deep_as_is_read_is_the_same_again() -> None:
    text = '{"a":' * 200 + "1" + "}" * 200
    event = parse_event(text)
    assert dump(event) == json.loads(text)
    assert event.key == parse_event(text).key


# The catalogue


SECTIONS = {
    "AgentLoggedOn": "1.1",
    "AgentLoggedOff": "1.2",
    "AgentReady": "1.3",
    "AgentNotReady": "1.4",
    "ServiceInitiated": "1.5",
    "Originated": "1.6",
    "Delivered": "1.7",
    "Established": "1.8",
    "ConnectionCleared": "1.9",
    "Transferred": "1.10",
    "Conferenced": "1.11",
    "Retrieved": "1.12",
    "Held": "1.13",
    "AgentWorkingAfterCall": "1.14",
    "AgentAllocated": "1.15",
    "RecordStarted": "1.16",
    "RecordStopped": "1.17",
}


def test_every_class_names_its_section_of_the_catalogue() -> None:
    assert {kind.__name__ for kind in CATALOGUE.values()} == {*SECTIONS, "Failed"}
    for name, section in SECTIONS.items():
        assert f"({section})" in (getattr(events, name).__doc__ or ""), name
    assert "not in the catalogue" in (events.Failed.__doc__ or "")


def test_every_wire_name_is_its_class_name_with_a_small_letter() -> None:
    assert len(CATALOGUE) == 18
    for name, kind in CATALOGUE.items():
        assert name == kind.__name__[0].lower() + kind.__name__[1:]
        assert type(parse_event({"eventName": name})) is kind
