"""The file: one process, ours and sound or refused by name, brought forward with a copy kept."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from cti_listener.errors import JournalError
from cti_listener.journal import lock, schema
from cti_listener.journal.visits import look, visit
from tests.disks import full_at
from tests.journal.support import Held, damage, entry, journal
from tests.unprivileged import locked, unprivileged


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


async def _write(path: Path, count: int) -> None:
    async with journal(path) as store:
        for number in range(count):
            store.add(entry(number, payload={"pad": "x" * 500}))


def write_one(path: Path, count: int = 1) -> None:
    asyncio.run(_write(path, count))


async def refused_while_open(path: Path) -> str:
    with pytest.raises(JournalError) as caught:
        async with journal(path):
            pass
    return str(caught.value)


def refused(path: Path) -> str:
    before = path.read_bytes() if path.is_file() else None
    told = asyncio.run(refused_while_open(path))
    if before is not None:
        assert path.read_bytes() == before  # never overwritten
    return told


def test_it_is_made_for_its_owner_alone(path: Path) -> None:
    async def look() -> list[int]:
        async with journal(path) as store:
            store.add(entry(1))
            await store.settle()
            return [stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()]

    modes = asyncio.run(look())
    assert modes == [0o600] * 4  # the journal, its log, its index, its lock


async def test_a_second_listener_is_refused_and_told_who_has_it(path: Path) -> None:
    async with journal(path):
        assert await asyncio.to_thread(lock.in_use, path)
        assert await refused_while_open(path) == (
            f"journal {path}: process {os.getpid()} uses it; one process a journal"
        )
    assert not await asyncio.to_thread(lock.in_use, path)
    await _write(path, 1)


def test_a_text_file_is_refused_and_left_as_it_is(path: Path) -> None:
    path.write_text("events of last week\n" * 100)
    assert "is not a journal; it is left as it is" in refused(path)


def test_another_programs_database_is_refused_and_left_as_it_is(path: Path) -> None:
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE accounts (x)")
    other.close()
    assert "is another program's database" in refused(path)


def test_a_newer_journal_is_refused(path: Path) -> None:
    write_one(path)
    newer = sqlite3.connect(path)
    newer.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    newer.close()
    assert f"newer cti-listen (version {schema.VERSION + 1})" in refused(path)


ADVICE = "; move it away, and a new one begins; what was missed until then is in no gap"


def test_a_damaged_journal_is_refused(path: Path) -> None:
    write_one(path, 200)
    damage(path)
    told = refused(path)
    assert "is damaged" in told
    assert told.endswith(ADVICE)


def test_a_truncated_journal_is_refused(path: Path) -> None:
    write_one(path, 200)
    path.write_bytes(path.read_bytes()[: 5 * 4096])
    told = refused(path)
    assert "is damaged" in told
    assert told.endswith(ADVICE)


def test_an_empty_file_becomes_a_journal_for_its_owner_alone(path: Path) -> None:
    path.touch(0o644)
    path.chmod(0o644)
    write_one(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_journal_that_its_owner_lets_others_read_stays_so(path: Path) -> None:
    write_one(path)
    path.chmod(0o640)
    write_one(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize(
    ("name", "problem"),
    [("missing/journal.db", "No such file or directory"), ("", "is no file")],
    ids=["no folder", "a folder"],
)
def test_a_place_that_cannot_be_is_said(tmp_path: Path, name: str, problem: str) -> None:
    assert problem in refused(tmp_path / name)
    assert not list(tmp_path.parent.glob("*.cti-lock"))


@pytest.mark.parametrize("target", ["target.db", "link.db"], ids=["nothing", "itself"])
def test_a_link_that_leads_nowhere_is_said_and_nothing_is_made_of_it(
    tmp_path: Path, target: str
) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(target)
    problem = f"journal {link}: is a link to {target}, which is not there; name a file"
    assert refused(link) == problem
    with pytest.raises(JournalError) as caught, visit(link):
        pass
    assert str(caught.value) == problem
    assert list(tmp_path.iterdir()) == [link]


def test_an_older_journal_is_brought_forward_and_a_copy_kept(path: Path) -> None:
    write_one(path, 3)
    db = schema.connect(path, "rw")
    steps = {
        schema.VERSION: lambda db: db.execute("ALTER TABLE event ADD COLUMN colour TEXT"),
        schema.VERSION + 1: lambda db: db.execute("UPDATE event SET colour = 'red'"),
    }
    schema.migrate(db, path, schema.VERSION, steps=steps, target=schema.VERSION + 2)
    assert db.execute("SELECT colour FROM event").fetchall() == [("red",)] * 3
    assert db.execute("PRAGMA user_version").fetchone() == (schema.VERSION + 2,)
    db.close()
    copy = path.with_name(f"journal.db.v{schema.VERSION}")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    write_one(copy)  # it is a whole journal of the old version


def age(path: Path, version: int) -> None:
    """Make a journal one of an earlier version, as if that had been brought back."""
    with closing(schema.connect(path, "rw")) as db:
        since = {"tracked": 2, "tracked_seq": 2, "identity": 3}
        for column in (one for one in since if version < since[one]):
            db.execute(f"ALTER TABLE state DROP COLUMN {column}")
        db.execute("DROP TABLE seat")
        db.execute(f"PRAGMA user_version = {version}")


def events_in(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        (count,) = db.execute("SELECT count(*) FROM event").fetchone()
    return int(count)


def test_what_names_no_call_is_of_none_in_an_older_journal_too(path: Path) -> None:
    write_one(path, 3)
    with closing(sqlite3.connect(path)) as db, db:
        for seq, call in enumerate(("", "0", "c1"), 1):
            db.execute("UPDATE event SET call = ? WHERE seq = ?", (call, seq))
    age(path, 3)
    write_one(path)
    with closing(sqlite3.connect(path)) as db:
        calls = db.execute("SELECT call FROM event ORDER BY seq").fetchall()
    assert calls[:3] == [(None,), (None,), ("c1",)]


def test_a_copy_is_kept_whatever_copies_there_are(path: Path) -> None:
    copies = [path.with_name(f"journal.db.{ending}") for ending in ("v2", "v2.2", "v2.3")]
    write_one(path)
    with capture_logs() as lines:
        for _ in copies:
            age(path, 2)
            write_one(path)
    assert sorted(path.parent.glob("*.v*")) == copies
    assert [events_in(copy) for copy in copies] == [1, 2, 3]
    told = [line["copy"] for line in lines if line["event"] == "journal_migrated"]
    assert told == [str(copy) for copy in copies]


async def _identity(path: Path) -> str:
    async with journal(path) as store:
        return store.opened.identity


@pytest.mark.parametrize("version", [1, 2])
def test_a_journal_without_an_identity_gets_one(path: Path, version: int) -> None:
    write_one(path)
    age(path, version)
    given = asyncio.run(_identity(path))
    assert re.fullmatch("[0-9a-f]{12}", given)
    assert path.with_name(f"journal.db.v{version}").exists()
    assert asyncio.run(_identity(path)) == given


def test_an_identity_is_of_one_journal_for_as_long_as_it_lasts(path: Path) -> None:
    first = [asyncio.run(_identity(path)) for _ in range(2)]
    path.unlink()
    assert first[0] == first[1] != asyncio.run(_identity(path))


def test_a_step_that_fails_leaves_the_journal_as_it_was(path: Path) -> None:
    write_one(path)

    def fail(db: sqlite3.Connection) -> None:
        db.execute("DELETE FROM event")
        raise ZeroDivisionError

    db = schema.connect(path, "rw")
    newer = schema.VERSION + 1
    with pytest.raises(ZeroDivisionError):
        schema.migrate(db, path, schema.VERSION, steps={schema.VERSION: fail}, target=newer)
    with pytest.raises(JournalError, match="too old"):
        schema.migrate(db, path, 0, steps={}, target=2)
    assert db.execute("SELECT count(*) FROM event").fetchone() == (1,)
    db.close()
    assert list(path.parent.glob("*.v*")) == []  # many starts that fail fill no disk


def test_a_step_that_fills_the_disk_leaves_no_copy(path: Path) -> None:
    write_one(path)

    def fill(db: sqlite3.Connection) -> None:
        db.execute("ROLLBACK")  # as SQLite does by itself
        raise sqlite3.OperationalError("database or disk is full")

    with closing(schema.connect(path, "rw")) as db:
        newer = schema.VERSION + 1
        with pytest.raises(sqlite3.OperationalError, match="is full"):
            schema.migrate(db, path, schema.VERSION, steps={schema.VERSION: fill}, target=newer)
    assert list(path.parent.glob("*.v*")) == []


def test_a_copy_that_fills_the_disk_is_removed(path: Path) -> None:
    write_one(path, 500)
    age(path, 3)
    size = path.stat().st_size
    with full_at(size // 2), pytest.raises(JournalError, match="its disk fails"):
        write_one(path)
    assert list(path.parent.glob("*.v*")) == []
    write_one(path)
    assert events_in(path) == 501


def test_the_lock_goes_with_the_process_however_it_dies(path: Path) -> None:
    code = (
        "import asyncio, os, sys; from tests.journal.support import *\n"
        "async def main():\n"
        "    async with journal(Path(sys.argv[1])) as store:\n"
        "        os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())"
    )
    died = subprocess.run([sys.executable, "-c", code, path], check=False, timeout=30)
    assert died.returncode == -9
    write_one(path)


def test_a_link_leads_to_the_same_lock(path: Path) -> None:
    link = path.with_name("link.db")
    link.symlink_to(path)

    async def both() -> None:
        async with journal(path):
            with pytest.raises(JournalError, match="one process a journal"):
                await Held(link).open(["work"])

    asyncio.run(both())


def test_a_lock_is_no_link_to_somebody_elses_file(path: Path) -> None:
    victim = path.with_name("victim")
    lock.lock_path(path).symlink_to(victim)
    with pytest.raises(JournalError):
        write_one(path)
    assert not victim.exists()


def refused_alike(path: Path) -> str:
    """Return why a journal is refused by a look at it, which a start says as well."""
    before = sorted(path.parent.iterdir())
    with pytest.raises(JournalError) as seen:
        look(path)
    assert sorted(path.parent.iterdir()) == before
    with pytest.raises(JournalError) as begun:
        write_one(path)
    assert str(seen.value) == str(begun.value)
    return seen.value.problem


@pytest.mark.parametrize("there", [(), ("", ".cti-lock"), ("",)])
def test_a_folder_that_we_may_not_write_to_is_seen_before_a_start(there: tuple[str, ...]) -> None:
    with unprivileged() as folder:
        path = folder / "journal.db"
        write_one(path)
        for one in list(folder.iterdir()):
            if one.name.removeprefix(path.name) not in there:
                one.unlink()
        with locked(folder):
            assert refused_alike(path)


def killed_in(folder: Path, statement: str = "UPDATE state SET tracked_seq = 0") -> Path:
    """Return a journal as a listener leaves it that is killed, with SQLite's files beside it."""
    path, live = folder / "journal.db", folder / "live.db"
    write_one(live)
    with closing(sqlite3.connect(live)) as db:
        db.execute(statement)
        db.commit()
        for ending in ("", "-wal", "-shm", ".cti-lock"):
            shutil.copy(f"{live}{ending}", f"{path}{ending}")
    return path


