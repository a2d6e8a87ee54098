"""A durable subscription on RabbitMQ: what the broker accepted is handled, whoever restarts."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from cti_listener.errors import ConfigurationError
from cti_listener.event_base import Event
from cti_listener.listener import Listener
from cti_listener.notices import Gap
from cti_listener.sources.options import Credentials
from cti_listener.sources.past import OUTLIVES
from cti_listener.wire.stomp_terms import Terms, queue_name
from tests.examples import NAMESPACE, make
from tests.program import environment, listening, rest
from tests.publisher import Publisher, publisher
from tests.rabbitmq import LOGIN, PASSCODE, Broker, rabbitmq

pytestmark = pytest.mark.server

PATIENCE = 30.0
EVERYBODY = "/topic/event.agent.*.*"
KNOWN = tuple(OUTLIVES.values())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Broker]:
    async with rabbitmq(tmp_path_factory.mktemp("rabbitmq")) as running:
        yield running


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the journal is; its folder's name is the test's, and the subscription's id."""
    return tmp_path / "journal.db"


class Run:
    """A listener, and what it handled."""

    def __init__(self, broker: Broker | Relay, path: Path, **options: Any) -> None:
        durable = {
            "durable": path.parent.name,
            "durable_expires": 60.0,
            "durable_max_length": 10_000,
        }
        self.listener = Listener(
            broker.url,
            namespace=NAMESPACE,
            auth=Credentials(login=LOGIN, passcode=PASSCODE),
            proxy=None,
            journal=path,
            **{**durable, **options},
        )
        self.events: list[Event] = []
        self.gaps: list[Gap] = []
        self._told = asyncio.Event()

        @self.listener.on(Event, name="work", order="all")
        async def work(event: Event) -> None:
            self.events.append(event)
            self._told.set()

        @self.listener.on(Gap)
        async def gap(notice: Gap) -> None:
            self.gaps.append(notice)
            self._told.set()

    @property
    def serials(self) -> list[int]:
        return [event.serial or 0 for event in self.events]

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._told.clear()
                await self._told.wait()

    async def until_handled(self, serials: list[int]) -> None:
        await self.until(lambda: set(serials) <= set(self.serials))


@asynccontextmanager
async def running(broker: Broker | Relay, path: Path, **options: Any) -> AsyncIterator[Run]:
    run = Run(broker, path, **options)
    async with run.listener:
        yield run


async def settled(path: Path, count: int = 1) -> None:
    """Wait until a run has kept that so many queues are empty."""

    def kept() -> int:
        try:
            with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as journal:
                names = [name for (name,) in journal.execute("SELECT name FROM queue")]
                return sum(" at " in name and not name.endswith(KNOWN) for name in names)
        except sqlite3.OperationalError:  # it is on the way of being made
            return 0

    async with asyncio.timeout(PATIENCE):
        while await asyncio.to_thread(kept) < count:  # noqa: ASYNC110 - only the file tells
            await asyncio.sleep(0.05)


async def be_known(broker: Broker | Relay, server: Publisher, path: Path, **options: Any) -> None:
    """Have a run keep that its queue is empty, and brings what outlives the broker."""
    async with running(broker, path, **options) as run:
        await server.publish_all(events(1))
        await run.until_handled(server.accepted)
        await settled(path)


async def begin_victim(broker: Broker | Relay, path: Path) -> asyncio.subprocess.Process:
    ledger = path.with_name("ledger")
    program = (sys.executable, "-m", "tests.durable_victim", broker.url, path, ledger)
    return await asyncio.create_subprocess_exec(*program, env=environment())


