"""One process a journal, by whatever name it goes, and with whatever removed from beside it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from cti_listener.errors import JournalError
from cti_listener.journal import lock, schema
from tests.journal.support import Held, entry, journal
from tests.unprivileged import unprivileged

_OPEN = """
import asyncio, sys
from pathlib import Path
from cti_listener.errors import JournalError
from tests.journal.support import journal
async def main():
    try:
        async with journal(Path(sys.argv[1])):
            print("opened")
    except JournalError as error:
        print(error)
asyncio.run(main())
"""

_SHARED = 0x40000002, 510
"""The bytes of its file that SQLite locks for as long as a connection is open."""

_ASK = f"""
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
try:
    fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, {_SHARED[1]}, {_SHARED[0]})
    print("free")
except BlockingIOError:
    print("held")
"""


_FORK = """
import asyncio, os, signal, sys
from pathlib import Path
from tests.journal.support import journal
async def main():
    async with journal(Path(sys.argv[1])):
        if os.fork() == 0:  # it says so itself: by then it has given up what it was born with
            print(os.getpid(), flush=True)
        signal.pause()
asyncio.run(main())
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


async def another(code: str, path: Path) -> str:
    """Return what another process says of it."""
    ran = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", code, str(path)],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    return ran.stdout.strip()


def uses_it(path: Path) -> str:
    return f"journal {path}: process {os.getpid()} uses it; one process a journal"


async def test_another_process_is_refused_though_the_lock_beside_was_removed(path: Path) -> None:
    async with journal(path) as store:
        path.with_name("journal.db.cti-lock").unlink()
        assert await another(_OPEN, path) == uses_it(path)
        store.add(entry(1))
        await store.settle()
        assert await asyncio.to_thread(lock.in_use, path)
    assert await another(_OPEN, path) == "opened"


async def test_another_process_is_refused_by_another_name_of_the_file(path: Path) -> None:
    async with journal(path):
        hard = path.with_name("hard.db")
        hard.hardlink_to(path)
        assert await another(_OPEN, hard) == uses_it(hard)
        assert await asyncio.to_thread(lock.in_use, hard)
    assert not await asyncio.to_thread(lock.in_use, hard)


async def test_nothing_in_this_process_takes_sqlites_locks_away(path: Path) -> None:
    """Closing any descriptor of a file drops them, so none is closed before the connections."""
    async with journal(path) as store:
        store.add(entry(1))
        await store.settle()
        path.with_name("journal.db.cti-lock").unlink()
        hard = path.with_name("hard.db")
        hard.hardlink_to(path)
        with pytest.raises(JournalError, match="one process a journal"):
            await Held(hard).open(["work"])
        assert await asyncio.to_thread(lock.in_use, path)
        assert await another(_ASK, path) == "held"
        reader = await asyncio.to_thread(schema.connect, path, "ro")
        assert len(reader.execute("SELECT * FROM event").fetchall()) == 1
    assert await another(_ASK, path) == "held"  # the reader's
    assert not await asyncio.to_thread(lock.in_use, path)
    reader.close()
    assert await another(_ASK, path) == "free"


def test_who_may_not_read_the_lock_beside_is_told_by_that_of_the_file() -> None:
    async def while_open(path: Path) -> bool:
        async with journal(path):
            path.with_name("journal.db.cti-lock").chmod(0)
            return await asyncio.to_thread(lock.in_use, path)

    with unprivileged() as folder:
        path = folder / "journal.db"
        assert asyncio.run(while_open(path))
        assert not lock.in_use(path)


def test_a_forked_process_that_outlives_its_parent_has_no_lock(path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _FORK, str(path)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        try:
            with pytest.raises(JournalError, match=f"process {parent.pid} uses it"):
                asyncio.run(opened_here(path))
            parent.kill()
            parent.wait()
            asyncio.run(opened_here(path))
        finally:
            os.kill(child, signal.SIGKILL)


async def opened_here(path: Path) -> None:
    async with journal(path):
        pass


async def test_no_descriptor_stays_open(path: Path) -> None:
    def opened() -> int:
        links = []
        for one in Path("/proc/self/fd").iterdir():
            with suppress(FileNotFoundError):
                links.append(str(one.readlink()))
        return sum(one.startswith(str(path)) for one in links)

    async with journal(path):
        assert await asyncio.to_thread(lock.in_use, path)
    assert await asyncio.to_thread(opened) == 0


async def test_where_the_file_cannot_be_locked_the_lock_beside_it_is_all(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = fcntl.flock

    def flock(fd: int, operation: int) -> None:
        if Path(f"/proc/self/fd/{fd}").readlink() == path:
            raise OSError(9, "Bad file descriptor")  # as on NFS
        really(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    async with journal(path) as store:
        store.add(entry(1))
        await store.settle()
        assert await asyncio.to_thread(lock.in_use, path)
        with pytest.raises(JournalError, match="one process a journal"):
            await Held(path).open(["work"])
    assert not await asyncio.to_thread(lock.in_use, path)