def test_what_a_killed_listener_left_is_no_hindrance() -> None:
    with unprivileged() as folder:
        path = killed_in(folder)
        look(path)
        write_one(path)


def test_a_damaged_file_is_seen_before_a_start(tmp_path: Path) -> None:
    path = killed_in(tmp_path)
    damage(path)
    assert "is damaged" in refused_alike(path)


@pytest.mark.parametrize("gone", [None, "-shm"])
def test_a_look_goes_by_the_log_too_and_changes_nothing(tmp_path: Path, gone: str | None) -> None:
    path = killed_in(tmp_path, "VACUUM")
    damage(path)  # as if it had died while it brought the log into the file
    if gone is not None:
        path.with_name(f"{path.name}{gone}").unlink()
    before = {one: one.read_bytes() for one in tmp_path.iterdir()}
    look(path)
    assert {one: one.read_bytes() for one in tmp_path.iterdir()} == before
    write_one(path)


@pytest.mark.parametrize("ending", ["", "-wal", "-shm", ".cti-lock"])
def test_a_file_that_we_may_only_read_is_seen_before_a_start(ending: str) -> None:
    with unprivileged() as folder:
        path = killed_in(folder)
        path.with_name(f"{path.name}{ending}").chmod(0o400)
        assert refused_alike(path)


def test_a_name_too_long_for_the_files_beside_it_is_seen_before_a_start(tmp_path: Path) -> None:
    look(tmp_path / ("n" * 246))
    assert refused_alike(tmp_path / ("n" * 247)) == "File name too long"


def test_a_link_is_followed_to_where_we_may_write() -> None:
    with unprivileged() as folder:
        path = folder / "journal.db"
        write_one(path)
        (folder / "etc").mkdir()
        link = folder / "etc" / "journal.db"
        link.symlink_to(path)
        with locked(link.parent):
            look(link)
            write_one(link)
