"""The daemon as a process of its own, against the simulator."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cti_listener.simulator import SimulatorServer
from tests.program import (
    LIMIT,
    PROGRAM,
    StoppedReader,
    centre,
    environment,
    listening,
    read_line,
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
    async def test_a_signal_under_load_ends_it_cleanly(self, number: signal.Signals) -> None:
        async with (
            SimulatorServer(centre=centre(rate=1000.0, agents=200)) as server,
            listening("--url", server.stomp_url, "--ns", "zhen04.cc") as process,
        ):
            for _ in range(200):
                await read_line(process.stdout)
            process.send_signal(number)
            lines, errors = await rest(process)
            assert process.returncode == 0, errors
            serials = [line["serial"] for line in lines if line["eventType"] == "csta"]
            assert len(serials) == len(set(serials))
            assert f'"signal": "{number.name}"' in errors

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
        assert failed["problem"].endswith("check the URL, and that the server is up")

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
