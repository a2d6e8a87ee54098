from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cti_listener.histogram import SHORT, Histogram

SECONDS = st.floats(min_value=0, max_value=1e6)


@given(st.lists(SECONDS))
def test_every_value_is_in_the_one_bucket_it_belongs_to(values: list[float]) -> None:
    histogram = Histogram((0.1, 1.0, 10.0))
    for value in values:
        histogram.note(value)
    found = histogram.distribution()
    lower = (-1.0, *found.bounds)
    upper = (*found.bounds, float("inf"))
    assert found.counts == tuple(
        sum(low < value <= high for value in values) for low, high in zip(lower, upper, strict=True)
    )
    assert found.count == len(values)
    assert found.total == sum(values)


def test_a_value_on_a_bound_is_below_it_as_prometheus_has_it() -> None:
    histogram = Histogram(SHORT)
    histogram.note(SHORT[0])
    assert histogram.distribution().counts[0] == 1


def test_a_snapshot_stays_as_it_is() -> None:
    histogram = Histogram()
    before = histogram.distribution()
    histogram.note(1.5)
    assert (before.count, histogram.distribution().count) == (0, 1)
    assert repr(histogram) == "<Histogram of 1, 1.5 s in all>"
