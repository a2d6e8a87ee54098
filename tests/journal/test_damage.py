"""Damage that SQLite does not see, since it has no checksums: one odd value in one row."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from cti_listener import Event, Listener, Notice
from cti_listener.errors import JournalError
from cti_listener.journal import visits
from cti_listener.journal.cli import journal_app
from cti_listener.journal.reader import Reader
from cti_listener.testing import START, FakeSource, ManualClock
from tests.examples import make
from tests.journal.support import A_GAP, entry, journal, undone_in
from tests.turns import until

NAMES = ("work", "other")
LETTER = """
    INSERT INTO dead (handler, seq, failed_at, error, retry, digest, device, received_at, feed,
        late, payload) VALUES (1, 1, 1.0, 'ValueError: boom', 1, 0, 'd1', 1.0, 'a', 0, '{')
"""
BAD_PAYLOADS = {
    "cut": "UPDATE event SET payload = '{' WHERE seq = :seq",
    "list": "UPDATE event SET payload = '[1]' WHERE seq = :seq",
    "control": "UPDATE event SET payload = '{\"a\":\"' || char(7) || '\"}' WHERE seq = :seq",
    "bits": "UPDATE event SET payload = CAST(x'7b22ff223a317d' AS TEXT) WHERE seq = :seq",
    "time": "UPDATE event SET received_at = 'zz' WHERE seq = :seq",
    "far": "UPDATE event SET received_at = 1e300 WHERE seq = :seq",
    "device": "UPDATE event SET device = x'ff00' WHERE seq = :seq",
}
BOOKS = {
    "INSERT INTO gap VALUES (7, NULL, '{}')": "gap 7, its body",
    "INSERT INTO gap VALUES (7, NULL, '[]')": "gap 7, its body",
    """INSERT INTO gap VALUES (7, NULL, '{"at": "x", "id": 7, "since": "y", "until": null,
        "reason": "disconnected"}')""": "gap 7, its body",
    "UPDATE gap SET until = NULL, body = replace(body, '+00:00', '')": "gap 1, its body",
    "UPDATE gap SET until = NULL, body = replace(body, '\"id\": 1', '\"id\": 3')": "gap 1, its",
    "UPDATE state SET last_sign = 'abc'": "the state, its last_sign 'abc'",
    "UPDATE state SET last_sign = 1e300": "the state, its last_sign 1e+300",
    "UPDATE state SET last_sign = 1e12": "the state, its last_sign 1000000000000.0",
    "UPDATE state SET last_sign = 2e11": "the state, its last_sign -",
    "UPDATE gap SET until = NULL, body = replace(body, '2026', '9026')": "gap 1, its since -",
    "UPDATE state SET identity = x'00'": "the state, its identity",
    "UPDATE state SET tracked_seq = 'x'": "the state, its tracked_seq",
    "DELETE FROM state": "the state, there is none",
    "UPDATE handler SET floor = 'zz'": "handler 'work', its floor 'zz'",
    "UPDATE handler SET floor = 4611686018427387904": "handler 'work', its floor 46116860",
    "UPDATE handler SET name = x'ff' WHERE id = 2": "handler X'FF', its name",
    "INSERT INTO mark VALUES (1, 'd9', 'x')": "the mark of 'd9', its number 'x'",
    "INSERT INTO queue VALUES ('q', 'y')": "queue 'q', its time 'y'",
    "INSERT INTO seat VALUES ('a7', 'd8', x'ff')": "the seat of 'a7', ['d8', ",
}


