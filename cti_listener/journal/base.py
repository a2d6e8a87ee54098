"""What goes into the journal and comes out of it, and what can go wrong with it.

Everyone who speaks with the journal takes these from `cti_listener.journal`.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from cti_listener.errors import JournalError
from cti_listener.notices import Gap

NO_DEVICE: Final = ""
"""The lane of events without a device; no device is named so. None is the lane of all devices."""

EXIT_CODE: Final = 74
"""How a run ends that its journal ended."""


@dataclass(slots=True)
class Entry:
    """One event on its way to disk, or back from it.

    Attributes:
        digest: 16 bytes that tell it from others in every process, see `digest()`.
        device: Its routing key; None where nothing told.
        call: Its call, for retention and purge.
        received_at: When it came, aware.
        feed: The connection that brought it.
        payload: The object as received.
        owed: The names of the durable handlers that want it.
        seq: Its place in the journal, given at commit.
        context: The caller's own; never stored, handed back at commit.
        redelivered: An earlier run may have begun it, or it was dead and is tried once more.
        late: It came after events that should have followed it.
    """

    digest: bytes
    device: str | None
    call: str | None
    received_at: datetime
    feed: str
    payload: dict[str, Any]
    owed: tuple[str, ...]
    seq: int = 0
    context: Any = None
    redelivered: bool = False
    late: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What the journal knew when it was opened.

    Attributes:
        last_sign: The last sign of life of the run before; None for a fresh journal.
        unfinished: How often a handler that is registered now has yet to run, over all events.
        absent: The same of handlers that are not registered now, by name; `forget` drops them.
        last_seq: The newest event's; what is unfinished up to here may have been begun.
        last_event: The newest event still there, as it was received.
        last_gap: The highest id of a gap; 0 if there is none.
        open_gaps: The gaps that the run before left open.
        seen: The digests within the retention, newest last; at most 200,000.
        queues_emptied: When each queue that a broker keeps for us was last known to be empty.
    """

    last_sign: datetime | None
    unfinished: int
    absent: dict[str, int]
    last_seq: int
    last_event: dict[str, Any] | None
    last_gap: int
    open_gaps: tuple[Gap, ...]
    seen: tuple[bytes, ...]
    queues_emptied: dict[str, datetime] = field(default_factory=dict)


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
        dead: How many dead letters there are.
    """

    pending: int
    committed: int
    commits: int
    last_seq: int
    bytes: int
    max_bytes: int
    oldest_undone: datetime | None
    dead: int


@dataclass(slots=True)
class Batch:
    """What the loop hands to the writer for one commit.

    Attributes:
        entries: Events, in the order they were appended.
        texts: Their payloads as JSON.
        marks: By handler and device: up to which event it is done.
        dead: Handler, event and traceback of what failed.
        gaps: By id.
        sign: The last sign of life.
        queues: When these were known to be empty; None: that is to be forgotten.
    """

    entries: list[Entry] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    marks: dict[tuple[str, str | None], int] = field(default_factory=dict)
    dead: list[tuple[str, int, str]] = field(default_factory=list)
    gaps: dict[int, Gap] = field(default_factory=dict)
    sign: datetime | None = None
    queues: dict[str, datetime | None] = field(default_factory=dict)

    @property
    def urgent(self) -> bool:
        """Whether it should not wait; a sign of life can."""
        return bool(self.entries or self.marks or self.dead or self.gaps or self.queues)


def digest(identity: tuple[Any, ...]) -> bytes:
    """Return what tells an event from others in every process, of its `values.identity`."""
    return blake2b(repr(identity).encode(), digest_size=16).digest()


def explained(path: Path, error: sqlite3.Error | OSError) -> JournalError:
    """Say what a failure of SQLite or the system means for the journal's owner."""
    if isinstance(error, OSError):
        return JournalError(path, f"{error.strerror or error}")
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_NOTADB:
            problem = "is not a journal; it is left as it is, name another file"
        case sqlite3.SQLITE_CORRUPT:
            problem = f"is damaged ({error}); move it away, and a new one begins"
        case sqlite3.SQLITE_FULL:
            problem = "is full: its disk, or its size limit; make room, or raise the limit"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            problem = "another program has it locked for too long"
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            problem = "cannot be opened; check the folder and who may write to it"
        case sqlite3.SQLITE_READONLY:
            problem = "cannot be written; check who may write to it and its folder"
        case sqlite3.SQLITE_IOERR:
            problem = f"its disk fails ({error})"
        case _:
            problem = f"SQLite says {error}"
    return JournalError(path, problem)
