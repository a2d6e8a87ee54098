"""Who blocks the loop is told, once, by name and with the stack; and nobody who does not."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog
from blockbuster import BlockBuster
from hypothesis import example, given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from cti_listener.errors import ConfigurationError
from cti_listener.event_base import Event
from cti_listener.listener import Listener
from cti_listener.testing import FakeSource
from cti_listener.watchdog import APART, MOST_TEXT, Beat, Evidence, Watchdog
from tests.examples import NAMESPACE, make
from tests.program import LIMIT, environment
from tests.turns import until

PATIENCE = 10.0
SHORT = 0.3
"""A limit that a test can wait for, and that a slow loop or a busy machine keeps within."""

Logs = list[MutableMapping[str, Any]]


def names(logs: Logs) -> list[str]:
    return [line["event"] for line in logs if line["event"].startswith("loop_")]


def told(logs: Logs, name: str = "loop_blocked") -> Logs:
    return [line for line in logs if line["event"] == name]


def nap_until(condition: Callable[[], object]) -> None:
    """Block the loop, as no handler should, until a condition holds."""
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.001)


@pytest.fixture(autouse=True)
def _naps(unblocked: BlockBuster) -> None:
    """Let `nap_until` be: it is a user's code."""
    unblocked.functions["time.sleep"].can_block_in("test_watchdog.py", "nap_until")


@pytest.fixture(autouse=True)
def _quiet_end() -> Iterator[None]:
    """Wait for the threads, which nobody else does: the next test must not hear of this one."""
    yield
    for thread in threads():
        thread.join(PATIENCE)
        assert not thread.is_alive()


@pytest.fixture
def logs() -> Iterator[Logs]:
    with capture_logs() as lines:
        yield lines


@dataclass
class Bench:
    """A listener on which handlers can be tried."""

    limit: float = SHORT
    source: FakeSource = field(default_factory=FakeSource)

    def __post_init__(self) -> None:
        self.listener = Listener(self.source, namespace=NAMESPACE, block_limit=self.limit)

    async def send(self, **fields: Any) -> None:
        """Have an event handled; then the loop turns, as it does where events come by a socket."""
        self.source.send(make(**fields))
        await until(lambda: not self.listener.stats().waiting)
        for _ in range(5):
            await asyncio.sleep(0)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "cti-watchdog"]


# What is told


async def test_a_handler_that_blocks_is_named_once_with_its_stack(
    bench: Bench, logs: Logs, caplog: pytest.LogCaptureFixture
) -> None:
    @bench.listener.on(name="screen-pop")
    async def pop_up(event: Event) -> None:
        look_up(event.call_id)

    def look_up(secret: str | None) -> None:
        assert secret
        nap_until(lambda: told(logs))
        longest = told(logs)[0]["seconds"] + 2 * SHORT
        nap_until(lambda: bench.listener.stats().longest_block > longest)

    async with bench.listener:
        await bench.send(callId="CANARY")
        await until(lambda: told(logs, "loop_unblocked"))
    assert names(logs) == ["loop_blocked", "loop_unblocked"]
    blocked, unblocked = told(logs)[0], told(logs, "loop_unblocked")[0]
    assert (blocked["log_level"], unblocked["log_level"]) == ("warning", "info")
    for line in (blocked, unblocked):
        assert line["handler"] == "screen-pop"
        assert line["function"] == pop_up.__qualname__
    assert SHORT <= blocked["seconds"] < unblocked["seconds"]
    # Neither the program's beginning nor a value, but whose call it is, and where it stands.
    stack: str = blocked["stack"]
    places = re.findall(r'File ".*/(\w+\.py)", line \d+, in (\w+)', stack)
    own = [name for file, name in places if file == "test_watchdog.py"]
    assert own == ["pop_up", "look_up", "nap_until"]
    assert "look_up(event.call_id)" in stack
    assert "CANARY" not in repr(logs)
    stats = bench.listener.stats()
    assert stats.blocked == 1
    assert stats.longest_block == pytest.approx(unblocked["seconds"], abs=0.001)
    assert caplog.records == []


async def test_a_function_of_the_service_is_named_where_no_handler_runs(
    bench: Bench, logs: Logs
) -> None:
    async def report() -> None:
        nap_until(lambda: told(logs))

    async with bench.listener, asyncio.TaskGroup() as tasks:
        tasks.create_task(report())
    (blocked,) = told(logs)
    assert "handler" not in blocked
    assert blocked["function"] == report.__qualname__


async def test_the_handler_is_named_whose_filter_blocks(bench: Bench, logs: Logs) -> None:
    def ponder(_: Event) -> bool:
        nap_until(lambda: told(logs))
        return True

    for name, where in (("quick", lambda _: True), ("slow", ponder), ("late", lambda _: True)):

        @bench.listener.on(where=where, name=name)
        async def handle(_: Event) -> None: ...

    async with bench.listener:
        await bench.send()
    (blocked,) = told(logs)
    assert (blocked["handler"], blocked["function"]) == ("slow", ponder.__qualname__)


