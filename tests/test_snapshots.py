"""Asking how devices stand: at a start and after a gap, with the events of a device at its gate."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from cti_listener import (
    CallEnded,
    CallSnapshot,
    ConfigurationError,
    Derived,
    DeviceSnapshot,
    Event,
    Inconsistency,
    Listener,
    Notice,
    SnapshotStats,
    inquiry,
)
from cti_listener.testing import FakeSource, ManualClock
from tests.trackers.transcripts import BEGINNING, Line, read, tracking
from tests.turns import until

GOLDEN = Path(__file__).parent / "trackers" / "golden"
ALL = {title: lines for file in GOLDEN.glob("*.txt") for title, lines in read(file.read_text())}
ANSWERED = ALL["S is called and answers"]
DEVICE = "8001@a.cc"


class Desk:
    """Somebody who can tell; the test answers each question."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, asyncio.Future[Any]]] = []

    async def __call__(self, device: str) -> Any:
        answer = asyncio.get_running_loop().create_future()
        self.asked.append((device, answer))
        return await answer

    @property
    def devices(self) -> list[str]:
        return [device for device, _ in self.asked]

    def answer(self, number: int, answer: Any) -> None:
        _, future = self.asked[number]
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)


class Stage:
    """A listener that asks, with its source and its answers in the test's hands."""

    def __init__(self, **options: Any) -> None:
        self.clock = ManualClock(BEGINNING)
        self.source = FakeSource(self.clock)
        self.desk = Desk()
        self.listener = Listener(
            self.source,
            **{
                "namespace": "a.cc",
                "internal": r"\d{4}",
                "clock": self.clock,
                "snapshot": self.desk,
                **options,
            },
        )
        self.heard: list[Any] = []
        self.listener.on(Event, Derived)(self.hear)

    async def hear(self, happening: Event | Notice) -> None:
        self.heard.append(happening)

    def names(self) -> list[str]:
        return [one.event_name for one in self.heard]

    async def heard_of(self, count: int) -> None:
        await until(lambda: len(self.heard) >= count)

    def has_asked(self, count: int) -> bool:
        return len(self.desk.asked) == count

    @property
    def stats(self) -> SnapshotStats:
        stats = self.listener.stats().snapshots
        assert stats is not None
        return stats


def call(state: Any = "connected", **given: Any) -> CallSnapshot:
    return CallSnapshot(**{"id": "c1", "calling": "138", "called": "8001", **given}, state=state)


def of(*calls: CallSnapshot, **given: Any) -> DeviceSnapshot:
    return DeviceSnapshot(calls=calls, **given)


# When, and about whom


async def test_at_the_start_the_devices_that_were_asked_for_are_asked_about() -> None:
    stage = Stage(devices=["8001", "8002@b.cc"])
    async with stage.listener:
        await until(lambda: len(stage.desk.asked) == 2)
        assert set(stage.desk.devices) == {DEVICE, "8002@b.cc"}


async def test_after_a_gap_everybody_who_was_heard_of_is_asked_about() -> None:
    stage = Stage()
    async with stage.listener:
        stage.source.send(ANSWERED[0].payload)
        stage.source.disconnect()
        assert not stage.desk.asked
        await stage.clock.advance(1.0)
        stage.source.connect()
        await until(lambda: stage.desk.asked)
        assert stage.desk.devices == [DEVICE]


async def test_so_many_are_asked_about_at_once_and_the_rest_in_turn() -> None:
    stage = Stage(devices=[f"800{n}" for n in range(5)], snapshot_at_once=2)
    async with stage.listener:
        for count in (2, 3, 4, 5):
            await until(partial(stage.has_asked, count))
            stage.desk.answer(count - 2, None)
        assert len(set(stage.desk.devices)) == 5


async def test_what_is_missed_while_the_question_is_open_makes_its_answer_worthless() -> None:
    stage = Stage(devices=["8001"])
    async with stage.listener:
        await until(lambda: stage.desk.asked)
        stage.source.disconnect()
        await stage.clock.advance(1.0)
        stage.source.connect()
        stage.desk.answer(0, of(call("held")))
        await until(lambda: len(stage.desk.asked) == 2)
        stage.desk.answer(1, of(call("connected")))
        await stage.heard_of(2)
    assert stage.names() == ["callStarted", "callAnswered"]


# The gate