class Ledger:
    """What victims with this journal have handled."""

    def __init__(self, path: Path) -> None:
        self._file = path.with_name("ledger")
        self._file.touch()

    def handled(self) -> list[tuple[int, bool]]:
        lines = (line.split() for line in self._file.read_text().splitlines())
        return [(int(serial), redelivered == "1") for serial, redelivered in lines]

    async def until_handled(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while len(self.handled()) < count:  # noqa: ASYNC110 - only the file tells
                await asyncio.sleep(0.01)


def events(count: int) -> list[dict[str, Any]]:
    return [make("delivered", 8000 + number % 4) for number in range(count)]


async def publish_on(server: Publisher, enough: asyncio.Event, pause: float = 0.0) -> None:
    """Publish on and on, until it is enough or the broker is gone."""
    while not server.gone and not enough.is_set():
        await server.publish_all(events(20))
        await asyncio.sleep(pause)


# Restarts


async def test_what_is_published_while_the_listener_is_away_is_handled_when_it_is_back(
    broker: Broker, path: Path
) -> None:
    async with publisher(broker) as server:
        async with running(broker, path) as first:
            await server.publish_all(events(50))
            await first.until_handled(server.accepted)
            await settled(path)
        await server.publish_all(events(3000))  # more than are on their way at once
        async with running(broker, path) as second:
            await second.until_handled(server.accepted[50:])
            await second.until(lambda: second.gaps)
            stats = second.listener.stats()
    assert first.serials + second.serials == sorted(server.accepted)
    (gap,) = second.gaps
    assert (gap.reason, gap.recovered, first.gaps) == ("listener_down", True, [])
    assert not any(event.delivery.late for event in second.events)  # though it was looked for
    # What was handled before the end was acknowledged, so that it does not come again.
    assert (stats.received, stats.repeated) == (3000, 0)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_a_broker_that_restarts_loses_nothing_it_accepted(
    broker: Broker, path: Path, how: str
) -> None:
    accepted: list[int] = []
    async with running(broker, path) as run:
        await settled(path)
        async with publisher(broker) as server, asyncio.TaskGroup() as tasks:
            tasks.create_task(publish_on(server, asyncio.Event()))
            await run.until(lambda: len(run.serials) > 200)
            await (broker.kill() if how == "kill" else broker.stop())
        accepted += server.accepted
        await broker.start()
        async with publisher(broker) as server:
            await server.publish_all(events(100))
            accepted += server.accepted
        await run.until_handled(accepted)
        await run.until(lambda: run.gaps)
    assert len(accepted) > 200  # enough was under way
    assert run.serials == sorted(set(run.serials))  # once, and in order
    assert [(gap.reason, gap.recovered) for gap in run.gaps] == [("disconnected", True)]


async def test_a_broker_that_restarts_may_have_lost_what_does_not_outlive_it(
    broker: Broker, path: Path
) -> None:
    async with running(broker, path) as run:
        await settled(path)
        async with publisher(broker) as server:
            await server.publish_all(events(1), persistent=False)
            await run.until_handled(server.accepted)
        await broker.kill()
        await broker.start()
        await run.until(lambda: run.gaps)
    assert [(gap.reason, gap.recovered) for gap in run.gaps] == [("disconnected", False)]


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("persistent", [True, False])
async def test_nor_does_one_that_restarts_while_no_listener_runs(
    broker: Broker,
    path: Path,
    persistent: bool,  # noqa: FBT001 - a row's value
) -> None:
    async with publisher(broker) as server:
        async with running(broker, path) as first:
            await settled(path)
            await server.publish_all(events(1), persistent=persistent)
            await first.until_handled(server.accepted)
            await settled(path)
        await server.publish_all(events(5), persistent=persistent)
    await broker.stop()
    await broker.start()
    async with running(broker, path) as run:
        await run.until(lambda: run.gaps)
    assert len(run.serials) == (5 if persistent else 0)
    assert [(gap.reason, gap.recovered) for gap in run.gaps] == [("listener_down", persistent)]


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_listener_killed_in_mid_stream_loses_nothing_and_marks_what_it_handles_twice(
    broker: Broker, path: Path
) -> None:
    ledger = Ledger(path)
    enough = asyncio.Event()
    async with publisher(broker) as server, asyncio.TaskGroup() as tasks:
        for _ in range(3):
            before = len(ledger.handled())
            victim = await begin_victim(broker, path)
            if not server.accepted:
                await settled(path)
                tasks.create_task(publish_on(server, enough))
            await ledger.until_handled(before + 300)
            await settled(path)  # so that the queue is known to make up for what comes next
            victim.kill()
            await victim.wait()
        gone = len(server.accepted)
        async with asyncio.timeout(PATIENCE):  # else the last one may have been the victim's
            while len(server.accepted) < gone + 5:  # noqa: ASYNC110 - only the broker tells
                await asyncio.sleep(0.01)
        enough.set()
    async with running(broker, path, heartbeat_send=2.0) as run:
        await run.until_handled([server.accepted[-1]])
        await run.until(lambda: run.gaps)
        told = ledger.handled() + [
            (event.serial or 0, event.delivery.redelivered) for event in run.events
        ]
    assert {serial for serial, _ in told} == set(server.accepted)
    once: set[int] = set()
    for serial, redelivered in told:
        assert redelivered or serial not in once
        once.add(serial)
    assert [(gap.reason, gap.recovered) for gap in run.gaps] == [("listener_down", True)]


class Relay:
    """Stands between listener and broker, and can stop passing anything on.

    Attributes:
        url: Where it listens.
    """

    def __init__(self, broker: Broker) -> None:
        self._parts = urlsplit(broker.url)
        self._open: list[asyncio.Event] = []
        self._held = False
        self.url = ""

    @asynccontextmanager
    async def up(self) -> AsyncIterator[Relay]:
        async with await asyncio.start_server(self._relay, "127.0.0.1", 0) as server:
            self.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}{self._parts.path}"
            yield self
            for one in self._open:
                one.set()

    def freeze(self) -> None:
        """Pass nothing on, of the connection made last, and close neither side."""
        self._open[-1].clear()

    def thaw(self) -> None:
        """Pass on what it kept back."""
        self._open[-1].set()

    def hold(self) -> None:
        """Let nobody through who comes from now on."""
        self._held = True

    def release(self) -> None:
        """Let everybody through again."""
        self._held = False

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._held:
            writer.close()
            return
        passing = asyncio.Event()
        passing.set()
        self._open.append(passing)
        far = await asyncio.open_connection(self._parts.hostname, self._parts.port)

        async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            with suppress(ConnectionError):
                while data := await source.read(65_536):
                    await passing.wait()
                    target.write(data)
                    await target.drain()
            await passing.wait()
            target.close()

        await asyncio.gather(pump(reader, far[1]), pump(far[0], writer))


