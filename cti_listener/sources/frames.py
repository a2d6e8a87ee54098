"""WebSocket frames (RFC 6455, 5.2), cut out of what a read brings where they are plain.

Nearly every frame of a CTI server is: one text message, whole, neither compressed nor masked. Such
is told by its first byte and cut out by its length, for a tenth of what `websockets` takes for any
frame. All others are left to it, and so is every decision on what is right: this room only counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

PLAIN: Final = frozenset((0x81, 0x82))
"""The first byte of a plain frame: the first and last of its message, of text or binary."""

TWO_BYTES: Final = 126
EIGHT_BYTES: Final = 127
"""In place of a length: it stands in so many bytes behind (5.2)."""

ENDLESS: Final = 1 << 64
"""Of a masked frame's length: a server may not mask (5.1), so nothing behind it is read."""

KEPT: Final = 4096
"""Of a frame longer than this, in bytes, what is there is left to `websockets` at once.

A shorter one waits here for the rest of it, and is copied with every read until that comes.
"""


class Frames:
    """Takes bytes; hands over plain messages, and leaves all other frames.

    Args:
        take: Called with each plain message.
        leave: Called with all other bytes, in order, and before any plain frame that stands behind
            them; tells whether plain frames may follow: not within a fragmented message.
        max_size: A longer message is left, in bytes.
    """

    def __init__(
        self, take: Callable[[bytes], None], leave: Callable[[bytes], bool], *, max_size: int
    ) -> None:
        """Begin between two frames."""
        self._take = take
        self._leave = leave
        self._max_size = max_size
        self._rest = b""  # the beginning of a frame
        self._owed = 0  # so much of a frame, of which the beginning was left, is yet to come
        self._plain = True

    @property
    def whole(self) -> bool:
        """Whether no frame came in part."""
        return not self._rest and not self._owed

    def receive_data(self, data: bytes) -> None:
        """Take what a read brings."""
        if self._owed:
            owed, size = self._owed, len(data)
            self._owed = max(0, owed - size)
            if size <= owed:
                self._plain = self._leave(data)
                return
            self._plain = self._leave(data[:owed])
            data = data[owed:]
        if self._rest:
            data = self._rest + data
        start = self._cut(data)
        self._rest = data[start:]

    def _cut(self, data: bytes) -> int:
        """Take or leave all frames there are; return where one begins that has to wait."""
        take, start, end = self._take, 0, len(data)
        while start + 1 < end:
            begin, size = start + 2, data[start + 1]
            if size == TWO_BYTES and begin + 2 <= end:
                begin, size = start + 4, data[start + 2] << 8 | data[start + 3]
            elif size >= TWO_BYTES:
                begin, size = _head(data, start)
            after = begin + size
            if not self._plain or data[start] not in PLAIN or size > self._max_size:
                after = self._leave_others(data, start)
            elif after <= end:
                take(data[begin:after])
            elif size > KEPT:
                after = self._leave_others(data, start)
            else:
                return start
            if after == start:
                return start
            start = after
        return start

    def _leave_others(self, data: bytes, start: int) -> int:
        """Leave a frame, and what follows up to the next plain one; return where that is."""
        after, end = start, len(data)
        while after + 1 < end and (after == start or data[after] not in PLAIN):
            begin, size = _head(data, after)
            if begin > end:
                break
            after = begin + size
        if after > end:
            self._owed = after - end
            after = end
        if start < after:
            self._plain = self._leave(data[start:after])
        return after


def _head(data: bytes, start: int) -> tuple[int, int]:
    """Return where the payload of any frame begins, and how long it is, if that is there."""
    size = data[start + 1]
    if size < TWO_BYTES:
        return start + 2, size
    if size == TWO_BYTES:
        return start + 4, int.from_bytes(data[start + 2 : start + 4])
    if size == EIGHT_BYTES:
        return start + 10, int.from_bytes(data[start + 2 : start + 10])
    return start + 2, ENDLESS
