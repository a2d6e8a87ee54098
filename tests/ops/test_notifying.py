"""What systemd is told, by a socket such as it listens at."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from cti_listener import Listener
from cti_listener.ops.notifying import PATIENCE, Notifier
from cti_listener.simulator import SimulatorServer
from cti_listener.testing import FakeSource, ManualClock
from tests.manager import Manager
from tests.program import listening, rest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    name = f"@cti-test-{os.getpid()}-{id(request)}"
    manager = Manager(str(tmp_path / "notify") if request.param == "path" else name)
    yield manager
    manager.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def source_and_listener() -> AsyncIterator[tuple[FakeSource, Listener]]:
    source = FakeSource()
    async with Listener(source, namespace="zhen04.cc") as listener:
        yield source, listener


@contextlib.asynccontextmanager
async def running(notifier: Notifier, listener: Listener) -> AsyncIterator[None]:
    """Run a notifier beside the test."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(notifier.run(listener.stats))
        await asyncio.sleep(0)
        yield
        task.cancel()


class TestNotifier:
    async def test_is_ready_with_the_first_subscription(
        self, manager: Manager, source_and_listener: tuple[FakeSource, Listener]
    ) -> None:
        _, listener = source_and_listener
        async with running(Notifier(manager.address), listener):
            first = await manager.told()
        assert first["READY"] == "1"
        assert first["STATUS"].startswith("Connected to ")
        assert first["STATUS"].endswith("; 0 events, 0 gaps")

    async def test_is_ready_after_a_time_where_the_server_is_away(
        self, manager: Manager, clock: ManualClock
    ) -> None:
        listener = Listener("ws://127.0.0.1:9/stomp", namespace="zhen04.cc")
        async with running(Notifier(manager.address, clock=clock), listener):
            first = await manager.told()
            await clock.advance(PATIENCE - 0.1)
            before = manager.waiting()
            await clock.advance(0.1)
            (after,) = manager.waiting()
        assert first["STATUS"].startswith("Connecting to ")
        assert ("READY" in first, before, after) == (False, [], {"READY": "1"})

    async def test_tells_what_changes_and_nothing_twice(
        self,
        manager: Manager,
        clock: ManualClock,
        source_and_listener: tuple[FakeSource, Listener],
    ) -> None:
        source, listener = source_and_listener
        notifier = Notifier(manager.address, clock=clock)
        async with running(notifier, listener):
            await manager.told()
            await clock.advance(60)
            assert manager.waiting() == []
            source.disconnect()
            notifier.look()
            (lost,) = manager.waiting()
            source.connect()
            notifier.look()
            (back,) = manager.waiting()
        assert "connecting again" in lost["STATUS"]
        assert back["STATUS"].endswith("; 0 events, 1 gap")

    async def test_shows_the_watchdog_that_the_loop_turns_twice_in_its_time(
        self,
        manager: Manager,
        clock: ManualClock,
        source_and_listener: tuple[FakeSource, Listener],
    ) -> None:
        _, listener = source_and_listener
        async with running(Notifier(manager.address, watchdog=3.0, clock=clock), listener):
            await clock.advance(6.1)
        assert [message["WATCHDOG"] for message in manager.waiting()] == ["1"] * 5

    async def test_asks_for_the_time_that_its_end_may_take(self, manager: Manager) -> None:
        Notifier(manager.address).stopping(60.0)
        told = await manager.told()
        assert (told["STOPPING"], told["EXTEND_TIMEOUT_USEC"]) == ("1", "65000000")

    async def test_what_a_full_socket_did_not_take_is_told_later(self, manager: Manager) -> None:
        full = 0
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.setblocking(False)
            to = f"\0{manager.address[1:]}" if manager.address[0] == "@" else manager.address
            with contextlib.suppress(BlockingIOError):
                while True:
                    other.sendto(b"X=1", to)
                    full += 1
        notifier = Notifier(manager.address)
        notifier.stopping(8.0)
        assert len(manager.waiting()) == full
        notifier.failed("no way\nout")
        (told,) = manager.waiting()
        assert (told["STOPPING"], told["STATUS"]) == ("1", "no way out")

    @pytest.mark.parametrize("address", ["/nowhere/notify", "vsock:2:1234"])
    async def test_a_socket_that_is_none_is_told_once_and_stops_nothing(self, address: str) -> None:
        notifier = Notifier(address)
        with capture_logs() as logs:
            notifier.stopping(8.0)
            notifier.failed("no way out")
        assert [line["event"] for line in logs] == ["notify_failed"]


class TestEnvironment:
    def test_is_taken_so_that_no_child_speaks_for_us(self) -> None:
        environ = {
            "NOTIFY_SOCKET": "/run/x",
            "WATCHDOG_USEC": "30000000",
            "WATCHDOG_PID": str(os.getpid()),
            "HOME": "/",
        }
        assert repr(Notifier.from_environ(environ)) == "<Notifier /run/x>"
        assert environ == {"HOME": "/"}

    def test_without_a_socket_nobody_is_told(self) -> None:
        notifier = Notifier.from_environ({"WATCHDOG_USEC": "1000000"})
        notifier.stopping(8.0)
        assert not notifier.is_on

    @pytest.mark.parametrize(
        "watchdog",
        [
            {"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"},  # another process's
            {"WATCHDOG_USEC": "0"},
            {"WATCHDOG_USEC": "soon"},
        ],
    )
    async def test_a_watchdog_that_is_not_ours_is_not_shown_anything(
        self, watchdog: dict[str, str], tmp_path: Path
    ) -> None:
        manager = Manager(str(tmp_path / "notify"))
        notifier = Notifier.from_environ({"NOTIFY_SOCKET": manager.address, **watchdog})
        listener = Listener("ws://127.0.0.1:9/stomp", namespace="zhen04.cc")
        async with running(notifier, listener):
            told = await manager.told()
        manager.close()
        assert list(told) == ["STATUS"]


class TestProgram:
    async def test_tells_its_start_its_standing_and_its_end(self, manager: Manager) -> None:
        async with (
            SimulatorServer() as server,
            listening(
                *("--url", server.stomp_url, "--ns", "zhen04.cc"),
                NOTIFY_SOCKET=manager.address,
                WATCHDOG_USEC="400000",
            ) as process,
        ):
            ready = await manager.told_of("READY")
            assert ready["STATUS"] == f"Connected to {server.stomp_url}; 0 events, 0 gaps"
            await manager.told_of("WATCHDOG")
            await server.disconnect()
            while "connecting again" not in (await manager.told_of("STATUS"))["STATUS"]:
                pass
            while "1 gap" not in (await manager.told_of("STATUS"))["STATUS"]:
                pass
            process.send_signal(signal.SIGTERM)
            stopping = await manager.told_of("STOPPING")
            assert stopping["EXTEND_TIMEOUT_USEC"] == "13000000"
            _, errors = await rest(process)
            assert (process.returncode, "notify" in errors) == (0, False)

    async def test_a_refusal_fails_the_start_and_says_why(self, manager: Manager) -> None:
        async with (
            SimulatorServer(credentials=("me", "right")) as server,
            listening(
                *("--url", server.stomp_url, "--login", "me"),
                CTI_PASSCODE="CANARY",
                NOTIFY_SOCKET=manager.address,
            ) as process,
        ):
            assert await process.wait() == 77
        told = manager.waiting()
        assert "READY" not in {name for message in told for name in message}
        assert told[-1]["STATUS"].startswith("refused by ws://127.0.0.1:")
        assert "CANARY" not in str(told)
