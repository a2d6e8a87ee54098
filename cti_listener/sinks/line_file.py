"""A file of lines on disk: appended to, put aside when it is full or old, opened anew when gone.

It blocks, so `jsonl` calls it in a thread. What fails raises `OSError` and leaves the file as if
the line had not been begun; the next line tries again from the start.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Final

from cti_listener import places

_STAMP: Final = "%Y%m%dT%H%M%S.%fZ"
_STAMPED: Final = r"\d{8}T\d{6}\.\d{6}Z"
_TICK: Final = timedelta(microseconds=1)
_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
_DATABASE: Final = b"SQLite format 3\0"


class LineFile:
    """Appends lines to a file that it keeps open and locked (`flock`).

    Args:
        path: The file; made with mode 0600 if it is not there, in a directory that must be.
        max_size: A file that a line would make larger is put aside first, in bytes; 0: never.
        every: A file is put aside when a multiple of so many seconds has passed since its first
            line, counted from midnight in `zone`; 0: never.
        sync: Have each line on the disk before `write` returns.
        zone: Where the day begins.
        now: The wall clock, aware.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_size: int = 0,
        every: float = 0.0,
        sync: bool = False,
        zone: tzinfo = UTC,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Open nothing yet."""
        self.path = path
        self._max_size = max_size
        self._every = every
        self._sync = sync
        self._zone = zone
        self._now = now
        self._fd: int | None = None
        self._identity = (0, 0)
        self._size = 0
        self._period = 0
        pattern = rf"{re.escape(path.stem)}\.({_STAMPED}){re.escape(path.suffix)}"
        self._put_aside = re.compile(pattern)

    def __repr__(self) -> str:
        return f"<LineFile {self.path} {'closed' if self._fd is None else f'{self._size} bytes'}>"

    def open(self) -> None:
        """Open the file, making it if need be; a half line that a crash left is ended.

        Raises:
            BlockingIOError: Another process writes to it.
            OSError: It cannot be opened, or is no file, or a database.
        """
        fd = os.open(self.path, _FLAGS | os.O_CREAT, 0o600)
        try:
            found = self._file_at(fd)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._size = found.st_size
            if found.st_size and os.pread(fd, 1, found.st_size - 1) != b"\n":
                self._size += os.write(fd, b"\n")
            if self._sync:
                self._sync_directory()
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        self._identity = (found.st_dev, found.st_ino)
        self._period = self._period_of(datetime.fromtimestamp(found.st_mtime, UTC))

    def look(self) -> None:
        """See whether it could be opened; nothing is made or changed.

        Raises:
            OSError: As `open`.
        """
        try:
            fd = os.open(self.path, _FLAGS)
        except FileNotFoundError:
            places.see_writable(self.path)
            return
        try:
            self._file_at(fd)
        finally:
            os.close(fd)

    def write(self, line: bytes) -> None:
        """Append a line.

        Args:
            line: With its line break.

        Raises:
            OSError: It is not written.
        """
        if self._fd is not None and not self._is_still_there():
            self.close()
        if self._fd is None:
            self.open()
        if self._is_due(len(line)):
            self._rotate()
        if not self._size:
            self._period = self._period_of(self._now())
        self._append(line)

    def reopen(self) -> None:
        """Let go of the file, and open whatever has its name now.

        Raises:
            OSError: It cannot be opened; `write` will try again.
        """
        self.close()
        self.open()

    def close(self) -> None:
        """Have what was written on the disk, and let go of the file.

        Raises:
            OSError: It may not be on the disk; the file is let go of all the same.
        """
        fd, self._fd = self._fd, None
        if fd is not None:
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    # Private

    def _append(self, line: bytes) -> None:
        assert self._fd is not None  # noqa: S101 - for the type checker
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            if self._sync:
                os.fsync(self._fd)
        except OSError:
            # Should this fail too, the next line ends what is left of this one.
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
            fd, self._fd = self._fd, None
            os.close(fd)
            raise
        self._size += len(line)

    def _file_at(self, fd: int) -> os.stat_result:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(f"{self.path} is no file")
        if os.pread(fd, len(_DATABASE), 0) == _DATABASE:
            raise OSError("it is a database, as a journal is; name another file")
        return found

    def _is_still_there(self) -> bool:
        """Tell whether the file still has its name; else nobody would find what is written."""
        try:
            found = os.stat(self.path)  # noqa: PTH116 - it is called for each line
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == self._identity

    def _is_due(self, more: int) -> bool:
        if not self._size:
            return False
        too_large = self._max_size and self._size + more > self._max_size
        return bool(too_large) or self._period != self._period_of(self._now())

    def _period_of(self, when: datetime) -> int:
        if not self._every:
            return 0
        local = when.astimezone(self._zone).replace(tzinfo=UTC)
        return int(local.timestamp() // self._every)

    def _rotate(self) -> None:
        """Put the file aside, under a name that sorts behind those before it."""
        names = os.listdir(self.path.parent)  # noqa: PTH208 - names are all that is asked for
        before = [found[1] for name in names if (found := self._put_aside.fullmatch(name))]
        stamp = self._now().astimezone(UTC)
        if before:
            latest = datetime.strptime(max(before), _STAMP).replace(tzinfo=UTC)
            stamp = max(stamp, latest + _TICK)  # the clock may have been set back
        name = f"{self.path.stem}.{stamp.strftime(_STAMP)}{self.path.suffix}"
        self.close()
        os.rename(self.path, self.path.with_name(name))  # noqa: PTH104 - raises as the others do
        self.open()

    def _sync_directory(self) -> None:
        fd = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