@dataclass
class Work:
    """A handler that keeps what it was given."""

    done: list[int | None] = field(default_factory=list)

    async def __call__(self, happening: Event | Notice) -> None:
        if isinstance(happening, Event):
            self.done.append(happening.serial)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal of six events of two devices, undone by two handlers, and a gap."""
    path = tmp_path / "journal.db"

    async def write() -> None:
        async with journal(path, NAMES) as store:
            for number in range(1, 7):
                store.add(entry(number, device=f"d{number % 2}", owed=NAMES))
            store.gap(A_GAP)
            store.alive(START)
            await store.settle()

    asyncio.run(write())
    return path


def spoil(path: Path, *statements: str, seq: int = 0) -> None:
    with closing(sqlite3.connect(path)) as db:
        for one in statements:
            db.execute(one, {"seq": seq})
        db.commit()


def letters(path: Path) -> list[tuple[str, int, str]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(
            "SELECT name, seq, error FROM dead JOIN handler ON handler.id = handler"
            " ORDER BY seq, name"
        ).fetchall()


def listener_on(path: Path, works: dict[str, Work], **options: Any) -> tuple[Listener, FakeSource]:
    clock = ManualClock()
    source = FakeSource(clock)
    listener = Listener(source, namespace="zhen04.cc", journal=path, clock=clock)
    for name, work in works.items():
        listener.on(name=name, **options)(work)
    return listener, source


async def run(path: Path, last: int = 7, **options: Any) -> tuple[dict[str, Work], list[Any]]:
    """Run a listener until each handler has done one more event that comes now."""
    works = {name: Work() for name in NAMES}
    listener, source = listener_on(path, works, **options)
    with capture_logs() as logs:
        async with listener:
            source.send(make(serial=last, srcDeviceId="d1"))
            await until(
                lambda: all(last in work.done and len(work.done) > 5 for work in works.values())
            )
            await until(lambda: not listener.stats().waiting)
    return works, [one for one in logs if one["log_level"] == "error"]


# An event


@pytest.mark.parametrize("order", ["device", "all"])
@pytest.mark.parametrize("seq", [3, 6])
@pytest.mark.parametrize("how", BAD_PAYLOADS)
def test_an_event_that_cannot_be_read_is_set_aside_and_holds_nothing_up(
    path: Path, how: str, seq: int, order: str
) -> None:
    spoil(path, BAD_PAYLOADS[how], seq=seq)
    works, errors = asyncio.run(run(path, order=order))
    left = [one for one in range(1, 7) if one != seq]
    for work in works.values():
        assert sorted(work.done, key=str) == [*left, 7]
        assert [one for one in work.done if one in left and one % 2] == [
            one for one in left if one % 2
        ]
    found = letters(path)
    assert [(name, number) for name, number, _ in found] == [("other", seq), ("work", seq)]
    assert all("cannot be read" in error for _, _, error in found)
    (line,) = errors
    assert (line["event"], line["path"], line["seq"]) == (
        "journal_event_unreadable",
        str(path),
        seq,
    )
    assert undone_in(path, "work") == undone_in(path, "other") == []
    _, errors = asyncio.run(run_again(path))
    assert errors == []  # once is enough
    assert len(letters(path)) == 2


async def run_again(path: Path) -> tuple[None, list[Any]]:
    works = {name: Work() for name in NAMES}
    listener, source = listener_on(path, works)
    with capture_logs() as logs:
        async with listener:
            source.send(make(serial=8))
            await until(lambda: all(work.done == [8] for work in works.values()))
    return None, [one for one in logs if one["log_level"] == "error"]


async def test_it_is_set_aside_in_its_turn_not_before(path: Path) -> None:
    """Its mark says that all before it is done; so it waits for that, however the run ends."""
    await asyncio.to_thread(spoil, path, BAD_PAYLOADS["cut"], seq=3)
    began, held = asyncio.Event(), asyncio.Event()
    listener, _ = listener_on(path, {})

    async def work(event: Event) -> None:
        began.set()
        if event.serial == 1:
            await held.wait()

    listener.on(Event, name="work")(work)
    async with listener:
        await began.wait()
        await listener.stop(drain=0.0)
    assert [seq for seq in undone_in(path, "work") if seq % 2] == [1, 3, 5]
    assert letters(path) == []


def test_a_bit_that_flipped_in_a_file_costs_one_event(path: Path) -> None:
    spoil(path, "PRAGMA wal_checkpoint(TRUNCATE)", "PRAGMA journal_mode = DELETE")
    data = bytearray(path.read_bytes())
    at = data.index(b'"serial":3') - 1
    data[at] ^= 0x80
    path.write_bytes(data)
    works, errors = asyncio.run(run(path))
    assert {tuple(sorted(work.done, key=str)) for work in works.values()} == {(1, 2, 4, 5, 6, 7)}
    assert [one["event"] for one in errors] == ["journal_event_unreadable"]


# A dead letter


def test_a_letter_that_cannot_be_read_stays_one(path: Path) -> None:
    spoil(path, LETTER)
    with capture_logs() as logs:
        asyncio.run(open_and_close(path))
    (line,) = [one for one in logs if one["log_level"] == "error"]
    assert (line["event"], line["letter"]) == ("journal_letter_unreadable", 1)
    ((_, _, error),) = letters(path)
    assert error.startswith("ValueError: boom\n")
    assert "cannot be read" in error
    with capture_logs() as logs:
        asyncio.run(open_and_close(path))
    assert not [one for one in logs if one["log_level"] == "error"]  # it is not asked for any more


async def open_and_close(path: Path) -> None:
    async with journal(path, NAMES) as store:
        assert store.owed == 12


async def test_nor_does_one_end_a_run_that_goes_on(path: Path) -> None:
    async with journal(path, NAMES) as store:
        await asyncio.to_thread(spoil, path, LETTER)
        store.poll_retries()
        store.add(entry(9, owed=NAMES))
        await store.settle()
        assert store.retries == []
        assert store.failures == []
        assert store.entries[-1].seq == 7


# The books


@pytest.mark.parametrize("statement", BOOKS)
def test_books_that_cannot_be_read_are_refused_by_name(path: Path, statement: str) -> None:
    spoil(path, statement)

    async def start() -> None:
        listener, _ = listener_on(path, {"work": Work()})
        async with asyncio.timeout(5):
            await listener.run()

    with pytest.raises(JournalError) as caught:
        asyncio.run(start())
    assert str(caught.value).startswith(f"journal {path}: is damaged: {BOOKS[statement]}")
    advice = "; move it away, and a new one begins; what was missed until then is in no gap; "
    assert advice in str(caught.value)


def test_a_gap_that_is_over_and_cannot_be_read_is_left_out(path: Path) -> None:
    spoil(path, "INSERT INTO gap VALUES (7, 1.0, '{}')")
    with capture_logs() as logs, closing(Reader(path)) as reader:
        assert [gap.id for gap in reader.gaps(10)] == [1]
    ((event, gap),) = [(one["event"], one["problem"].partition(",")[0]) for one in logs]
    assert (event, gap) == ("journal_gap_unreadable", "gap 7")


def test_an_event_that_cannot_be_read_is_missing_where_a_reader_resumes(path: Path) -> None:
    spoil(path, BAD_PAYLOADS["cut"], seq=3)
    with closing(Reader(path)) as reader:
        found, _ = reader.kept_after(0, 10)
    assert [one.seq for one in found if one.event is None] == [3]
    assert len(found) == 6


# The commands


@pytest.mark.parametrize(
    ("statement", "command", "named", "told"),
    [
        (BAD_PAYLOADS["cut"], "list", "event 3, its payload", 6),
        (BAD_PAYLOADS["list"], "list", "event 3, its payload", 6),
        (BAD_PAYLOADS["bits"], "list", "event 3, its payload", 6),
        (BAD_PAYLOADS["control"], "show", "event 3, its payload", 1),
        (BAD_PAYLOADS["time"], "list", "event 3, its time 'zz'", 6),
        (BAD_PAYLOADS["device"], "list", "", 6),
        ("UPDATE event SET received_at = 'zz'", "stats", "event 1, its time 'zz'", 1),
        (LETTER, "dead", "dead letter 1, its payload", 1),
        (LETTER.replace("1.0, 'V", "'x', 'V"), "dead", "dead letter 1, its time 'x'", 1),
        ("UPDATE state SET last_sign = 'abc'", "stats", "the state, its last_sign 'abc'", 1),
        ("DELETE FROM state", "stats", "the state, there is none", 1),
        ("UPDATE handler SET floor = 'zz'", "stats", "handler 'work', its floor 'zz'", 1),
        ("INSERT INTO gap VALUES (7, 1.0, '{')", "gaps", "gap 7, its body", 1),
        ("INSERT INTO gap VALUES (7, 1.0, '{}')", "gaps", "gap 7, its body", 1),
        ("INSERT INTO gap VALUES (0, 1.0, '[]')", "gaps", "gap 0, its body", 1),
        ("INSERT INTO gap VALUES (7, 1.0, '{')", "purge", "gap 7, its body", 1),
        (BAD_PAYLOADS["cut"], "purge", "event 3, its payload", 1),
        (LETTER, "purge", "dead letter 1, its payload", 1),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_commands_tell_the_rest_and_name_what_cannot_be_read(
    path: Path,
    capsys: pytest.CaptureFixture[str],
    *,
    statement: str,
    command: str,
    named: str,
    told: int,
    as_json: bool,
) -> None:
    spoil(path, statement, seq=3)
    more = {"show": ["3"], "purge": ["--number", "13800138000"]}.get(command, [])
    code = journal_app([command, str(path), *more, *(["--json"] if as_json else [])])
    out, err = capsys.readouterr()
    assert code == (74 if named else 0)
    if named:
        assert f"cti-listen: journal {path}: is damaged: {named}" in err
    if as_json:
        assert len([json.loads(line) for line in out.splitlines()]) == told
    else:
        assert len(out.splitlines()) >= told


def test_a_purge_erases_what_names_a_number_though_it_cannot_be_read(path: Path) -> None:
    spoil(path, 'UPDATE event SET payload = \'{"a":"13800138000\' WHERE seq = :seq', seq=3)
    assert journal_app(["purge", str(path), "--number", "13800138000"]) == 74
    with visits.visit(path) as db:
        assert [one["seq"] for one in visits.events(db)] == [1, 2, 4, 5, 6]
