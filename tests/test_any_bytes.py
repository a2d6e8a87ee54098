"""Whatever bytes come: the parsers fail on nothing, and lose nothing that stands beside the bad.

`make fuzz` runs these for minutes, with thousands of examples each; the usual run is short.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, get_args

from hypothesis import assume, event, given
from hypothesis import strategies as st

from cti_listener.derived import read_derived
from cti_listener.errors import BadMessageError, BadReason, ConfigurationError
from cti_listener.event_base import Delivery
from cti_listener.events import (
    CATALOGUE,
    UnknownEvent,
    event_in,
    event_of,
    load_json,
    load_object,
    parse_event,
)
from cti_listener.tracking import Tracking
from cti_listener.values import EventKey, identity, routing_key
from cti_listener.wire.base import EventReceived, LoneEvent, MessageBad, WireEvent
from cti_listener.wire.json_frames import SAMPLE, JsonCodec
from cti_listener.wire.stomp import StompCodec
from cti_listener.wire.stomp_frames import BadFrame, Frame, FrameDecoder, Received, encode
from tests.examples import EXAMPLES
from tests.trackers.transcripts import Everything

REASONS = set(get_args(BadReason)) - {"internal"}
SMALL = 1000
"""The longest frame taken here, so that a wrong length swallows little."""
FEW = 180
"""So many bad frames may come at once; of more, it is the message that says how many are read."""

# What is drawn

FIELDS = sorted({name for example in EXAMPLES.values() for name in example})
NAMES = st.sampled_from([*FIELDS, "call_id", "key", "device", "", "__class__"]) | st.text(
    st.characters(), max_size=6
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([-1, 2**61 - 1, 2**63, 10**30]),
    st.integers(4290, 4299).map(lambda digits: 10**digits),  # the longest that are read
    st.floats(),
    st.text(st.characters(), max_size=8),
    st.sampled_from(["\ud800", "\udc00a", "2017.03.18 14:13:24", "8002@a.cc", "8002@a.cc@a.cc"]),
    st.sampled_from([*CATALOGUE, "agent", "csta", "@@@", "5", "true"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=10,
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=10) | st.builds(
    lambda example, more: {**example, **more},
    st.sampled_from(list(EXAMPLES.values())),
    st.dictionaries(NAMES, VALUES, max_size=4),
)

JSON_BITS = (
    *(b"{", b"}", b"[", b"]", b",", b":", b'"', b'""', b"\\", b"\\u", b"\\ud8", b"d83d", b"de00"),
    *(b"0", b"-", b".", b"1e", b"+9", b"Infinity", b"NaN", b"nul", b"null", b"true", b"\xef\xbb"),
    *(b"\xbf", b"\xed\xa0\x80", b"\xff", b"\0", b" ", b"\n", b'{"a":', b"[{}]", b"[" * 250),
)
STOMP_BITS = (
    *(
        b"\0",
        b"\n",
        b"\n\n",
        b"\r\n",
        b"\r",
        b":",
        b"\\",
        b"\\c",
        b"\\r",
        b"\\t",
        b"MESSAGE",
        b"\xff",
    ),
    *(b"CONNECTED", b"RECEIPT", b"ERROR", b"\nversion:", b"1.2", b"1.0", b"\nsubscription:0", b"3"),
    *(b"\nreceipt-id:subscribe-0", b"\ncontent-length:", b"-1", b"\nheart-beat:", b",", b"{}"),
    *(b"MESSAGE\n\n{}\0", b'{"a":1}', b"\xc3", b"x" * 40),
)


def written(value: Any) -> st.SearchStrategy[bytes]:
    """Write JSON in one of the ways there are; a lone surrogate as such is no UTF-8."""
    return st.builds(
        lambda ascii_only, indent: json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode(
            errors="surrogatepass"
        ),
        st.booleans(),
        st.sampled_from([None, 0, 1]),
    )


@st.composite
def mutated(draw: st.DrawFn, data: bytes, bits: Sequence[bytes]) -> bytes:
    """Cut pieces out of valid bytes, double them, and put others in."""
    for _ in range(draw(st.integers(0, 4))):
        begin, end = sorted((draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))))
        match draw(st.sampled_from(["cut", "double", "put", "replace", "flip"])):
            case "cut":
                data = data[:begin] + data[end:]
            case "double":
                data = data[:end] + data[begin:]
            case "put":
                data = data[:begin] + draw(st.sampled_from(bits)) + data[begin:]
            case "replace":
                data = data[:begin] + draw(st.binary(max_size=5)) + data[end:]
            case _ if begin < len(data):
                flipped = bytes([data[begin] ^ draw(st.integers(1, 255))])
                data = data[:begin] + flipped + data[begin + 1 :]
    return data


@st.composite
def json_bytes(draw: st.DrawFn) -> bytes:
    match draw(st.sampled_from(["any", "bits", "valid", "mutated"])):
        case "any":
            return draw(st.binary(max_size=200))
        case "bits":
            return b"".join(draw(st.lists(st.sampled_from(JSON_BITS), max_size=30)))
        case how:
            data = draw(written(draw(st.lists(OBJECTS, max_size=3) | OBJECTS | VALUES)))
            return data if how == "valid" else draw(mutated(data, JSON_BITS))


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
HEADERS = st.dictionaries(
    st.sampled_from(["subscription", "destination", "message-id", "receipt-id", "message"]) | TEXT,
    TEXT | st.sampled_from(["0", "subscribe-0", "subscribe-1", "/a", "1.1"]),
    max_size=5,
)
COMMANDS = ("MESSAGE", "MESSAGE", "CONNECTED", "RECEIPT", "ERROR", "SEND")


@st.composite
def frame_bytes(draw: st.DrawFn) -> bytes:
    command, headers = draw(st.sampled_from(COMMANDS)), draw(HEADERS)
    body = draw(json_bytes() | st.binary(max_size=50))
    try:
        return encode(Frame(command, headers, body))
    except ConfigurationError:  # CONNECTED has no escapes
        return encode(Frame(command, {}, body))


@st.composite
def message_frames(draw: st.DrawFn) -> bytes:
    """Return a MESSAGE as brokers send it, but for a byte perhaps."""
    data = encode(Frame("MESSAGE", draw(HEADERS), draw(OBJECTS.flatmap(written) | json_bytes())))
    data += draw(st.sampled_from([b"", b"\n", b"\n\n"]))
    return data if draw(st.booleans()) else draw(mutated(data, STOMP_BITS))


LINES = (
    *(b"subscription:0", b"destination:/topic/a", b"message-id:T_0@@session-w1@@1"),
    *(b"redelivered:false", b"content-type:application/json", b"content-length:%d"),
)
"""Of a MESSAGE, as RabbitMQ writes them; `%d` stands for the body's length."""

