"""Files of lines: appended to, put aside, opened anew; a line that failed was never begun."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from cti_listener.sinks.line_file import LineFile
from tests.disks import full_at
from tests.unprivileged import locked, unprivileged

START = datetime(2026, 3, 1, 10, 0, tzinfo=UTC)


class Time:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def pass_by(self, **much: float) -> None:
        self.now += timedelta(**much)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


Open = Callable[..., LineFile]


@pytest.fixture
def opened(path: Path, time: Time) -> Iterator[Open]:
    files = []

    def open_it(**options: Any) -> LineFile:
        files.append(LineFile(path, now=time, **options))
        files[-1].open()
        return files[-1]

    yield open_it
    for file in files:
        file.close()


def all_of(path: Path) -> bytes:
    """Return what is in all files of one name, in the order in which their names sort."""
    return b"".join(one.read_bytes() for one in sorted(path.parent.iterdir()))


def test_lines_are_appended_to_what_is_there(path: Path, opened: Open) -> None:
    path.write_bytes(b"a\n")
    file = opened()
    file.write(b"b\n")
    file.write(b"c\n")
    assert path.read_bytes() == b"a\nb\nc\n"


def test_a_new_file_is_for_its_owner_alone(path: Path, opened: Open) -> None:
    before = os.umask(0)
    try:
        opened()
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_database_is_left_as_it_is(path: Path, opened: Open) -> None:
    before = b"SQLite format 3\0" + bytes(100)
    path.write_bytes(before)
    with pytest.raises(OSError, match="it is a database"):
        opened()
    with pytest.raises(OSError, match="it is a database"):
        LineFile(path).look()
    assert path.read_bytes() == before


def test_looking_makes_and_changes_nothing(path: Path) -> None:
    LineFile(path).look()
    assert not path.exists()
    path.write_bytes(b"half a line")
    LineFile(path).look()
    assert path.read_bytes() == b"half a line"
    with pytest.raises(IsADirectoryError):
        LineFile(path.parent).look()


@pytest.mark.parametrize("given", ["lines", "link"])
def test_a_place_where_we_may_make_nothing_is_seen_beforehand(given: str) -> None:
    with unprivileged() as folder:
        (folder / "link").symlink_to(folder / "to" / "lines")
        (folder / "to").mkdir()
        file = LineFile((folder if given == "link" else folder / "to") / given)
        file.look()
        with locked(folder / "to"):
            for attempt in (file.look, file.open):
                with pytest.raises(PermissionError):
                    attempt()


@pytest.mark.parametrize("rest", [b'{"a"', b"x" * 10_000])
def test_half_a_line_that_a_crash_left_is_ended_first(
    path: Path, opened: Open, rest: bytes
) -> None:
    path.write_bytes(b"a\n" + rest)
    opened().write(b"b\n")
    assert path.read_bytes() == b"a\n" + rest + b"\nb\n"


def test_a_disk_that_is_full_leaves_no_half_line_and_is_tried_again(
    path: Path, opened: Open
) -> None:
    file = opened()
    file.write(b"first\n")
    with full_at(10):
        for _ in range(2):
            with pytest.raises(OSError, match="too large"):
                file.write(b"second\n")
            assert path.read_bytes() == b"first\n"
    file.write(b"second\n")
    assert path.read_bytes() == b"first\nsecond\n"


def test_a_directory_that_is_gone_is_missed_and_made_use_of_when_it_is_back(
    path: Path, opened: Open
) -> None:
    file = opened()
    file.write(b"first\n")
    moved = path.parent.rename(path.parent.with_name("moved"))
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            file.write(b"second\n")
    path.parent.mkdir()
    file.write(b"second\n")
    assert (moved / path.name).read_bytes() == b"first\n"
    assert path.read_bytes() == b"second\n"


@pytest.mark.parametrize("told", [True, False])
def test_a_file_that_another_program_put_aside_is_let_go_of(
    path: Path, opened: Open, *, told: bool
) -> None:
    file = opened()
    file.write(b"first\n")
    aside = path.rename(path.with_name("events.1"))
    if told:
        file.reopen()
        assert path.exists()
    file.write(b"second\n")
    assert (aside.read_bytes(), path.read_bytes()) == (b"first\n", b"second\n")


def test_a_file_is_put_aside_before_it_is_too_large(path: Path, opened: Open, time: Time) -> None:
    file = opened(max_size=10)
    lines = [b"%d...\n" % n for n in range(9)]
    for line in lines:
        file.write(line)
        time.pass_by(seconds=1)
    sizes = [one.stat().st_size for one in path.parent.iterdir()]
    assert max(sizes) <= 10
    names = sorted(one.name for one in path.parent.iterdir())
    assert len(names) == 5
    assert names[0] == "events.20260301T100002.000000Z.jsonl"
    assert all_of(path) == b"".join(lines)


def test_a_line_longer_than_a_file_may_be_has_one_for_itself(path: Path, opened: Open) -> None:
    file = opened(max_size=4)
    for line in (b"long line\n", b"a\n", b"b\n"):
        file.write(line)
    assert all_of(path) == b"long line\na\nb\n"
    assert len(list(path.parent.iterdir())) == 2


def test_names_sort_though_the_clock_stands_still_or_goes_back(
    path: Path, opened: Open, time: Time
) -> None:
    file = opened(max_size=2)
    lines = [b"%d\n" % n for n in range(9)]
    for n, line in enumerate(lines):
        file.write(line)
        if n == 4:
            time.pass_by(hours=-1)
    assert all_of(path) == b"".join(lines)


def test_a_file_is_put_aside_at_midnight_of_the_zone(path: Path, opened: Open, time: Time) -> None:
    file = opened(every=86_400.0, zone=ZoneInfo("Asia/Shanghai"))
    file.write(b"18:00\n")
    time.pass_by(hours=5, minutes=59)
    file.write(b"23:59\n")
    time.pass_by(minutes=1)
    file.write(b"00:00\n")
    assert path.read_bytes() == b"00:00\n"
    assert all_of(path) == b"18:00\n23:59\n00:00\n"


def test_a_file_of_an_earlier_run_is_put_aside_when_its_time_is_over(
    path: Path, opened: Open, time: Time
) -> None:
    path.write_bytes(b"old\n")
    os.utime(path, (START.timestamp(), START.timestamp()))
    time.pass_by(minutes=61)
    file = opened(every=3600.0)
    file.write(b"new\n")
    assert path.read_bytes() == b"new\n"
    assert all_of(path) == b"old\nnew\n"


def test_a_quiet_file_is_not_put_aside_empty(path: Path, opened: Open, time: Time) -> None:
    file = opened(every=60.0, max_size=100)
    time.pass_by(days=1)
    file.write(b"a\n")
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_a_file_that_is_synced_is_the_same(path: Path, opened: Open, time: Time) -> None:
    file = opened(sync=True, max_size=4)
    for line in (b"a\n", b"b\n", b"c\n"):
        file.write(line)
        time.pass_by(seconds=1)
    assert all_of(path) == b"a\nb\nc\n"


def test_what_is_no_file_is_refused(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(OSError, match="is no file"):
        LineFile(path).open()


def _try(path: Path, told: Any) -> None:
    try:
        LineFile(path).open()
    except BlockingIOError:
        told.put("locked")
    else:
        told.put("open")


def test_one_process_a_file(path: Path, opened: Open, time: Time) -> None:
    context = multiprocessing.get_context("spawn")
    file = opened(max_size=2)
    for _ in range(2):
        told = context.Queue()
        process = context.Process(target=_try, args=(path, told))
        process.start()
        assert told.get(timeout=30) == "locked"
        process.join()
        file.write(b"a\n")
        file.write(b"b\n")  # the next file is locked as well
