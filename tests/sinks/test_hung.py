"""A disk that hangs under a sink's file: every end comes in time, and with its code."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from cti_listener.simulator import SimulatorServer
from tests.examples import make
from tests.program import listening, read_line, read_until, rest

MODULE: Final = "tests.sinks.hung"


@asynccontextmanager
async def hung(
    tmp_path: Path, *arguments: object, what: str = "write", stdout: int = subprocess.PIPE
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the program with a sink whose disk hangs; its health file must be gone at the end."""
    file = tmp_path / "health.json"
    async with listening(
        *("--ns", "zhen04.cc", "--to", f"jsonl:{tmp_path / 'lines'}", "--drain", "0.1"),
        *("--health-file", str(file), *map(str, arguments)),
        stdout=stdout,
        module=MODULE,
        CTI_HUNG=what,
        CTI_CLOSE_TIMEOUT="0.2",
    ) as process:
        yield process
    assert not file.exists()


@pytest.mark.parametrize("kept", [True, False])
async def test_sigterm_ends_it(tmp_path: Path, *, kept: bool) -> None:
    journal = ("--journal", tmp_path / "journal.db") if kept else ()
    async with (
        SimulatorServer() as server,
        hung(tmp_path, "--url", server.stomp_url, *journal) as process,
    ):
        await server.wait_for_subscribers()
        await server.send(make(serial=1))
        await read_until(process.stdout, "delivered")
        process.send_signal(signal.SIGTERM)
        _, errors = await rest(process)
    names = [json.loads(line)["event"] for line in errors.splitlines()]
    assert process.returncode == (0 if kept else 75), errors
    assert "sink_not_closed" in names
    assert names[-1] == ("left_in_journal" if kept else "failed")
    assert "journal_close_timed_out" not in names


async def test_sigterm_ends_it_while_the_file_is_being_opened(tmp_path: Path) -> None:
    async with (
        SimulatorServer() as server,
        hung(tmp_path, "--url", server.stomp_url, what="open") as process,
    ):
        await read_until(process.stderr, "hangs")
        process.send_signal(signal.SIGTERM)
        assert (await read_line(process.stderr))["event"] == "stopping"
        assert await process.wait() == 0


async def test_an_output_that_cannot_be_written_ends_it(tmp_path: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    async with (
        SimulatorServer() as server,
        hung(tmp_path, "--url", server.stomp_url, stdout=full) as process,
    ):
        os.close(full)
        assert await process.wait() == 74


@pytest.mark.parametrize(("code", "token"), [(69, None), (77, "another")])
async def test_a_server_that_is_away_or_refuses_ends_it(
    code: int, token: str | None, tmp_path: Path
) -> None:
    async with SimulatorServer(token=token) as server:
        url = "ws://127.0.0.1:9/" if code == 69 else server.json_url
        async with hung(tmp_path, "--url", url, "--max-attempts", 1) as process:
            _, errors = await rest(process)
            assert process.returncode == code, errors