ODD_LINES = (
    *(b"subscription:1", b"subscription:9", b"subscription:", b"subscription:0\r", b"a:b:c", b"a:"),
    *(b":", b"", b"\r", b"none", b"a:\\c", b"a:\\t", b"\\c:a", b"a:1\r", b"a:\t", b"a:\0"),
    *(b"a:\xc3\xa4", b"a:\xc3", b"content-length:2", b"content-length:0%d", b"content-length:%d0"),
    *(b"content-length:", b"content-length: %d", b"content-length:+%d", b"content-length:\xd9\xa3"),
    *(b"content-length:%d\r", b"Content-Length:1", b"content-length :1", b"content-length:1_0"),
)


@st.composite
def heads_and_bodies(draw: st.DrawFn) -> bytes:
    """Return a MESSAGE of plain lines in any order, odd ones among them perhaps, and an object."""
    lines = list(LINES) if draw(st.booleans()) else draw(st.permutations(LINES))
    lines = lines[: draw(st.integers(3, len(lines)))]
    for odd in draw(st.just([]) | st.lists(st.sampled_from(ODD_LINES + LINES), max_size=2)):
        lines.insert(draw(st.integers(0, len(lines))), odd)
    body = draw(OBJECTS.flatmap(written) | st.sampled_from([b"{}", b" {}", b"[]", b'{"a":"\0"}']))
    head = b"".join(line + b"\n" for line in (b"MESSAGE", *lines)).replace(b"%d", b"%d" % len(body))
    blank = draw(st.just(b"\n") | st.sampled_from([b"\n", b"\r\n", b""]))
    ends = st.sampled_from([b"\0", b"\0\n"]) | st.sampled_from([b"\0\n\n", b"\0\0", b"\0{", b""])
    return head + blank + body + draw(ends)


