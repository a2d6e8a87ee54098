"""When a receiver may be tried again."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cti_listener.sinks.patience import MOST, Gate, retry_after
from cti_listener.testing import ManualClock

NOW = datetime(2015, 10, 21, 7, 28, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("Wed, 21 Oct 2015 07:28:30 GMT", 30.0),
        ("Wednesday, 21-Oct-15 07:28:30 GMT", 30.0),
        ("Wed Oct 21 07:28:30 2015", 30.0),
        ("Wed, 21 Oct 2015 07:00:00 GMT", 0.0),
        ("Wed, 21 Oct 2099 07:00:00 GMT", MOST),
        ("9" * 400, MOST),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("١٢", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after(text: str | None, seconds: float | None) -> None:
    assert retry_after(text, NOW) == seconds


@given(st.text())
def test_whatever_it_says_is_within_limits(text: str) -> None:
    assert 0.0 <= (retry_after(text, NOW) or 0.0) <= MOST


class Waiting:
    """Whoever waits at a gate."""

    def __init__(self, gate: Gate, tasks: asyncio.TaskGroup) -> None:
        self.task = tasks.create_task(gate.wait())

    @property
    def passed(self) -> bool:
        return self.task.done()


async def test_a_gate_opens_when_the_time_is_over_that_was_asked_for() -> None:
    clock = ManualClock()
    gate = Gate(clock)
    async with asyncio.TaskGroup() as tasks:
        await gate.wait()
        assert repr(gate) == "<Gate open>"
        gate.close(30.0)
        one = Waiting(gate, tasks)
        await clock.advance(20)
        gate.close(30.0)
        await clock.advance(29)
        assert (one.passed, repr(gate)) == (False, "<Gate closed>")
        await clock.advance(1)
        assert one.passed


async def test_it_closes_for_longer_with_the_age_of_the_outage_and_many_at_once_count_as_one() -> (
    None
):
    clock = ManualClock()
    gate = Gate(clock)
    waits = []
    for _ in range(12):
        for _ in range(50):
            gate.close()
        before = clock.monotonic()
        async with asyncio.TaskGroup() as tasks:
            one = Waiting(gate, tasks)
            while not one.passed:
                await clock.advance(0.1)
        waits.append(clock.monotonic() - before)
    assert waits[0] <= 0.8
    assert 30.0 <= waits[-1] <= 61.0
    gate.open()
    gate.close()
    async with asyncio.TaskGroup() as tasks:
        one = Waiting(gate, tasks)
        await clock.advance(0.8)
        assert one.passed
