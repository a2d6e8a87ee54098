"""Settings to a running daemon: the listener with its output, health file, signals and drain.

`cli` calls `listen` and `simulate`. What ends a run ends it in order: take no more events, close
the connection, let the output finish, say how it went.
"""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

from cti_listener.errors import ConfigurationError
from cti_listener.event_base import Event
from cti_listener.listener import Listener
from cti_listener.log import log
from cti_listener.notices import Connected, Disconnected, Gap, Notice
from cti_listener.ops import health, logs, terminal
from cti_listener.ops.descriptor import Descriptor
from cti_listener.ops.exits import ExitCode, leave_if_held_up, signals, verdict
from cti_listener.ops.masking import Masker
from cti_listener.ops.notifying import Notifier
from cti_listener.ops.output import Output, json_line
from cti_listener.ops.pretty import Pretty
from cti_listener.settings.making import (
    DEMO_NAMESPACE,
    completed,
    make_admin_server,
    make_listener,
    make_sinks,
    wanted,
)
from cti_listener.sinks.outlet import Outlet
from cti_listener.sinks.running import attach, opened, records, shortfall
from cti_listener.sources.options import secrets_of_credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping, Sequence

    from cti_listener.admin.server import AdminServer
    from cti_listener.settings import Settings
    from cti_listener.simulator import SimulatorServer
    from cti_listener.sources.options import Credentials


_DEMO: Final[dict[str, Any]] = {"seed": 215, "agents": 8, "rate": 5.0}
"""A centre in which everything happens within half a minute, at each device soon."""

_TOLD_AS_NOTICES: Final = frozenset({"connected", "disconnected", "gap", "destination_refused"})
_FOR_MACHINES: Final = frozenset({"stopped"})


def listen(settings: Settings, environ: MutableMapping[str, str]) -> int:
    """Listen until told to stop; return the exit code, or leave with it if a thread hangs."""
    threads = ThreadPoolExecutor(thread_name_prefix="cti-thread")
    with asyncio.Runner() as runner:
        runner.get_loop().set_default_executor(threads)
        code = runner.run(_Run(completed(settings), environ).run())
        threads.shutdown(wait=False, cancel_futures=True)
        leave_if_held_up(code)
    return code