@st.composite
def stomp_bytes(draw: st.DrawFn) -> bytes:
    match draw(st.sampled_from(["any", "bits", "valid", "mutated"])):
        case "any":
            return draw(st.binary(max_size=200))
        case "bits":
            return b"".join(draw(st.lists(st.sampled_from(STOMP_BITS), max_size=30)))
        case how:
            frames = st.lists(frame_bytes() | st.sampled_from([b"\n", b"\r\n\n"]), max_size=5)
            data = b"".join(draw(frames))
            return data if how == "valid" else draw(mutated(data, STOMP_BITS))


CUTS = st.lists(st.integers(0, 10_000), max_size=8) | st.just(range(10_000))


def cut(data: bytes, at: Sequence[int]) -> list[bytes]:
    cuts = sorted({position % (len(data) + 1) for position in at})
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


# JSON


def taken(*messages: bytes) -> list[WireEvent]:
    codec = JsonCodec()
    for message in messages:
        codec.receive_data(message)
    return codec.events_received()


def same(value: object) -> str:
    """Return a text that tells 1 from 1.0, and NaN from nothing."""
    return json.dumps(value, sort_keys=True)


@given(json_bytes())
def test_any_json_message_is_events_or_bad_and_the_next_is_read(message: bytes) -> None:
    *told, last = taken(message, b'{"next": 1}')
    assert last == EventReceived({"next": 1}, None)
    assert sum(isinstance(one, MessageBad) for one in told) <= 1
    for one in told:
        match one:
            case MessageBad():
                event(one.reason)
                assert one.reason in REASONS
                assert one.sample == message[:SAMPLE]
                assert one.detail
                assert one.count >= 1
            case EventReceived(payload, destination):
                assert type(payload) is dict
                assert destination is None
                check_event(payload)
            case _:
                raise AssertionError(one)


@given(json_bytes())
def test_json_is_read_as_pythons_own_reader_reads_it(message: bytes) -> None:
    told = taken(message)
    bad = [one.reason for one in told if isinstance(one, MessageBad)]
    assume(not {"too_deep", "too_large"} & set(bad))
    try:
        loaded = json.loads(message.decode())
    except UnicodeDecodeError:
        assert bad == ["not_utf8"]
    except ValueError:
        assert bad == ["not_json"]
    else:
        items = loaded if isinstance(loaded, list) else [loaded]
        objects = [item for item in items if isinstance(item, dict)]
        assert [same(one.payload) for one in told if isinstance(one, EventReceived)] == [
            same(item) for item in objects
        ]
        assert bad == ["not_an_object"] * (len(objects) < len(items))


@given(json_bytes() | OBJECTS.flatmap(written))
def test_what_is_quickly_read_as_a_lone_json_event_is_what_the_message_holds(
    message: bytes,
) -> None:
    lone = JsonCodec().lone_event(message)
    if lone is not None:
        event("lone")
        check_lone(lone, taken(message))


def check_lone(lone: LoneEvent, told: Sequence[WireEvent]) -> None:
    """See that it is what was told, and that its text, kept, is read as the same."""
    payload, destination, text = lone
    assert payload is not None
    assert repr([EventReceived(payload, destination)]) == repr(told)
    assert repr(load_json(text)) == repr(payload)
    assert repr(json.loads(text)) == repr(payload)


# Events


def check_event(payload: dict[str, Any]) -> None:
    """Do with an event what the pipeline and its users do; nothing fails."""
    device = routing_key(payload)
    assert device is None or (type(device) is str and device)
    key = identity(payload, device)
    assert len(key) == len(EventKey._fields)
    assert hash(key) == hash(identity(payload, device))
    made = parse_event(payload, device=device, delivery=Delivery())
    assert same(made.as_received()) == same(payload)
    assert made.device == device
    assert repr(made.key) == repr(EventKey(*key))  # NaN is not equal to itself
    assert isinstance(made.own_device, bool)
    assert made.event_time is None or made.event_time.utcoffset() is not None
    assert repr(made)


@given(OBJECTS)
def test_any_object_is_an_event_and_nothing_of_it_is_lost(payload: dict[str, Any]) -> None:
    check_event(payload)


@given(OBJECTS, st.randoms())
def test_the_order_of_names_makes_no_other_event(payload: dict[str, Any], chance: Any) -> None:
    names = list(payload)
    chance.shuffle(names)
    shuffled = {name: payload[name] for name in names}
    assert same(identity(shuffled, None)) == same(identity(payload, None))