async def test_events_of_the_device_wait_for_the_answer_and_those_of_others_do_not() -> None:
    stage = Stage(devices=["8001", "8002"])
    elsewhere = {**ANSWERED[0].payload, "srcDeviceId": "8002@a.cc", "alertingDevice": "8002@a.cc"}
    async with stage.listener:
        await until(lambda: len(stage.desk.asked) == 2)
        stage.desk.answer(stage.desk.devices.index("8002@a.cc"), None)
        await until(lambda: stage.stats.asked == 2)
        await asyncio.sleep(0)
        stage.source.send(ANSWERED[0].payload)
        stage.source.send(elsewhere)
        await stage.heard_of(2)
        assert [one.device for one in stage.heard] == ["8002@a.cc"] * 2
        assert stage.stats.waiting == 1
        stage.desk.answer(stage.desk.devices.index(DEVICE), None)
        await stage.heard_of(4)
    assert stage.names() == ["delivered", "callStarted"] * 2


async def test_what_the_answer_knows_of_already_changes_nothing_when_it_comes() -> None:
    stage = Stage(devices=["8001"])
    async with stage.listener:
        await until(lambda: stage.desk.asked)
        for line in ANSWERED[:2]:
            stage.source.send(line.payload)
        stage.desk.answer(0, of(call("connected", alerted=at(0), answered=at(5))))
        stage.source.send(ANSWERED[2].payload)
        await stage.heard_of(6)
    assert [name for name in stage.names() if name.startswith("call")] == [
        "callStarted",
        "callAnswered",
        "callEnded",
    ]
    assert [one.inferred for one in stage.heard if isinstance(one, Derived)] == [True, True, False]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (RuntimeError("no such agent"), "RuntimeError: no such agent"),
        ({"mode": "Ready"}, "dict returned, no DeviceSnapshot"),
    ],
)
async def test_a_question_that_fails_is_told_and_the_events_go_on(
    answer: object, problem: str
) -> None:
    stage = Stage(devices=["8001"])
    with capture_logs() as logs:
        async with stage.listener:
            await until(lambda: stage.desk.asked)
            stage.source.send(ANSWERED[0].payload)
            assert stage.stats.waiting == 1
            stage.desk.answer(0, answer)
            await stage.heard_of(2)
            stats = stage.stats
    assert (stats.asked, stats.answered, stats.failed) == (1, 0, 1)
    (line,) = [one for one in logs if one["event"] == "snapshot_failed"]
    assert (line["device"], line["problem"]) == (DEVICE, problem)


async def test_an_answer_that_takes_too_long_is_not_waited_for() -> None:
    stage = Stage(devices=["8001"], snapshot_timeout=0.05)
    async with stage.listener:
        await until(lambda: stage.desk.asked)
        stage.source.send(ANSWERED[0].payload)
        await stage.heard_of(2)
        assert stage.stats.failed == 1
        assert stage.desk.asked[0][1].cancelled()


async def test_a_full_gate_opens_and_the_answer_comes_too_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inquiry, "MOST_WAITING", 2)
    stage = Stage(devices=["8001"])
    async with stage.listener:
        await until(lambda: stage.desk.asked)
        stage.source.send(ANSWERED[0].payload)
        stage.source.send(ANSWERED[1].payload)
        await stage.heard_of(4)
        stage.desk.answer(0, of(call("held")))
        stage.source.send(ANSWERED[2].payload)
        await stage.heard_of(6)
    assert "callHeld" not in stage.names()


async def test_at_a_stop_the_gates_open_and_what_waited_is_handled() -> None:
    stage = Stage(devices=["8001"])
    async with stage.listener:
        await until(lambda: stage.desk.asked)
        stage.source.send(ANSWERED[0].payload)
        assert await stage.listener.stop() == []
    assert stage.names() == ["delivered", "callStarted"]


