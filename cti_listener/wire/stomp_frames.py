"""STOMP frames, 1.0 to 1.2: bytes in, frames out, and back.

Called by the session (`wire.stomp`) and by the simulator. A frame may span messages and a message
may hold several frames; what is not a frame is reported in its place and the stream goes on behind
it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from cti_listener.errors import BadReason, ConfigurationError
from cti_listener.wire.price import BAD, FRAME, HEADER, allowance

MAX_HEAD: Final = 64 * 1024
"""The longest command and headers taken, in bytes; brokers allow some 4 KiB."""

_CONNECTING: Final = frozenset({"CONNECT", "CONNECTED"})
"""Frames whose headers are never escaped, for the sake of 1.0 (STOMP 1.2, "Value Encoding")."""

_ESCAPED: Final = {"\\": "\\\\", "\n": "\\n", ":": "\\c", "\r": "\\r"}
_BLANK_LINE: Final = re.compile(rb"\n\r?\n")
_LINE_END: Final = b"\r\n"
_LINE_ENDS: Final = re.compile(rb"[\r\n]+")
_TOO_MUCH: Final = "more frames and headers than a message of its length may hold"
_NUL: Final = b"\0"
_BACKSLASH: Final = "\ud800"
"""Stands for one that an escape means, while the others are read."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame: its command, its headers unescaped (the first of each name), its body."""

    command: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class BadFrame:
    """Bytes up to a NUL that are no frame; several in a row are told as one.

    Attributes:
        detail: What is wrong, for a person.
        sample: Its first bytes.
        reason: `too_large` (the frame, or the message for what it holds), or `not_a_frame`.
        command: Its command and headers, where they could be read.
        headers: As above.
    """

    detail: str
    sample: bytes = b""
    reason: BadReason = "not_a_frame"
    command: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


Received = Frame | BadFrame


class _MalformedError(Exception):
    """What is wrong with the frame at hand; never leaves this module."""

    reason: BadReason = "not_a_frame"


class _TooLargeError(_MalformedError):
    """The frame at hand is longer than what is taken, or the message holds too much."""

    reason = "too_large"


@dataclass(slots=True)
class _Head:
    command: str
    headers: dict[str, str]
    length: int | None
    ends: int
    """Where the body begins, counted from the frame's first byte."""