@given(st.sampled_from(list(CATALOGUE)), OBJECTS, OBJECTS, st.randoms())
def test_an_event_read_from_its_text_is_the_one_read_from_its_object(
    name: str, payload: dict[str, Any], more: dict[str, Any], chance: Any
) -> None:
    """Names that come twice included."""
    members = [*payload.items(), *more.items(), ("eventName", name)]
    chance.shuffle(members)
    whole = ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in members)
    text = f"{{{whole}}}".encode()
    try:
        read = load_object(text)
    except BadMessageError:
        assume(False)
    delivery = Delivery()
    made = event_of(read, "8002@a.cc", delivery)
    if type(made) is not UnknownEvent:
        other = event_in(text, type(made), "8002@a.cc", delivery)
        assert type(other) is type(made)
        assert same(other.as_received()) == same(made.as_received())
        assert repr(vars(other)) == repr(vars(made))
        known = type(made).model_fields.keys()
        assert other.model_fields_set & known == made.model_fields_set & known


@given(json_bytes() | st.text(st.characters(), max_size=60))
def test_any_text_is_an_event_or_a_bad_message(raw: bytes | str) -> None:
    try:
        made = parse_event(raw)
    except BadMessageError as bad:
        assert bad.reason in REASONS  # noqa: PT017 - the other outcome is as good
    else:
        check_event(made.as_received())


# STOMP frames


def decode(*pieces: bytes) -> list[Received]:
    decoder = FrameDecoder(max_size=SMALL)
    frames = []
    for piece in pieces:
        decoder.receive_data(piece)
        frames += decoder.frames_received()
    return frames


def kinds(frames: Sequence[object], bad: type) -> list[object]:
    """Return what came, bad ones in a row as one: how many are told depends on the cut."""
    told: list[object] = []
    for frame in frames:
        one = "bad" if isinstance(frame, bad) else frame
        if one != "bad" or told[-1:] != ["bad"]:
            told.append(one)
    return told


@given(stomp_bytes(), CUTS)
def test_where_bytes_are_cut_makes_no_difference_to_frames(data: bytes, at: list[int]) -> None:
    assume(data.count(b"\0") < FEW)
    whole = kinds(decode(data), BadFrame)
    assert kinds(decode(*cut(data, at)), BadFrame) == whole
    event(f"{sum(one == 'bad' for one in whole)} bad")


@given(stomp_bytes(), CUTS)
def test_after_any_bytes_the_stream_goes_on(data: bytes, at: list[int]) -> None:
    decoder = FrameDecoder(max_size=SMALL)
    for piece in cut(data, at):
        decoder.receive_data(piece)
        for frame in decoder.frames_received():
            assert isinstance(frame, Frame | BadFrame)
            if isinstance(frame, BadFrame):
                assert frame.reason in REASONS
                assert len(frame.sample) <= 200
                assert frame.detail
    decoder.receive_data(b"\0" * (SMALL + 1))  # no length reaches further
    decoder.frames_received()
    decoder.receive_data(b"M\n\nx\0")
    assert decoder.frames_received() == [Frame("M", {}, b"x")]


# Each is bad by itself, and ends with the first NUL in it.
BAD = (
    *(
        b"\0",
        b"x\0",
        b"MESSAGE\n\0",
        b"M\nno colon\n\nbody\0",
        b"M\na:\\t\n\n\0",
        b"M\na:\xff\n\n\0",
    ),
    *(
        b"M\ncontent-length:-1\n\n{}\0",
        b"M\ncontent-length:1\n\n{}\0",
        b"\nM\ncontent-length:\n\n\0",
    ),
    *(b"M\ncontent-length:1001\n\n{}\0", b"M\n\n" + b"x" * SMALL + b"\0"),
)


SOME_BAD = st.tuples(st.sampled_from(BAD), st.integers(1, 40))


@given(st.lists(SOME_BAD | frame_bytes(), max_size=5), CUTS)
def test_every_frame_behind_bad_ones_is_found(
    parts: list[tuple[bytes, int] | bytes], at: list[int]
) -> None:
    assume(all(len(part) < SMALL for part in parts))
    assume(sum(part[1] for part in parts if isinstance(part, tuple)) < FEW)
    data = b"".join(part if isinstance(part, bytes) else part[0] * part[1] for part in parts)
    wanted = [decode(part)[0] for part in parts if isinstance(part, bytes)]
    assert all(isinstance(frame, Frame) for frame in wanted)
    found = [frame for frame in decode(*cut(data, at)) if isinstance(frame, Frame)]
    assert found == wanted


