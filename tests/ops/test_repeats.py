from __future__ import annotations

from typing import Any

import pytest
import structlog

from cti_listener.ops.repeats import AT_ONCE, PERIOD, RateLimit


class Lines:
    """Lines that go through a limit, by a clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.limit = RateLimit(lambda: self.now)

    def passes(self, name: str = "gap", level: str = "warning", **fields: Any) -> int | None:
        """Tell how many were left out before this one; None: it is held back."""
        try:
            passed = self.limit(None, level, {"event": name, "level": level, **fields})
        except structlog.DropEvent:
            return None
        return int(passed.get("left_out", 0))


@pytest.fixture
def lines() -> Lines:
    return Lines()


def test_the_first_few_pass_at_once_then_one_a_period_that_counts(lines: Lines) -> None:
    assert [lines.passes() for _ in range(AT_ONCE + 4)] == [0] * AT_ONCE + [None] * 4
    lines.now += PERIOD
    assert [lines.passes() for _ in range(3)] == [4, None, None]
    lines.now += PERIOD
    assert [lines.passes() for _ in range(2)] == [2, None]


def test_after_a_quiet_period_the_first_few_pass_again(lines: Lines) -> None:
    assert lines.passes() == 0
    lines.now += PERIOD
    assert [lines.passes() for _ in range(AT_ONCE + 1)] == [0] * AT_ONCE + [None]


@pytest.mark.parametrize(
    "other", [{"handler": "b"}, {"destination": "/topic/b"}, {"reason": "b"}, {"level": "error"}]
)
def test_what_happens_once_is_said_beside_a_storm(lines: Lines, other: dict[str, str]) -> None:
    about = {"handler": "a", "destination": "/topic/a", "reason": "a"}
    for _ in range(10):
        lines.passes(**about)
    assert lines.passes(**{**about, **other}) == 0
    assert lines.passes("connected") == 0


def test_ids_do_not_make_a_storm_pass(lines: Lines) -> None:
    passed = [lines.passes(device=str(n), connection=n) is not None for n in range(100)]
    assert sum(passed) == AT_ONCE


def test_why_the_program_ends_is_never_held_back(lines: Lines) -> None:
    assert [lines.passes("failed", "critical") for _ in range(10)] == [0] * 10


def test_what_no_later_line_tells_of_is_told_once_and_forgotten(lines: Lines) -> None:
    for _ in range(AT_ONCE + 2):
        lines.passes()
    lines.passes("connected")
    assert lines.limit.settle() == []
    lines.now += PERIOD
    assert lines.limit.settle() == [("gap", 2)]
    assert lines.limit.settle() == []
    assert [lines.passes() for _ in range(2)] == [0, None]  # it is a storm still
    assert lines.limit.settle(at_the_end=True) == [("gap", 1)]
    lines.now += 2 * PERIOD
    assert lines.limit.settle() == []
    assert lines.passes() == 0
