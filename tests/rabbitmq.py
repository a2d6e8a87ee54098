"""Debian's RabbitMQ with Web-STOMP, run by a test on free ports and gone without trace after it.

::

    async with rabbitmq(tmp_path) as broker:
        ...  # broker.url; await broker.kill(), broker.start(), broker.stop()

A start takes about four seconds, so a module with several tests keeps one broker. Nothing in a
`Broker` belongs to an event loop: tests on loops of their own may share it::

    @pytest_asyncio.fixture(scope="module", loop_scope="module")
    async def broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Broker]:
        async with rabbitmq(tmp_path_factory.mktemp("rabbitmq")) as broker:
            yield broker

Whatever it does to the machine stays in the directory it is given and on the loopback: its own
Erlang port mapper, cookie, database and log, so that a RabbitMQ that runs here already is neither
used nor disturbed. Its processes are killed by the kernel if the test run itself is.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

from tests.servers import free_ports, need_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

NAME = "rabbitmq-server"
SCRIPT = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
LOGIN = PASSCODE = "guest"
WS_PATH = "/mvc/stomp/websocket"

# Of RabbitMQ's own plugins, those that Web-STOMP is made of. With all forty on Erlang's path, each
# of the thousand modules is looked for in each of them, and a start takes two seconds more.
PLUGINS = ("rabbitmq_prelaunch", "rabbitmq_stomp", "rabbitmq_web_dispatch", "rabbitmq_web_stomp")

START_LIMIT = 45.0
STOP_LIMIT = 20.0
POLL = 0.05


@asynccontextmanager
async def rabbitmq(tmp_path: Path) -> AsyncIterator[Broker]:
    """Run a broker whose files are in `tmp_path`; it is up when this is entered."""
    await asyncio.to_thread(need_server, NAME, SCRIPT)
    broker = await asyncio.to_thread(Broker, tmp_path / "rabbitmq")
    try:
        await broker.start()
        yield broker
    finally:
        await broker.close()


class Broker:
    """One broker: its address, and the power over its life.

    Attributes:
        url: Where it speaks STOMP over WebSocket, to `LOGIN` and `PASSCODE`.
        home: The directory that holds all of its files, `broker.log` among them.
    """

    def __init__(self, home: Path) -> None:
        """Choose the ports; nothing runs before `start`."""
        self.home = home
        self._port, self._dist_port, self._epmd_port = free_ports(3)
        self.url = f"ws://127.0.0.1:{self._port}{WS_PATH}"
        self._beam: subprocess.Popen[bytes] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None
        # What blocks is done here, and processes are born here: the kernel kills them when the
        # thread that made them ends, which must not be the worker of a loop that goes before them.
        self._keeper = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rabbitmq")

    def __repr__(self) -> str:
        state = "down" if self._beam is None else f"pid {self._beam.pid}"
        return f"<Broker {self.url} {state}>"

    # ---------------------------------------------------------------------------- its life

    async def start(self) -> None:
        """Start it, with the ports and data it had before, and wait until a client is served."""
        await self._do(self._spawn)
        async with asyncio.timeout(START_LIMIT):
            while not await self._serves():
                await self._do(self._check_alive)
                await asyncio.sleep(POLL)

    async def kill(self) -> None:
        """End it at once, as a power cut would (SIGKILL)."""
        await self._do(self._end)

    async def stop(self) -> None:
        """Ask it to end in good order, which closes its connections (SIGTERM)."""
        await self._do(self._end_in_order)

    async def close(self) -> None:
        """End it and everything it started, for good."""
        # Shielded: a test that is cancelled twice must leave nothing behind either.
        await asyncio.shield(self._do(self._sweep))
        self._keeper.shutdown(wait=False)

    def _do(self, act: Callable[[], None]) -> asyncio.Future[None]:
        return asyncio.get_running_loop().run_in_executor(self._keeper, act)

    async def _serves(self) -> bool:
        """Tell whether a client gets as far as CONNECTED."""
        frame = f"CONNECT\naccept-version:1.2\nhost:/\nlogin:{LOGIN}\npasscode:{PASSCODE}\n\n\0"
        try:
            async with connect(
                self.url, subprotocols=[Subprotocol("v12.stomp")], proxy=None, close_timeout=1
            ) as socket_:
                await socket_.send(frame)
                return str(await socket_.recv()).startswith("CONNECTED\n")
        except (OSError, WebSocketException):
            return False

    # -------------------------------------------- what blocks, all of it in the keeper's thread

    def _spawn(self) -> None:
        if self._beam is not None:
            message = f"{self!r} runs already"
            raise RuntimeError(message)
        environment = self._write_files()
        if self._epmd is None:
            # Our own port mapper, in the foreground: the one Erlang would start is a daemon.
            self._epmd = self._popen(["epmd", "-address", "127.0.0.1"], environment)
            _wait_for_port(self._epmd_port)
        self._beam = self._popen([str(SCRIPT)], environment)

    def _popen(self, command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        with (self.home / "broker.log").open("ab") as log:
            return subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=self.home,
                start_new_session=True,  # Ctrl-C in a terminal is for the tests alone
            )

    def _check_alive(self) -> None:
        if self._beam is None or self._beam.poll() is not None:
            log = (self.home / "broker.log").read_text(errors="replace")
            message = f"{NAME} ended while starting; its log ends:\n{log[-3000:]}"
            raise RuntimeError(message)

    def _end(self) -> None:
        if self._beam is not None:
            self._beam.kill()
            self._beam.wait()
            self._beam = None

    def _end_in_order(self) -> None:
        if self._beam is not None:
            self._beam.terminate()
            try:
                self._beam.wait(STOP_LIMIT)
            finally:
                self._end()

    def _sweep(self) -> None:
        self._end()
        # After the broker, which would start another port mapper in its place.
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait()
            self._epmd = None
        deadline = time.monotonic() + STOP_LIMIT
        while left := processes(self.home):
            for pid in left:
                _kill(pid)
            if time.monotonic() > deadline:
                message = f"cannot end {left} of {self!r}"
                raise RuntimeError(message)
            time.sleep(POLL)

    def _write_files(self) -> dict[str, str]:
        """Write its configuration, once, and return the environment that points to it."""
        self.home.mkdir(parents=True, exist_ok=True)
        installed = SCRIPT.resolve().parent.parent
        ours = self.home / "installed"
        if not ours.exists():
            (ours / "plugins").mkdir(parents=True)
            (ours / "sbin").symlink_to(installed / "sbin")
            for plugin in (installed / "plugins").iterdir():
                name = plugin.name.rpartition("-")[0]
                if name in PLUGINS or not name.startswith("rabbitmq_"):
                    (ours / "plugins" / plugin.name).symlink_to(plugin)
        (self.home / "enabled_plugins").write_text("[rabbitmq_web_stomp].\n")
        (self.home / "rabbitmq.conf").write_text(
            "listeners.tcp = none\n"
            "stomp.listeners.tcp = none\n"
            "web_stomp.tcp.ip = 127.0.0.1\n"
            f"web_stomp.tcp.port = {self._port}\n"
            f"web_stomp.ws_path = {WS_PATH}\n"
            "log.console = true\n"
            "log.console.level = info\n"
        )
        return {
            "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(self.home),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.home / "none.config"),
            # With it the script becomes the broker instead of waiting for it ...
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_CONFIG_FILE": str(self.home / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(self.home / "none.conf"),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.home / "enabled_plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(self.home / "generated"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_LOG_BASE": str(self.home / "log"),
            "RABBITMQ_MNESIA_BASE": str(self.home / "mnesia"),
            "RABBITMQ_NODENAME": f"cti-{self._port}@localhost",
            "RABBITMQ_PLUGINS_DIR": str(ours / "plugins"),
            "RABBITMQ_SCRIPTS_DIR": str(ours / "sbin"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}"
            ),
            # ... and this is what it then leaves out.
            "RABBITMQ_SERVER_START_ARGS": "-noinput",
        }


def processes(home: Path) -> list[int]:
    """Return the processes of the broker in `home`, however far they went from their parents."""
    mark = f"HOME={home}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:  # gone, or somebody else's
                continue
            if mark in environment.split(b"\0"):
                found.append(int(entry.name))
    return found


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL)
        else:
            return
