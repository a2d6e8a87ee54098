"""The writer: everything that changes the journal, one transaction a batch, in a thread of its own.

It knows no event loop; `store` hands it batches and tells the loop what became of them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

from cti_listener.clock import Clock
from cti_listener.journal import rows, schema
from cti_listener.journal.base import Batch, Entry, Opened, explained
from cti_listener.journal.registry import DEATHS, Registry
from cti_listener.journal.upkeep import Upkeep
from cti_listener.log import log

Synchronous = Literal["full", "normal"]

SEEN: Final = 200_000
"""How many digests are told at the start."""

CHECKPOINT: Final = 4000
"""After about so many pages the write-ahead log is brought into the file."""

NEARLY_FULL: Final = 0.8


@dataclass(frozen=True, slots=True)
class Landed:
    """What a commit left behind, for the loop.

    Attributes:
        entries: What is committed: retried dead letters first, then what was appended.
        last_seq: The newest event's.
        bytes: The file's size.
        oldest_undone: When the oldest event came that is not done.
        dead: How many dead letters there are.
    """

    entries: list[Entry]
    last_seq: int
    bytes: int = 0
    oldest_undone: datetime | None = None
    dead: int = 0


class Writer:
    """Owns the file.

    Args:
        path: The journal.
        synchronous: `full`: what is committed outlives a power cut; `normal`: a crash.
        retention: How long what is done stays, in seconds.
        max_size: The size limit, in bytes.
        clock: The one clock.
    """

    def __init__(
        self, path: Path, synchronous: Synchronous, retention: float, max_size: int, clock: Clock
    ) -> None:
        """Open nothing yet."""
        self._path = path
        self._synchronous = synchronous
        self._max_size = max_size
        self._clock = clock
        self._lock = schema.Lock(path)
        self._upkeep = Upkeep(retention, clock)
        self._db: sqlite3.Connection
        self._debts: Registry
        self._last_seq = 0
        self._last_sign: float | None = None
        self._version = -1  # changes when another process commits
        self._dirty = 0
        self._warned = False

    # Opening

    def open(self, handlers: Sequence[str]) -> Opened:
        """Lock the file, check it, register the handlers, tell what it knows.

        Raises:
            JournalError: It cannot be used as it is.
        """
        try:
            self._lock.take()
            self._db = schema.open_to_write(self._path)
            try:
                self._begin(handlers)
                return self._opened()
            except BaseException:
                self._db.close()
                raise
        except (sqlite3.Error, OSError) as error:
            self._lock.release()
            raise explained(self._path, error) from error
        except BaseException:
            self._lock.release()
            raise

    def _begin(self, handlers: Sequence[str]) -> None:
        db = self._db
        db.execute(f"PRAGMA synchronous = {self._synchronous.upper()}")
        db.execute("PRAGMA wal_autocheckpoint = 0")  # done by tend(), when nobody waits
        db.execute("PRAGMA secure_delete = ON")  # what was deleted is not to be found in the file
        (size,) = db.execute("PRAGMA page_size").fetchone()
        db.execute(f"PRAGMA max_page_count = {max(1, self._max_size // size)}")
        state = db.execute("SELECT last_seq, last_sign FROM state").fetchone()
        self._last_seq, self._last_sign = state
        self._debts = Registry(db, self._clock)
        db.execute("BEGIN IMMEDIATE")
        db.execute("UPDATE handler SET active = 0")
        for name in handlers:
            self._debts.register(name, self._last_seq)
        self._take_retries()
        self._set_state()
        self._upkeep.look(db)
        db.execute("COMMIT")

    def _opened(self) -> Opened:
        db = self._db
        digests = db.execute(
            "SELECT digest FROM event WHERE seq >= ? ORDER BY seq DESC LIMIT ?",
            (self._upkeep.first_young(db), SEEN),
        ).fetchall()
        (last_gap,) = db.execute("SELECT coalesce(max(id), 0) FROM gap").fetchone()
        gaps = db.execute("SELECT body FROM gap WHERE until IS NULL ORDER BY id").fetchall()
        unfinished, absent = self._debts.unfinished()
        for name, count in absent.items():
            log.warning("journal_handler_absent", handler=name, unfinished=count)
        return Opened(
            last_sign=None if self._last_sign is None else rows.time_of(self._last_sign),
            unfinished=unfinished,
            absent=absent,
            last_seq=self._last_seq,
            last_event=rows.last_payload(db),
            last_gap=last_gap,
            open_gaps=tuple(rows.gap_of(body) for (body,) in gaps),
            seen=tuple(one for (one,) in reversed(digests)),
            queues_emptied={
                name: rows.time_of(at) for name, at in db.execute("SELECT name, emptied FROM queue")
            },
        )

    # Committing

    def commit(self, batch: Batch) -> Landed:
        """Write a batch in one transaction, all or nothing.

        Raises:
            JournalError: The disk is full, the limit reached, the file damaged or locked.
        """
        try:
            self._warn_if_nearly_full(sum(map(len, batch.texts)))
            entries = self._commit(batch)
        except BaseException as error:
            with suppress(sqlite3.Error):
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise explained(self._path, error) from error
            raise
        return self.landed(entries)

    def landed(self, entries: list[Entry]) -> Landed:
        """Return how things stand, after these were committed."""
        upkeep = self._upkeep
        return Landed(entries, self._last_seq, upkeep.bytes, upkeep.oldest_undone, upkeep.dead)

    def _commit(self, batch: Batch) -> list[Entry]:
        db = self._db
        (version,) = db.execute("PRAGMA data_version").fetchone()
        idle = not batch.urgent and batch.sign is None
        if idle and version == self._version and not self._upkeep.due:
            return []
        db.execute("BEGIN IMMEDIATE")
        retried = self._take_retries() if version != self._version else []
        self._insert(batch.entries, batch.texts)
        for name, seq, error in batch.dead:
            self._debts.bury(name, seq, error, self._last_seq)
        self._debts.mark(batch.marks, self._last_seq)
        for number, gap in batch.gaps.items():
            until = None if gap.until is None else rows.stamp(gap.until)
            db.execute("REPLACE INTO gap VALUES (?, ?, ?)", (number, until, rows.gap_body(gap)))
        self._note_queues(batch)
        self._note_life(batch)
        self._set_state()
        if self._upkeep.due:
            self._upkeep.step(db, len(batch.entries))
        db.execute("COMMIT")
        self._dirty += len(batch.entries) + len(batch.marks) + 4
        if len(retried) < DEATHS:
            self._version = version
        return retried + batch.entries

    def _insert(self, entries: list[Entry], texts: list[str]) -> None:
        flat: list[Any] = []
        before = seq = self._last_seq
        wanted = self._debts.wanted
        for entry, text in zip(entries, texts, strict=True):
            seq += 1
            entry.seq = seq
            flat += (
                seq,
                entry.digest,
                entry.device,
                entry.call,
                rows.stamp(entry.received_at),
                entry.feed,
                wanted(entry.owed, before),
                entry.redelivered,
                entry.late,
                text,
            )
        rows.insert_many(self._db, f"INSERT INTO event ({rows.EVENT_COLUMNS})", 10, flat)
        self._last_seq = seq

    def _take_retries(self) -> list[Entry]:
        """Append the dead letters to be tried once more, as new events of one handler."""
        found = self._debts.exhume()
        entries = [rows.entry_of(row, (name,), 0) for name, *row in found]
        self._insert(entries, [row[-1] for row in found])
        return entries

    def _note_queues(self, batch: Batch) -> None:
        for name, at in batch.queues.items():
            if at is None:
                self._db.execute("DELETE FROM queue WHERE name = ?", (name,))
            else:
                self._db.execute("REPLACE INTO queue VALUES (?, ?)", (name, rows.stamp(at)))

    def _note_life(self, batch: Batch) -> None:
        """An event is a sign of life as well."""
        signs = [] if batch.sign is None else [rows.stamp(batch.sign)]
        if batch.entries:
            signs.append(rows.stamp(batch.entries[-1].received_at))
        if self._last_sign is not None:
            signs.append(self._last_sign)
        self._last_sign = max(signs, default=None)

    def _set_state(self) -> None:
        self._db.execute(
            "UPDATE state SET last_seq = ?, last_sign = ?", (self._last_seq, self._last_sign)
        )

    # Between two commits

    def tend(self) -> None:
        """Bring the write-ahead log into the file, now and then.

        Raises:
            JournalError: The disk fails.
        """
        if self._dirty < CHECKPOINT:
            return
        self._dirty = 0
        try:
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error as error:
            raise explained(self._path, error) from error

    def _warn_if_nearly_full(self, more: int) -> None:
        """Say that the limit is near, before it is met.

        Args:
            more: How many bytes of events are about to be written.
        """
        used = self._upkeep.room_taken(self._db) + more
        nearly = used >= NEARLY_FULL * self._max_size
        if nearly and not self._warned:
            log.warning(
                "journal_nearly_full",
                path=str(self._path),
                used=used,
                limit=self._max_size,
                advice="a handler is behind, or the limit too low; at the limit the run ends",
            )
        self._warned = nearly

    def close(self) -> None:
        """Close the file and give the lock back."""
        with suppress(sqlite3.Error):
            self._db.close()
        self._lock.release()
