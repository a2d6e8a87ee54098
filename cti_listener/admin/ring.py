"""The ring: what was handed over last, for all who read along.

What is handed over is put here once, as cheaply as an append, whoever reads and however slowly; it
is written as JSON when the first reader comes to it, and once. With nobody reading nothing is put.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from cti_listener.admin.showing import Shown, to_json
from cti_listener.event_base import Event
from cti_listener.listener import Listener
from cti_listener.notices import Notice
from cti_listener.streams import Tail

SIZE: Final = 4096
"""How many happenings the ring holds; a power of two."""

_MASK: Final = SIZE - 1

TICK: Final = 0.05
"""Readers are woken so often at most, in seconds."""


class Ring:
    """What was handed over last, for as long as anybody reads.

    Args:
        listener: Whose.
        shown: What may be shown of it.

    Attributes:
        end: How many happenings were put into it; each has its number below.
        over: Nothing more will come.
        lost: How many happenings readers lost, all of them together.
        readers: How many there are.
    """

    def __init__(self, listener: Listener, shown: Shown) -> None:
        """Hold nothing; nobody reads."""
        self.end = self.lost = self.readers = 0
        self.over = False
        self._listener = listener
        self._shown = shown
        self._tail: Tail | None = None
        self._items: list[Event | Notice | None] = [None] * SIZE
        self._seqs = [0] * SIZE
        self._texts: list[bytes | None] = [None] * SIZE
        self._waiting: list[asyncio.Future[None]] = []
        self._woken = False

    def __repr__(self) -> str:
        return f"<Ring {self.end} put, {self.readers} readers, {self.lost} lost>"

    # Filling

    def enter(self) -> None:
        """Take a reader in; the first one opens the tap.

        Raises:
            NotRunningError: The listener is stopped.
        """
        if self._tail is None:
            self._tail = self._listener.tail(self._take, self.close)
        self.readers += 1

    def leave(self) -> None:
        """Let a reader go; with the last one nothing more costs anything."""
        self.readers -= 1
        if not self.readers and self._tail is not None:
            self._tail.close()
            self._tail = None
            self._items = [None] * SIZE
            self._texts = [None] * SIZE

    def close(self) -> None:
        """Say that nothing more will come."""
        self.over = True
        self._wake()

    def _take(self, happening: Event | Notice, seq: int) -> None:
        at = self.end & _MASK
        self._items[at] = happening
        self._seqs[at] = seq
        self._texts[at] = None
        self.end += 1
        if self._waiting and not self._woken:
            self._woken = True
            asyncio.get_running_loop().call_later(TICK, self._wake)

    # Reading

    def begin(self) -> int:
        """Return the number of the oldest that is there."""
        return max(0, self.end - SIZE)

    def at(self, number: int) -> tuple[Event | Notice, int]:
        """Return one that is there, and its place in the journal; 0: it has none."""
        item = self._items[number & _MASK]
        assert item is not None  # noqa: S101 - for the type checker
        return item, self._seqs[number & _MASK]

    def text(self, number: int) -> bytes:
        """Return one that is there as it is sent: written once, for all readers."""
        at = number & _MASK
        text = self._texts[at]
        if text is None:
            item, seq = self.at(number)
            received = item.as_received() if isinstance(item, Event) else item.as_wire()
            text = self._texts[at] = message(self._shown.body(received), seq)
        return text

    async def changed(self, number: int, timeout: float) -> bool:
        """Wait until there is more than up to this number; tell whether there is, in time."""
        if self.end > number or self.over:
            return True
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        await asyncio.wait((waiter,), timeout=timeout)
        if not waiter.done():
            self._waiting.remove(waiter)
        return waiter.done()

    def _wake(self) -> None:
        self._woken = False
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.done():
                one.set_result(None)


def message(body: dict[str, Any], seq: int) -> bytes:
    """Write an event or a notice; with its place in the journal, if it has one."""
    head = b"id: %d\n" % seq if seq else b""
    return b"%sdata: %s\n\n" % (head, to_json(body))


def said(name: str, body: dict[str, Any], seq: int | None = None) -> bytes:
    """Write what is said of the stream itself."""
    head = b"" if seq is None else b"id: %d\n" % seq
    return b"event: %s\n%sdata: %s\n\n" % (name.encode(), head, to_json(body))