async def test_what_waits_is_no_sign_of_life_for_later_runs(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    stage = Stage(devices=["8001"], journal=path)
    async with stage.listener:
        await until(lambda: stage.desk.asked)
        stage.source.send(ANSWERED[0].payload)
        came = stage.clock.now()
        await stage.clock.advance(3.0)
        pipeline = stage.listener._engine._pipeline  # noqa: SLF001 - no user sees it
        assert pipeline.covered(stage.clock.now()) == came
        done: list[bool] = []
        pipeline.when_committed(lambda: done.append(True))
        await stage.clock.advance(3.0)
        assert not done
        stage.desk.answer(0, None)
        await until(lambda: done)
        assert pipeline.covered(stage.clock.now()) == stage.clock.now()


async def test_what_an_answer_told_is_known_to_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    first = Stage(devices=["8001"], journal=path)
    async with first.listener:
        await until(lambda: first.desk.asked)
        first.desk.answer(0, of(call("connected", alerted=at(0), answered=at(5)), mode="Ready"))
        await first.heard_of(2)
        before = first.listener.calls["c1"]
    second = Stage(devices=["8001"], journal=path)
    async with second.listener:
        await until(lambda: second.desk.asked)
        second.desk.answer(0, of(call("connected", alerted=at(0), answered=at(5)), mode="Ready"))
        await until(lambda: second.stats.answered)
        assert second.listener.calls["c1"] == before
        assert second.listener.agents["8001"].mode == "Ready"
    assert second.names() == []


# What an answer does


def at(second: float) -> datetime:
    return BEGINNING + timedelta(seconds=second)


def adopt(answer: DeviceSnapshot, *before: Line, second: float = 30) -> tuple[Any, list[Any]]:
    """Return a tracking that missed something behind some events, and what an answer told it."""
    tracked = tracking()
    for line in before:
        tracked.apply(line.event())
    for tracker in (tracked.call_tracker, tracked.agent_tracker):
        tracker.missed(frozenset())
    return tracked, list(tracked.adopt(DEVICE, answer, at(second)))


def story(notices: list[Any]) -> list[str]:
    assert all(one.inferred and one.event is None for one in notices)
    return [one.event_name for one in notices]


STATES: list[tuple[CallSnapshot, list[str], str]] = [
    (call("initiated", calling="8001", called=None), ["callStarted"], "initiated"),
    (call("alerting"), ["callStarted"], "alerting"),
    (call("connected"), ["callStarted", "callAnswered"], "connected"),
    (call("held"), ["callStarted", "callAnswered", "callHeld"], "held"),
]


@pytest.mark.parametrize(("one", "told", "state"), STATES)
def test_a_call_that_nobody_saw_begin_is_adopted_as_it_stands(
    one: CallSnapshot, told: list[str], state: str
) -> None:
    tracked, notices = adopt(of(one))
    assert story(notices) == told
    found = tracked.calls["c1"]
    assert found.uncertain
    assert found.party(DEVICE).state == state
    assert story(list(tracked.adopt(DEVICE, of(one), at(31)))) == []


def test_its_record_says_what_is_known_and_is_of_no_event_that_never_came() -> None:
    tracked, _ = adopt(of(call("held", alerted=at(0), answered=at(5))))
    (ended,) = tracked.apply(replace(ANSWERED[2], second=40).event())
    record = ended.record
    assert isinstance(ended, CallEnded)
    assert not ended.inferred
    assert (record.direction, record.other_party) == ("inbound", "138@a.cc")
    assert (record.started, record.answered, record.ring_seconds) == (at(0), at(5), 5.0)
    assert (record.was_answered, record.uncertain) == (True, True)
    assert [key.event_name for key in record.events] == ["connectionCleared"]


def test_a_call_answered_nobody_knows_when_was_answered() -> None:
    tracked, _ = adopt(of(call("connected")))
    record = tracked.apply(ANSWERED[2].event())[0].record
    assert (record.was_answered, record.answered, record.ring_seconds) == (True, None, None)


def test_a_call_out_is_one() -> None:
    tracked, _ = adopt(of(call("connected", calling="8001", called="138", answered=at(5))))
    found = tracked.calls["c1"]
    assert (found.direction, found.answered) == ("outbound", at(5))
    assert found.party("138@a.cc").state == "connected"


LATER = [
    (1, "alerting", []),
    (1, "connected", ["callAnswered"]),
    (1, "held", ["callAnswered", "callHeld"]),
    (2, "alerting", []),  # nothing goes backwards
    (2, "connected", []),
    (2, "held", ["callHeld"]),
    (3, "connected", []),  # it is over
]


@pytest.mark.parametrize(("events", "state", "told"), LATER)
def test_of_a_known_call_what_was_missed_is_told(events: int, state: Any, told: list[str]) -> None:
    tracked, notices = adopt(of(call(state)), *ANSWERED[:events])
    assert story(notices) == told
    assert len(tracked.calls) == (events < 3)


def test_what_was_missed_is_told_once_though_its_event_comes_after_all() -> None:
    line = replace(ANSWERED[1], payload={**ANSWERED[1].payload, "holdingDevice": DEVICE})
    line.payload.update(eventName="held", serial=150)
    tracked, notices = adopt(of(call("held")), *ANSWERED[:2])
    assert story(notices) == ["callHeld"]
    assert tracked.apply(replace(line, second=6).event()) == []


def test_what_an_answer_does_not_mention_goes_on() -> None:
    tracked, notices = adopt(of(mode="Ready", complete=True), *ANSWERED[:2])
    assert story(notices) == ["agentStateChanged"]
    assert list(tracked.calls) == ["c1"]


@pytest.mark.parametrize("complete", [True, False])
def test_a_complete_answer_makes_a_device_sure(*, complete: bool) -> None:
    tracked, _ = adopt(of(complete=complete))
    told = tracked.apply(ANSWERED[1].event())
    assert any(isinstance(one, Inconsistency) for one in told) == complete


def test_a_mode_that_differs_is_told_and_one_that_does_not_is_confirmed() -> None:
    tracked, (changed,) = adopt(DeviceSnapshot(agent="5001", mode="NotReady", reason="lunch"))
    assert (changed.agent.id, changed.agent.mode, changed.reason) == (
        "5001@a.cc",
        "NotReady",
        "lunch",
    )
    assert (changed.previous, changed.seconds, changed.inferred) == (None, None, True)
    assert not tracked.agents["5001"].uncertain
    tracked.agent_tracker.missed(frozenset())
    assert tracked.agents["5001"].uncertain
    assert tracked.adopt(DEVICE, DeviceSnapshot(mode="NotReady"), at(31)) == []
    assert not tracked.agents["5001"].uncertain
    assert tracked.agents["5001"].reason == "lunch"


def changes(kind: str, mode: str, second: int) -> Line:
    payload = {
        "namespace": "a.cc",
        "eventType": "agent",
        "eventName": kind,
        "eventTime": f"2026.03.02 09:00:{second:02}",
        "agentMode": mode,
        "agentId": "5001",
        "srcDeviceId": DEVICE,
        "serial": second,
    }
    return Line(kind, payload, second)


def test_how_long_a_mode_lasted_is_known_only_if_the_answer_says_since_when() -> None:
    tracked, _ = adopt(DeviceSnapshot(agent="5001", mode="NotReady", since=at(10)))
    (changed,) = tracked.apply(changes("agentReady", "Ready", 40).event())
    assert (changed.previous, changed.seconds) == ("NotReady", 30.0)
    tracked, _ = adopt(DeviceSnapshot(agent="5001", mode="NotReady"))
    (changed,) = tracked.apply(changes("agentReady", "Ready", 40).event())
    assert changed.seconds is None


def test_an_event_of_before_the_mode_began_is_late() -> None:
    tracked, _ = adopt(DeviceSnapshot(agent="5001", mode="Ready", since=at(10)))
    assert tracked.apply(changes("agentNotReady", "NotReady", 8).event()) == ()
    assert tracked.agents["5001"].mode == "Ready"


# What nobody can mean


def refused() -> Iterator[Any]:
    naive = datetime(2026, 3, 2, 9)  # noqa: DTZ001 - that is what is refused
    yield (
        lambda: call("ringing"),
        "state: 'ringing' is none of alerting, connected, held, initiated",
    )
    yield lambda: call(id="0"), "id: '0' names no call; leave such a call out"
    yield lambda: call(answered=naive), "answered: must say in which time zone it is (tzinfo)"
    yield lambda: DeviceSnapshot(since=naive), "since: must say in which time zone"
    yield lambda: Stage(snapshot_timeout=0), "snapshot_timeout: must be more than 0"
    yield lambda: Stage(snapshot_at_once=0), "snapshot_at_once: must be more than 0"


@pytest.mark.parametrize(("make", "text"), list(refused()))
def test_what_cannot_be_used_is_refused_where_it_is_written(make: Any, text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert text in str(caught.value)


def test_times_in_any_zone_are_times() -> None:
    tracked, _ = adopt(of(call("connected", answered=at(5).astimezone(UTC))))
    assert tracked.calls["c1"].answered == at(5)
