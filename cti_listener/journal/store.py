"""The journal as the event loop sees it: append, done, and what was committed.

Nothing here waits for the disk. What is appended while the loop turns once goes to the writer's
thread together; what comes while a commit is under way goes with the next one. That begins as soon
as the loop has heard of the last, so a group is as large as the disk is slow; under load it begins
a moment later, since with each commit the two threads wait for each other some few times.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from cti_listener.clock import Clock
from cti_listener.errors import ConfigurationError, NotRunningError
from cti_listener.histogram import Histogram
from cti_listener.journal import rows
from cti_listener.journal.base import Batch, Entry, JournalStats, Opened, Unreadable
from cti_listener.journal.reader import Reader
from cti_listener.journal.writer import Landed, Retried, Synchronous, Writer
from cti_listener.log import log
from cti_listener.notices import Gap

MAX_SIZE: Final = 4 << 30
RETENTION: Final = 86400.0
REMEMBER: Final = 3600.0
REMEMBER_MOST: Final = 200_000
SIGN_INTERVAL: Final = 1.0

MANY: Final = 64
"""A group of so many events tells that there is more to come."""

UNOPENED: Final = 1.0
"""How long the end waits, in seconds, for a journal that is not open yet."""

PAUSE: Final = 0.01


class Journal:
    """Keeps events on disk until every durable handler is done with them, and a while longer.

    `append`, `done`, `dead`, `alive` and `gap` belong to the event loop and return at once; after a
    failure or `close()` they change nothing any more. `read` waits for the disk: call it in a
    thread.

    Args:
        path: The file; made if there is none.
        synchronous: `full`: what is committed outlives a power cut; `normal`: a crash of ours.
        retention: How long what is done stays, and its call's rows with it, in seconds.
        max_size: The file's size limit in bytes; reaching it fails a commit.
        remember: Events that came so many seconds before the last one are told as seen.
        remember_most: So many at most: the last.
        pause: For how long the next group is waited for under load, in seconds.
        clock: The one clock.

    Attributes:
        committed: Called in the event loop after each commit that brought events, with the number
            of the first, which the others follow one by one, and their contexts in a row.
        retried: Called in the event loop with dead letters that the command line wants tried once
            more, each with its handler's name: they are the newest events now.
        failed: Called in the event loop, once, when a commit failed; nothing more is committed.

    Raises:
        ConfigurationError: A limit that cannot be.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: Synchronous = "full",
        retention: float = RETENTION,
        max_size: int = MAX_SIZE,
        remember: float = REMEMBER,
        remember_most: int = REMEMBER_MOST,
        pause: float = PAUSE,
        clock: Clock,
    ) -> None:
        """Name the file; nothing is opened before `open()`."""
        for name, limit in (("journal_retention", retention), ("journal_max_size", max_size)):
            if limit <= 0:
                raise ConfigurationError(name, "must be more than 0")
        self.path = Path(path)
        self.committed: Callable[[int, list[Any]], None] = lambda _first, _contexts: None
        self.retried: Callable[[list[Retried]], None] = lambda _entries: None
        self.failed: Callable[[BaseException], None] = lambda _error: None
        self._clock = clock
        self._max_size = max_size
        self._pause = pause
        self._writer = Writer(
            self.path,
            synchronous,
            retention=retention,
            max_size=max_size,
            remember=remember,
            most=remember_most,
            clock=clock,
        )
        self._inbox: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop
        self._opening: asyncio.Future[Opened] | None = None  # until it is open
        self._ended: asyncio.Future[None] | None = None
        self._pending = Batch()
        self._busy = False  # a batch is with the writer, or about to go there
        self._open = False
        self._sign_due = 0.0
        self._received_at: datetime | None = None
        self._stamp = 0.0  # of that
        self._in_writer = self._committed = self._commits = 0
        self._commit_seconds = Histogram()
        self._sent_at: float | None = None  # the batch that the writer has
        self._last = Landed(0, [], 0)
        self._first_seq = 0  # all up to here is of earlier runs
        self._reader = Reader(self.path)

    def __repr__(self) -> str:
        state = "open" if self._open else "closed"
        return f"<Journal {self.path} {state}, {self._committed} committed>"

    # Life

    async def open(self, handlers: Sequence[str]) -> Opened:
        """Lock the file and make it ready for these durable handlers; tell what it knows.

        A new name starts from now. Dead letters to be retried become unfinished events here.

        Raises:
            JournalError: It is used by another process, not ours, newer, or damaged.
            NotRunningError: It was opened before, or closed meanwhile.
        """
        if self._ended is not None:
            raise NotRunningError("this journal is open, or was; make a new one")
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        opened: asyncio.Future[Opened] = self._loop.create_future()
        self._opening = opened
        # A daemon: a disk that hangs must not keep the process from leaving.
        threading.Thread(
            target=self._serve, args=(tuple(handlers), opened), name="cti-journal", daemon=True
        ).start()
        try:
            known = await opened
        except BaseException:
            self._inbox.put(None)  # whatever the thread is at, it ends then
            raise
        self._opening = None
        self._first_seq = known.last_seq
        self._last = self._writer.landed(0, [])
        self._open = True
        return known

    async def close(self, timeout: float = 10.0) -> None:
        """Commit everything that was appended and done, then close; calls `committed` until then.

        Args:
            timeout: The longest wait, in seconds; then it is left to the thread. Less where it is
                still being opened, as while a purge writes it anew: there is nothing to commit.
        """
        if self._ended is None:
            return
        if self._opening is not None:
            _fail(self._opening, NotRunningError("closed before it was open"))
            timeout = min(timeout, UNOPENED)
        if self._open:
            self._open = False
            self._send()
        self._inbox.put(None)
        done, _ = await asyncio.wait([self._ended], timeout=timeout)
        if not done:
            log.warning("journal_close_timed_out", path=str(self.path), seconds=timeout)
        await asyncio.to_thread(self._reader.close)

    # What is written

    def append(
        self,
        *context: Any,
        device: str | None,
        call: str | None,
        received_at: datetime,
        feed: str,
        text: bytes | str,
        owed: tuple[str, ...],
        late: bool = False,
    ) -> None:
        """Put an event into the next commit.

        Args:
            *context: The caller's own, which `committed` hands back; as much for each event.
            device: Its routing key; None where nothing told.
            call: Its call, for retention and purge.
            received_at: When it came, aware.
            feed: The connection that brought it.
            text: The object as received, in JSON; `encode()` writes it where it is not at hand.
            owed: The names of the durable handlers that want it.
            late: It came after events that should have followed it.
        """
        if self._open:
            pending = self._pending
            if received_at is not self._received_at:  # many came at once
                self._received_at, self._stamp = received_at, rows.stamp(received_at)
            pending.rows += (self._stamp, device, call, feed, owed, late, text)
            pending.contexts += context
            if not self._busy:
                self._wake()

    def done(self, handler: str, device: str | None, seq: int) -> None:
        """Note that a lane is done up to `seq`.

        Args:
            handler: Its name.
            device: Whose lane; `NO_DEVICE` for that of events without a device, None for a handler
                that has one lane for all (`order="all"`).
            seq: The event just finished; a lane is serial, so all before it are.
        """
        if self._open:
            self._pending.marks[handler][device] = seq
            if not self._busy:
                self._wake()

    def dead(self, handler: str, seq: int, error: str) -> None:
        """Keep an event that a handler failed on, with the traceback, and count it done."""
        if self._open:
            # A lone surrogate has no UTF-8, and a traceback quotes what came.
            text = error.encode(errors="backslashreplace").decode()
            self._pending.dead.append((handler, seq, text))
            self._wake()

    def alive(self, at: datetime) -> None:
        """Note a sign of life: all that was sent before it is appended.

        Call it as often as you like; once a second it is written.
        """
        if self._open:
            self._pending.sign = max(at, self._pending.sign or at)
            now = self._clock.monotonic()
            if now >= self._sign_due:
                self._sign_due = now + SIGN_INTERVAL
                self._pending.look = True
                self._wake()

    def gap(self, gap: Gap) -> None:
        """Keep a gap, or what became of it, by its id."""
        if self._open:
            self._pending.gaps[gap.id] = gap
            self._wake()

    def queues_empty(self, names: Sequence[str], at: datetime | None) -> None:
        """Keep when these queues of a broker were known to be empty; None: forget it."""
        if self._open:
            self._pending.queues.update(dict.fromkeys(names, at))
            self._wake()

    def seated(self, agent: str, seat: tuple[str, str] | None) -> None:
        """Keep at which device an agent sits, and since when by the server; None: forget it."""
        if self._open:
            self._pending.seats[agent] = seat
            self._wake()

    def keep_tracking(self, known: bytes | None) -> None:
        """Keep what is known of calls and agents by what was appended so far; None: nothing is."""
        if self._open:
            self._pending.tracked = known, self._pending.events
            if not self._busy:
                self._wake()

    def poll_retries(self) -> None:
        """Look whether the command line asked for something; a sign of life looks as well."""
        if self._open:
            self._pending.look = True
            self._wake()

    # What is read

    def read(self, seqs: Sequence[int]) -> list[Entry | Unreadable]:
        """Return committed events, oldest first, less those that were erased; call it in a thread.

        Args:
            seqs: Their numbers, in order.

        Raises:
            JournalError: The file cannot be read.
        """
        return self._reader.read(seqs, earlier=self._first_seq)

    def read_after(self, seq: int) -> Iterator[Entry | Unreadable]:
        """Yield the committed events behind this one, oldest first; call it in a thread.

        Raises:
            JournalError: The file cannot be read.
        """
        return self._reader.read_after(seq, earlier=self._first_seq)

    def stats(self) -> JournalStats:
        """Return a frozen snapshot; the disk is not asked."""
        return JournalStats(
            pending=self._pending.events + self._in_writer,
            committed=self._committed,
            commits=self._commits,
            last_seq=self._last.last_seq,
            bytes=self._last.bytes,
            max_bytes=self._max_size,
            oldest_undone=self._last.oldest_undone,
            oldest_undone_by=self._last.oldest_undone_by,
            dead=self._last.dead,
            commit_seconds=self._commit_seconds.distribution(),
            under_way=0.0
            if self._sent_at is None
            else max(0.0, self._clock.monotonic() - self._sent_at),
            open=self._open,
        )

    # Between the loop and the thread

    def _wake(self) -> None:
        """Send what is pending, with all that this turn of the loop will add."""
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._send_if_open)

    def _send_if_open(self) -> None:
        if self._open:
            self._send()

    def _send(self) -> None:
        batch, self._pending = self._pending, Batch()
        self._in_writer += batch.events
        self._sent_at = self._clock.monotonic()
        self._inbox.put(batch)

    def _go_on(self) -> None:
        """Send what is pending, if anything is; then the writer is free."""
        self._busy = self._open and (self._pending.urgent or self._pending.look)
        if self._busy:
            self._send()

    def _landed(self, batch: Batch, landed: Landed, took: float) -> None:
        """Hear of a commit, and how long it took: first let the writer go on, then tell."""
        self._commits += 1
        self._commit_seconds.note(took)
        self._sent_at = None
        self._committed += batch.events + len(landed.retried)
        self._in_writer -= batch.events
        self._last = landed
        if batch.events >= MANY:
            self._loop.call_later(self._pause, self._go_on)
        else:
            self._go_on()
        if landed.retried:
            self.retried(landed.retried)
        if batch.rows:
            self.committed(landed.first, batch.contexts)

    def _broke(self, error: BaseException) -> None:
        self._open = False
        log.error("journal_failed", path=str(self.path), problem=str(error))
        self.failed(error)

    def _serve(self, handlers: tuple[str, ...], opened: asyncio.Future[Opened]) -> None:
        """Run the writer; the only function here that is not the loop's."""
        try:
            known = self._writer.open(handlers)
        except BaseException as error:  # noqa: BLE001 - it is raised in the loop
            self._tell(_fail, opened, error)
            self._tell(self._finish)
            return
        self._tell(_succeed, opened, known)
        try:
            while (batch := self._inbox.get()) is not None:
                began = self._clock.monotonic()
                landed = self._writer.commit(batch)
                self._tell(self._landed, batch, landed, self._clock.monotonic() - began)
                self._writer.tend()
        except BaseException as error:  # noqa: BLE001 - it is told to the loop
            self._tell(self._broke, error)
        self._writer.close()
        self._tell(self._finish)

    def _tell(self, function: Callable[..., None], *arguments: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed, nobody is left to hear it
            self._loop.call_soon_threadsafe(function, *arguments)

    def _finish(self) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)


def _succeed(opened: asyncio.Future[Opened], known: Opened) -> None:
    if not opened.done():
        opened.set_result(known)


def _fail(opened: asyncio.Future[Opened], error: BaseException) -> None:
    if not opened.done():
        opened.set_exception(error)
