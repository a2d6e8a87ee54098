"""When the last sign of life came, by clocks that are set, or stand still."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from cti_listener.sources.liveness import Liveness
from cti_listener.sources.options import ConnectionOptions
from cti_listener.testing import START, ManualClock


class SteppedClock(ManualClock):
    """A clock whose wall is set apart from the seconds it counts: by NTP, or a suspend."""

    def __init__(self) -> None:
        super().__init__()
        self.step = timedelta()

    def now(self) -> datetime:
        return super().now() + self.step


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def liveness(clock: SteppedClock) -> Liveness:
    return Liveness(ConnectionOptions(), clock)


async def test_the_last_sign_is_when_bytes_came_last(
    clock: SteppedClock, liveness: Liveness
) -> None:
    assert liveness.last_sign == START
    await clock.advance(10)
    liveness.heard()
    await clock.advance(5)
    assert liveness.last_sign == START + timedelta(seconds=10)


async def test_hours_that_only_the_wall_clock_saw_come_after_the_last_sign(
    clock: SteppedClock, liveness: Liveness
) -> None:
    await clock.advance(10)
    liveness.heard()
    clock.step = timedelta(hours=3)
    await clock.advance(5)
    assert liveness.last_sign == START + timedelta(seconds=10)


async def test_a_wall_clock_set_back_leaves_no_sign_in_the_future(
    clock: SteppedClock, liveness: Liveness
) -> None:
    await clock.advance(10)
    liveness.heard()
    clock.step = timedelta(hours=-3)
    await clock.advance(5)
    assert liveness.last_sign == clock.now() - timedelta(seconds=5)
