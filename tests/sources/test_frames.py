"""Cutting plain frames out of a stream; `websockets` alone is what it is held against."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import DATA_OPCODES, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import OPEN
from websockets.uri import parse_uri
from websockets.utils import accept_key

from cti_listener.sources.frames import ENDLESS, KEPT, Frames
from cti_listener.sources.transport import Transport

MAX_SIZE = 10_000


class Reader:
    """Joins what `websockets` reads to messages, with or without `Frames` before it."""

    def __init__(self, *, cutting: bool = True) -> None:
        self.messages: list[bytes] = []
        self.left = 0  # bytes
        self.protocol = ClientProtocol(parse_uri("ws://unused/"), state=OPEN, max_size=MAX_SIZE)
        self._fragments: list[bytes] | None = None
        self._frames = Frames(self.messages.append, self._leave, max_size=MAX_SIZE)
        self.receive = self._frames.receive_data if cutting else self._leave

    @property
    def whole(self) -> bool:
        return self._frames.whole

    @property
    def state(self) -> tuple[object, ...]:
        """Return what a peer could tell apart."""
        protocol = self.protocol
        codes = [one and one.code for one in (protocol.close_rcvd, protocol.close_sent)]
        return self.messages, protocol.state, codes, type(protocol.parser_exc)

    def _leave(self, data: bytes) -> bool:
        self.left += len(data)
        self.protocol.receive_data(data)
        for frame in self.protocol.events_received():
            assert isinstance(frame, Frame)
            if frame.opcode in DATA_OPCODES:
                self._fragments = [*(self._fragments or []), bytes(frame.data)]
                if frame.fin:
                    self.messages.append(b"".join(self._fragments))
                    self._fragments = None
        ended = self.protocol.close_rcvd is not None or self.protocol.parser_exc is not None
        return self._fragments is None and not ended


def frame(
    data: bytes = b"", *, opcode: int = 1, fin: bool = True, rsv: int = 0, mask: bool = False
) -> bytes:
    """Write a frame as a server would, or should not."""
    size = len(data)
    first = bytes([fin << 7 | rsv << 4 | opcode])
    if size < 126:
        length = bytes([mask << 7 | size])
    elif size < 1 << 16:
        length = bytes([mask << 7 | 126]) + size.to_bytes(2)
    else:
        length = bytes([mask << 7 | 127]) + size.to_bytes(8)
    return first + length + data


PLAIN = st.binary(max_size=300).map(frame)
LONG = st.sampled_from([125, 126, 127, KEPT, KEPT + 1, MAX_SIZE, MAX_SIZE + 1, 70_000]).map(
    lambda size: frame(bytes(size))
)
CONTROL = st.builds(frame, st.binary(max_size=20), opcode=st.sampled_from([9, 10]))
FRAGMENTED = st.lists(st.binary(max_size=50), min_size=2, max_size=4).map(
    lambda parts: b"".join(
        frame(part, opcode=0 if index else 1, fin=index == len(parts) - 1)
        for index, part in enumerate(parts)
    )
)
ODD = st.builds(
    frame,
    st.binary(max_size=200),
    opcode=st.integers(0, 15),
    fin=st.booleans(),
    rsv=st.integers(0, 7),
    mask=st.booleans(),
)
MARKED = st.builds(frame, st.binary(max_size=20), rsv=st.integers(1, 7))
CLOSE = st.just(frame((1000).to_bytes(2), opcode=Opcode.CLOSE))


@given(
    st.lists(st.one_of(PLAIN, PLAIN, LONG, CONTROL, FRAGMENTED, ODD, MARKED, CLOSE), max_size=8),
    st.binary(max_size=10),
    st.lists(st.integers(0, 3000), max_size=12),
)
def test_whatever_comes_it_is_read_as_by_websockets_alone(
    frames: list[bytes], tail: bytes, cuts: list[int]
) -> None:
    stream = b"".join(frames) + tail + bytes(8)  # a head that cannot be is told once it is whole
    reader, alone = Reader(), Reader(cutting=False)
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    for since, until in pairwise(places):
        reader.receive(stream[since:until])
        alone.receive(stream[since:until])
        if not alone.protocol.parser_exc:
            assert reader.messages == alone.messages
    assert reader.state == alone.state


@given(st.lists(PLAIN, max_size=20), st.integers(1, 400))
def test_plain_frames_are_never_left_however_they_are_cut(frames: list[bytes], step: int) -> None:
    reader, stream = Reader(), b"".join(frames)
    for place in range(0, len(stream), step):
        reader.receive(stream[place : place + step])
    assert (len(reader.messages), reader.left) == (len(frames), 0)
    assert reader.whole


def test_a_long_message_is_left_as_soon_as_it_begins() -> None:
    reader, message = Reader(), bytes(KEPT + 1)
    data = frame(message)
    reader.receive(data[:100])
    assert reader.left == 100
    assert not reader.whole
    reader.receive(data[100:] + frame(b"short"))
    assert reader.messages == [message, b"short"]
    assert reader.whole


@pytest.mark.parametrize("size", [1, 2, 3, 9])
def test_a_head_that_came_in_part_is_not_whole(size: int) -> None:
    reader = Reader()
    reader.receive(frame(bytes(70_000))[:size])
    assert not reader.whole


def test_nothing_is_taken_behind_a_message_that_is_too_long() -> None:
    reader = Reader()
    reader.receive(frame(bytes(MAX_SIZE + 1)) + frame(b"behind"))
    assert reader.messages == []
    assert reader.protocol.close_sent is not None
    assert reader.protocol.close_sent.code == 1009


def test_a_length_that_cannot_be_is_left_and_keeps_nothing() -> None:
    reader = Reader()
    reader.receive(bytes([0x81, 127]) + (ENDLESS - 1).to_bytes(8))
    for _ in range(10):
        reader.receive(frame(b"behind"))
    assert reader.messages == []
    assert reader.protocol.parser_exc is not None


# Behind the head of the response, in a transport


class Wire(asyncio.Transport):
    """A connection that leads nowhere."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


