"""The system's clocks: a wall clock that is set, and time that never goes back."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from cti_listener.clock import CATCHING_UP, SystemClock

START = datetime(2026, 11, 29, tzinfo=UTC)


@dataclass
class Machine:
    """A machine whose clock is set by hand."""

    seconds: float = 0.0
    set_by: float = 0.0
    clock: SystemClock = field(init=False)

    def __post_init__(self) -> None:
        self.clock = SystemClock(self.wall, lambda: self.seconds)

    def wall(self) -> float:
        return START.timestamp() + self.seconds + self.set_by

    def after(self, seconds: float) -> float:
        """Let time go by; return what the clock says, in seconds since the start."""
        self.seconds += seconds
        return (self.clock.now() - START).total_seconds()


def test_it_says_what_the_wall_clock_says() -> None:
    machine = Machine()
    assert [machine.after(5.0), machine.after(0.0), machine.after(0.5)] == [5.0, 5.0, 5.5]


def test_a_clock_that_is_put_forward_is_followed() -> None:
    machine = Machine()
    machine.set_by = 3600.0
    assert machine.after(1.0) == 3601.0


def test_time_goes_on_when_the_clock_is_set_back_and_slower_until_that_has_caught_up() -> None:
    machine = Machine()
    machine.after(100.0)
    machine.set_by = -60.0
    assert machine.after(10.0) == pytest.approx(100.0 + 10.0 * CATCHING_UP)
    assert machine.after(500.0) == pytest.approx(100.0 + 510.0 * CATCHING_UP)
    assert machine.after(200.0) == 810.0 - 60.0  # it has caught up


def test_each_time_it_is_set_back_is_told_once() -> None:
    machine = Machine()
    machine.after(100.0)
    with capture_logs() as lines:
        machine.set_by = -0.5
        machine.after(0.0)
        assert lines == []
        machine.set_by = -60.0
        machine.after(0.0)
        machine.after(1.0)
        machine.set_by = -90.0
        machine.after(1.0)
        machine.after(1.0)
    assert [(one["event"], round(one["seconds"])) for one in lines] == [
        ("clock_set_back", 60),
        ("clock_set_back", 90),
    ]
