"""The journal: events on disk before they are seen, and what each handler has done of them.

`store` is the event loop's side, `writer` the thread that commits, with `registry` (handlers) and
`upkeep` (what it deletes and measures); `reader` reads beside it. `schema` is the file, `lock` who
has it, `rows` and `gap_rows` its rows. `visits`, `purge` and `cli` are for people, beside a
listener that runs.
"""

from __future__ import annotations

from cti_listener.journal.base import (
    EXIT_CODE,
    NO_DEVICE,
    OURS,
    Entry,
    JournalStats,
    Opened,
    Seqs,
    Unreadable,
)
from cti_listener.journal.rows import encode
from cti_listener.journal.store import MAX_SIZE, RETENTION, Journal
from cti_listener.journal.writer import Synchronous

__all__ = [
    "EXIT_CODE",
    "MAX_SIZE",
    "NO_DEVICE",
    "OURS",
    "RETENTION",
    "Entry",
    "Journal",
    "JournalStats",
    "Opened",
    "Seqs",
    "Synchronous",
    "Unreadable",
    "encode",
]
