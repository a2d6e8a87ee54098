"""What the daemon shows beside its events: secrets kept, health, filters, the terminal."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from cti_listener.simulator import SimulatorServer
from tests.examples import make, make_agent
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


class TestSecrets:
    async def test_are_read_afresh_for_every_attempt(self, tmp_path: Path) -> None:
        secret = tmp_path / "token"
        secret.write_text("CANARY-old\n", encoding="utf-8")
        async with (
            SimulatorServer(token="CANARY-old") as server,
            listening("--url", server.json_url, "--token-file", str(secret)) as process,
        ):
            await read_until(process.stdout, "connected")
            secret.write_text("CANARY-new\n", encoding="utf-8")
            server.token = "CANARY-new"
            await server.disconnect()
            await read_until(process.stdout, "gap")
            process.send_signal(signal.SIGTERM)
            _, errors = await rest(process)
            assert (process.returncode, "CANARY" in errors) == (0, False)

    async def test_never_reach_the_log_however_much_is_logged(self) -> None:
        async with (
            SimulatorServer(credentials=("me", "CANARY-1"), token="CANARY-2") as server,
            listening(
                *("--url", server.stomp_url, "--log-level", "debug", "--duration", "0.5"),
                CTI_LOGIN="me",
                CTI_PASSCODE="CANARY-1",
                CTI_TOKEN="CANARY-2",
                CTI_COOKIE="a=CANARY-3",
                CTI_HEADER="X-Mine: CANARY-4",
                CTI_CONNECT_HEADER="X-Mine: CANARY-5",
            ) as process,
        ):
            lines, errors = await rest(process)
            assert process.returncode == 0
            assert [line["eventName"] for line in lines] == ["connected"]
            assert '"level": "debug"' in errors
            assert "CANARY" not in errors


class TestHealth:
    async def test_the_check_finds_the_listener_without_a_setting(self, tmp_path: Path) -> None:
        place = str(tmp_path)
        async with (
            SimulatorServer() as server,
            listening("--url", server.stomp_url, XDG_RUNTIME_DIR=place) as process,
        ):
            await read_until(process.stderr, "connected")
            done = await asyncio.to_thread(run, "healthcheck", XDG_RUNTIME_DIR=place)
            assert (done.returncode, done.stderr) == (0, "")
            process.send_signal(signal.SIGSTOP)  # as a loop that hangs
            check = partial(run, "healthcheck", "--max-age", "0", XDG_RUNTIME_DIR=place)
            done = await asyncio.to_thread(check)
            assert done.returncode == 1
            assert f"the event loop of process {process.pid} last turned" in done.stderr
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
        assert await asyncio.to_thread(lambda: list(tmp_path.glob("*/*"))) == []

    async def test_a_reader_that_stops_does_not_stop_the_loop(
        self, tmp_path: Path, stopped_reader: StoppedReader
    ) -> None:
        file = tmp_path / "health.json"
        async with (
            SimulatorServer(centre=centre(), speed=0) as server,
            listening(
                *("--url", server.stomp_url, "--ns", "zhen04.cc", "--health-file", str(file)),
                stdout=stopped_reader.writer,
            ),
        ):
            await stopped_reader.is_full()
            beats = {json.loads(file.read_text(encoding="utf-8"))["monotonic"]}
            while len(beats) < 3:
                await asyncio.sleep(0.1)
                beats.add(json.loads(file.read_text(encoding="utf-8"))["monotonic"])

    def test_a_file_that_cannot_be_written_is_told(self) -> None:
        done = run("--demo", "--health-file", "/nowhere/health.json")
        assert done.returncode == 78
        assert "health_file: there is no directory /nowhere" in done.stderr


NOON, ONE, TWO = ({"eventTime": f"2026.03.18 {hour}:00:00"} for hour in (12, 13, 14))

STORY: Final = [
    make_agent("agentLoggedOn", agent=5001, device=8001, serial=1, **NOON),
    make("delivered", 8001, serial=2, **NOON),
    make_agent("agentLoggedOn", agent=5002, device=8002, serial=3, **NOON),
    make("delivered", 8002, serial=4, **NOON),
    make("connectionCleared", 8002, serial=5, **NOON),
    make_agent("agentLoggedOff", agent=5002, device=8002, serial=6, **NOON),
    make("held", 8001, serial=7, **NOON),
    make_agent("agentLoggedOn", agent=5002, device=8004, serial=8, **ONE),
    make("delivered", 8004, serial=9, **ONE),
    make("established", 8004, serial=10, **ONE),
    make_agent("agentLoggedOn", agent=5003, device=8002, serial=11, **ONE),
    make("delivered", 8002, serial=12, **ONE),
    make("held", 8003, serial=13, **ONE),
    make_agent("agentReady", agent=5003, device=8002, serial=14, **ONE),
    make_agent("agentNotReady", agent=5002, device=8004, serial=15, **ONE),
    make("connectionCleared", 8004, serial=16, **ONE),
    make_agent("agentLoggedOff", agent=5002, device=8004, serial=17, **TWO),
    make_agent("agentLoggedOff", agent=5003, device=8002, serial=18, **TWO),
    make_agent("agentLoggedOn", agent=5002, device=8002, serial=19, **TWO),
    make("delivered", 8004, serial=20, **TWO),
    make("delivered", 8002, serial=21, **TWO),
]
"""Agent 5002 moves from device 8002 to 8004 and back; 5003 sits at 8002 meanwhile."""


class TestFilters:
    async def test_a_device_gets_its_own_events_and_no_others(self) -> None:
        async with (
            SimulatorServer(centre=centre()) as server,
            listening(
                *("--url", server.json_url, "--ns", "zhen04.cc", "--device", "8002"),
                *("--count", "30"),
            ) as process,
        ):
            lines, _ = await rest(process)
            assert {
                line.get("srcDeviceId") or line["eventSrc"]
                for line in lines
                if line["eventType"] != "listener"
            } == {"8002@zhen04.cc"}

    @pytest.mark.parametrize("wire", ["stomp", "json"])
    @pytest.mark.parametrize(
        ("flags", "expected"),
        [
            (("--device", "8002"), [3, 4, 5, 6, 11, 12, 14, 18, 19, 21]),
            (("--agent", "5002"), [3, 4, 5, 6, 8, 9, 10, 15, 16, 17, 19, 21]),
            (
                ("--device", "8002", "--agent", "5002"),
                [3, 4, 5, 6, 8, 9, 10, 11, 12, 14, 15, 16, 17, 18, 19, 21],
            ),
        ],
        ids=["device", "agent", "both"],
    )
    async def test_of_everybodys_events_exactly_those_come_that_were_asked_for(
        self, flags: tuple[str, ...], expected: list[int], wire: str
    ) -> None:
        async with SimulatorServer() as server:
            everybody = {
                "stomp": ("--url", server.stomp_url, "--topic", "/topic/event.agent.*.*"),
                "json": ("--url", server.json_url),
            }
            arguments = (*everybody[wire], "--ns", "zhen04.cc", *flags)
            # The gateway is not told whom we want.
            async with listening(*arguments, CTI_QUERY="all=true") as process:
                await read_until(process.stdout, "connected")
                assert [await server.send(event) for event in STORY] == [1] * len(STORY)
                lines = [await read_line(process.stdout) for _ in expected]
                process.send_signal(signal.SIGTERM)
                more, errors = await rest(process)
        assert (process.returncode, more) == (0, []), errors
        assert [line["serial"] for line in lines] == expected

    @pytest.mark.parametrize("flag", ["--device=8002", "--agent=5002"])
    def test_the_demo_soon_has_something_of_whoever_is_asked_for(self, flag: str) -> None:
        done = run("--demo", flag, "--count", "5")
        devices = {json.loads(line).get("srcDeviceId") for line in done.stdout.splitlines()}
        assert (done.returncode, devices - {None}) == (0, {"8002@zhen04.cc"})

    async def test_events_are_chosen_by_name_in_whatever_case(self) -> None:
        async with (
            SimulatorServer(centre=centre()) as server,
            listening(
                *("--url", server.stomp_url, "--ns", "zhen04.cc", "--count", "10"),
                *("--event", "delivered,Established", "--event", "helt"),
            ) as process,
        ):
            lines, errors = await rest(process)
            names = {line["eventName"] for line in lines}
            assert names == {"connected", "delivered", "established"}
            assert '"name": "helt", "did_you_mean": "held"' in errors


class TestOnATerminal:
    @pytest.mark.parametrize(("settings", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
    def test_events_are_laid_out_for_people_and_said_once(
        self, settings: dict[str, str], coloured: object
    ) -> None:
        text = on_a_terminal("--demo", "--count", "5", TERM="xterm", **settings)
        assert ("\x1b[" in text) is coloured
        plain = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
        assert len(plain) == 6
        assert all(re.match(r"\d\d:\d\d:\d\d  ", line) for line in plain)
        assert sum("connected" in line for line in plain) == 1

    def test_json_is_there_when_asked_for(self) -> None:
        text = on_a_terminal("--demo", "--count", "1", "--format", "json", "--log-level", "error")
        assert json.loads(text.splitlines()[0])["eventName"]


def on_a_terminal(*arguments: str, **settings: str) -> str:
    """Run the program with a terminal of its own; return what it shows."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        [*PROGRAM, *arguments],
        env=environment(**settings),
        stdin=slave,
        stdout=slave,
        stderr=slave,
    ) as process:
        os.close(slave)
        shown = b""
        try:
            while chunk := os.read(master, 65_536):
                shown += chunk
        except OSError:  # the program has closed its end
            pass
        assert process.wait(LIMIT) == 0
    os.close(master)
    return shown.decode()
