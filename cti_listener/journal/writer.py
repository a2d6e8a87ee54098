"""The writer: everything that changes the journal, one transaction a batch, in a thread of its own.

It knows no event loop; `store` hands it batches and tells the loop what became of them.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

from cti_listener.clock import FOREVER, Clock
from cti_listener.errors import JournalError
from cti_listener.journal import gap_rows, rows, schema
from cti_listener.journal.base import COLUMNS, Batch, DamagedError, Entry, Opened, explained
from cti_listener.journal.lock import Identity, Lock, identity
from cti_listener.journal.registry import Registry
from cti_listener.journal.upkeep import Upkeep, first_since
from cti_listener.log import log
from cti_listener.notices import Gap

Synchronous = Literal["full", "normal"]

CHECKPOINT: Final = 4000
"""After about so many pages the write-ahead log is brought into the file."""

NEARLY_FULL: Final = 0.8

AWAITING: Final = 100
"""How many gaps at most are told that have had no event since."""

OVERHEAD: Final = 2000
"""How many bytes an event or a dead letter takes at most, beside twice its text."""

_EVENT: Final = rows.Insert(
    f"INSERT INTO event (digest, {rows.EVENT_COLUMNS}) SELECT 0, column1, column2, column3,"
    " column4, column5, column6, CAST(column7 AS TEXT)",
    COLUMNS,
)


Retried = tuple[str, Entry]


@dataclass(frozen=True, slots=True)
class Landed:
    """What a commit left behind, for the loop.

    Attributes:
        first: The number of the first event that was appended; the others follow one by one.
        retried: Dead letters that are to be tried once more, each with its handler's name; their
            numbers are lower.
        last_seq: The newest event's.
        bytes: The file's size.
        oldest_undone: When the oldest event came that is not done.
        oldest_undone_by: Which handler has yet to do it.
        dead: How many dead letters there are.
    """

    first: int
    retried: list[Retried]
    last_seq: int
    bytes: int = 0
    oldest_undone: datetime | None = None
    oldest_undone_by: str | None = None
    dead: int = 0


def _files_of(path: Path) -> dict[Path, Identity]:
    """Return what a journal that is open is made of, and what tells each file from others.

    SQLite keeps two beside it, and empties them at times, but they stay while a connection is open.
    What was committed last is in the one, and what visits must wait for in the other.
    """
    real = path.resolve()
    beside = [real.with_name(f"{real.name}{ending}") for ending in ("-wal", "-shm")]
    return {one: known for one in (path, *beside) if (known := identity(one)) is not None}


_SIGN: Final = "UPDATE state SET last_sign = max(coalesce(last_sign, 0), ?)"


class Writer:
    """Owns the file.

    Args:
        path: The journal.
        synchronous: `full`: what is committed outlives a power cut; `normal`: a crash.
        retention: How long what is done stays, in seconds.
        max_size: The size limit, in bytes.
        remember: Events that came so many seconds before the last one are told as seen.
        most: So many at most: the last.
        clock: The one clock.
    """

    def __init__(
        self,
        path: Path,
        synchronous: Synchronous,
        *,
        retention: float,
        max_size: int,
        remember: float,
        most: int,
        clock: Clock,
    ) -> None:
        """Open nothing yet."""
        self._path = path
        self._synchronous = synchronous
        self._max_size = max_size
        self._remember = remember
        self._most = most
        self._clock = clock
        self._lock = Lock(path)
        self._upkeep = Upkeep(retention, clock)
        self._db: sqlite3.Connection
        self._files: dict[Path, Identity] = {}
        self._debts: Registry
        self._last_seq = 0
        self._version = -1  # changes when another process commits
        self._dirty = 0
        self._grown = 0  # since the room was measured, at the most
        self._warned = False

    # Opening

    def open(self, handlers: Sequence[str]) -> Opened:
        """Lock the file, check it, register the handlers, tell what it knows.

        Raises:
            JournalError: It cannot be used as it is.
        """
        try:
            schema.see_place(self._path)
            self._lock.take()
            schema.make(self._path)
            self._lock.take_file()
            self._db = schema.open_to_write(self._path)
            try:
                self._begin(handlers)
                self._files = _files_of(self._path)
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
        (self._last_seq,) = db.execute(f"SELECT {rows.LAST_SEQ}").fetchone()
        for damaged in rows.odd_books(db):
            raise damaged
        self._debts = Registry(db, self._clock)
        db.execute("BEGIN IMMEDIATE")
        self._mind_clock()
        db.execute("UPDATE handler SET active = 0")
        for name in handlers:
            self._debts.register(name, self._last_seq)
        self._take_retries()
        self._upkeep.look(db)
        db.execute("COMMIT")

    def _mind_clock(self) -> None:
        """Mistrust a last sign of life that has yet to come: the clock was set back since.

        How far, and so since when nobody has listened, is not known. It is taken to lie as far back
        as it lies ahead, and no queue to have been empty. What is kept for ever goes by no clock.
        """
        db, now = self._db, self._clock.now()
        sign = rows.state_of(db).last_sign
        if sign is not None and sign > now:
            since = rows.stamp(self._come(sign, "the state", "last_sign"))
            db.execute("UPDATE state SET last_sign = ?", (since,))
            forever = rows.stamp(FOREVER)
            db.execute("DELETE FROM queue WHERE emptied < ?", (forever,))
            log.warning("clock_set_back", seconds=round((sign - now).total_seconds(), 3))

    def _come(self, at: datetime, row: str, name: str) -> datetime:
        """Return a time; of one that has yet to come, the one as far back as it lies ahead."""
        now = self._clock.now()
        return at if at <= now else rows.time_of(2 * rows.stamp(now) - rows.stamp(at), row, name)

    def _opened(self) -> Opened:
        db = self._db
        (last_gap,) = db.execute("SELECT coalesce(max(id), 0) FROM gap").fetchone()
        gaps = db.execute("SELECT id, body FROM gap WHERE until IS NULL ORDER BY id").fetchall()
        open_gaps = [gap_rows.gap_of(*gap) for gap in gaps]
        state = rows.state_of(db)
        unfinished, absent = self._debts.unfinished()
        for name, count in absent.items():
            log.warning("journal_handler_absent", handler=name, unfinished=count)
        return Opened(
            last_sign=state.last_sign,
            unfinished=unfinished,
            absent=absent,
            last_seq=self._last_seq,
            latest=rows.latest(db),
            last_gap=last_gap,
            awaiting=self._awaiting(),
            open_gaps=tuple(
                replace(gap, since=self._come(gap.since, f"gap {gap.id}", "since"))
                for gap in open_gaps
            ),
            queues_emptied=rows.queues_of(db),
            seats=rows.seats_of(db),
            seen=self._seen(),
            tracked=state.tracked,
            tracked_seq=state.tracked_seq,
            identity=state.identity,
        )

    def _awaiting(self) -> tuple[Gap, ...]:
        """Find the gaps that are over and have had no event since: all behind the last that had.

        A purge may have erased which one that was.
        """
        query = (
            "SELECT id, body FROM gap WHERE until >= coalesce((SELECT received_at FROM event"
            " WHERE NOT redelivered AND feed <> '' ORDER BY seq DESC LIMIT 1), 0)"
            " ORDER BY until DESC, id DESC LIMIT ?"
        )
        found: list[Gap] = []
        with suppress(DamagedError):  # nothing goes by a gap that is over
            for row in self._db.execute(query, (AWAITING,)):
                gap = gap_rows.gap_of(*row)
                if gap.first_after is not None:
                    break
                found.append(gap)
        return tuple(reversed(found))

    def _seen(self) -> array[int]:
        """Find out what a repeat may yet come of."""
        query = "SELECT received_at - ? FROM event WHERE NOT redelivered ORDER BY seq DESC LIMIT 1"
        # Where there are only dead letters that were brought back, each may be repeated yet.
        (since,) = self._db.execute(query, (self._remember,)).fetchone() or (0.0,)
        return rows.seen(self._db, first_since(self._db, since), self._most)

    # Committing

    def commit(self, batch: Batch) -> Landed:
        """Write a batch in one transaction, all or nothing.

        Raises:
            JournalError: The disk is full, the limit reached, the file damaged, locked or gone.
        """
        try:
            self._mind_room(batch)
            first, retried = self._commit(batch)
        except BaseException as error:
            with suppress(sqlite3.Error):
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise explained(self._path, error) from error
            raise
        return self.landed(first, retried)

    def landed(self, first: int, retried: list[Retried]) -> Landed:
        """Return how things stand, after these were committed."""
        upkeep = self._upkeep
        return Landed(
            first,
            retried,
            self._last_seq,
            upkeep.bytes,
            upkeep.oldest_undone,
            upkeep.oldest_undone_by,
            upkeep.dead,
        )

    def _commit(self, batch: Batch) -> tuple[int, list[Retried]]:
        """Write a batch; each statement hands the interpreter's lock over, so they are few."""
        db, debts = self._db, self._debts
        version = self._version
        if batch.look:
            self._mind_files()
            (version,) = db.execute("PRAGMA data_version").fetchone()
        visited = version != self._version
        if not (batch.urgent or batch.sign or visited or self._upkeep.due):
            return 0, []
        db.execute("BEGIN IMMEDIATE")
        retried = self._take_retries() if visited else []
        first = self._insert(batch)
        for name, seq, error in batch.dead:
            debts.bury(name, seq, error, self._last_seq)
        debts.mark(batch.marks, self._last_seq)
        self._note_gaps(batch)
        self._note_queues(batch)
        self._note_seats(batch)
        if batch.tracked is not None:
            known, count = batch.tracked
            seq = first + count - 1
            db.execute("UPDATE state SET tracked = ?, tracked_seq = ?", (known, seq))
        if batch.sign is not None:
            sign = rows.stamp(batch.sign)
            db.execute(_SIGN, (sign,))
        if self._upkeep.due:
            self._upkeep.step(db, batch.events)
        db.execute("COMMIT")
        marks = sum(map(len, batch.marks.values()))
        self._dirty += 6 + batch.events // 4 + min(marks, 64)  # about so many pages
        if not visited or not debts.asked_for():
            self._version = version
        return first, retried

    def _insert(self, batch: Batch) -> int:
        """Append the events; return the first one's number."""
        flat, columns = batch.rows, _EVENT.columns
        wanted = slice(rows.WANTED, None, columns)
        flat[wanted] = self._debts.all_wanted(flat[wanted], self._last_seq)
        first = self._last_seq + 1
        self._last_seq = rows.insert_many(self._db, _EVENT, flat) or self._last_seq
        return first

    def _take_retries(self) -> list[Retried]:
        """Append the dead letters to be tried once more, as new events of one handler."""
        entries: list[Retried] = []
        for letter, name in self._debts.asked_for():
            found = self._debts.bring_back(letter, name)
            if isinstance(found, Entry):
                entries.append((name, found))
                self._last_seq = found.seq
            else:
                log.error(
                    "journal_letter_unreadable",
                    path=str(self._path),
                    letter=letter,
                    handler=name,
                    problem=found.problem,
                )
        return entries

    def _note_gaps(self, batch: Batch) -> None:
        db = self._db
        for number, gap in batch.gaps.items():
            until = None if gap.until is None else rows.stamp(gap.until)
            kept = db.execute("SELECT body FROM gap WHERE id = ?", (number,)).fetchone()
            body = gap_rows.gap_body(gap if kept is None else gap_rows.without_erased(gap, *kept))
            db.execute("REPLACE INTO gap VALUES (?, ?, ?)", (number, until, body))

    def _note_queues(self, batch: Batch) -> None:
        for name, at in batch.queues.items():
            if at is None:
                self._db.execute("DELETE FROM queue WHERE name = ?", (name,))
            else:
                self._db.execute("REPLACE INTO queue VALUES (?, ?)", (name, rows.stamp(at)))

    def _note_seats(self, batch: Batch) -> None:
        for agent, seat in batch.seats.items():
            if seat is None:
                self._db.execute("DELETE FROM seat WHERE agent = ?", (rows.storable(agent),))
            else:
                row = [rows.storable(one) for one in (agent, *seat)]
                self._db.execute("REPLACE INTO seat VALUES (?, ?, ?)", row)

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

    def _mind_files(self) -> None:
        """See that what is written can be found again: a file without a name is nobody's journal.

        Raises:
            JournalError: The file was removed, or one beside it, or another has its place.
        """
        for one, known in self._files.items():
            if identity(one) != known:
                with suppress(sqlite3.Error):  # what is in a log without a name would be lost
                    self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                which = "" if one == self._path else f"{one.name} beside it "
                raise JournalError(
                    self._path,
                    f"{which}was removed or replaced while it was written;"
                    " stop the listener before that",
                )

    def _mind_room(self, batch: Batch) -> None:
        """Say that the limit is near, before it is met; measure only where it may be."""
        texts = batch.rows[rows.PAYLOAD :: COLUMNS]
        more = sum(map(len, texts)) + sum(len(error) for _, _, error in batch.dead)
        self._grown += 2 * more + OVERHEAD * (batch.events + len(batch.dead))
        near = NEARLY_FULL * self._max_size
        if self._upkeep.used + self._grown < near and not self._warned:
            return
        self._grown = 0
        used = self._upkeep.room_taken(self._db) + more
        if used >= near and not self._warned:
            log.warning(
                "journal_nearly_full",
                path=str(self._path),
                used=used,
                limit=self._max_size,
                advice="a handler is behind, or the limit too low; at the limit the run ends",
            )
        self._warned = used >= near

    def close(self) -> None:
        """Close the file and give the lock back."""
        with suppress(sqlite3.Error):
            self._db.close()
        self._lock.release()
