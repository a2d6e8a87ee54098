"""How long whole processes take to begin."""

from __future__ import annotations

import os
import selectors
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench.speed.ratios import Row, over, row
from bench.speed.sender import Load

PROGRAM = (sys.executable, "-m", "cti_listener")
LIBRARIES = (
    "import asyncio, cyclopts, websockets.asyncio.client, pydantic, pydantic_settings, structlog,"
    " tenacity"
)
NEEDED = f"{LIBRARIES}, cti_listener.cli, cti_listener.app"
"""What the program must import to listen: the libraries, and itself."""

AT_ONCE = "; import os; os._exit(0)"
"""Ends a process when it has imported: what is held against it has not ended either."""


def starting(sender: str, rounds: int) -> Iterator[Row]:
    """Compare processes, in turn."""
    cyclopts = (sys.executable, "-c", "import cyclopts")
    ways: dict[str, Callable[[], float]] = {
        "cyclopts": lambda: _seconds(cyclopts),
        "version": lambda: _seconds((*PROGRAM, "--version")),
        "help": lambda: _seconds((*PROGRAM, "--help")),
        "needed": lambda: _seconds((sys.executable, "-c", NEEDED + AT_ONCE)),
        "libraries": lambda: _seconds((sys.executable, "-c", LIBRARIES + AT_ONCE)),
        "listening": lambda: _until(sender, '"connected"')[0],
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    first: list[float] = []
    for number in range(rounds + 1):
        for name, way in ways.items():
            took = way()
            if number:
                found[name].append(took)
        if number:
            first.append(_until(sender, '"eventName"')[1])
    for name in ("version", "help"):
        yield row(
            f"cti-listen --{name}: to `python -c 'import cyclopts'`",
            over(found[name], found["cyclopts"]),
            at_most=1.3,
            detail=_milli(found[name]),
        )
    yield row(
        "cti-listen, until it is connected: to importing what it must",
        over(found["listening"], found["needed"]),
        at_most=1.2,
        detail=f"{_milli(found['listening'])} to {_milli(found['needed'])}",
    )
    yield row(
        "cti-listen, until it is connected: to importing its libraries alone",
        over(found["listening"], found["libraries"]),
        detail=_milli(found["libraries"]),
    )
    yield row("cti-listen, from connected to the first event printed, s", first, at_most=0.3)


def _milli(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds) * 1e3:.0f} ms"


def _seconds(command: Sequence[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def _until(sender: str, text: str) -> tuple[float, float]:
    """Run the program until it prints or logs this; return when, and since it was connected."""
    url = Load(1_000_000, rate=2000).url(sender, "json")
    command = (
        *PROGRAM,
        "--url",
        url,
        "--wire",
        "json",
        "--ns",
        "zhen04.cc",
        "--proxy",
        "none",
    )
    environment = {
        **os.environ,
        "CTI_LOG_FORMAT": "json",
        "CTI_FORMAT": "json",
        "CTI_QUERY": "device=",
    }
    began = time.perf_counter()
    connected = began
    with (
        subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=Path.home(),
        ) as process,
        selectors.DefaultSelector() as selector,
    ):
        try:
            for stream in (process.stdout, process.stderr):
                assert stream is not None
                selector.register(stream, selectors.EVENT_READ)
            said = ""
            while True:
                for key, _ in selector.select():
                    data = os.read(key.fd, 65536)
                    assert data, said
                    said += data.decode()
                now = time.perf_counter()
                if '"connected"' in said and connected == began:
                    connected = now
                if text in said:
                    return now - began, now - connected
        finally:
            process.kill()
