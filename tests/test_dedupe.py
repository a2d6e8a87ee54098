"""The window: each distinct key once, bounded by count and by age."""

from __future__ import annotations

import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cti_listener.dedupe import Dedupe


def test_a_key_is_admitted_once() -> None:
    seen = Dedupe()
    assert [seen.admit(key, 0.0) for key in (1, 2, 1, 2, 3)] == [True, True, False, False, True]
    assert len(seen) == 3


@given(st.lists(st.integers(0, 30), max_size=100))
def test_within_the_window_each_distinct_key_is_admitted_exactly_once(keys: list[int]) -> None:
    seen = Dedupe(window=31)
    admitted = [key for key in keys if seen.admit(key, 0.0)]
    assert admitted == list(dict.fromkeys(keys))


@given(st.integers(1, 20), st.lists(st.integers(0, 60), max_size=200))
def test_the_last_distinct_keys_are_remembered_and_at_most_twice_as_many(
    window: int, keys: list[int]
) -> None:
    seen = Dedupe(window=window)
    newest: list[int] = []
    for key in keys:
        admitted = seen.admit(key, 0.0)
        assert not (admitted and key in newest[-window:])
        if admitted:
            newest.append(key)
        assert len(seen) <= 2 * window


@given(
    st.floats(0.5, 100),
    st.lists(st.tuples(st.integers(0, 5), st.floats(0, 60)), max_size=60),
)
def test_a_key_is_remembered_for_its_age_and_at_most_twice_as_long(
    max_age: float, arrivals: list[tuple[int, float]]
) -> None:
    seen = Dedupe(max_age=max_age)
    now = 1000.0
    since: dict[int, float] = {}
    for key, pause in arrivals:
        now += pause
        admitted = seen.admit(key, now)
        if key in since:
            age = now - since[key]
            assert not (admitted and age < max_age * 0.999)
            assert admitted or age <= 2 * max_age * 1.001
        else:
            assert admitted
        if admitted:
            since[key] = now


def test_a_key_that_comes_alone_and_rarely_is_new_each_time() -> None:
    seen = Dedupe(max_age=10.0)
    assert [seen.admit(7, now) for now in (0.0, 5.0, 100.0, 105.0, 200.0)] == [
        True,
        False,
        True,
        False,
        True,
    ]


def test_the_clock_may_start_anywhere() -> None:
    for start in (-1e6, 0.0, 1e9):
        seen = Dedupe(max_age=10.0)
        assert seen.admit(1, start)
        assert not seen.admit(1, start + 9.9)
        assert seen.admit(1, start + 20.1)


def test_nothing_is_moved_when_a_generation_is_dropped() -> None:
    seen = Dedupe(window=1000)
    for key in range(10_000):
        seen.admit(key, 0.0)
    assert not seen.admit(9_999, 0.0)
    assert not seen.admit(9_000, 0.0)
    assert seen.admit(7_000, 0.0)
    assert 1000 <= len(seen) <= 2000


@pytest.mark.parametrize("entries", [10_000, 60_000, 131_072, 200_000])
def test_an_entry_costs_at_most_150_bytes(entries: int) -> None:
    chance = random.Random(1)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        seen = Dedupe(window=100_000)
        for _ in range(entries):
            seen.admit(chance.getrandbits(63), 0.0)
        cost = (tracemalloc.get_traced_memory()[0] - before) / len(seen)
    finally:
        tracemalloc.stop()
    assert len(seen) == entries
    assert cost <= 150


@given(st.integers(1, 5), st.lists(st.tuples(st.integers(0, 9), st.floats(0, 8)), max_size=60))
def test_what_it_knows_is_not_admitted_and_to_ask_changes_nothing(
    window: int, arrivals: list[tuple[int, float]]
) -> None:
    seen, unasked = Dedupe(window, max_age=10.0), Dedupe(window, max_age=10.0)
    now = 0.0
    for key, pause in arrivals:
        now += pause
        known = seen.knows(key, now)
        admitted = seen.admit(key, now)
        assert not (known and admitted)
        assert admitted == unasked.admit(key, now)
        assert seen.knows(key, now) or len(seen) >= window


def test_it_tells_its_state() -> None:
    seen = Dedupe(window=5)
    seen.admit(1, 0.0)
    assert repr(seen) == "<Dedupe 1 seen, window 5>"