@pytest.mark.slow
async def test_what_went_to_a_connection_only_we_know_to_be_dead_comes_back_late(
    broker: Broker, path: Path
) -> None:
    quick = {
        "heartbeat_send": 2.0,  # so the broker learns of it when we have come back
        "heartbeat_receive": 1.0,
        "ping_interval": 0.5,
        "silence_limit": 2.0,
    }
    enough = asyncio.Event()
    async with (
        Relay(broker).up() as relay,
        publisher(broker) as server,
        asyncio.TaskGroup() as tasks,
        running(relay, path, **quick) as run,
    ):
        await settled(path)
        publishing = tasks.create_task(publish_on(server, enough, pause=0.02))
        await run.until(lambda: run.events)
        relay.freeze()
        await run.until(lambda: run.gaps)
        enough.set()
        await publishing
        await run.until_handled(server.accepted)
    assert [(gap.reason, gap.recovered) for gap in run.gaps] == [("half_open", True)]
    assert sorted(run.serials) == sorted(server.accepted)
    in_order = [event.serial or 0 for event in run.events if not event.delivery.late]
    assert in_order == sorted(in_order)
    assert len(in_order) < len(run.events)


@pytest.mark.slow
async def test_what_went_to_a_connection_of_a_dead_host_is_waited_for_by_the_next_process(
    broker: Broker, path: Path
) -> None:
    ledger = Ledger(path)
    async with Relay(broker).up() as relay, publisher(broker) as server:
        victim = await begin_victim(relay, path)
        await settled(path)
        await server.publish_all(events(20))
        await ledger.until_handled(20)
        relay.freeze()
        await server.publish_all(events(20))
        victim.kill()
        await victim.wait()
        async with running(relay, path) as run:
            await run.until(lambda: run.gaps)
            handled = run.serials
    assert [(gap.reason, gap.recovered) for gap in run.gaps] == [("listener_down", True)]
    assert set(server.accepted[20:]) <= set(handled)


# What a queue cannot have held