class Ears:
    """Keeps what a transport says."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.whole: list[bool] = []

    def about_to_read(self) -> None:
        pass

    def bytes_received(self, *, more: bool) -> None:
        pass

    def handshake_done(self, subprotocol: str | None) -> None:
        assert subprotocol is None

    def message_received(self, data: bytes) -> None:
        self.messages.append(data)

    def bytes_taken(self, *, whole: bool) -> None:
        self.whole.append(whole)

    def stream_broken(self, *, oversized: bool) -> None:
        raise AssertionError(oversized)

    def connection_lost(self) -> None:
        raise AssertionError


def hear(body: bytes, cuts: Sequence[int]) -> Ears:
    """Have a transport read the head of a response and what follows it, cut at these places."""
    protocol = ClientProtocol(parse_uri("ws://unused/"), max_size=MAX_SIZE)
    transport = Transport(protocol)
    transport.ears = ears = Ears()
    transport.max_size = MAX_SIZE
    transport.connection_made(Wire())
    request = protocol.connect()
    protocol.send_request(request)
    stream = _head(request) + body
    for since, until in pairwise([0, *cuts, len(stream)]):
        _read(transport, stream[since:until])
    return ears


def _read(transport: Transport, data: bytes) -> None:
    while data:
        buffer = transport.get_buffer(-1)
        size = min(len(buffer), len(data))
        buffer[:size] = data[:size]
        transport.buffer_updated(size)
        data = data[size:]


def _head(request: Request) -> bytes:
    accept = accept_key(request.headers["Sec-WebSocket-Key"])
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\n\r\n"
    ).encode()


HEAD = 129
"""How long that is."""


@pytest.mark.parametrize("behind", [0, 1, 2, 5, 12, 200])
async def test_the_head_may_be_cut_anywhere_and_a_frame_begin_right_behind_it(behind: int) -> None:
    messages = [b"one", b"two" * 1000, b"three"]
    body = b"".join(map(frame, messages))
    for cut in range(HEAD + 1):
        ears = hear(body, [cut, HEAD + behind])
        assert ears.messages == messages
        assert ears.whole[-1]


async def test_what_follows_a_close_is_not_waited_for() -> None:
    close = frame((1000).to_bytes(2), opcode=Opcode.CLOSE)
    assert hear(frame(b"one") + close + b"\x81", [HEAD]).whole[-1]
    assert not hear(frame(b"one") + b"\x81", [HEAD]).whole[-1]
