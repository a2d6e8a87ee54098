"""What goes into the journal and comes out of it, and what can go wrong with it.

Everyone who speaks with the journal takes these from `cti_listener.journal`.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

from cti_listener.errors import JournalError
from cti_listener.histogram import Distribution, Histogram
from cti_listener.notices import Gap
from cti_listener.values import EventKey

NO_DEVICE: Final = ""
"""The lane of events without a device; no device is named so. None is the lane of all devices."""

OURS: Final = ""
"""The feed of what the listener itself derived from events; no connection is named so."""

COLUMNS: Final = 7
"""How many columns of an event the loop hands to the writer: `rows.EVENT_COLUMNS`."""

EXIT_CODE: Final = 74
"""How a run ends that its journal ended."""

UNWRITABLE: Final = "cannot be written; check who may write to it and its folder"
"""What is wrong with a journal that can be read alone."""

MOVE_AWAY: Final = "move it away, and a new one begins; what was missed until then is in no gap"
"""What to do with a damaged journal."""


Seqs: TypeAlias = "array[int]"
"""Numbers of events, 8 bytes each: there may be millions of them."""


@dataclass(slots=True)
class Entry:
    """One event as it came back from disk.

    Attributes:
        device: Its routing key; None where nothing told.
        call: Its call, for retention and purge.
        received_at: When it came, aware.
        feed: The connection that brought it.
        payload: The object as received.
        seq: Its place in the journal.
        redelivered: An earlier run may have begun it, or it was dead and is tried once more.
        late: It came after events that should have followed it.
        repeated: It was dead, and was appended again to be tried once more.
    """

    device: str | None
    call: str | None
    received_at: datetime
    feed: str
    payload: dict[str, Any]
    seq: int
    redelivered: bool = False
    late: bool = False
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An event whose row cannot be read: SQLite has no checksums, so a bit may flip unseen.

    Attributes:
        seq: Its place in the journal.
        problem: What is wrong with it.
    """

    seq: int
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What the journal knew when it was opened.

    Attributes:
        last_sign: The last sign of life of the run before; None: it never listened.
        unfinished: What the handlers that are registered now have yet to do: by name and device
            (`NO_DEVICE` for events without one) the events' numbers, oldest first.
        absent: The same of handlers that are not registered now, by name; `forget` drops them.
        last_seq: The newest event's; what is unfinished up to here may have been begun.
        latest: Which events came last, of those still there, and when, oldest first; retried ones
            and what cannot be read aside.
        last_gap: The highest id of a gap; 0 if there is none.
        open_gaps: The gaps that the run before left open.
        awaiting: The latest gaps that are over and have had no event since, oldest first.
        seen: The hashes of the latest events' identities, newest last; of this process alone.
        queues_emptied: When each queue that a broker keeps for us was last known to be empty.
        seats: By asked agent, at which device it sits, and since when by the server.
        tracked: What was known of calls and agents; None: nothing.
        tracked_seq: By which event.
        identity: Tells this journal from one in its place: 12 hexadecimal digits.
    """

    last_sign: datetime | None
    unfinished: dict[str, dict[str, Seqs]]
    absent: dict[str, int]
    last_seq: int
    latest: Sequence[tuple[EventKey, datetime]]
    last_gap: int
    open_gaps: tuple[Gap, ...]
    seen: array[int]
    awaiting: tuple[Gap, ...] = ()
    queues_emptied: dict[str, datetime] = field(default_factory=dict)
    seats: dict[str, tuple[str, str]] = field(default_factory=dict)
    tracked: bytes | None = None
    tracked_seq: int = 0
    identity: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalStats:
    """A snapshot; what comes from disk is at most a second old, if anything was committed since.

    Attributes:
        pending: Events appended and not yet committed.
        committed: Events committed by this run.
        commits: How many commits that took; marks and signs of life included.
        last_seq: The newest committed event's.
        bytes: The file's size, without its write-ahead log.
        max_bytes: The size limit.
        oldest_undone: When the oldest event came that a registered handler has yet to do.
        oldest_undone_by: Which handler.
        dead: How many dead letters there are.
        commit_seconds: How long the commits took.
        under_way: For how long the commit at hand has been waited for, in seconds; 0: none is.
        open: Whether what is appended is written: until the end, or a failure.
    """

    pending: int
    committed: int
    commits: int
    last_seq: int
    bytes: int
    max_bytes: int
    oldest_undone: datetime | None
    dead: int
    commit_seconds: Distribution = field(default_factory=Histogram().distribution)
    oldest_undone_by: str | None = None
    under_way: float = 0.0
    open: bool = True


@dataclass(slots=True)
class Batch:
    """What the loop hands to the writer for one commit.

    Attributes:
        rows: The columns of the events (`rows.EVENT_COLUMNS`), one event after the other.
        contexts: The caller's own, so much for each event.
        marks: By handler and device: up to which event it is done.
        dead: Handler, event and traceback of what failed.
        gaps: By id.
        sign: The last sign of life.
        look: Whether to look what the command line asked for.
        queues: When these were known to be empty; None: that is to be forgotten.
        seats: Where these agents sit, and since when; None: that is to be forgotten.
        tracked: What is known of calls and agents (None: nothing), by so many of these events.
    """

    rows: list[Any] = field(default_factory=list)
    contexts: list[Any] = field(default_factory=list)
    marks: defaultdict[str, dict[str | None, int]] = field(
        default_factory=partial(defaultdict, dict)
    )
    dead: list[tuple[str, int, str]] = field(default_factory=list)
    gaps: dict[int, Gap] = field(default_factory=dict)
    sign: datetime | None = None
    queues: dict[str, datetime | None] = field(default_factory=dict)
    seats: dict[str, tuple[str, str] | None] = field(default_factory=dict)
    look: bool = False
    tracked: tuple[bytes | None, int] | None = None

    @property
    def events(self) -> int:
        """How many events these are."""
        return len(self.rows) // COLUMNS

    @property
    def urgent(self) -> bool:
        """Whether it should not wait; a sign of life can."""
        return bool(
            self.rows
            or self.marks
            or self.dead
            or self.gaps
            or self.queues
            or self.seats
            or self.tracked
        )


class DamagedError(sqlite3.DatabaseError):
    """A row that cannot be what was written there: SQLite has no checksums.

    `rows` raises it, where rows become values. It is one of SQLite's own errors, so wherever those
    become a `JournalError` it does as well.

    Attributes:
        row: Which row, for a person.
        problem: What is wrong with it.
    """

    def __init__(self, row: str, problem: str) -> None:
        """Name the row and what is wrong with it."""
        super().__init__(row, problem)
        self.row = row
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.row}, {self.problem}"


def explained(path: Path, error: sqlite3.Error | OSError) -> JournalError:
    """Say what a failure of SQLite or the system means for the journal's owner."""
    if isinstance(error, DamagedError):
        rest = "`cti-listen journal` still reads the rest"
        return JournalError(path, f"is damaged: {error}; {MOVE_AWAY}; {rest}")
    if isinstance(error, OSError):
        return JournalError(path, f"{error.strerror or error}")
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_NOTADB:
            problem = "is not a journal; it is left as it is, name another file"
        case sqlite3.SQLITE_CORRUPT:
            problem = f"is damaged ({error}); {MOVE_AWAY}"
        case sqlite3.SQLITE_FULL:
            problem = "is full: its disk, or its size limit; make room, or raise the limit"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            problem = "another program has it locked for too long"
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            problem = "cannot be opened; check the folder and who may write to it"
        case sqlite3.SQLITE_READONLY:
            problem = UNWRITABLE
        case sqlite3.SQLITE_IOERR:
            problem = f"its disk fails ({error})"
        case _:
            problem = f"SQLite says {error}"
    return JournalError(path, problem)