class FrameDecoder:
    """Turns bytes into frames, whatever way they are cut.

    A message that holds more frames and headers than its length pays for (`wire.price`) is taken up
    to there; the rest of it is a `BadFrame`, and what comes after it is read again.

    Args:
        version: `1.0`, `1.1` or `1.2`; decides the escapes. Set anew once the server has chosen.
        max_size: The longest frame taken, in bytes; a longer one is a `BadFrame`.

    Attributes:
        heart_beats: How many ends of line came between frames.
        left: What the bytes taken last may hold besides, in bytes as `wire.price` counts them.
    """

    def __init__(self, version: str = "1.2", *, max_size: int = 4 * 2**20) -> None:
        """Start with no bytes."""
        self.version = version
        self.max_size = max_size
        self.heart_beats = 0
        self.left = 0
        self._buffer = bytearray()
        self._scanned = 0  # no need to look for the frame's end before this
        self._head: _Head | None = None
        self._skipping = False  # inside a bad frame whose NUL has not come
        self._frames: list[Received] = []

    @property
    def between_frames(self) -> bool:
        """Whether the next byte begins a frame."""
        return not self._buffer and not self._skipping

    def receive_data(self, data: bytes) -> None:
        """Take bytes as they came."""
        self.left = allowance(len(self._buffer) + len(data))
        if self._buffer:
            self._buffer += data
            taken = self._consume(self._buffer)
            del self._buffer[:taken]
        else:
            taken = self._consume(data)
            if taken < len(data):
                self._buffer += data[taken:]

    def frames_received(self) -> list[Received]:
        """Return what has come since the last call, in order."""
        frames, self._frames = self._frames, []
        return frames

    def _consume(self, data: bytes | bytearray) -> int:
        """Take every whole frame from the front of `data`; return how many bytes that was."""
        at = 0
        while at < len(data):
            end: int | None
            if self._skipping:
                end = self._skip(data, at)
            elif not self._head and data[at] in _LINE_END and (ends := _LINE_ENDS.match(data, at)):
                end = ends.end()
                self.heart_beats += data.count(b"\n", at, end)
            else:
                end = self._frame(data, at)
            if end is None:
                return at
            at = end
        return at

    def _frame(self, data: bytes | bytearray, at: int) -> int | None:
        """Take the frame that begins at `at`; return where it ends, None while it is incomplete."""
        try:
            head = self._head or self._find_head(data, at)
            if head is None:
                return None
            self._head = head
            end = self._find_end(data, at, head)
        except _MalformedError as error:
            return self._bad(data, at, error)
        if end is None:
            return None
        body = bytes(data[at + head.ends : end])
        self._frames.append(Frame(head.command, head.headers, body))
        self._head, self._scanned = None, 0
        return end + 1

    def _find_head(self, data: bytes | bytearray, at: int) -> _Head | None:
        nul = data.find(_NUL, at + self._scanned)
        limit = nul if nul >= 0 else len(data)
        blank = _BLANK_LINE.search(data, at + max(0, self._scanned - 2), limit)
        if blank is None and nul >= 0:
            raise _MalformedError("no blank line behind the headers")
        until = blank.start() if blank else limit
        self._scanned = until - at
        if self._scanned > MAX_HEAD:
            raise _MalformedError(f"headers above {MAX_HEAD} bytes")
        return self._read_head(bytes(data[at:until]), blank.end() - at) if blank else None

    def _read_head(self, head: bytes, ends: int) -> _Head:
        self.left -= FRAME + HEADER * head.count(b"\n")
        if self.left < 0:
            raise _TooLargeError(_TOO_MUCH)
        try:
            text = head.decode().replace("\r\n", "\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise _MalformedError(f"headers that are not UTF-8: {error.reason}") from None
        command, *lines = text.split("\n")
        strip = self.version == "1.0"
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon:
                raise _MalformedError("a header without a colon")
            if strip:
                name, value = name.strip(), value.strip()
            headers.setdefault(name, value)  # repeated: the first one counts (STOMP 1.2)
        if headers and "\\" in text and not strip and command not in _CONNECTING:
            names, values = self._unescape(list(headers)), self._unescape(list(headers.values()))
            headers = dict(zip(names, values, strict=True))
        length = headers.get("content-length")
        return _Head(command, headers, None if length is None else _read_length(length), ends)

    def _unescape(self, texts: list[str]) -> list[str]:
        """Read the escapes of all of them at once: there may be many thousands."""
        # No text holds a NUL, which ends a frame, nor half a character, which is no UTF-8.
        text = "\0".join(texts).replace("\\\\", _BACKSLASH)
        text = text.replace("\\n", "\n").replace("\\c", ":")
        if self.version == "1.2":
            text = text.replace("\\r", "\r")
        at = text.find("\\")
        if at >= 0:
            raise _MalformedError(f"an undefined escape {text[at : at + 2]!r}")
        return text.replace(_BACKSLASH, "\\").split("\0")

    def _find_end(self, data: bytes | bytearray, at: int, head: _Head) -> int | None:
        """Return where the frame's NUL is; None while it has not come."""
        if head.length is None:
            end = data.find(_NUL, at + max(head.ends, self._scanned))
            self._scanned = len(data) - at
        else:
            if head.ends + head.length > self.max_size:
                raise _TooLargeError(f"a frame above {self.max_size} bytes")
            end = at + head.ends + head.length
            if end >= len(data):
                return None
            if data[end]:
                raise _MalformedError("no NUL where content-length says")
        size = (end if end >= 0 else len(data)) - at
        if size > self.max_size:
            raise _TooLargeError(f"a frame above {self.max_size} bytes")
        return end if end >= 0 else None

    def _bad(self, data: bytes | bytearray, at: int, error: _MalformedError) -> int:
        self._tell_bad(error, data, at)
        self._head, self._scanned = None, 0
        self.left -= BAD
        if self.left < 0:  # go unread to the last frame, which may be whole one day
            self._tell_bad(_TooLargeError(_TOO_MUCH), data, at)
            self.left = allowance(0)
            at = max(at, data.rfind(_NUL))
        return self._skip(data, at)

    def _tell_bad(self, error: _MalformedError, data: bytes | bytearray, at: int) -> None:
        before = self._frames[-1] if self._frames else None
        detail, sample, reason = str(error), bytes(data[at : at + 200]), error.reason
        if self._head is not None and reason == "too_large":  # it may have to be acknowledged
            head = self._head
            self._frames.append(BadFrame(detail, sample, reason, head.command, head.headers))
        elif not (isinstance(before, BadFrame) and before.reason == reason):
            self._frames.append(BadFrame(detail, sample, reason))

    def _skip(self, data: bytes | bytearray, at: int) -> int:
        end = data.find(_NUL, at)
        self._skipping = end < 0
        return len(data) if end < 0 else end + 1


def _read_length(text: str) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) < 12):  # noqa: PLR2004 - below 1 TB
        raise _MalformedError(f"content-length {text[:20]!r}")
    return int(text)


def encode(frame: Frame, version: str = "1.2") -> bytes:
    """Turn a frame into bytes; a body gets its `content-length`.

    Raises:
        ConfigurationError: A header cannot be written in this version: a line break or a
            colon in a name where they cannot be escaped, a NUL, a lone surrogate.
    """
    raw = version == "1.0" or frame.command in _CONNECTING
    lines = [frame.command, *_header_lines(frame.headers, raw=raw, version=version)]
    if frame.body and "content-length" not in frame.headers:
        lines.append(f"content-length:{len(frame.body)}")
    return b"".join((("\n".join(lines) + "\n\n").encode(), frame.body, _NUL))


def _header_lines(headers: Mapping[str, str], *, raw: bool, version: str) -> Iterator[str]:
    for name, value in headers.items():
        forbidden = "\0" + ("\n\r" if raw else "" if version == "1.2" else "\r")
        odd = any(c in forbidden or "\ud800" <= c <= "\udfff" for c in name + value)
        if odd or (raw and ":" in name):
            raise ConfigurationError(
                f"STOMP header {name!r}", f"has a character that STOMP {version} cannot carry there"
            )
        yield f"{name}:{value}" if raw else f"{_escape(name)}:{_escape(value)}"


def _escape(text: str) -> str:
    if text.isalnum():
        return text
    return "".join(_ESCAPED.get(c, c) for c in text)
