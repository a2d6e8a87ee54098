"""Writing lines to a file descriptor without ever blocking, and without changing it for others.

stdout may be a full pipe, a socket nobody reads, a terminal stopped by Ctrl-S; an event loop that
waits for it answers no ping. `O_NONBLOCK` would be the simple way, but it belongs to what the
descriptor describes, which the shell and other programs share. Called by `output` and `logs`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import select
import stat

_CHUNK = 4096
"""A writable pipe or socket takes so much at once (`PIPE_BUF`)."""

_LINE_BREAK = ord("\n")


class Descriptor:
    """One descriptor to write to.

    Attributes:
        fd: Where bytes go: the descriptor given or, for a terminal, one of our own.
        terminal: Whether it is one.
        in_a_line: What was written last, by `write` or whoever appended to this file before us,
            ends in the middle of a line.
    """

    def __init__(self, fd: int) -> None:
        """Find out what the descriptor is.

        Raises:
            OSError: It is not open.
        """
        mode = os.fstat(fd).st_mode
        self.terminal = os.isatty(fd)
        self.fd = fd
        self._own = False
        # A file is always ready, and epoll refuses it.
        self._ready = stat.S_ISREG(mode) or (stat.S_ISCHR(mode) and not self.terminal)
        self.in_a_line = stat.S_ISREG(mode) and _is_in_a_line(fd)
        if self.terminal:
            # A terminal takes less than it seems to, and then blocks; opened again by its name it
            # can be non-blocking for us alone.
            with contextlib.suppress(OSError):
                self.fd = os.open(os.ttyname(fd), os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
                self._own = True
        self._turn = asyncio.Lock()
        self._poll = select.poll()
        self._poll.register(self.fd, select.POLLOUT)

    def write_some(self, data: bytes | memoryview) -> int:
        """Write as much as is taken right now; return how much that was.

        Raises:
            BrokenPipeError: Nobody will ever read it.
            OSError: It cannot be written, as on a full disk.
        """
        if self._ready:
            return os.write(self.fd, data)
        state = self._state()
        if self._is_broken(state):
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        if not state & select.POLLOUT:
            return 0
        try:
            return os.write(self.fd, data[:_CHUNK])
        except BlockingIOError:
            return 0
        except ConnectionResetError as error:  # a socket's way to say it
            raise BrokenPipeError(errno.EPIPE, str(error)) from None
        except OSError as error:
            if self.terminal and error.errno == errno.EIO:  # the terminal was closed
                raise BrokenPipeError(errno.EPIPE, str(error)) from None
            raise

    async def write(self, line: bytes) -> None:
        """Write a line, with nothing of another writer in between.

        A line that was begun and not ended, by a write that failed or a run that was killed, is
        ended first: else this one would be lost behind it.

        Args:
            line: With its line break.

        Raises:
            BrokenPipeError: Nobody will ever read it.
            OSError: It cannot be written, as on a full disk; some of it may be.
        """
        async with self._turn:
            rest = memoryview(b"\n" + line if self.in_a_line else line)
            while rest:
                if taken := self.write_some(rest):
                    self.in_a_line = rest[taken - 1] != _LINE_BREAK
                    rest = rest[taken:]
                elif not self._ready:
                    await self.writable()

    def is_broken(self) -> bool:
        """Tell whether nobody will ever read it, as far as can be known without writing."""
        return not self._ready and self._is_broken(self._state())

    def columns(self) -> int:
        """Return how wide the terminal is now; 0 if it is none, or does not say."""
        if not self.terminal:
            return 0
        with contextlib.suppress(OSError):
            return os.get_terminal_size(self.fd).columns
        return 0

    async def writable(self) -> None:
        """Wait until something can be written, or it is broken."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        loop.add_writer(self.fd, _release, waiter)
        try:
            await waiter
        finally:
            loop.remove_writer(self.fd)

    def close(self) -> None:
        """Give back what is ours; the descriptor given stays open."""
        if self._own:
            self._own = False
            os.close(self.fd)

    def _state(self) -> int:
        events = self._poll.poll(0)
        return events[0][1] if events else 0

    def _is_broken(self, state: int) -> bool:
        # For a terminal POLLHUP says that it is closed, and so it does for a socket.
        return bool(state & (select.POLLERR | select.POLLHUP | select.POLLNVAL))


def _is_in_a_line(fd: int) -> bool:
    """Tell whether what is written next to a file goes on in a line that is there.

    Where nobody may read it that is taken to be so: an empty line is less than a line lost.
    """
    appending = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND
    at = os.fstat(fd).st_size if appending else os.lseek(fd, 0, os.SEEK_CUR)
    if not at:
        return False
    try:
        readable = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        return os.pread(readable, 1, at - 1) not in (b"\n", b"")
    finally:
        os.close(readable)


def _release(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
