"""The daemon with a journal, as a process of its own: what it owes survives it."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cti_listener.simulator import SimulatorServer
from tests.examples import make
from tests.journal.support import damage, entry, journal
from tests.program import StoppedReader, listening, read_until, rest, run

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def stopped_reader() -> Iterator[StoppedReader]:
    reader = StoppedReader()
    yield reader
    reader.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def arguments(server: SimulatorServer, path: Path, *more: str) -> tuple[str, ...]:
    url = ("--url", server.stomp_url, "--ns", "zhen04.cc", "--format", "json")
    return (*url, "--journal", str(path), *more)


def events_of(lines: list[dict[str, Any]]) -> list[int]:
    return [line["serial"] for line in lines if line["eventType"] != "listener"]


def gaps_of(lines: list[dict[str, Any]]) -> list[str]:
    return [line["reason"] for line in lines if line["eventName"] == "gap"]


async def printed(server: SimulatorServer, path: Path, *more: str) -> list[dict[str, Any]]:
    """Run until it has printed what it owes, and one event that is sent now."""
    async with listening(*arguments(server, path, *more)) as process:
        await server.wait_for_subscribers()
        await server.send(make(serial=999_999))
        lines: list[dict[str, Any]] = []
        assert process.stdout is not None
        async for line in process.stdout:
            lines.append(json.loads(line))
            if lines[-1].get("serial") == 999_999:
                break
        process.send_signal(signal.SIGTERM)
        left, err = await rest(process)
        assert process.returncode == 0, err
        return lines + left


def seen_in(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as db:
        return [row for (row,) in db.execute("SELECT payload ->> 'serial' FROM event ORDER BY seq")]


async def test_what_was_not_printed_when_it_was_killed_is_printed_by_the_next_run(
    path: Path, stopped_reader: StoppedReader
) -> None:
    async with SimulatorServer() as server:
        async with listening(*arguments(server, path), stdout=stopped_reader.writer) as process:
            await server.wait_for_subscribers()
            for serial in range(600):  # more than a pipe holds
                await server.send(make(serial=serial))
            await stopped_reader.is_full()
            process.kill()
            await process.wait()
        kept = seen_in(path)
        text = os.read(stopped_reader.reader, 1 << 20).decode()
        first = [json.loads(line) for line in text.splitlines(keepends=True) if line[-1] == "\n"]
        again = await printed(server, path)
    before, after = events_of(first), events_of(again)
    assert before == list(range(len(before)))
    # Whole again in order: only what was printed and not yet known to be is printed twice.
    assert [*before[: after[0]], *after[:-1]] == kept
    assert 0 < after[0] <= len(before)
    assert gaps_of(again) == ["listener_down"]


async def test_a_full_lane_pauses_nothing_and_loses_nothing(
    path: Path, stopped_reader: StoppedReader
) -> None:
    """The output cannot write; all that comes goes to disk, and is printed later in order."""
    count = 3000
    async with SimulatorServer() as server:
        async with listening(
            *arguments(server, path), stdout=stopped_reader.writer, CTI_LANE_SIZE="50"
        ) as process:
            await server.wait_for_subscribers()
            for serial in range(count):
                await server.send(make(serial=serial, device=8000 + serial % 7))
            while len(seen_in(path)) < count:  # noqa: ASYNC110 - on disk, and nobody tells us
                await asyncio.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            _, err = await rest(process)
            assert process.returncode == 0  # what is left is in the journal
        text = os.read(stopped_reader.reader, 1 << 20).decode()
        first = [json.loads(line) for line in text.splitlines(keepends=True) if line[-1] == "\n"]
        again = await printed(server, path)
    assert "left_in_journal" in err
    assert seen_in(path)[:-1] == list(range(count))
    before, after = events_of(first), events_of(again)
    assert [*before[: after[0]], *after[:-1]] == list(range(count))


async def test_count_leaves_the_rest_for_the_next_run(path: Path) -> None:
    async with SimulatorServer() as server:
        async with listening(*arguments(server, path, "--count", "2")) as process:
            await server.wait_for_subscribers()
            for serial in range(5):
                await server.send(make(serial=serial))
            lines, _ = await rest(process)
        assert (process.returncode, events_of(lines)) == (0, [0, 1])
        owed = [serial for serial in seen_in(path) if serial > 1]
        again = await printed(server, path)
    assert events_of(again) == [*owed, 999_999]


async def test_the_reader_that_leaves_takes_nothing_with_it(path: Path) -> None:
    async with SimulatorServer() as server:
        reader, writer = os.pipe()
        async with listening(*arguments(server, path), stdout=writer) as process:
            os.close(writer)
            await server.wait_for_subscribers()
            os.close(reader)
            await server.send(make(serial=1))
            _, err = await rest(process)
            assert process.returncode == 0, err
        owed = seen_in(path)
        again = await printed(server, path)
    assert events_of(again) == [*owed, 999_999]


async def test_a_repeat_from_before_the_restart_is_told(path: Path) -> None:
    async with SimulatorServer() as server:
        assert events_of(await printed(server, path)) == [999_999]
        async with listening(*arguments(server, path, "--count", "1")) as process:
            await server.wait_for_subscribers()
            await server.send(make(serial=1))
            before, _ = await rest(process)
        sent = next(line for line in before if line.get("serial") == 1)
        async with listening(*arguments(server, path, "--count", "1")) as process:
            await server.wait_for_subscribers()
            await server.send({key: value for key, value in sent.items() if key != "params"})
            await server.send(make(serial=2))
            after, _ = await rest(process)
    assert events_of(before) == [1]
    assert events_of(after) == [2]


@pytest.mark.parametrize("beside", [False, True])
async def test_the_journal_can_be_looked_into(path: Path, *, beside: bool) -> None:
    async with SimulatorServer() as server, listening(*arguments(server, path)) as process:
        await server.wait_for_subscribers()
        await server.send(make(serial=7))
        await read_until(process.stdout, "delivered")
        if not beside:
            process.send_signal(signal.SIGTERM)
            await rest(process)
        told = run("journal", "stats", str(path), "--json")
        stats = json.loads(told.stdout)
        assert (told.returncode, stats["inUse"], stats["events"]) == (0, beside, 1)
        assert [one["name"] for one in stats["handlers"]] == ["output"]
        listed = run("journal", "list", str(path), "--json")
        assert json.loads(listed.stdout)["event"]["serial"] == 7


async def test_a_journal_is_one_process(path: Path) -> None:
    async with SimulatorServer() as server, listening(*arguments(server, path)):
        await server.wait_for_subscribers()
        second = run(*arguments(server, path))
    assert second.returncode == 74
    (said,) = second.stderr.splitlines()
    assert "one process a journal" in said


@pytest.mark.parametrize("text", [b"a letter to somebody\n" * 100, b""])
def test_what_is_not_a_journal_is_left_as_it_is(path: Path, text: bytes) -> None:
    path.write_bytes(text)
    done = run("--demo", "--count", "1", "--journal", str(path))
    if text:
        assert (done.returncode, path.read_bytes()) == (74, text)
        assert "name another file" in done.stderr
        assert "Traceback" not in done.stderr
    else:
        assert done.returncode == 0  # an empty file is a journal to be


async def fill(path: Path) -> None:
    async with journal(path) as store:
        for number in range(200):
            store.add(entry(number))


@pytest.mark.parametrize(
    "kind", ["directory", "nowhere", "in a file", "letter", "database", "damaged", "link"]
)
def test_check_says_of_a_journal_what_a_run_would(path: Path, kind: str) -> None:
    root = path.parent
    match kind:
        case "directory":
            path.mkdir()
        case "nowhere":
            path = path.parent / "none" / "journal.db"
        case "in a file":
            path.touch()
            path /= "journal.db"
        case "letter":
            path.write_bytes(b"a letter to somebody\n" * 100)
        case "database":
            with closing(sqlite3.connect(path)) as db:
                db.execute("CREATE TABLE letter (text)")
        case "damaged":
            asyncio.run(fill(path))
            damage(path)
        case _:
            path.symlink_to("none")
    before = sorted(root.rglob("*"))
    check = run("check", "--demo", "--journal", str(path))
    assert sorted(root.rglob("*")) == before
    begun = run("--demo", "--count", "1", "--journal", str(path))
    assert check.returncode == begun.returncode == 74
    said = json.loads(begun.stderr.splitlines()[-1])["problem"]
    assert check.stderr == f"cti-listen: {said}\n"


async def test_check_takes_a_journal_that_is_one_or_will_be(path: Path) -> None:
    assert run("check", "--demo", "--journal", str(path)).returncode == 0
    assert list(path.parent.iterdir()) == []
    async with SimulatorServer() as server, listening(*arguments(server, path)):
        await server.wait_for_subscribers()
        assert run("check", "--demo", "--journal", str(path)).returncode == 0
    before = sorted(path.parent.iterdir())
    assert run("check", "--demo", "--journal", str(path)).returncode == 0
    assert sorted(path.parent.iterdir()) == before


async def test_a_journal_that_is_full_ends_the_run_and_says_so_beforehand(path: Path) -> None:
    """Nothing is lost: what was committed is printed by the next run, the rest lies in a gap."""
    stream = ((0.0, make("held", serial=serial)) for serial in itertools.count())
    async with SimulatorServer(centre=stream, speed=0, await_subscriber=True) as server:
        given = arguments(server, path, "--log-format", "json")
        async with listening(*given, CTI_JOURNAL_MAX_SIZE=str(2**20)) as process:
            lines, err = await rest(process)
    assert process.returncode == 74
    said = [json.loads(line) for line in err.splitlines()]
    names = [line["event"] for line in said]
    assert names.index("journal_nearly_full") < names.index("journal_failed")
    assert events_of(lines) == list(range(len(events_of(lines))))
    async with SimulatorServer() as quiet:
        again = await printed(quiet, path)
    after = events_of(again)
    assert [*events_of(lines)[: after[0]], *after[:-1]] == seen_in(path)[:-1]
    assert gaps_of(again) == ["listener_down"]


def test_a_retention_below_the_time_in_which_repeats_are_told_is_refused(path: Path) -> None:
    done = run("--demo", "--journal", str(path), CTI_JOURNAL_RETENTION="60")
    assert done.returncode == 78
    assert "journal_retention: must not be below dedupe_age (3600 s)" in done.stderr
    assert not path.exists()


def test_retention_and_size_are_held_to_their_ranges() -> None:
    for name in ("CTI_JOURNAL_RETENTION", "CTI_JOURNAL_MAX_SIZE", "CTI_REDUNDANCY"):
        done = run("check", "--demo", **{name: "0"})
        assert done.returncode == 78
        assert name in done.stderr