async def test_a_queue_that_overflowed_makes_up_for_nothing(broker: Broker, path: Path) -> None:
    short = {"durable_max_length": 10}
    async with publisher(broker) as server:
        async with running(broker, path, **short):
            await settled(path)
        await server.publish_all(events(30))
        async with running(broker, path, **short) as run:
            await run.until(lambda: run.gaps)
    assert run.serials == sorted(server.accepted)[-10:]
    assert [(gap.reason, gap.recovered) for gap in run.gaps] == [("listener_down", False)]


@pytest.mark.slow
async def test_nor_does_it_where_all_stalls_when_its_backlog_is_to_come(
    broker: Broker, path: Path
) -> None:
    short = {"durable_max_length": 10}
    async with Relay(broker).up() as relay, publisher(broker) as server:
        await be_known(relay, server, path, **short)
        await server.publish_all(events(30))
        async with running(relay, path, **short) as run:
            relay.freeze()
            await asyncio.sleep(3.5)  # longer than it takes to find a queue empty
            assert run.gaps == []
            relay.thaw()
            await run.until(lambda: run.gaps)
    assert [(gap.reason, gap.recovered) for gap in run.gaps] == [("listener_down", False)]


async def test_a_queue_that_was_not_there_makes_up_for_nothing(broker: Broker, path: Path) -> None:
    none = {"durable": None, "durable_expires": None, "durable_max_length": None}
    async with running(broker, path, **none):
        pass
    async with running(broker, path) as run:
        await run.until(lambda: run.gaps)
    assert [(gap.reason, gap.recovered) for gap in run.gaps] == [("listener_down", False)]


async def test_a_queue_deleted_meanwhile_makes_up_for_nothing(broker: Broker, path: Path) -> None:
    async with publisher(broker) as server:
        async with running(broker, path):
            await settled(path)
        await server.delete_queue(terms_of(path), EVERYBODY)
        assert not await server.queue_is_there(queue_of(path))
    async with publisher(broker) as server:
        await server.publish_all(events(50))
    async with running(broker, path) as run:
        await run.until(lambda: run.gaps)
    assert run.serials == []
    assert [(gap.reason, gap.recovered) for gap in run.gaps] == [("listener_down", False)]


async def test_a_broker_that_restarts_without_its_data_makes_up_for_nothing(
    broker: Broker, path: Path
) -> None:
    async with Relay(broker).up() as relay, running(relay, path) as run:
        await settled(path)
        relay.hold()  # so that the publisher is back before the listener
        await broker.kill()
        shutil.rmtree(broker.home / "mnesia")
        await broker.start()
        async with publisher(broker) as server:
            await server.publish_all(events(50))
        relay.release()
        await run.until(lambda: run.gaps)
    assert run.serials == []
    assert [(gap.reason, gap.recovered) for gap in run.gaps] == [("disconnected", False)]


# Backlogs


async def test_a_backlog_is_known_to_be_in_though_the_centre_is_never_quiet(
    broker: Broker, path: Path
) -> None:
    enough = asyncio.Event()
    async with publisher(broker) as server, asyncio.TaskGroup() as tasks:
        await be_known(broker, server, path)
        publishing = tasks.create_task(publish_on(server, enough))
        async with running(broker, path) as run:
            await run.until(lambda: run.gaps)
            enough.set()
            await publishing
            await run.until_handled(server.accepted[1:])
    assert [(gap.reason, gap.recovered) for gap in run.gaps] == [("listener_down", True)]
    assert run.serials == sorted(server.accepted[1:])


async def test_what_is_no_event_is_acknowledged_as_well(broker: Broker, path: Path) -> None:
    async with publisher(broker) as server:
        async with running(broker, path, soft_size=2000) as first:
            await server.publish_raw(b"no event")
            await server.publish_raw(b'{"pad": "' + b"x" * 3000 + b'"}')
            await server.publish(make("delivered"))
            await first.until_handled(server.accepted)
            await settled(path)
        async with running(broker, path) as second:
            await second.until(lambda: second.gaps)
            stats = second.listener.stats()
    assert first.listener.stats().bad == {"not_json": 1, "too_large": 1}
    assert (stats.bad, stats.received) == ({}, 0)


# Queues