async def test_what_keeps_the_interpreter_to_itself_is_told_all_the_same(
    bench: Bench, logs: Logs
) -> None:
    pattern = re.compile(r"(a|a)+$")

    @bench.listener.on()
    async def match(_: Event) -> None:
        for length in range(10, 40):
            began = time.monotonic()
            pattern.match("a" * length + "b")  # no other thread runs meanwhile
            if time.monotonic() - began > 5 * SHORT:
                break

    async with bench.listener:
        await bench.send()
        await until(lambda: told(logs, "loop_unblocked"))
    assert told(logs)[0]["function"] == match.__qualname__
    assert "pattern.match" in told(logs)[-1]["stack"]


async def test_blockages_within_a_second_are_counted_and_told_with_the_next(logs: Logs) -> None:
    bench = Bench(limit=SHORT / 4)  # three of them have to lie within that second
    stats = bench.listener.stats

    @bench.listener.on()
    async def handle(event: Event) -> None:
        before, began = stats().blocked, time.monotonic()
        last = event.call_id == "third"  # it goes on until the second is over
        nap_until(
            lambda: stats().blocked > before and (not last or time.monotonic() > began + APART)
        )

    async with bench.listener:
        for call in ("first", "second", "third"):
            await bench.send(callId=call)
        assert names(logs) == ["loop_blocked", "loop_unblocked"]
        await bench.send(callId="fourth")
        await until(lambda: len(told(logs, "loop_unblocked")) == 2)
    assert [line.get("left_out") for line in told(logs)] == [None, 2]
    assert stats().blocked == 4


async def test_a_deep_stack_is_cut_in_its_middle(bench: Bench, logs: Logs) -> None:
    def odd(depth: int) -> None:
        if depth == 0:
            nap_until(lambda: told(logs))
        even(depth - 1) if depth else None

    def even(depth: int) -> None:
        odd(depth)

    @bench.listener.on()
    async def dig(_: Event) -> None:
        odd(200)

    async with bench.listener:
        await bench.send()
    stack = told(logs)[0]["stack"]
    assert len(stack) <= MOST_TEXT
    assert "in nap_until" in stack
    assert told(logs)[0]["function"] == dig.__qualname__