# The STOMP session


def session() -> StompCodec:
    codec = StompCodec(["/topic/a", "/topic/b"], max_size=SMALL)
    codec.open()
    codec.receive_data(b"CONNECTED\nversion:1.2\n\n\0")
    codec.events_received()
    return codec


def heard(codec: StompCodec, pieces: Sequence[bytes]) -> list[WireEvent]:
    told = []
    for piece in pieces:
        codec.receive_data(piece)
        told += codec.events_received()
    return told


@given(stomp_bytes(), CUTS, st.booleans())
def test_any_bytes_leave_a_session_that_says_what_it_may(
    data: bytes,
    at: list[int],
    begun: bool,  # noqa: FBT001
) -> None:
    codec = session() if begun else StompCodec(["/topic/a"], max_size=SMALL)
    for one in heard(codec, cut(data, at)):
        assert isinstance(one, get_args(WireEvent))
        if isinstance(one, MessageBad):
            event(one.reason)
            assert one.reason in REASONS
            assert len(one.sample) <= SAMPLE
            assert one.count >= 1
        elif isinstance(one, EventReceived):
            check_event(one.payload)
    assert all(isinstance(data, bytes) for data in codec.data_to_send())
    heard(codec, [b"\0" * (SMALL + 1)])
    (last,) = heard(codec, [b'MESSAGE\ndestination:/x\n\n{"next":1}\0'])
    assert isinstance(last, EventReceived)
    assert last.payload == {"next": 1}


@given(
    stomp_bytes() | message_frames() | heads_and_bodies(),
    st.sampled_from([b"", b"", b"MESSAGE", b"x:1\n\n\0"]),
)
def test_what_is_quickly_read_as_a_lone_stomp_event_is_what_the_message_holds(
    data: bytes, before: bytes
) -> None:
    quick, slow = session(), session()
    heard(quick, [before]), heard(slow, [before])
    lone = quick.lone_event(data)
    if lone is not None:
        event("lone")
        check_lone(lone, heard(slow, [data]))


@given(st.lists(message_frames() | heads_and_bodies() | stomp_bytes(), max_size=4), CUTS)
def test_a_session_that_reads_lone_events_quickly_tells_what_one_does_that_never_does(
    messages: list[bytes], at: list[int]
) -> None:
    quick = session()
    told: list[WireEvent] = []
    pieces = [piece for one in messages for piece in cut(one, at[: len(one) % 3])]
    for piece in pieces:
        lone = quick.lone_event(piece)
        if lone is None:
            told += heard(quick, [piece])
        else:
            assert lone[0] is not None
            told.append(EventReceived(lone[0], lone[1]))
    assert repr(told) == repr(heard(session(), pieces))


@given(stomp_bytes(), CUTS)
def test_where_bytes_are_cut_makes_no_difference_to_events(data: bytes, at: list[int]) -> None:
    assume(data.count(b"\0") < FEW)
    whole = [one for one in heard(session(), [data]) if not isinstance(one, MessageBad)]
    pieces = [one for one in heard(session(), cut(data, at)) if not isinstance(one, MessageBad)]
    assert repr(pieces) == repr(whole)


@given(st.lists(OBJECTS, max_size=6))
def test_calls_and_agents_are_tracked_through_any_objects(objects: list[dict[str, Any]]) -> None:
    tracking = Tracking(wanted=Everything(), namespace="a.cc")
    for payload in objects:
        for notice in tracking.apply(parse_event(payload)):
            try:
                told = json.loads(json.dumps(notice.as_wire()))
            except ValueError:  # a number of more digits than Python writes out
                assume(False)
            assert read_derived(told) is not None
        assert all(call.id for call in tracking.calls.values())
        assert all(agent.mode for agent in tracking.agents.values())
    try:
        known = tracking.remembered()
    except ValueError:  # as above
        assume(False)
    again = Tracking(wanted=Everything(), namespace="a.cc")
    again.remember(known)
    assert json.loads(again.remembered()) == json.loads(known)