class _Run:
    """One run of the daemon.

    Its parts report to it: signals, the output and the time limit set `_stop_asked`; `_failure` is
    what ended the listener by itself. `_beginning` is who gets ready, until the listener runs.
    """

    def __init__(self, settings: Settings, environ: MutableMapping[str, str]) -> None:
        self._settings = settings
        self._environ = environ
        self._stop_asked = asyncio.Event()
        self._hung_up = asyncio.Event()
        self._beginning: asyncio.Task[Any] | None = None
        self._sinks: list[Outlet] = []
        self._admin: AdminServer | None = None
        self._failure: Exception | None = None
        self._notifier = Notifier.from_environ(environ)
        self._left = self._unkept = 0
        self._masker = Masker(numbers=settings.mask_numbers, own=settings.own())
        self._masker.learn(settings.secrets())
        stdout, stderr = Descriptor(1), Descriptor(2)
        self._stdout = stdout
        pretty = settings.format == "pretty" or (settings.format == "auto" and stdout.terminal)
        self._output = Output(
            stdout,
            self._pretty(stdout) if pretty else json_line,
            count=settings.count,
            on_end=self._stop_asked.set,
        )
        as_json = settings.log_format == "json"
        if settings.log_format == "auto":
            as_json = not stderr.terminal
        on_one_screen = pretty and stdout.terminal and stderr.terminal
        self._logs = logs.configure(
            logs.LogSink(stderr),
            self._masker,
            level=settings.log_level,
            as_json=as_json,
            colour=terminal.colour_wanted(terminal=stderr.terminal, environ=environ),
            # What stands among the events already need not be said twice, and nobody counts them.
            leave_out=_TOLD_AS_NOTICES | _FOR_MACHINES if on_one_screen else frozenset(),
            zone=ZoneInfo(settings.zone) if on_one_screen else None,
        )

    async def run(self) -> int:
        """Listen; return the exit code."""
        self._beginning = asyncio.current_task()
        try:
            async with AsyncExitStack() as stack:
                file = self._health_file()
                if file is not None:
                    stack.callback(file.remove)
                at_once = file.remove if file else lambda: None
                stack.enter_context(signals(self._asked, at_once, self._hung_up.set))
                self._sinks = await asyncio.to_thread(
                    make_sinks, self._settings, stdout=self._stdout, learn=self._masker.learn
                )
                await stack.enter_async_context(
                    opened(self._sinks, self._hung_up, within=self._settings.close_timeout)
                )
                urls = self._settings.url
                if self._settings.demo:
                    server = await stack.enter_async_context(demo_server(self._settings))
                    urls = (server.json_url if self._settings.wire == "json" else server.stomp_url,)
                listener = self._listener(urls)
                if self._settings.admin is not None:
                    self._admin = make_admin_server(
                        self._settings,
                        listener,
                        masker=self._masker,
                        sinks=partial(self._sink_records, listener),
                    )
                    await stack.enter_async_context(self._admin)
                self._beginning = None
                await self._live(listener, file)
        except asyncio.CancelledError:
            if not self._stop_asked.is_set():
                raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it becomes a line and a code
            self._failure = error
        return self._conclude()

    def _asked(self, name: str) -> None:
        log.info("stopping", signal=name)
        self._stop_asked.set()
        if self._beginning is not None:  # it may wait for a disk, and nothing is there to be ended
            self._beginning.cancel()

    def _listener(self, urls: Sequence[str]) -> Listener:
        auth = self._credentials if self._settings.has_credentials else None
        listener = make_listener(self._settings, urls, auth)
        printed, passed_on = wanted(self._settings)
        register = listener.on(*printed, Notice, order="all", overflow="block", name="output")
        register(self._output.take)
        kept = self._settings.journal is not None
        attach(listener, self._sinks, (*passed_on, Notice), kept=kept)
        if self._notifier.is_on:
            listener.on(Connected, Disconnected, Gap)(self._tell_manager)
        return listener

    async def _tell_manager(self, _notice: Notice) -> None:
        self._notifier.look()

    def _sink_records(self, listener: Listener) -> dict[tuple[str, str], int]:
        """Return what became of what was to be printed and passed on, by sink and outcome."""
        refused = int(self._output.error is not None)
        printed = {("output", "taken"): self._output.events, ("output", "refused"): refused}
        return printed | records(listener, self._sinks)

    async def _credentials(self) -> Credentials:
        """Read what proves who we are, for one attempt; from then on it is never shown."""
        found = await asyncio.to_thread(self._settings.credentials)
        self._masker.learn(secrets_of_credentials(found))
        return found

    async def _live(self, listener: Listener, file: health.HealthFile | None) -> None:
        """Run the listener, and what goes on beside it, until all of it has ended."""
        async with asyncio.TaskGroup() as tasks:
            keeper = tasks.create_task(self._keep(listener, file))
            notifier = tasks.create_task(self._notifier.run(listener.stats))
            ender = tasks.create_task(self._end_when_asked(listener))
            try:
                await listener.run()
            except Exception as error:  # noqa: BLE001 - kept: it decides on the exit code
                self._failure = error
                ender.cancel()
            keeper.cancel()
            notifier.cancel()
        if self._failure is None:
            stats = listener.stats()
            log.info(
                "stopped",
                received=stats.received,
                distinct=stats.distinct,
                printed=self._output.events,
            )

    async def _end_when_asked(self, listener: Listener) -> None:
        if self._settings.duration:
            loop = asyncio.get_running_loop()
            loop.call_later(self._settings.duration, self._stop_asked.set)
        await self._stop_asked.wait()
        self._notifier.stopping(self._settings.drain)
        left = await listener.stop(self._settings.drain)
        # What was not printed because enough was, or because nobody reads it, is not missed.
        over = {"output"} if self._output.ended else frozenset()
        self._left = sum(len(one.happenings) for one in left if one.handler not in over)
        kept = listener.stats().journal
        self._unkept = 0 if kept is None else kept.pending

    async def _keep(self, listener: Listener, file: health.HealthFile | None) -> None:
        """Show that the loop turns, and see to what nobody else wakes up for."""
        while True:
            if self._admin is not None:
                self._admin.beat()
            if file is not None:
                stats = listener.stats()
                facts = {"connected": stats.connected, "events": stats.distinct}
                try:
                    await asyncio.to_thread(file.beat, facts)
                except OSError as error:
                    log.warning("health_file_failed", path=str(file.path), problem=str(error))
            self._output.look()
            for sink in self._sinks:
                sink.look()
            self._logs.flush()
            await asyncio.sleep(health.INTERVAL)

    def _health_file(self) -> health.HealthFile | None:
        """Return where to show that we live.

        Raises:
            ConfigurationError: The file that was asked for cannot be written, or is another's.
        """
        path = self._settings.health_file
        try:
            if path is None:
                return health.own_file(self._environ)
            if (problem := health.unfit(path)) is not None:
                raise ConfigurationError("health_file", problem)
            file = health.HealthFile(path)
            file.beat({})
        except OSError as error:
            if path is not None:
                raise ConfigurationError("health_file", f"cannot write it: {error}") from None
            log.info("health_file_failed", problem=str(error))  # nobody asked for one
            return None
        return file

    def _pretty(self, stdout: Descriptor) -> Callable[[Event | Notice], bytes]:
        form = Pretty(
            zone=ZoneInfo(self._settings.zone),
            namespace=self._settings.namespace,
            colour=terminal.colour_wanted(terminal=stdout.terminal, environ=self._environ),
            columns=stdout.columns,
        )
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        return lambda happening: form.line(happening).encode(encoding, "backslashreplace")

    def _conclude(self) -> int:
        """Say what went wrong, if anything did, and return the code for it."""
        code, text = ExitCode.OK, ""
        if self._output.error is not None:
            code, text = ExitCode.OUTPUT, f"cannot write the output: {self._output.error.strerror}"
        elif self._failure is not None:
            code, text = verdict(self._failure)
        elif self._unkept:
            code = ExitCode.UNDRAINED
            text = f"{self._unkept} events never reached the journal: its disk is slow, or locked"
        elif self._left and self._settings.journal is not None:
            log.info("left_in_journal", happenings=self._left)
        elif text := shortfall(self._left, self._settings.drain, self._sinks):
            code = ExitCode.UNDRAINED
        if code is ExitCode.INTERNAL:
            log.error("internal_error", exc_info=self._failure)
        self._logs.flush(at_the_end=True)
        if code is not ExitCode.OK:
            self._notifier.failed(self._masker.text(text))
            self._logs.fail(text, code)
        self._logs.flush()
        return code


