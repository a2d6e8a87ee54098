"""The program as a user runs it: a process with an environment of its own.

Used by the tests of the command line; every process started here ends with its test.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cti_listener.simulator import Centre

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

ROOT = Path(__file__).parent.parent
PROGRAM = (sys.executable, "-m", "cti_listener")
LIMIT = 50.0
"""The longest a program may take, in seconds."""


def environment(**settings: str) -> dict[str, str]:
    """Return this process's environment, with these settings and no others of ours."""
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("CTI_")}
    for name in ("NO_COLOR", "FORCE_COLOR", "PYTHONUNBUFFERED"):
        inherited.pop(name, None)
    return {**inherited, "PYTHONPATH": str(ROOT), **settings}


def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the program to its end."""
    return subprocess.run(
        [*PROGRAM, *arguments],
        env=environment(**settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=LIMIT,
        check=False,
    )


@contextlib.contextmanager
def started(*arguments: str, env: dict[str, str] | None = None, **options: Any) -> Iterator[Any]:
    """Start the program; it is killed at the end of the block if it still runs then."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    process = subprocess.Popen(
        [*PROGRAM, *arguments],
        env=env or environment(),
        stdin=subprocess.DEVNULL,
        **options,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@contextlib.asynccontextmanager
async def listening(
    *arguments: str,
    stdout: int = asyncio.subprocess.PIPE,
    module: str = "cti_listener",
    **settings: str,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the program beside the test; it is killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module),
        *arguments,
        env=environment(**settings),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE,
        limit=2**20,
    )
    try:
        async with asyncio.timeout(LIMIT):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def read_line(stream: asyncio.StreamReader | None) -> dict[str, Any]:
    assert stream is not None
    line: dict[str, Any] = json.loads(await stream.readline())
    return line


async def read_until(stream: asyncio.StreamReader | None, name: str) -> dict[str, Any]:
    """Read log lines or events up to the one of this name."""
    while True:
        line = await read_line(stream)
        if name in (line.get("event"), line.get("eventName")):
            return line


async def rest(process: asyncio.subprocess.Process) -> tuple[list[dict[str, Any]], str]:
    """Read to the end; return the lines on stdout, and stderr."""
    out, err = await process.communicate()
    return [json.loads(line) for line in (out or b"").splitlines()], err.decode()


class StoppedReader:
    """A pipe that nobody reads."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()

    async def is_full(self) -> None:
        """Wait until the program has filled it."""
        poll = select.poll()
        poll.register(self.writer, select.POLLOUT)
        while poll.poll(0):  # noqa: ASYNC110 - it tells when it is free, not when it is full
            await asyncio.sleep(0.01)

    def close(self) -> None:
        os.close(self.reader)
        os.close(self.writer)


def centre(**options: Any) -> Centre:
    """Return a contact centre that is busier than one would be."""
    return Centre(**{"seed": 1, "agents": 8, "rate": 200.0, **options})
