"""When to try again: bounded by the outage's age, spread by chance, and never a storm."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tenacity import AsyncRetrying, RetryCallState, RetryError, stop_after_attempt

from cti_listener.backoff import RESTARTING, SHORT, wait_outage
from cti_listener.errors import ConnectError

AWAY = ConnectError("ws://x", "refused", no_listener=True)
CLOSED = ConnectError("ws://x", "closed")


@given(
    st.floats(0, 10_000),
    st.floats(0.1, 300),
    st.integers(0, 2**32),
    st.sampled_from([None, AWAY, CLOSED]),
)
def test_a_wait_is_at_most_the_outages_age_and_at_least_half_of_that(
    age: float, longest: float, seed: int, error: ConnectError | None
) -> None:
    waited = wait_outage(longest, pick=random.Random(seed)).after(age, error)
    away = error is AWAY and age + SHORT <= RESTARTING
    ceiling = min(longest, SHORT if away else max(SHORT, age))
    assert ceiling / 2 <= waited <= ceiling


def test_waits_are_short_while_a_server_without_a_listener_may_be_restarting() -> None:
    wait = wait_outage(pick=random.Random(1))
    assert max(wait.after(age / 10, AWAY) for age in range(144)) <= 0.6
    assert min(wait.after(20.0, AWAY) for _ in range(100)) >= 10.0
    assert min(wait.after(14.0, CLOSED) for _ in range(100)) >= 7.0


def test_half_of_a_wait_is_chance() -> None:
    wait = wait_outage(pick=random.Random(1))
    waits = [wait.after(40.0) for _ in range(2000)]
    assert min(waits) < 20.5
    assert max(waits) > 39.5
    assert 29.0 < sum(waits) / len(waits) < 31.0


def test_the_cap_is_a_minute_unless_set() -> None:
    assert max(wait_outage().after(1e6) for _ in range(100)) <= 60.0
    assert wait_outage(0.2).after(1e6) <= 0.2


def test_the_wait_after_a_stable_connection_is_short_and_spread() -> None:
    wait = wait_outage(pick=random.Random(1))
    waits = [wait.first() for _ in range(1000)]
    assert min(waits) >= 0.0
    assert max(waits) <= 0.2
    assert max(waits) - min(waits) > 0.15


async def test_it_is_a_strategy_of_tenacitys() -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    async def fail() -> None:
        raise AWAY

    retrying = AsyncRetrying(wait=wait_outage(), stop=stop_after_attempt(4), sleep=sleep)
    with pytest.raises(RetryError):
        await retrying(fail)
    assert len(waited) == 3
    assert all(0.3 <= seconds <= 0.6 for seconds in waited)


def test_a_state_without_an_outcome_waits_too() -> None:
    state = RetryCallState(AsyncRetrying(), None, (), {})
    assert 0.3 <= wait_outage()(state) <= 0.6


# Whole outages


def attempts(
    seed: int, until: float, failure: Callable[[float], tuple[float, ConnectError] | None]
) -> list[float]:
    """Play one listener's outage; return when it tried.

    Args:
        seed: Of its chance.
        until: When to stop looking.
        failure: What an attempt at a time takes and fails with; None: it succeeds.
    """
    wait = wait_outage(pick=random.Random(seed))
    now = wait.first()
    tried = []
    while now < until:
        tried.append(now)
        failed = failure(now)
        if failed is None:
            break
        now += failed[0]
        now += wait.after(now, failed[1])
    return tried


def test_a_server_that_accepts_and_closes_sees_at_most_twelve_connections_in_ten_seconds() -> None:
    most = max(
        1 + len(attempts(seed, 10.0, lambda _: (0.0, CLOSED)))  # 1: the one that was lost
        for seed in range(3000)
    )
    assert most <= 12


def test_the_worst_of_chance_keeps_to_twelve_connections_too() -> None:
    now, count = 0.0, 2
    while now < 10.0:
        now += max(SHORT, now) / 2
        count += now < 10.0
    assert count <= 12


def test_a_server_back_after_two_seconds_is_met_again_within_half_a_second_by_most() -> None:
    late = sorted(
        attempts(seed, 60.0, lambda now: (0.001, AWAY) if now < 2.0 else None)[-1] - 2.0
        for seed in range(501)
    )
    assert late[250] <= 0.5
    assert late[-1] <= 0.6


def test_five_hundred_listeners_do_not_come_in_step() -> None:
    tried = [
        when
        for seed in range(500)
        for when in attempts(seed, 120.0, lambda now: (0.001, AWAY) if now < 60.0 else None)
        if when >= RESTARTING
    ]
    seconds = Counter(int(when) for when in tried)
    assert max(seconds.values()) <= 0.10 * len(tried)
    assert not [when for when in tried if 15.0 <= when < 15.6]  # no common end of short waits


@pytest.mark.parametrize("away", [60.0, 600.0])
def test_after_any_outage_everybody_is_back_in_at_most_a_minute(away: float) -> None:
    for seed in range(200):
        last = attempts(seed, 1e9, lambda now: (0.001, AWAY) if now < away else None)[-1]
        assert away <= last <= away + 60.0


def test_an_hour_away_is_no_storm() -> None:
    assert max(len(attempts(seed, 3600.0, lambda _: (0.001, AWAY))) for seed in range(100)) < 220