def demo_server(settings: Settings) -> SimulatorServer:
    """Return a small contact centre that opens when we listen, at the present time."""
    from cti_listener.simulator import Centre, SimulatorServer  # noqa: PLC0415 - for the demo only

    centre = Centre(
        **_DEMO,
        namespace=settings.namespace or DEMO_NAMESPACE,
        start=datetime.now(UTC),
    )
    return SimulatorServer(centre=centre, await_subscriber=True)


def simulate(
    say: Callable[[str], None],
    *,
    centre: Mapping[str, Any],
    faults: str,
    server: Mapping[str, Any],
) -> int:
    """Serve a simulated centre until told to stop; return the exit code.

    Args:
        say: Tells the user something.
        centre: What `Centre` takes.
        faults: What `Faults.parse` takes.
        server: What `SimulatorServer` takes besides.
    """
    from cti_listener.simulator import Centre, Faults, SimulatorServer  # noqa: PLC0415 - as above

    try:
        made = SimulatorServer(
            centre=Centre(**centre, start=datetime.now(UTC)), faults=Faults.parse(faults), **server
        )
    except ConfigurationError as error:
        say(str(error))
        return ExitCode.USAGE
    return asyncio.run(_serve(made, say))


async def _serve(server: SimulatorServer, say: Callable[[str], None]) -> int:
    stop_asked = asyncio.Event()
    with signals(lambda _name: stop_asked.set(), lambda: None):
        try:
            await server.start()
        except ConfigurationError as error:
            say(str(error))
            return ExitCode.CONFIGURATION
        say(f"STOMP  {server.stomp_url}")
        say(f"JSON   {server.json_url}")
        await stop_asked.wait()
        await server.stop()
    return ExitCode.OK
