"""The journal's file written anew by a purge: where its copy lies, and what is said if it fails."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from cti_listener.journal import schema
from cti_listener.journal.cli import journal_app
from tests.disks import full_at
from tests.journal.support import Held, entry, journal

NUMBER = "13800138000"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "it's a folder"
    folder.mkdir()
    return folder / "journal.db"


async def fill(store: Held, count: int = 3) -> None:
    for number in range(count):
        caller = NUMBER if number % 2 else "13900000000"
        payload = {"callingDevice": f"{caller}@zhen04.cc", "pad": "x" * 500}
        store.add(entry(number, call=f"call-{number}", payload=payload))
    await store.settle()


@contextmanager
def each_visit(prepare: Callable[[sqlite3.Connection], None]) -> Iterator[None]:
    """Prepare the connections that are opened until the end of the block."""
    real = schema.connect

    def connect(path: Path, mode: str, timeout: float) -> sqlite3.Connection:
        db = real(path, mode, timeout)
        prepare(db)
        return db

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(schema, "connect", connect)
        yield


def temporary_folders(path: Path) -> set[Path]:
    """Purge; return in which folders SQLite had its temporary files meanwhile."""
    found: set[Path] = set()

    def look() -> int:
        with suppress(FileNotFoundError):  # the last is the reading of this directory
            for link in Path("/proc/self/fd").iterdir():
                opened = link.readlink()
                if opened.name.startswith("etilqs_"):
                    found.add(opened.parent)
        return 0

    def prepare(db: sqlite3.Connection) -> None:
        db.execute("PRAGMA cache_size = 10")  # else a small copy needs no file
        db.set_progress_handler(look, 1000)

    with each_visit(prepare):
        assert journal_app(["purge", str(path), "--number", NUMBER]) == 0
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("chosen", [False, True])
def test_the_copy_lies_beside_the_journal_unless_its_place_is_chosen(
    path: Path, monkeypatch: pytest.MonkeyPatch, *, chosen: bool
) -> None:
    async def make() -> None:
        async with journal(path) as store:
            await fill(store, 400)

    asyncio.run(make())
    (path.parent / "links").mkdir()
    link = path.parent / "links" / "link.db"
    link.symlink_to(path)
    if chosen:
        monkeypatch.setenv("SQLITE_TMPDIR", "anywhere")  # SQLite has read it long before
    else:
        monkeypatch.delenv("SQLITE_TMPDIR", raising=False)
    found = temporary_folders(link)
    assert found
    assert (found == {path.parent}) is not chosen


@contextmanager
def crowded() -> Iterator[None]:
    """Leave visits no room whenever they write a file anew, until the end of the block."""
    room = ExitStack()

    def before(statement: str) -> None:
        if statement == "VACUUM":
            room.enter_context(full_at(0))
        elif "wal_checkpoint" in statement:
            room.close()

    with room, each_visit(lambda db: db.set_trace_callback(before)):
        yield


async def test_a_file_that_cannot_be_written_anew_is_told_with_what_was_erased(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def purged(*flags: str) -> tuple[int, str, str]:
        given = ["purge", str(path), "--number", NUMBER, *flags]
        code = await asyncio.to_thread(journal_app, given)
        return code, *capsys.readouterr()

    left = (
        "traces may be left in the file, which could not be written anew: purge once more when it"
        " can be"
    )
    async with journal(path) as store:
        await fill(store)
        with crowded():
            code, out, err = await purged()
            assert code == 74
            assert out.splitlines()[0].startswith(f"{NUMBER}: erased 1 event of 1 call, ")
            assert out.splitlines()[1] == left
            assert err == f"cti-listen: journal {path}: its disk fails (disk I/O error)\n"
            assert path.with_name(f"{path.name}-wal").stat().st_size == 0
            code, out, _ = await purged("--json")
            facts = json.loads(out)
            assert (code, facts["events"], facts["overwritten"]) == (74, 0, False)
            assert facts["problem"] == "its disk fails (disk I/O error)"
        code, out, _ = await purged()
        assert code == 0
        assert left not in out