async def test_unconfigured_the_stack_stands_below_the_line(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    structlog.reset_defaults()

    @bench.listener.on()
    async def handle(_: Event) -> None:
        nap_until(lambda: bench.listener.stats().blocked)

    with caplog.at_level(logging.INFO, "cti_listener"):
        async with bench.listener:
            await bench.send()
            await until(lambda: "loop_unblocked" in caplog.text)
    lines = [one.getMessage() for one in caplog.records if "loop_" in one.getMessage()]
    assert re.match(r"loop_blocked seconds=[\d.]+ handler=\S+ function=\S+\n  File ", lines[0])
    assert re.fullmatch(r"loop_unblocked seconds=[\d.]+ handler=\S+ function=\S+", lines[1])


async def test_a_log_that_cannot_be_written_ends_no_watch(bench: Bench) -> None:
    def fail(*_: object) -> Any:
        raise ZeroDivisionError

    stats = bench.listener.stats

    @bench.listener.on()
    async def handle(_: Event) -> None:
        before, began = stats().blocked, time.monotonic()
        nap_until(lambda: stats().blocked > before and time.monotonic() > began + APART)

    async with bench.listener:
        structlog.configure(processors=[fail])
        await bench.send()
        await bench.send()
        structlog.configure(processors=[])
    assert stats().blocked == 2


# Who is not


async def test_a_loop_that_turns_is_not_blocked_however_busy(bench: Bench, logs: Logs) -> None:
    @bench.listener.on()
    async def handle(_: Event) -> None:
        began = time.monotonic()
        while time.monotonic() < began + 5 * SHORT:  # noqa: ASYNC110 - it is busy, not waiting
            await asyncio.sleep(0)

    async with bench.listener:
        await bench.send()
    assert names(logs) == []
    assert bench.listener.stats().blocked == 0


@pytest.mark.parametrize("busy", [False, True])
def test_a_loop_that_does_not_run_is_not_blocked(bench: Bench, logs: Logs, *, busy: bool) -> None:
    with asyncio.Runner() as runner:
        runner.run(bench.listener.__aenter__())
        began = time.monotonic()
        while time.monotonic() < began + 5 * SHORT:  # nothing tells that nothing happens
            time.sleep(0 if busy else SHORT)
        runner.run(bench.listener.__aexit__(None, None, None))
    assert names(logs) == []
    assert bench.listener.stats().blocked == 0


async def test_a_limit_of_0_watches_nobody(logs: Logs) -> None:
    async with Bench(limit=0).listener:
        assert threads() == []
    assert "off" in repr(Watchdog(0))


@dataclass
class Held:
    """A time, in seconds, in which the loop does not turn; and how that comes."""

    since: float
    until: float
    how: str


def told_at(limit: float, held: list[Held]) -> list[float]:
    """Return what a watchdog would tell of each look, of a loop that is held up so."""
    evidence = Evidence(limit, Beat(0.0, 0.0))
    end = max((one.until for one in held), default=0.0) + 3 * limit

    def computed(now: float) -> float:
        return sum(
            max(0.0, min(now, one.until) - one.since) for one in held if one.how == "computing"
        )

    def delayed(due: float, *, by_sleep: bool) -> float:
        for one in held:
            if one.since <= due < one.until and (by_sleep or one.how != "sleeping"):
                return one.until
        return due

    beats = [0.0]
    while beats[-1] < end:
        due = beats[-1] + evidence.period
        at = delayed(due, by_sleep=True)
        beats.append(at if at == due else at + 0.001)  # after the watchdog: the worst case
    lost: list[float] = []
    now = 0.0
    while now < end:
        due = evidence.next_look(now)
        asked, now = now, delayed(due, by_sleep=False)
        evidence.waited(asked, due, now)
        newest = max(at for at in beats if at <= now)
        if newest != evidence.beat.at:
            evidence.turned(Beat(newest, computed(newest)))
        lost.append(evidence.lost(now, computed(now)))
    return [seconds for seconds in lost if seconds >= limit]


@given(
    limit=st.sampled_from([0.1, 1.0, 30.0]),
    pairs=st.lists(st.tuples(st.floats(0.02, 5.0), st.floats(0.0, 30.0)), min_size=1, max_size=4),
)
@example(limit=0.1, pairs=[(1.75, 1.0), (0.25, 1.5)])  # the second as long as a wait
def test_a_process_that_was_stopped_is_not_blocked_however_long_and_often(
    limit: float, pairs: list[tuple[float, float]]
) -> None:
    held: list[Held] = []
    for apart, length in pairs:
        since = (held[-1].until if held else 0.0) + apart * limit
        held.append(Held(since, since + length * limit, "stopped"))
    assert told_at(limit, held) == []


@given(
    limit=st.sampled_from([0.1, 1.0, 30.0]),
    how=st.sampled_from(["sleeping", "computing"]),
    since=st.floats(0.01, 3.0),
    length=st.floats(0.0, 10.0),
)
def test_a_block_is_told_from_a_quarter_above_the_limit_and_never_below_it(
    limit: float, how: str, since: float, length: float
) -> None:
    seconds = length * limit
    lost = told_at(limit, [Held(since * limit, since * limit + seconds, how)])
    assert all(one <= seconds + 0.002 for one in lost)
    if length >= 1.26:
        assert lost
    if length < 0.99:
        assert not lost


@pytest.mark.parametrize("limit", [-0.1, float("nan"), float("inf")])
def test_a_limit_that_is_no_time_is_refused_by_name(limit: float) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Listener(FakeSource(), namespace=NAMESPACE, block_limit=limit)
    assert raised.value.what == "block_limit"


# How it ends


async def test_the_thread_ends_with_the_listener(bench: Bench) -> None:
    async with bench.listener:
        (thread,) = threads()
        assert thread.daemon
    await until(lambda: not thread.is_alive())


async def test_a_repr_tells_what_it_does_and_what_it_saw() -> None:
    watchdog = Watchdog(60)
    assert repr(watchdog) == "<Watchdog of 60 s, idle, blocked 0 times, 0 s at the longest>"
    watchdog.start()
    assert "watching" in repr(watchdog)
    watchdog.stop()
    assert "idle" in repr(watchdog)


@asynccontextmanager
async def service() -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `tests/watched.py`, which does as it is told by lines; wait until it listens."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(Path(__file__).parent / "watched.py")),
        env=environment(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(LIMIT):
            assert await ask(process, "blocked") == 0
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ask(process: asyncio.subprocess.Process, what: str) -> int:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{what}\n".encode())
    return int(await process.stdout.readline())


def is_stopped(process: asyncio.subprocess.Process) -> bool:
    stat = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8")
    return stat.rpartition(")")[2].split()[0] == "T"


async def test_a_stopped_process_goes_on_without_having_been_blocked() -> None:
    async with service() as process:
        process.send_signal(signal.SIGSTOP)
        await until(lambda: is_stopped(process))
        await asyncio.sleep(1.0)  # five times its limit; nothing tells that nothing happens
        process.send_signal(signal.SIGCONT)
        assert await ask(process, "block") == 1
        assert await ask(process, "blocked") == 1


@pytest.mark.parametrize(("how", "code"), [("exit", 3), ("abandon", 0)])
async def test_no_process_is_kept_alive(how: str, code: int) -> None:
    async with service() as process:
        assert process.stdin is not None
        process.stdin.write(f"{how}\n".encode())
        assert await process.wait() == code
