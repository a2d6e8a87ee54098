"""Metrics for Prometheus: made of `stats()` and the views when they are scraped, and not before.

Each listener has a registry of its own. Every label is of a closed set, and none is a device: the
number of series does not grow with what comes. docs/architecture.md says what is sampled.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from itertools import accumulate
from typing import Final, TypeVar, get_args

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from cti_listener.errors import BadReason
from cti_listener.histogram import Distribution
from cti_listener.listener import Listener
from cti_listener.stats import Stats

PREFIX: Final = "cti_listener_"
UNKNOWN: Final = "unknown"

L = TypeVar("L", bound=str)
"""A label's values: a mapping's keys may be any, and are taken as they are."""

SinkCounts = Mapping[tuple[str, str], int]
"""Records by sink and outcome."""


class ListenerCollector(Collector):
    """Tells of one listener.

    Args:
        listener: Which one.
        version: Ours.
        lost: Tells how many events readers of streams have lost.
        sinks: Tells what became of the sinks' records.
    """

    def __init__(
        self,
        listener: Listener,
        *,
        version: str,
        lost: Callable[[], int] = lambda: 0,
        sinks: Callable[[], SinkCounts] = dict,
    ) -> None:
        """Look at this listener."""
        self._listener = listener
        self._version = version
        self._lost = lost
        self._sinks = sinks

    def collect(self) -> Iterable[Metric]:
        """Make every family anew."""
        stats = self._listener.stats()
        yield from self._received(stats)
        yield from self._handled(stats)
        yield from self._connection(stats)
        yield from self._kept(stats)
        yield from self._rest(stats)

    def _received(self, stats: Stats) -> Iterator[Metric]:
        yield _counter("frames_received", "WebSocket messages.", "wire", stats.frames_by_wire)
        listed = stats.received_by_name
        names = {**listed, UNKNOWN: stats.received - sum(listed.values())}
        yield _counter("events_received", "Event objects, repeats included.", "event", names)
        yield _counter("events_duplicate", "Events that were seen before.", None, stats.repeated)
        bad = {reason: stats.bad.get(reason, 0) for reason in get_args(BadReason)}
        yield _counter("parse_errors", "Messages left out.", "reason", bad)
        yield _counter("events_unrouted", "Distinct events nobody wanted.", None, stats.unrouted)
        dropped = {
            "not_asked_for": stats.not_asked_for,
            "lane_full": sum(one.dropped for one in stats.handlers.values()),
            "stream_full": self._lost(),
        }
        yield _counter("events_dropped", "Events that were not handled.", "reason", dropped)

    def _handled(self, stats: Stats) -> Iterator[Metric]:
        handlers = stats.handlers
        failed = {name: one.failed for name, one in handlers.items()}
        yield _counter("handler_failures", "Events a handler failed on.", "handler", failed)
        took = {name: one.durations for name, one in handlers.items()}
        text = "How long a handler takes; one run in sixteen."
        yield _histogram("handler_duration_seconds", text, "handler", took)
        waiting = {name: one.waiting for name, one in handlers.items()}
        yield _gauge("queue_events", "Events in a handler's lanes.", "handler", waiting)
        text = "How old events are when they come, by the server's clock; 20 a second at most."
        yield _histogram("event_lag_seconds", text, None, {"": stats.lag})
        records = CounterMetricFamily(
            f"{PREFIX}sink_records",
            "What became of the sinks' records.",
            labels=("sink", "outcome"),
        )
        for labels, count in self._sinks().items():
            records.add_metric(labels, count)
        yield records

    def _connection(self, stats: Stats) -> Iterator[Metric]:
        text = "Attempts to connect."
        yield _counter("connection_attempts", text, "outcome", stats.outcomes)
        text = "Subscribed connections that ended."
        yield _counter("disconnects", text, "reason", stats.disconnects)
        stands = {feed: int(stand is not None) for feed, stand in stats.stands.items()}
        yield _gauge("connected", "Whether every subscription of a feed stands.", "feed", stands)
        yield _gauge("subscriptions", "Subscriptions that stand.", None, stats.subscriptions)
        text = "Times in which events may have been missed, from their beginning."
        yield _counter("gaps", text, "reason", stats.gaps_by_reason)
        for what, at in (("frame", stats.last_frame_at), ("event", stats.last_event_at)):
            text = f"When the last {what} came; 0: none has."
            yield _gauge(f"last_{what}_timestamp_seconds", text, None, _stamp(at))

    def _kept(self, stats: Stats) -> Iterator[Metric]:
        kept = stats.journal
        if kept is not None:
            text = "Events that wait for their commit."
            yield _gauge("journal_pending_events", text, None, kept.pending)
            text = "How long commits take."
            yield _histogram(
                "journal_commit_duration_seconds", text, None, {"": kept.commit_seconds}
            )

    def _rest(self, stats: Stats) -> Iterator[Metric]:
        text = "How much later than due the event loop turned."
        yield _histogram("event_loop_lag_seconds", text, None, {"": stats.loop_lag})
        yield _gauge("agents", "Agents, by mode.", "mode", self._listener.agents.modes())
        yield _gauge("calls", "Calls that go on, by state.", "state", self._listener.calls.states())
        built = GaugeMetricFamily(
            f"{PREFIX}build_info", "What runs; always 1.", labels=("version", "python")
        )
        built.add_metric((self._version, platform.python_version()), 1)
        yield built


def registry_of(collector: ListenerCollector) -> CollectorRegistry:
    """Return a registry that holds this collector alone."""
    made = CollectorRegistry(auto_describe=False)
    made.register(collector)
    return made


def _counter(name: str, text: str, label: str | None, values: Mapping[L, int] | int) -> Metric:
    labels = () if label is None else (label,)
    family = CounterMetricFamily(PREFIX + name, text, labels=labels)
    for given, value in _each(values):
        family.add_metric(given, value)
    return family


def _gauge(name: str, text: str, label: str | None, values: Mapping[L, int] | float) -> Metric:
    labels = () if label is None else (label,)
    family = GaugeMetricFamily(PREFIX + name, text, labels=labels)
    for given, value in _each(values):
        family.add_metric(given, value)
    return family


def _histogram(
    name: str, text: str, label: str | None, values: Mapping[str, Distribution]
) -> Metric:
    labels = () if label is None else (label,)
    family = HistogramMetricFamily(PREFIX + name, text, labels=labels)
    for given, found in values.items():
        bounds = [*(str(bound) for bound in found.bounds), "+Inf"]
        buckets = list(zip(bounds, accumulate(found.counts), strict=True))
        family.add_metric((given,) if label else (), buckets=buckets, sum_value=found.total)
    return family


def _each(values: Mapping[L, int] | float) -> Iterator[tuple[tuple[str, ...], float]]:
    if isinstance(values, Mapping):
        yield from (((label,), value) for label, value in values.items())
    else:
        yield (), values


def _stamp(at: datetime | None) -> float:
    return 0.0 if at is None else at.timestamp()
