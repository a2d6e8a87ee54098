"""One process a journal: its locks, which the system takes back at any death.

Called by the writer, which takes them, and by visits, which ask who has them.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import sys
import threading
from collections import Counter, defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeAlias
from weakref import WeakSet

from cti_listener.errors import JournalError

Identity: TypeAlias = tuple[int, int]
"""What tells a file from others, whatever its names."""


class Lock:
    """One process a journal.

    Two locks, since SQLite's own files are found by the journal's name, and the journal may have
    several. One is on a file beside it, of its name; the other on the journal itself, which no
    other name leads past, nor the removal of the first. Where a file system has no such lock, or
    one that SQLite's would meet, as NFS, the first is all.
    """

    def __init__(self, path: Path) -> None:
        """Name the journal; nothing is locked yet."""
        self._journal = path
        self._beside: int | None = None
        self._itself: int | None = None
        _locks.add(self)

    def take(self) -> None:
        """Take it for this process; the journal need not be there yet.

        Raises:
            JournalError: Another one has it.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW  # no link is ours to follow
        fd = os.open(lock_path(self._journal), flags, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(fd, 32).decode(errors="replace").strip()
            os.close(fd)
            raise self._refusal(holder) from None
        os.truncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        self._beside = fd

    def take_file(self) -> None:
        """Take the journal itself too, before anything is written to it.

        Raises:
            JournalError: Another process has it, by another name of the file, or it lost the lock
                beside it.
        """
        fd = _opened(self._journal)
        if fd is None:
            return  # SQLite will say why
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(fd)
            _put_away(fd)
            raise self._refusal(holder) from None
        except OSError:
            _put_away(fd)
        else:
            self._itself = fd

    def release(self) -> None:
        """Give it back; the file beside stays, since another may be waiting to lock it."""
        if self._itself is not None:
            fcntl.flock(self._itself, fcntl.LOCK_UN)
            _put_away(self._itself)
        if self._beside is not None:
            os.close(self._beside)
        self._itself = self._beside = None

    def let_go(self) -> None:
        """Give up a forked process's share of it, which would outlast the one that took it."""
        for fd in (self._beside, self._itself):
            if fd is not None:
                os.close(fd)
        self._itself = self._beside = None

    def _refusal(self, holder: str) -> JournalError:
        return JournalError(
            self._journal, f"process {holder or '?'} uses it; one process a journal"
        )


_locks: Final[WeakSet[Lock]] = WeakSet()


def _forked() -> None:
    for one in _locks:
        one.let_go()


os.register_at_fork(after_in_child=_forked)


def lock_path(path: Path) -> Path:
    """Return the file whose lock says that a listener has this journal, whatever link led to it."""
    real = path.resolve()
    return real.with_name(f"{real.name}.cti-lock")


def identity(path: Path) -> Identity | None:
    """Return what tells a file from others; None if there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def in_use(path: Path) -> bool:
    """Tell whether a listener has it open now, by whatever name."""
    with suppress(OSError):  # whoever may not read it, as others than the owner, asks the other one
        fd = os.open(lock_path(path), os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _is_locked(fd):
                return True
        finally:
            os.close(fd)
    itself = _opened(path)
    if itself is None:
        return False
    try:
        return _is_locked(itself)
    finally:
        _put_away(itself)


# Beside SQLite's locks, which are the process's: the closing of any descriptor of the file drops
# them. So ours are closed when no connection of this process is open to it.

_mutex: Final = threading.Lock()
_connections: Final[Counter[Identity]] = Counter()
_to_close: Final[defaultdict[Identity, list[int]]] = defaultdict(list)


class Connection(sqlite3.Connection):
    """One that `connected` has counted, until it is closed.

    Attributes:
        file: Of which file it is.
    """

    file: Identity | None = None

    def close(self) -> None:
        """Close it, and then what waited for that."""
        super().close()
        gone, self.file = self.file, None
        disconnected(gone)


def connected(path: Path) -> Identity | None:
    """Count a connection that is about to be opened; return the file for `disconnected`."""
    file = identity(path)
    if file is not None:
        with _mutex:
            _connections[file] += 1
    return file


def disconnected(file: Identity | None) -> None:
    """Count a connection out that is closed."""
    if file is not None:
        with _mutex:
            _connections[file] -= 1
            if not _connections[file]:
                del _connections[file]
                for fd in _to_close.pop(file, ()):
                    os.close(fd)


# Private


def _opened(path: Path) -> int | None:
    """Return a descriptor of the journal, for `_put_away`; None if there is none to be had.

    To read alone: so a lock on it does not pass for one that NFS has, which SQLite's would meet.
    """
    if sys.platform != "linux":
        return None  # elsewhere it meets SQLite's locks
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None


def _put_away(fd: int) -> None:
    """Close a descriptor of the journal, now or after the last connection to it."""
    found = os.fstat(fd)
    file = found.st_dev, found.st_ino
    with _mutex:
        if _connections[file]:
            _to_close[file].append(fd)
        else:
            os.close(fd)


def _is_locked(fd: int) -> bool:
    """Tell whether somebody has the lock of a file, and leave it free."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no such locks here
        return False
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def _holder(fd: int) -> str:
    """Return which process has the lock of a file, as far as the system tells."""
    found = os.fstat(fd)
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
    with suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            _, kind, _, _, process, file, *_ = line.split()
            if kind == "FLOCK" and file == f"{device}:{found.st_ino}" and process.isdigit():
                return process
    return ""
