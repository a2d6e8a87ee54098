"""The hostile messages that `bench.hostile` holds the codecs to, each of a size asked for.

A maker returns the WebSocket messages its bytes come in: one, unless the cut is what is hostile.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import count
from typing import Literal, NamedTuple

from bench.speed.sender import make_event

Maker = Callable[[int], list[bytes]]


class Shape(NamedTuple):
    """What is hostile about a message, and how to make one of so many bytes."""

    wire: Literal["json", "stomp"]
    name: str
    make: Maker
    events: bool = False  # it is legitimate: every event of it has to come out


def filled(begin: bytes, unit: bytes, end: bytes = b"") -> Maker:
    """Repeat a unit until the size is reached."""
    return lambda size: [begin + unit * ((size - len(begin) - len(end)) // len(unit)) + end]


def numbered(begin: bytes, unit: bytes, end: bytes = b"") -> Maker:
    """Repeat a unit with a number of its own in place of each `%d`."""

    def make(size: int) -> list[bytes]:
        units: list[bytes] = []
        left = size - len(begin) - len(end)
        times = unit.count(b"%d")
        for number in count(100_000):
            units.append(unit % ((number,) * times))
            left -= len(units[-1])
            if left < len(units[-1]):
                return [begin + b"".join(units) + end]
        raise AssertionError

    return make


def cut(make: Maker, piece: int) -> Maker:
    """Cut what another maker makes into pieces."""

    def cutting(size: int) -> list[bytes]:
        (whole,) = make(size)
        return [whole[at : at + piece] for at in range(0, len(whole), piece)]

    return cutting


def events_of(size: int, room: int) -> Iterator[bytes]:
    """Return events as a server sends them, as many as there is room for."""
    left = size
    for number in count():
        event = make_event(number, 500)
        left -= len(event) + room
        if left < 0:
            return
        yield event


def array_of_events(size: int) -> list[bytes]:
    return [b"[" + b",".join(events_of(size, 1)) + b"]"]


def frame(event: bytes) -> bytes:
    head = (
        "MESSAGE\nsubscription:0\ndestination:/topic/event.agent.*.*\nack:auto\n"
        f"message-id:T_0@@session-KnZkVb9Q@@17\nredelivered:false\ncontent-length:{len(event)}\n\n"
    )
    return head.encode() + event + b"\0"


def frames_of_events(size: int) -> list[bytes]:
    return [b"\n".join(frame(event) for event in events_of(size, len(frame(b"")) + 3))]


def chains(padding: int) -> Maker:
    """Return arrays nested nearly as deep as is read, one after the other."""
    return filled(b'{"a":[', b"[" * 190 + b"]" * 190 + b',"%b",' % (b"x" * padding), b"0]}")


def odd_events(padding: int) -> Maker:
    """Return events with values of other types than are due: they are read leniently."""
    odd = {"eventName": "held", "serial": 0, "cause": 0, "callId": 1, "agentId": 2, "deviceId": 3}
    text = json.dumps({**odd, "namespace": 4, "x": "x" * padding}, separators=(",", ":"))
    return numbered(b"[", text.replace(":0,", ":%d,", 1).encode() + b",", b"{}]")


def with_half(make: Maker) -> Maker:
    """Put half a character at the end of an array, which makes it be read again and again."""

    def making(size: int) -> list[bytes]:
        (whole,) = make(size - 20)
        at = whole.rindex(b"]")
        return [whole[:at] + b',{"a":"\\ud800"}' + whole[at:]]

    return making


def heads(line: bytes) -> Maker:
    """Return frames whose heads are about as long as is taken, all of one line."""
    return filled(b"", b"MESSAGE\n" + line * (65_000 // len(line)) + b"\n{}\0")


def wrong_lengths(by: int) -> Maker:
    body = b'{"eventName":"held"}'
    unit = b"MESSAGE\ncontent-length:%d\n\n%b\0" % (len(body) + by, body)
    return filled(b"", unit)


def swallowing(size: int) -> list[bytes]:
    """Return frames whose length reaches to just before the end: each is bad, and looks it late."""
    unit = b"MESSAGE\ncontent-length:%6d\n\n{}\0"
    room = len(unit % 0)
    return [b"".join(unit % (size - (n + 1) * room) for n in range(size // room))]


def swallowed(size: int) -> list[bytes]:
    """Return one frame with a length and a body of nothing in particular."""
    return [b"MESSAGE\ncontent-length:%d\n\n%b\0" % (size - 40, b"a" * (size - 40))]


def json_shape(name: str, make: Maker, *, events: bool = False) -> Shape:
    return Shape("json", name, make, events)


def stomp_shape(name: str, make: Maker, *, events: bool = False) -> Shape:
    return Shape("stomp", name, make, events)


X100 = b"x" * 100

JSON: tuple[Shape, ...] = (
    json_shape("real events in an array", array_of_events, events=True),
    json_shape("real events, one with half a character", with_half(array_of_events), events=True),
    json_shape("empty objects", filled(b"[", b"{},", b"{}]")),
    json_shape("empty arrays", filled(b"[", b"[],", b"[]]")),
    json_shape("arrays of one", filled(b"[", b"[0],", b"[0]]")),
    json_shape("objects in objects", filled(b"[", b'{"":{"":{}}},', b"{}]")),
    json_shape("tiny events", numbered(b"[", b'{"a":%d},', b"{}]")),
    json_shape("tiny events with serials", numbered(b"[", b'{"serial":%d},', b"{}]")),
    json_shape("odd events", odd_events(0)),
    json_shape("digits", filled(b"[", b"0,", b"0]")),
    json_shape("floats", filled(b"[", b"1.5,", b"0]")),
    json_shape("an event of floats", filled(b'{"a":[', b"1.5,", b"0]}")),
    json_shape("an event of strings", filled(b'{"a":[', b'"",', b'""]}')),
    json_shape("nested without an end", filled(b"", b"[")),
    json_shape("objects nested without an end", filled(b"", b'{"a":')),
    json_shape("nested as deep as is read", chains(0)),
    json_shape("half a character behind floats", with_half(filled(b'{"a":[', b"1.5,", b"0]}"))),
    json_shape("half a character behind objects", with_half(filled(b"[", b"{},", b"{}]"))),
    json_shape("a million topics", filled(b'{"serial":1,"topics":[', b'"",', b'""]}')),
    json_shape("a key again and again", filled(b"{", b'"a":0,', b'"a":0}')),
    json_shape("half a character behind keys", numbered(b"{", b'"%d":0,', b'"a":"\\ud800"}')),
    json_shape("many objects under keys", numbered(b"{", b'"%d":{},', b'"a":0}')),
    json_shape("no UTF-8 behind objects", filled(b"[", b"{},", b"{}]\xff")),
    json_shape("no JSON behind floats", filled(b"[", b"1.5,", b"0}")),
    # As much of each as is let through
    json_shape(
        "let through: events", numbered(b"[", b'{"a":%d,"b":"' + X100[:10] + X100 + b'"},', b"{}]")
    ),
    json_shape("let through: odd events", odd_events(80)),
    json_shape("let through: values", filled(b'{"a":[', b"0.1234567,", b"0]}")),
    json_shape(
        "let through: values, half a character", with_half(filled(b'{"a":[', b"0.1234567,", b"0]}"))
    ),
    json_shape("let through: strings", filled(b'{"a":[', b'"abcdef",', b"0]}")),
    json_shape("let through: topics", filled(b'{"serial":1,"topics":[', b'"abcdef",', b"0]}")),
    json_shape("let through: arrays", filled(b'{"a":[', b'[],"' + X100[:37] + b'",', b"0]}")),
    json_shape("let through: objects", filled(b'{"a":[', b'{},"' + X100[:37] + b'",', b"0]}")),
    json_shape(
        "let through: objects, half a character",
        with_half(filled(b'{"a":[', b'{},"' + X100[:37] + b'",', b"0]}")),
    ),
    json_shape("let through: nested", chains(4300)),
    json_shape("let through: keys", numbered(b"{", b'"%d":0,', b'"a":0}')),
    json_shape(
        "half a character behind keys and a backslash",
        numbered(b"{", b'"%d":0,', b'"a":"\\\\ud83d\\ude00"}'),
    ),
    json_shape(
        "let through: keys, half a character",
        numbered(b"{", b'"' + X100[:10] + b'%d":0,', b'"a":"\\ud800"}'),
    ),
    json_shape(
        "let through: keys of an odd event",
        numbered(b'{"eventName":"held","cause":0,', b'"%d":0,', b'"a":0}'),
    ),
    json_shape(
        "let through: objects under keys", numbered(b"{", b'"' + X100[:25] + b'%d":{},', b'"a":0}')
    ),
    # Text
    json_shape("one long string", filled(b'{"a":"', b"a", b'"}')),
    json_shape("one long string, not ASCII", filled(b'{"a":"', "中".encode(), b'"}')),
    json_shape("a string without an end", filled(b'{"a":"', b"a")),
    json_shape("backslashes without an end", filled(b'{"a":"', b"\\")),
    json_shape("escaped line ends", filled(b'{"a":"', b"\\n", b'"}')),
    json_shape("escaped characters", filled(b'{"a":"', b"\\u4e2d", b'"}')),
    json_shape("control characters, escaped", filled(b'{"a":"', b"\\u0001", b'"}')),
    json_shape("surrogates in pairs", filled(b'{"a":"', b"\\ud83d\\ude00", b'"}')),
    json_shape("surrogates alone", filled(b'{"a":"', b"\\ud800", b'"}')),
    json_shape("braces and commas in a string", filled(b'{"a":"', b"{,", b'"}')),
    json_shape("braces in strings", filled(b'{"a":[', b'"{{{{{{",', b'""]}')),
    json_shape("strings with escaped quotes", filled(b'{"a":["', b'\\\\\\",{', b'"]}')),
    json_shape("no UTF-8 at the end of a string", filled(b'{"a":"', b"a", b'\xff"}')),
    # Numbers
    json_shape("one integer", filled(b"", b"9")),
    json_shape("a serial of digits", filled(b'{"serial":"', b"9", b'"}')),
    json_shape("integers as long as are read", filled(b'{"a":[', b"9" * 4300 + b",", b"0]}")),
    json_shape(
        "serials as long as are read", filled(b"[", b'{"serial":' + b"9" * 4300 + b"},", b"{}]")
    ),
    json_shape("one float of digits", filled(b'{"a":0.', b"1", b"}")),
    # Ids and times
    json_shape("an id of at signs", filled(b'{"serial":1,"srcDeviceId":"', b"@", b'"}')),
    json_shape("an id of doubled domains", filled(b'{"serial":1,"eventSrc":"1', b"@a", b'"}')),
    json_shape("a time of digits", filled(b'{"serial":1,"eventTime":"', b"9", b'"}')),
    # Nothing
    json_shape("space", filled(b"", b" ", b"{}")),
    json_shape("NUL", filled(b"", b"\0")),
    json_shape("quotes", filled(b"", b'"')),
)

SMALLEST = filled(b"", b"A\n\n\0")
NO_END = filled(b"MESSAGE\n\n", b"{}")

STOMP: tuple[Shape, ...] = (
    stomp_shape("real events, frame by frame", frames_of_events, events=True),
    stomp_shape("real events in pieces of 1 KiB", cut(frames_of_events, 1024), events=True),
    stomp_shape("smallest frames", SMALLEST),
    stomp_shape("pieces that are no frames", filled(b"", b"A\0")),
    stomp_shape("good and bad in turn", filled(b"", b"A\n\n\0B\0")),
    stomp_shape("a good one after 99 bad", filled(b"", b"B\0" * 99 + b"MESSAGE\n\n{}\0")),
    stomp_shape("empty messages", filled(b"", b"MESSAGE\n\n\0")),
    stomp_shape("messages of empty events", filled(b"", b"MESSAGE\n\n{}\0")),
    stomp_shape("messages of tiny events", numbered(b"", b'MESSAGE\n\n{"a":%d}\0')),
    stomp_shape("messages of rubbish", filled(b"", b"MESSAGE\n\n{\0")),
    stomp_shape("messages of no UTF-8", filled(b"", b"MESSAGE\n\n\xff\0")),
    stomp_shape("CONNECTED again and again", filled(b"", b"CONNECTED\nversion:1.2\n\n\0")),
    stomp_shape("RECEIPT again and again", filled(b"", b"RECEIPT\nreceipt-id:x\n\n\0")),
    stomp_shape("ERROR again and again", filled(b"", b"ERROR\n\n\0")),
    stomp_shape("an ERROR of lines", filled(b"ERROR\n\n", b"a\n", b"\0")),
    stomp_shape("an ERROR of no UTF-8", filled(b"ERROR\n\n", b"\xff", b"\0")),
    stomp_shape("NUL", filled(b"", b"\0")),
    stomp_shape("line ends", filled(b"", b"\r\n")),
    stomp_shape("line ends between frames", filled(b"", b"\r\n" * 50 + b"A\n\n\0")),
    # As much of each as is let through
    stomp_shape(
        "let through: events",
        numbered(b"", b'MESSAGE\n\n{"a":%d,"b":"' + X100 + X100[:52] + b'"}\0'),
    ),
    stomp_shape("let through: frames", filled(b"", b"A\n\n" + X100 + X100[:45] + b"\0")),
    stomp_shape("let through: rubbish", filled(b"", b"MESSAGE\n\n" + X100 * 7 + b"\0")),
    stomp_shape("let through: no frames", filled(b"", b"A" * 512 + b"\0")),
    stomp_shape("let through: ERRORs", filled(b"", b"ERROR\nmessage:" + X100 * 7 + b"\n\n\0")),
    stomp_shape("let through: headers", heads(b"a:%b\n" % X100[:10])),
    stomp_shape("let through: headers, escaped", heads(b"\\c:" + b"\\n\\\\" * 2 + b"\\c\n")),
    stomp_shape("let through: values", filled(b'MESSAGE\n\n{"a":[', b"0.1234567,", b"0]}\0")),
    stomp_shape(
        "let through: arrays", filled(b'MESSAGE\n\n{"a":[', b'[],"' + X100[:37] + b'",', b"0]}\0")
    ),
    # Heads
    stomp_shape("one head without an end", filled(b"MESSAGE\n", b"a:b\n")),
    stomp_shape("one line without an end", filled(b"MESSAGE\na:", b"\\n")),
    stomp_shape("carriage returns", filled(b"MESSAGE", b"\r")),
    stomp_shape("nearly blank lines", filled(b"MESSAGE", b"\n\ra:")),
    stomp_shape("heads of short lines", heads(b"a:\n")),
    stomp_shape("heads of short lines, escaped", heads(b"\\c:\\n\n")),
    stomp_shape("heads of escapes", heads(b"a:" + b"\\\\\\n" * 16_000 + b"\n")),
    stomp_shape("frames of short headers", filled(b"", b"MESSAGE\n" + b"a:\n" * 20 + b"\n{}\0")),
    stomp_shape("frames of bad escapes", filled(b"", b"M\na:\\t\n\n\0")),
    # Lengths
    stomp_shape("a length above what is there", filled(b"M\ncontent-length:4000000\n\n", b"\0\n")),
    stomp_shape("a length of one too many", wrong_lengths(1)),
    stomp_shape("a length of one too few", wrong_lengths(-1)),
    stomp_shape("lengths that reach to the end", swallowing),
    stomp_shape("a length of digits", heads(b"content-length:" + b"9" * 60_000 + b"\n")),
    # Bodies
    stomp_shape(
        "bodies of empty arrays", filled(b"", b"MESSAGE\n\n" + b'{"a":[' + b"[]," * 1500 + b"0]}\0")
    ),
    stomp_shape("a body of empty objects", filled(b'MESSAGE\n\n{"a":[', b"{},", b"0]}\0")),
    stomp_shape("a body of floats", filled(b'MESSAGE\n\n{"a":[', b"1.5,", b"0]}\0")),
    # Cuts
    *(
        stomp_shape(f"{name}, in pieces of {size}", cut(make, piece))
        for size, piece in (("32 KiB", 2**15), ("1 KiB", 2**10), ("1", 1))
        for name, make in (
            ("smallest frames", SMALLEST),
            ("a body without an end", NO_END),
            ("a length and its body", swallowed),
            ("a head without an end", filled(b"MESSAGE\n", b"a:b\n")),
            ("a line without an end", filled(b"MESSAGE\na:", b"a")),
        )
    ),
    stomp_shape(
        "half a character behind keys",
        numbered(b"MESSAGE\n\n{", b'"%d":0,', b'"a":"\\ud800"}\0'),
    ),
)
