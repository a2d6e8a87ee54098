"""The daemon as a process of its own, against the simulator."""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cti_listener.simulator import SimulatorServer
from tests.examples import make
from tests.program import (
    LIMIT,
    PROGRAM,
    StoppedReader,
    centre,
    environment,
    listening,
    read_until,
    rest,
    run,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def stopped_reader() -> Iterator[StoppedReader]:
    reader = StoppedReader()
    yield reader
    reader.close()


@pytest.fixture
def reader() -> Iterator[SlowReader]:
    reader = SlowReader()
    yield reader
    reader.close()


class SlowReader(StoppedReader):
    """A pipe that is read more slowly than the program could write."""

    def __init__(self) -> None:
        super().__init__()
        self.capacity = fcntl.fcntl(self.writer, fcntl.F_GETPIPE_SZ)
        self.text = b""
        os.set_blocking(self.reader, False)

    async def read(self, size: int) -> None:
        """Read so many bytes, or fewer if that is all that ever comes."""
        end = len(self.text) + size
        while len(self.text) < end:
            try:
                chunk = os.read(self.reader, 16_384)
            except BlockingIOError:
                chunk = b" "
            else:
                self.text += chunk
            if not chunk:
                return
            await asyncio.sleep(0.005)

    def leave_writing_to_others(self) -> None:
        """Close our writing end, so that reading ends with the program."""
        os.close(self.writer)
        self.writer = os.open(os.devnull, os.O_WRONLY)


def endless() -> Iterator[tuple[float, dict[str, Any]]]:
    """Tell of 50 devices for ever; the serials count the events."""
    for serial in itertools.count(1):
        yield 0.0, make("held", 8001 + serial % 50, serial=serial)


class TestEnding:
    def test_count_prints_exactly_so_many_events(self) -> None:
        done = run("--demo", "--count", "20", "--format", "json")
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        names = [line["eventName"] for line in lines if line["eventType"] == "listener"]
        assert (done.returncode, len(lines) - len(names)) == (0, 20)
        assert names == ["connected"]

    def test_duration_ends_it(self) -> None:
        done = run("--demo", "--duration", "0.3")
        assert (done.returncode, "Traceback" in done.stderr) == (0, False)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    @pytest.mark.parametrize("wire", ["stomp", "json"])
    async def test_a_signal_under_load_loses_nothing_that_was_received(
        self, wire: str, number: signal.Signals, reader: SlowReader
    ) -> None:
        async with SimulatorServer(centre=endless(), speed=0, slow_after=LIMIT) as server:
            url = server.stomp_url if wire == "stomp" else server.json_url
            arguments = ("--url", url, "--ns", "zhen04.cc", "--format", "json")
            async with listening(*arguments, stdout=reader.writer) as process:
                await reader.read(200_000)
                await reader.is_full()
                before = len(reader.text)
                began = time.monotonic()
                process.send_signal(number)
                assert (await read_until(process.stderr, "stopping"))["signal"] == number.name
                reader.leave_writing_to_others()
                await reader.read(10_000_000)
                stopped = await read_until(process.stderr, "stopped")
                assert await process.wait() == 0
                assert time.monotonic() - began < 8  # the drain time
        # More was to come than the pipe can hold: the lanes had some of it when the signal came.
        assert len(reader.text) - before > 2 * reader.capacity
        lines = [json.loads(line) for line in reader.text.splitlines()]
        serials = [line["serial"] for line in lines if line["eventType"] != "listener"]
        assert serials == list(range(1, len(serials) + 1))
        assert stopped["received"] == stopped["distinct"] == stopped["printed"] == len(serials)

    async def test_a_reader_that_stops_is_waited_for_no_longer_than_the_drain_time(
        self, stopped_reader: StoppedReader
    ) -> None:
        async with (
            SimulatorServer(centre=centre(), speed=0) as server,
            listening(
                *("--url", server.stomp_url, "--ns", "zhen04.cc", "--drain", "0.2"),
                stdout=stopped_reader.writer,
            ) as process,
        ):
            await stopped_reader.is_full()
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 75
            failed = await read_until(process.stderr, "failed")
            assert re.fullmatch(r"\d+ events were not printed within .*", failed["problem"])

    async def test_a_second_signal_leaves_at_once(
        self, tmp_path: Path, stopped_reader: StoppedReader
    ) -> None:
        file = tmp_path / "health.json"
        async with (
            SimulatorServer(centre=centre(), speed=0) as server,
            listening(
                *("--url", server.stomp_url, "--ns", "zhen04.cc", "--health-file", str(file)),
                stdout=stopped_reader.writer,
            ) as process,
        ):
            await stopped_reader.is_full()
            process.send_signal(signal.SIGTERM)
            await read_until(process.stderr, "stopping")
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 128 + signal.SIGTERM
            assert not file.exists()

    async def test_a_reader_that_leaves_a_quiet_stream_ends_it(self) -> None:
        async with SimulatorServer() as server:
            reader, writer = os.pipe()
            async with listening("--url", server.stomp_url, stdout=writer) as process:
                os.close(writer)
                await read_until(process.stderr, "connected")
                os.close(reader)
                _, errors = await rest(process)
                assert (process.returncode, "failed" in errors) == (0, False)

    def test_a_reader_that_has_enough_ends_it(self) -> None:
        done = subprocess.run(
            ["sh", "-c", '"$@" --demo | head -3', "sh", *PROGRAM],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert (done.returncode, len(done.stdout.splitlines())) == (0, 3)
        assert "Traceback" not in done.stderr

    def test_an_output_that_cannot_be_written_is_an_error(self) -> None:
        with Path("/dev/full").open("wb") as full:
            done = subprocess.run(
                [*PROGRAM, "--demo"],
                env=environment(),
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                timeout=LIMIT,
                check=False,
            )
        assert done.returncode == 74
        assert "cannot write the output: No space left on device" in done.stderr


class TestFailing:
    def test_a_server_out_of_reach(self) -> None:
        done = run("--url", "ws://127.0.0.1:9/", "--max-attempts", "1")
        assert (done.returncode, done.stdout) == (69, "")
        failed = json.loads(done.stderr.splitlines()[-1])
        assert failed["event"] == "failed"
        assert failed["problem"].endswith("is the server up, and the port right?")

    async def test_a_server_that_refuses(self) -> None:
        async with (
            SimulatorServer(credentials=("me", "right")) as server,
            listening("--url", server.stomp_url, CTI_LOGIN="me", CTI_PASSCODE="CANARY") as process,
        ):
            _, errors = await rest(process)
            assert process.returncode == 77
            assert "CTI_PASSCODE" in errors
            assert "CANARY" not in errors

    def test_for_people_it_is_said_in_one_line(self) -> None:
        done = run("--demo", "--topic", "/topic/{devcie}", "--log-format", "console")
        assert done.returncode == 78
        assert re.fullmatch(r"cti-listen: .*\{devcie\}.*\n", done.stderr)


def test_python_m_runs_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cti_listener", "--version"],
        env=environment(),
        capture_output=True,
        timeout=LIMIT,
        check=True,
    )
    assert done.stdout
