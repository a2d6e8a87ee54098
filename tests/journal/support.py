"""What the journal's tests share: entries, and a journal that is open for the length of a block."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cti_listener.clock import Clock
from cti_listener.journal import Entry, Journal, Opened, encode, rows, visits
from cti_listener.notices import Gap
from cti_listener.testing import START, ManualClock
from cti_listener.values import EventKey, identity, routing_key

NAMESPACE = "zhen04.cc"

A_GAP = Gap(
    at=START,
    id=1,
    since=START,
    until=START + timedelta(seconds=5),
    reason="half_open",
    last_before=EventKey(NAMESPACE, "csta", "d0", 1, "delivered", None, "call-0"),
)


@dataclass(slots=True, kw_only=True)
class Sent:
    """An event that is put into the journal; `seq` is 0 until it is committed."""

    payload: dict[str, Any]
    device: str | None
    call: str | None
    received_at: datetime
    owed: tuple[str, ...]
    late: bool
    feed: str = "a"
    seq: int = 0

    @property
    def hash(self) -> int:
        """By which it is told from others."""
        return hash(identity(self.payload, routing_key(self.payload)))

    def as_found(self, *, redelivered: bool = False) -> Entry:
        """Return what comes back from disk."""
        return Entry(
            seq=self.seq,
            device=self.device,
            call=self.call,
            received_at=self.received_at,
            feed=self.feed,
            payload=self.payload,
            redelivered=redelivered,
            late=self.late,
        )


def entry(number: int, **given: Any) -> Sent:
    device = given.pop("device", f"{8000 + number % 4}@{NAMESPACE}")
    call = given.pop("call", f"call-{number // 8}")
    payload = {"eventName": "delivered", "serial": number, "callId": call, "srcDeviceId": device}
    return Sent(
        device=device,
        call=call,
        received_at=given.pop("at", ManualClock().now()),
        payload={**payload, **given.pop("payload", {})},
        owed=given.pop("owed", ("work",)),
        late=given.pop("late", False),
        **given,
    )


class Held(Journal):
    """A journal that keeps what it was told, and can be waited for."""

    def __init__(self, path: Path, *, clock: Clock | None = None, **options: Any) -> None:
        super().__init__(path, clock=clock or ManualClock(), **options)
        self.groups: list[list[Sent]] = []
        self.retries: list[tuple[str, Entry]] = []
        self.failures: list[BaseException] = []
        self.opened: Opened
        self.committed = self._keep
        self.retried = self.retries.extend
        self.failed = self.failures.append

    @property
    def entries(self) -> list[Sent]:
        return [one for group in self.groups for one in group]

    @property
    def owed(self) -> int:
        """How much was unfinished when it was opened."""
        return sum(
            len(seqs) for lanes in self.opened.unfinished.values() for seqs in lanes.values()
        )

    def _keep(self, first: int, group: list[Sent]) -> None:
        for seq, one in enumerate(group, first):
            one.seq = seq
        self.groups.append(group)

    def add(self, one: Sent, text: bytes | None = None) -> None:
        """Append an event; `text` is how it came, where that is not as we would write it."""
        self.append(
            one,
            device=one.device,
            call=one.call,
            received_at=one.received_at,
            feed=one.feed,
            text=text or encode(one.payload),
            owed=one.owed,
            late=one.late,
        )

    async def settle(self) -> None:
        """Wait until everything that was asked for is on disk, or failed."""
        async with asyncio.timeout(10):
            await asyncio.sleep(0)
            while (self._busy or self._pending.urgent) and not self.failures:  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    async def undone(self, handler: str = "work", device: str | None = None) -> list[int]:
        """Return what a handler has yet to do, of one device or all, as it stands on disk."""
        return await asyncio.to_thread(undone_in, self.path, handler, device)


def undone_in(path: Path, handler: str, device: str | None = None) -> list[int]:
    with closing(sqlite3.connect(path)) as db:
        (number,) = db.execute("SELECT id FROM handler WHERE name = ?", (handler,)).fetchone()
        found = db.execute(rows.undone("seq, device"), rows.undone_between(number)).fetchall()
    return [seq for seq, of in found if device in (None, of)]


def damage(path: Path) -> None:
    """Overwrite the heads of all pages but the first three."""
    damaged = bytearray(path.read_bytes())
    for page in range(3, len(damaged) // 4096):
        damaged[page * 4096 : page * 4096 + 64] = b"\x55" * 64
    path.write_bytes(damaged)


def retry_all(path: Path) -> None:
    with visits.visit(path, write=True) as db:
        assert visits.retry(db)


@asynccontextmanager
async def journal(
    path: Path, handlers: Sequence[str] = ("work",), **options: Any
) -> AsyncIterator[Held]:
    made = Held(path, **options)
    made.opened = await made.open(handlers)
    try:
        yield made
    finally:
        await made.close()
