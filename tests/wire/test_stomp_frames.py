"""Frames: whatever way the bytes are cut, and whatever is not a frame, the stream goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from time import process_time
from typing import Any

import pytest
import stompman
from hypothesis import given, settings
from hypothesis import strategies as st

from cti_listener.errors import ConfigurationError
from cti_listener.wire.price import FRAME, HEADER, allowance
from cti_listener.wire.stomp_frames import (
    MAX_HEAD,
    BadFrame,
    Frame,
    FrameDecoder,
    Received,
    encode,
)
from tests.examples import EXAMPLES
from tests.work import calls


def decode(*pieces: bytes, version: str = "1.2", max_size: int = 2**22) -> list[Received]:
    decoder = FrameDecoder(version, max_size=max_size)
    frames = []
    for piece in pieces:
        decoder.receive_data(piece)
        frames += decoder.frames_received()
    return frames


def one(data: bytes, version: str = "1.2") -> Frame:
    (frame,) = decode(data, version=version)
    assert isinstance(frame, Frame), frame
    return frame


def bad(data: bytes, version: str = "1.2") -> str:
    (frame,) = decode(data, version=version)
    assert isinstance(frame, BadFrame), frame
    return frame.detail


# The usual


def test_a_frame_is_its_command_headers_and_body() -> None:
    data = b'MESSAGE\nsubscription:0\ndestination:/topic/a\n\n{"a":1}\0'
    frame = Frame("MESSAGE", {"subscription": "0", "destination": "/topic/a"}, b'{"a":1}')
    assert decode(data) == [frame]


@pytest.mark.parametrize(
    ("data", "frame"),
    [
        (b"CONNECTED\n\n\0", Frame("CONNECTED")),
        (b"CONNECTED\r\n\r\n\0", Frame("CONNECTED")),
        (b"M\r\na:b\r\nc: d \r\n\r\nx\r\n\0", Frame("M", {"a": "b", "c": " d "}, b"x\r\n")),
        (b"M\na:b\r\n\nx\0", Frame("M", {"a": "b"}, b"x")),
        (b"M\na:\n\n\0", Frame("M", {"a": ""})),
        (b"M\n:a\n\n\0", Frame("M", {"": "a"})),
        (b"M\na:b:c\n\n\0", Frame("M", {"a": "b:c"})),
        (b"M\na:1\na:2\n\n\0", Frame("M", {"a": "1"})),
        (b"M\n\n\n\nx\n\n\0", Frame("M", {}, b"\n\nx\n\n")),
        (b"\\n\n\n\0", Frame("\\n")),
        ("M\nä:中\n\n文\0".encode(), Frame("M", {"ä": "中"}, "文".encode())),
    ],
)
def test_ends_of_line_and_headers_are_read_as_the_standard_says(data: bytes, frame: Frame) -> None:
    assert decode(data) == [frame]


def test_with_a_content_length_a_body_may_hold_nul() -> None:
    frame = one(b"MESSAGE\ncontent-length:5\n\na\0b\0c\0")
    assert frame.body == b"a\0b\0c"
    assert one(b"M\ncontent-length: 0 \n\n\0").body == b""


def test_several_frames_share_a_message_and_heart_beats_lie_between() -> None:
    decoder = FrameDecoder()
    decoder.receive_data(b"\n\nA\n\n1\0\nB\n\n2\0\r\n\nC\n\n3\0\n")
    assert [(f.command, f.body) for f in decoder.frames_received() if isinstance(f, Frame)] == [
        ("A", b"1"),
        ("B", b"2"),
        ("C", b"3"),
    ]
    assert decoder.heart_beats == 6
    assert decoder.frames_received() == []


@pytest.mark.parametrize("data", [b"\n", b"\r\n", b"", b"\n" * 1000])
def test_a_heart_beat_is_no_frame(data: bytes) -> None:
    decoder = FrameDecoder()
    decoder.receive_data(data)
    assert decoder.frames_received() == []
    assert decoder.heart_beats == data.count(b"\n")


STREAM = (
    b"\nCONNECTED\r\nversion:1.2\r\n\r\n\0\n"
    b"MESSAGE\na\\cb:c\\nd\ncontent-length:7\n\na\0\0b\n\nc\0\n\n"
    b"no colon here\nx\n\nrubbish\0"
    b"MESSAGE\ncontent-length:2\n\ntoo long\0"
    b"RECEIPT\nreceipt-id:1\n\n\0ERROR\n\n\n\n\0\n"
)


def test_the_stream_may_be_cut_in_two_at_every_offset() -> None:
    whole = decode(STREAM)
    assert [type(frame).__name__ for frame in whole] == [
        "Frame",
        "Frame",
        "BadFrame",
        "Frame",
        "Frame",
    ]
    for cut in range(len(STREAM) + 1):
        assert kinds(decode(STREAM[:cut], STREAM[cut:])) == kinds(whole), cut


def test_the_stream_may_come_byte_by_byte() -> None:
    whole = decode(STREAM)
    assert kinds(decode(*(STREAM[i : i + 1] for i in range(len(STREAM))))) == kinds(whole)


def kinds(frames: Sequence[Received]) -> list[object]:
    """Return the frames, and bad ones in a row as one: how many are told depends on the cut."""
    told: list[object] = []
    for frame in frames:
        one = frame if isinstance(frame, Frame) else "bad"
        if one != "bad" or told[-1:] != ["bad"]:
            told.append(one)
    return told


# Escapes


@pytest.mark.parametrize(
    ("version", "wire", "meant"),
    [
        ("1.2", rb"a\nb", "a\nb"),
        ("1.2", rb"a\cb", "a:b"),
        ("1.2", rb"a\\b", "a\\b"),
        ("1.2", rb"a\\nb", "a\\nb"),
        ("1.2", rb"\r\n", "\r\n"),
        ("1.1", rb"a\nb\c\\", "a\nb:\\"),
        ("1.0", rb"a\nb", r"a\nb"),
        ("1.0", rb"a\x", r"a\x"),
        ("1.0", b"  a b  ", "a b"),
        ("1.2", b"  a b  ", "  a b  "),
    ],
)
def test_escapes_are_those_of_the_version(version: str, wire: bytes, meant: str) -> None:
    assert one(b"MESSAGE\nh:" + wire + b"\n\n\0", version).headers == {"h": meant}


@pytest.mark.parametrize(
    ("version", "wire"),
    [("1.2", rb"\t"), ("1.2", rb"a\ "), ("1.2", b"a\\"), ("1.1", rb"\r"), ("1.1", rb"\0"[:1])],
)
def test_an_escape_that_the_version_does_not_define_is_a_bad_frame(
    version: str, wire: bytes
) -> None:
    assert "escape" in bad(b"MESSAGE\nh:" + wire + b"\n\n\0", version)
    assert "escape" in bad(b"MESSAGE\n" + wire + b":v\n\n\0", version)


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2"])
def test_the_headers_of_connected_are_never_escaped(version: str) -> None:
    assert one(b"CONNECTED\nserver:a\\b\\c\n\n\0", version).headers == {"server": r"a\b\c"}


# What is no frame


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (b"MESSAGE\0", "no blank line"),
        (b"MESSAGE\na:b\n\0", "no blank line"),
        (b"\0", "no blank line"),
        (b"MESSAGE\nab\n\n\0", "without a colon"),
        (b"MESSAGE\na:\xff\n\n\0", "not UTF-8"),
        (b"\xff\n\n\0", "not UTF-8"),
        (b"M\ncontent-length:x\n\n\0", "content-length"),
        (b"M\ncontent-length:-1\n\n\0", "content-length"),
        (b"M\ncontent-length:\n\n\0", "content-length"),
        (b"M\ncontent-length:999999999999\n\n\0", "content-length"),
        ("M\ncontent-length:٣\n\n\0".encode(), "content-length"),
        (b"M\ncontent-length:1\n\nabc\0", "no NUL where"),
        (b"M\ncontent-length:99999999\n\nabc\0", "above"),
        (b"M\na:" + b"b" * MAX_HEAD + b"\n\n\0", "headers above"),
    ],
)
def test_what_is_no_frame_is_told_and_the_next_one_is_read(data: bytes, detail: str) -> None:
    whole = data + b"M\n\nx\0"
    told, good = decode(whole)
    assert isinstance(told, BadFrame)
    assert detail in told.detail
    assert told.sample == whole[:200]
    assert good == Frame("M", {}, b"x")


def test_a_frame_longer_than_allowed_is_skipped_however_it_comes() -> None:
    for head in (b"M\n\n", b"M\ncontent-length:2000\n\n"):
        data = head + b"x" * 2000 + b"\0M\n\nx\0"
        for size in (1, 7, 100, len(data)):
            pieces = [data[i : i + size] for i in range(0, len(data), size)]
            told, good = kinds(decode(*pieces, max_size=1000))
            assert told == "bad"
            assert good == Frame("M", {}, b"x")


def test_a_frame_just_as_long_as_allowed_is_taken() -> None:
    data = b"M\n\n" + b"x" * 100
    assert len(decode(data + b"\0", max_size=len(data))) == 1
    assert isinstance(decode(data + b"\0", max_size=len(data))[0], Frame)
    assert isinstance(decode(data + b"\0", max_size=len(data) - 1)[0], BadFrame)


# What a message may hold


def reasons(frames: Sequence[Received]) -> list[str]:
    return [frame.reason for frame in frames if isinstance(frame, BadFrame)]


def test_all_that_is_no_frame_is_told_once_and_what_follows_is_read() -> None:
    told, good = decode(b"x\0" * 200 + b"M\n\nx\0")
    assert isinstance(told, BadFrame)
    assert good == Frame("M", {}, b"x")


def test_a_message_of_nothing_but_rubbish_is_left_out_as_too_large() -> None:
    for size in (10_000, 2**20):
        frames = decode(b"x\0" * size, b"M\n\nx\0")
        assert reasons(frames) == ["not_a_frame", "too_large"]
        assert frames[-1] == Frame("M", {}, b"x")


@pytest.mark.parametrize(
    ("frame", "price"),
    [
        (b"A\n\n\0", FRAME),
        (b"\r\n\r\nA\r\n\r\n{}\0\n", FRAME),
        (b"A\na:b\n\n{}\0", FRAME + HEADER),
        (b"A\na:b\nc:d\n\n\0", FRAME + 2 * HEADER),
    ],
)
@pytest.mark.parametrize("size", [2**16, 2**18, 2**20])
def test_a_message_of_tiny_frames_is_taken_up_to_what_its_length_pays_for(
    frame: bytes, price: int, size: int
) -> None:
    message = frame * (size // len(frame)) + b"B\n\nto be "
    *frames, last, begun = decode(message, b"continued\0")
    assert {frame.command for frame in frames if isinstance(frame, Frame)} == {"A"}
    assert len(frames) == allowance(len(message)) // price
    assert isinstance(last, BadFrame)
    assert last.reason == "too_large"
    assert begun == Frame("B", {}, b"to be continued")


def test_a_bad_frame_before_does_not_hide_that_the_rest_was_too_much() -> None:
    frames = decode((b"A\n\n\0" + b"x\0") * 100_000)
    assert reasons(frames)[-2:] == ["not_a_frame", "too_large"]


@pytest.mark.parametrize("size", [2**17, 2**20, 2**22])
def test_real_frames_are_all_taken_however_many(size: int) -> None:
    events = [json.dumps(event).encode() for event in EXAMPLES.values()]
    headers = {"subscription": "0", "destination": "/topic/event.agent.*.*", "message-id": "T_0@1"}
    data = b"".join(encode(Frame("MESSAGE", headers, event)) for event in events)
    times = size // len(data)
    for pieces in ([data * times], in_pieces(1000)(data * times)):
        frames = decode(*pieces)
        assert len(frames) == len(events) * times
        assert reasons(frames) == []


@pytest.mark.parametrize("line", [b"a:b", b"\\c:\\n", b":"])
def test_a_head_of_short_lines_is_taken_as_long_as_the_message_pays_for_it(line: bytes) -> None:
    frame = b"M\n" + b"\n".join([line] * 5000) + b"\n\n\0"
    first, *_ = decode(frame)
    assert isinstance(first, Frame)
    frames = decode(frame * 20)
    assert reasons(frames) == ["too_large"]
    assert 1 < len(frames) < 20


@pytest.mark.parametrize("unit", [b"A\n\n\0", b"A\0", b"A\n\n\0A\0", b"\0", b"\nA\na:b\n\n\0"])
def test_a_mebibyte_of_any_flood_is_a_bounded_number_of_steps(unit: bytes) -> None:
    with calls() as counted:
        decode(unit * (2**20 // len(unit)))
    assert counted.total() < 40 * 2**20 // FRAME


@given(st.lists(st.binary(max_size=30), max_size=10))
def test_any_bytes_are_taken_and_the_stream_can_go_on(pieces: list[bytes]) -> None:
    decoder = FrameDecoder()
    for piece in pieces:
        decoder.receive_data(piece)
    for told in decoder.frames_received():
        assert isinstance(told, Frame | BadFrame)
    decoder.receive_data(b"\0" * 1000 if b"content-length" in b"".join(pieces) else b"\0")
    decoder.frames_received()
    decoder.receive_data(b"M\n\nx\0")
    assert decoder.frames_received() == [Frame("M", {}, b"x")]


# Writing


@pytest.mark.parametrize(
    ("frame", "version", "data"),
    [
        (Frame("DISCONNECT"), "1.2", b"DISCONNECT\n\n\0"),
        (Frame("SEND", {"a": "b"}, b"x\0"), "1.2", b"SEND\na:b\ncontent-length:2\n\nx\0\0"),
        (Frame("SEND", {"a:b\r\n\\": "\\n"}), "1.2", b"SEND\na\\cb\\r\\n\\\\:\\\\n\n\n\0"),
        (Frame("SEND", {"a": "b:c\n"}), "1.1", b"SEND\na:b\\cc\\n\n\n\0"),
        (Frame("SEND", {"a": "b:c\\"}), "1.0", b"SEND\na:b:c\\\n\n\0"),
        (Frame("CONNECT", {"a": "b:c\\"}), "1.2", b"CONNECT\na:b:c\\\n\n\0"),
        (Frame("SEND", {"content-length": "1"}, b"x"), "1.2", b"SEND\ncontent-length:1\n\nx\0"),
    ],
)
def test_a_frame_is_written_with_the_escapes_of_the_version(
    frame: Frame, version: str, data: bytes
) -> None:
    assert encode(frame, version) == data


@pytest.mark.parametrize(
    ("frame", "version"),
    [
        (Frame("CONNECT", {"passcode": "a\nlogin:root"}), "1.2"),
        (Frame("CONNECT", {"passcode": "a\rb"}), "1.2"),
        (Frame("CONNECT", {"a:b": "c"}), "1.2"),
        (Frame("CONNECT", {"passcode": "secret\0"}), "1.2"),
        (Frame("CONNECT", {"passcode": "secret\udcff"}), "1.2"),
        (Frame("SEND", {"a": "\udcff"}), "1.2"),
        (Frame("SEND", {"a": "\0"}), "1.2"),
        (Frame("SEND", {"a": "\r"}), "1.1"),
        (Frame("SEND", {"a": "b\nc:d"}), "1.0"),
        (Frame("SEND", {"a:b": "c"}), "1.0"),
    ],
)
def test_what_a_version_cannot_carry_is_refused_by_name_and_never_shown(
    frame: Frame, version: str
) -> None:
    (name,) = frame.headers
    with pytest.raises(ConfigurationError) as refused:
        encode(frame, version)
    assert repr(name) in refused.value.what
    assert "secret" not in str(refused.value)
    assert "root" not in str(refused.value)


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
NAMES = TEXT.filter(lambda name: name.lower() != "content-length")
HEADERS = st.dictionaries(NAMES, TEXT, max_size=4)


@given(HEADERS, st.binary(max_size=30))
def test_a_frame_written_is_the_frame_read(headers: dict[str, str], body: bytes) -> None:
    read = one(encode(Frame("SEND", headers, body)))
    length = {"content-length": str(len(body))} if body else {}
    assert read == Frame("SEND", {**headers, **length}, body)


@given(HEADERS, st.binary(max_size=30), st.sampled_from(["1.0", "1.1", "1.2"]))
def test_what_is_written_in_any_version_is_read_or_refused(
    headers: dict[str, str], body: bytes, version: str
) -> None:
    try:
        data = encode(Frame("SEND", headers, body), version)
    except ConfigurationError:
        assert version != "1.2"
        return
    read = one(data, version)
    assert read.body == body
    if version != "1.0":  # which strips
        assert {name: read.headers[name] for name in headers} == headers


# Against another implementation

# Its parser knows no escape of a carriage return.
THEIRS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=8)
THEIR_NAMES = THEIRS.filter(lambda name: name.lower() != "content-length")
THEIR_HEADERS = st.dictionaries(THEIR_NAMES, THEIRS, max_size=4)
FRAMES = st.builds(
    Frame, st.sampled_from(["MESSAGE", "ERROR", "SEND"]), THEIR_HEADERS, st.binary(max_size=30)
) | st.builds(Frame, st.sampled_from(["RECEIPT", "SUBSCRIBE"]), THEIR_HEADERS)


def theirs(data: bytes) -> list[tuple[str, dict[str, str], bytes]]:
    parsed: list[Any] = list(stompman.FrameParser().parse_frames_from_chunk(data))
    return [
        (command_of(frame), dict(frame.headers), getattr(frame, "body", b""))
        for frame in parsed
        if not isinstance(frame, stompman.HeartbeatFrame)
    ]


def command_of(frame: object) -> str:
    return type(frame).__name__.removesuffix("Frame").upper()


def ours(data: bytes) -> list[tuple[str, dict[str, str], bytes]]:
    frames = decode(data)
    assert all(isinstance(frame, Frame) for frame in frames), frames
    return [(f.command, dict(f.headers), f.body) for f in frames if isinstance(f, Frame)]


@settings(max_examples=300)
@given(st.lists(FRAMES, min_size=1, max_size=4), st.integers(0, 3))
def test_what_we_write_another_parser_reads_as_we_do(frames: list[Frame], beats: int) -> None:
    data = (b"\n" * beats).join(encode(frame) for frame in frames)
    assert ours(data) == theirs(data)
    assert [frame.command for frame in frames] == [command for command, _, _ in ours(data)]


def their_frame(kind: Any, headers: dict[str, str], body: bytes) -> Any:
    if kind in (stompman.MessageFrame, stompman.ErrorFrame, stompman.SendFrame):
        return kind(headers={**headers, "content-length": str(len(body))}, body=body)
    return kind(headers=headers)


@settings(max_examples=300)
@given(
    st.lists(
        st.builds(
            their_frame,
            st.sampled_from(
                [
                    stompman.MessageFrame,
                    stompman.ErrorFrame,
                    stompman.SendFrame,
                    stompman.ReceiptFrame,
                    stompman.SubscribeFrame,
                    stompman.UnsubscribeFrame,
                ]
            ),
            THEIR_HEADERS,
            st.binary(max_size=30),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_what_another_library_writes_we_read(frames: list[Any]) -> None:
    data = b"\n".join(stompman.dump_frame(frame) for frame in frames)
    assert ours(data) == [
        (command_of(frame), dict(frame.headers), getattr(frame, "body", b"")) for frame in frames
    ]


RAW_LINES = st.lists(
    st.sampled_from([b"a:b", b"a:c", b"b\\c:\\n", b"c:\\\\", b"d:", "ü:中".encode(), b"e: f "]),
    max_size=4,
)
RAW_BODIES = st.lists(st.sampled_from([b"a", b"\n", b"\r\n", b"{}", b"\xff", b":"]), max_size=5)


@settings(max_examples=300)
@given(
    st.sampled_from([b"\n", b"\r\n"]),
    st.sampled_from([b"MESSAGE", b"ERROR", b"SEND"]),
    RAW_LINES,
    RAW_BODIES,
)
def test_valid_bytes_of_any_making_are_read_alike(
    end: bytes, command: bytes, lines: list[bytes], body: list[bytes]
) -> None:
    data = end.join([command, *lines, b"", b""]) + b"".join(body) + b"\0"
    assert ours(data) == theirs(data)


# Hostile input costs no more than its length


def in_pieces(size: int) -> Callable[[bytes], list[bytes]]:
    return lambda data: [data[i : i + size] for i in range(0, len(data), size)]


HOSTILE: dict[str, tuple[bytes, bytes]] = {
    "nothing but NUL": (b"", b"\0"),
    "nothing but line ends": (b"", b"\n"),
    "pieces that are no frames": (b"", b"A\0"),
    "heads without an end": (b"", b"A\n\0"),
    "smallest frames": (b"", b"A\n\n\0"),
    "good and bad in turn": (b"", b"A\n\n\0B\0"),
    "one head without an end": (b"MESSAGE\n", b"a:b\n"),
    "one line without an end": (b"MESSAGE\na:", b"\\n"),
    "a body without an end": (b"MESSAGE\n\n", b"{}"),
    "a body with a length": (b"MESSAGE\ncontent-length:4000000\n\n", b"\0\n"),
    "carriage returns": (b"MESSAGE", b"\r\r"),
    "bad escapes": (b"", b"M\na:\\\\\\\n\n\0"),
}


@pytest.mark.parametrize("size", [512, 2**20])
@pytest.mark.parametrize("name", HOSTILE)
def test_four_times_the_hostile_bytes_are_about_four_times_the_work(name: str, size: int) -> None:
    begin, again = HOSTILE[name]
    cut = in_pieces(size)

    def took(length: int) -> float:
        pieces = cut((begin + again * (length // len(again)))[:length])
        best = float("inf")
        for _ in range(3):
            began = process_time()
            decode(*pieces)
            best = min(best, process_time() - began)
        return best

    small, large = took(2**16), took(2**18)
    assert large <= 10 * small + 0.02  # quadratic work would be sixteen times as much


def test_our_decoder_hands_bodies_on_untouched() -> None:
    body = json.dumps({"eventName": "held", "text": "中\0"}).encode()
    assert one(encode(Frame("MESSAGE", {}, body))).body == body
