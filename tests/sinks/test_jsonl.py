"""Files of JSON lines as sinks: what fails is tried again, and nobody else waits for it."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path

import pytest
import structlog

from cti_listener import ConfigurationError, Event, Gap
from tests.disks import full_at
from tests.examples import make
from tests.sinks.support import listening, options
from tests.turns import until


def serials(path: Path) -> list[int]:
    return [json.loads(line)["serial"] for line in path.read_bytes().splitlines()]


def by_name(directory: Path) -> list[Path]:
    return sorted(directory.iterdir())


@pytest.mark.parametrize("kept", [True, False])
async def test_a_directory_that_is_gone_costs_no_event(tmp_path: Path, *, kept: bool) -> None:
    home = tmp_path / "logs"
    home.mkdir()
    journal = tmp_path / "journal.db" if kept else None
    with structlog.testing.capture_logs() as logs:
        async with listening(
            f"jsonl:{home}/events.jsonl",
            made_with=options(),
            journal=journal,
            kinds=(Event,),
            lane_size=5,
        ) as running:
            running.source.send(make(serial=0))
            await until(lambda: running.sink.handled == 1)
            home.rename(tmp_path / "moved")
            for n in range(1, 20):
                running.source.send(make(serial=n, device=8000 + n % 3))
            await until(lambda: running.outlets[0].counts["tried_again"] > 3)
            assert running.source.paused != kept  # with a journal, reading goes on
            home.mkdir()
            await until(lambda: running.sink.handled == 20)
    assert serials(tmp_path / "moved" / "events.jsonl") == [0]
    assert serials(home / "events.jsonl") == list(range(1, 20))
    said = [one["event"] for one in logs if one["event"].startswith("sink_")]
    assert said == ["sink_failing", "sink_recovered"]


async def test_a_full_disk_leaves_what_is_owed_to_the_next_run(tmp_path: Path) -> None:
    file, journal = tmp_path / "events.jsonl", tmp_path / "journal.db"
    url, made_with = f"jsonl:{file}", options()
    async with listening(url, made_with=made_with, journal=journal, kinds=(Event,)) as running:
        running.source.send(make(serial=0))
        await until(lambda: running.sink.handled == 1)
        await asyncio.to_thread(file.rename, tmp_path / "aside")
        (tmp_path / "events.jsonl").mkdir()  # as good as a full disk: nothing can be written
        for n in range(1, 10):
            running.source.send(make(serial=n))
        await until(lambda: running.outlets[0].counts["tried_again"])
        await running.listener.stop(drain=0.0)
    file.rmdir()
    async with listening(url, made_with=options(), journal=journal, kinds=(Event,)) as running:
        await until(lambda: running.sink.handled == 9)
    assert serials(file) == list(range(1, 10))


async def test_a_disk_that_fills_within_a_line_costs_no_line(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    async with listening(f"jsonl:{file}", made_with=options(), kinds=(Event,)) as running:
        running.source.send(make(serial=0))
        await until(lambda: running.sink.handled == 1)
        with full_at(file.stat().st_size + 20):
            running.source.send(make(serial=1))
            await until(lambda: running.outlets[0].counts["tried_again"] > 1)
        await until(lambda: running.sink.handled == 2)
    assert serials(file) == [0, 1]


async def test_events_come_in_order_of_arrival_and_gaps_where_they_were_told(
    tmp_path: Path,
) -> None:
    file = tmp_path / "events.jsonl"
    async with listening(f"jsonl:{file}", made_with=options(), kinds=(Event, Gap)) as running:
        for n in range(50):
            running.source.send(make(serial=n, device=8000 + n % 7))
        running.source.disconnect()
        running.source.connect()
        running.source.send(make(serial=50))
        await until(lambda: running.sink.handled == 52)
    lines = [json.loads(line) for line in file.read_bytes().splitlines()]
    assert [line.get("serial", line["eventName"]) for line in lines] == [*range(50), "gap", 50]


async def test_a_file_that_can_never_be_written_ends_it_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    for text in ("directory", "directory/"):
        with pytest.raises(ConfigurationError) as caught:
            async with listening(f"jsonl:{tmp_path}/{text}", made_with=options()):
                pass
        assert caught.value.what == "to"


async def test_all_that_was_put_aside_and_the_file_are_the_stream(tmp_path: Path) -> None:
    made_with = options(jsonl_max_size=1000, jsonl_sync=True)
    async with listening(
        f"jsonl:{tmp_path}/events.jsonl", made_with=made_with, kinds=(Event,)
    ) as running:
        for n in range(40):
            running.source.send(make(serial=n))
        await until(lambda: running.sink.handled == 40)
    files = by_name(tmp_path)
    assert len(files) > 3
    assert list(itertools.chain.from_iterable(map(serials, files))) == list(range(40))