async def test_two_feeds_have_a_queue_each(broker: Broker, path: Path) -> None:
    two = {"redundancy": 2}
    async with publisher(broker) as server:
        async with running(broker, path, **two) as first:
            await settled(path, 2)
            await server.publish_all(events(100))
            await first.until_handled(server.accepted)
        await server.publish_all(events(500))
        async with running(broker, path, **two) as second:
            await second.until_handled(server.accepted[100:])
            await second.until(lambda: second.gaps)
            async with asyncio.timeout(PATIENCE):
                while second.listener.stats().received < 1000:  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.05)
        for feed in ("a", "b"):
            assert await server.queue_is_there(queue_of(path, feed=feed))
    handled = first.events + second.events
    assert sorted(first.serials + second.serials) == sorted(server.accepted)
    for device in {event.device for event in handled}:  # in its order, whichever feed brought it
        serials = [event.serial or 0 for event in handled if event.device == device]
        assert serials == sorted(serials)
    assert [(gap.reason, gap.recovered) for gap in second.gaps] == [("listener_down", True)]


async def test_a_queue_bound_to_an_exchange_by_name_is_found_again(
    broker: Broker, path: Path
) -> None:
    topics = {"topics": ["/exchange/amq.topic/event.agent.#"]}
    async with publisher(broker) as server:
        await be_known(broker, server, path, **topics)
        await server.publish_all(events(50))
        async with running(broker, path, **topics) as run:
            await run.until_handled(server.accepted[1:])
            await run.until(lambda: run.gaps)
    assert [(gap.reason, gap.recovered) for gap in run.gaps] == [("listener_down", True)]


async def test_neither_the_end_nor_a_device_removed_deletes_a_queue(
    broker: Broker, path: Path
) -> None:
    async with (
        publisher(broker) as server,
        running(broker, path, agents=["5002", "5003"]) as run,
    ):
        await settled(path, 2)
        await run.listener.remove(agents=["5003"])
        await server.publish(make("held", 8003), agent="5003")
        await server.publish(make("held", 8002), agent="5002")
        await run.until(lambda: run.serials)
        await run.listener.add(agents=["5003"])
        await server.publish(make("held", 8003), agent="5003")
        await run.until(lambda: len(run.serials) == 2)
        await run.listener.stop()
        for agent in ("5002", "5003"):
            topic = f"/topic/event.agent.*.{agent}@zhen04_cc"
            assert await server.queue_is_there(queue_of(path, topic))
    assert run.serials == [server.accepted[1], server.accepted[2]]


def queue_of(path: Path, destination: str = EVERYBODY, feed: str = "a") -> str:
    queue = queue_name(destination, terms_of(path, feed).id_for(destination))
    assert queue is not None
    return queue


def terms_of(path: Path, feed: str = "a") -> Terms:
    name = f"{path.parent.name}.{feed}"
    return Terms(name=name, expires=60.0, max_length=10_000, prefetch=1000)


# Refusals


async def test_a_queue_that_is_there_with_another_length_ends_the_run_by_name(
    broker: Broker, path: Path
) -> None:
    async with running(broker, path):
        pass
    other = Run(broker, path, durable_max_length=20_000)
    with pytest.raises(ConfigurationError) as raised:
        await asyncio.wait_for(other.listener.run(), PATIENCE)
    assert raised.value.what == "durable"
    for word in (f"{path.parent.name}.a.", "x-max-length", "another id", queue_of(path)):
        assert word in raised.value.problem
    async with publisher(broker) as server:
        assert await server.queue_is_there(queue_of(path))


async def test_the_program_ends_with_78_for_a_queue_that_is_there_with_another_length(
    broker: Broker, path: Path
) -> None:
    async with running(broker, path):
        pass
    settings = {
        "CTI_PASSCODE": PASSCODE,
        "CTI_DURABLE_EXPIRES": "60",
        "CTI_DURABLE_MAX_LENGTH": "20000",
        "CTI_PROXY": "none",
    }
    flags = ["--ns", NAMESPACE, "--url", broker.url, "--login", LOGIN]
    flags += ["--journal", str(path), "--durable", path.parent.name]
    async with listening(*flags, stdout=asyncio.subprocess.PIPE, **settings) as program:
        _, said = await rest(program)
    assert program.returncode == 78
    assert f"durable: the broker keeps {path.parent.name}.a." in said
