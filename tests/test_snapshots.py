"""Asking how devices stand: at a start and after a gap, with the events of a device at its gate."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
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
    Disconnected,
    Event,
    Gap,
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
        if isinstance(answer, BaseException):
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
    stage.listener.on(Gap, Disconnected)(stage.hear)
    async with stage.listener:
        await until(lambda: stage.desk.asked)
        stage.source.send(ANSWERED[0].payload)
        stage.source.disconnect()
        await stage.clock.advance(1.0)
        stage.source.connect()
        stage.desk.answer(0, of(call("held")))
        await until(lambda: len(stage.desk.asked) == 2)
        stage.desk.answer(1, of(call("connected")))
        await stage.heard_of(5)
        assert stage.listener.calls["c1"].uncertain
    # What came before the gap is told before it.
    assert stage.names()[:2] == ["delivered", "callStarted"]
    assert sorted(stage.names()[2:]) == ["callAnswered", "disconnected", "gap"]


async def test_who_is_added_is_asked_about_and_who_was_removed_is_not() -> None:
    stage = Stage(devices=["8001", "8002"], snapshot_at_once=1)
    async with stage.listener:
        await until(lambda: stage.desk.asked)
        (first,) = stage.desk.devices
        (other,) = {DEVICE, "8002@a.cc"} - {first}
        await stage.listener.add(devices=["8003"])
        await stage.listener.remove(devices=[other, first])
        stage.desk.answer(0, of(call("connected")))
        await until(lambda: len(stage.desk.asked) == 2)
        assert stage.desk.devices == [first, "8003@a.cc"]
        assert not stage.listener.calls


# The gate


class WordlessError(Exception):
    def __str__(self) -> str:
        raise ValueError


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
        (TimeoutError("theirs"), "TimeoutError: theirs"),
        (WordlessError(), "WordlessError"),
        (asyncio.CancelledError(), "the coroutine was cancelled"),
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


async def test_one_who_will_not_be_stopped_is_left_behind() -> None:
    over = asyncio.Event()

    async def deaf(_: str) -> None:
        while not over.is_set():
            with suppress(asyncio.CancelledError):
                await over.wait()

    stage = Stage(devices=["8001"], snapshot=deaf, snapshot_timeout=0.05)
    async with stage.listener:
        await until(lambda: stage.stats.asked)
        stage.source.send(ANSWERED[0].payload)
        await stage.heard_of(2)
    over.set()


async def test_an_event_that_cannot_go_on_holds_up_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(devices=["8001"])
    pipeline = stage.listener._engine._pipeline  # noqa: SLF001 - a bug of ours, made here
    go_on = pipeline._go_on  # noqa: SLF001

    def fail_once(payload: dict[str, Any], *taken: Any, text: bytes | None) -> None:
        if payload["eventName"] == "delivered":
            raise TypeError
        go_on(payload, *taken, text=text)

    monkeypatch.setattr(pipeline, "_go_on", fail_once)
    async with stage.listener:
        await until(lambda: stage.desk.asked)
        for line in ANSWERED:
            stage.source.send(line.payload)
        stage.desk.answer(0, None)
        await stage.heard_of(2)
        assert stage.listener.stats().bad["internal"] == 1
    assert "connectionCleared" in stage.names()


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
        assert pipeline.covered({"a": stage.clock.now()}) == came
        done: list[bool] = []
        pipeline.when_committed(lambda: done.append(True))
        await stage.clock.advance(3.0)
        assert not done
        stage.desk.answer(0, None)
        await until(lambda: done)
        assert pipeline.covered({"a": stage.clock.now()}) == stage.clock.now()


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
    (3, "back", ["callStarted", "callAnswered"]),  # and goes on
]


@pytest.mark.parametrize(("events", "state", "told"), LATER)
def test_of_a_known_call_what_was_missed_is_told(events: int, state: Any, told: list[str]) -> None:
    one = call("connected", answered=at(300)) if state == "back" else call(state)
    tracked, notices = adopt(of(one), *ANSWERED[:events])
    assert story(notices) == told
    assert len(tracked.calls) == (events < 3 or state == "back")


def own(name: str, second: int) -> Line:
    """Return a step of the device's own, behind those of the transcript."""
    field = {"held": "holdingDevice", "retrieved": "retrievingDevice"}.get(name, "releasingDevice")
    time = f"2026.03.02 09:{second // 60:02}:{second % 60:02}"
    step = {"eventName": name, field: DEVICE, "serial": 150 + second, "eventTime": time}
    return Line(name, {**ANSWERED[1].payload, **step}, second)


def then(tracked: Any, *lines: Line) -> list[str]:
    """Return what follows from events, by name."""
    return [one.event_name for line in lines for one in tracked.apply(line.event())]


def test_what_was_missed_is_told_once_though_its_event_comes_after_all() -> None:
    tracked, notices = adopt(of(call("held")), *ANSWERED[:2])
    assert story(notices) == ["callHeld"]
    assert then(tracked, own("held", 6)) == []


def test_events_that_waited_tell_nothing_that_the_answer_has_told() -> None:
    tracked, notices = adopt(of(call("held")))
    assert story(notices) == ["callStarted", "callAnswered", "callHeld"]
    assert then(tracked, *ANSWERED[:2], own("held", 8)) == []
    assert tracked.calls["c1"].party(DEVICE).state == "held"
    assert then(tracked, own("retrieved", 20), own("connectionCleared", 40)) == [
        "callRetrieved",
        "callEnded",
    ]


def test_a_late_event_does_not_have_a_call_answered_twice() -> None:
    tracked, _ = adopt(of(call("connected")))
    assert then(tracked, ANSWERED[0]) == []
    assert story(list(tracked.adopt(DEVICE, of(call("connected")), at(40)))) == []


@pytest.mark.parametrize("late", [0.4, 2.0, 3600.0])
def test_how_long_a_call_was_on_hold_is_not_told_by_our_clock(late: float) -> None:
    tracked, _ = adopt(of(call("held")), *ANSWERED[:2], second=30 + late)
    tracked.apply(own("retrieved", 30).event())
    (ended,) = tracked.apply(own("connectionCleared", 330).event())
    assert ended.record.hold_seconds == 0.0
    tracked, _ = adopt(of(call("held")), *ANSWERED[:2], second=30 + late)
    tracked.apply(own("held", 20).event())
    tracked.apply(own("retrieved", 30).event())
    (ended,) = tracked.apply(own("connectionCleared", 330).event())
    assert ended.record.hold_seconds == 10.0


def test_what_an_answer_does_not_mention_goes_on() -> None:
    tracked, notices = adopt(of(mode="Ready", complete=True), *ANSWERED[:2])
    assert story(notices) == ["agentStateChanged"]
    assert list(tracked.calls) == ["c1"]


@pytest.mark.parametrize("complete", [True, False])
def test_a_complete_answer_makes_a_device_sure(*, complete: bool) -> None:
    tracked, _ = adopt(of(complete=complete))
    tracked.confirm(DEVICE, of(complete=complete))
    told = tracked.apply(ANSWERED[1].event())
    assert any(isinstance(one, Inconsistency) for one in told) == complete


def test_a_hang_up_that_waited_for_a_complete_answer_is_one() -> None:
    tracked, _ = adopt(of(complete=True))
    (ended,) = tracked.apply(ANSWERED[2].event())
    assert ended.record.uncertain
    tracked.confirm(DEVICE, of(complete=True))
    assert tracked.call_tracker.board.is_certain(DEVICE)


def test_what_an_answer_says_again_may_have_changed_meanwhile() -> None:
    for since, seconds in ((None, None), (at(48), 7.0)):
        tracked = tracking()
        tracked.apply(changes("agentReady", "Ready", 0).event())
        tracked.agent_tracker.missed(frozenset())
        answer = DeviceSnapshot(mode="Ready", since=since)
        changed: Any
        assert tracked.adopt(DEVICE, answer, at(50)) == []
        tracked.confirm(DEVICE, answer)
        (changed,) = tracked.apply(changes("agentNotReady", "NotReady", 55).event())
        assert changed.seconds == seconds


def test_an_answer_of_before_what_is_known_is_not_believed() -> None:
    tracked = tracking()
    tracked.apply(changes("agentReady", "Ready", 20).event())
    assert tracked.adopt(DEVICE, DeviceSnapshot(mode="NotReady", since=at(10)), at(30)) == []
    assert tracked.agents[DEVICE].mode == "Ready"


def test_a_mode_that_differs_is_told_and_one_that_does_not_is_confirmed() -> None:
    tracked, (changed,) = adopt(DeviceSnapshot(agent="5001", mode="NotReady", reason="lunch"))
    assert (changed.agent.id, changed.agent.mode, changed.reason) == (
        "5001@a.cc",
        "NotReady",
        "lunch",
    )
    assert (changed.previous, changed.seconds, changed.inferred) == (None, None, True)
    assert tracked.agents["5001"].uncertain
    answer = DeviceSnapshot(mode="NotReady")
    assert tracked.adopt(DEVICE, answer, at(31)) == []
    tracked.confirm(DEVICE, answer)
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
    answer = DeviceSnapshot(agent="5001", mode="NotReady", since=at(10))
    tracked, _ = adopt(answer)
    tracked.confirm(DEVICE, answer)
    (changed,) = tracked.apply(changes("agentReady", "Ready", 40).event())
    assert (changed.previous, changed.seconds) == ("NotReady", 30.0)
    tracked, _ = adopt(replace(answer, since=None))
    tracked.confirm(DEVICE, answer)
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
    yield lambda: call(id=4711), "id: 4711 is no str"
    yield lambda: call(calling=138), "calling: 138 is no str | None"
    yield lambda: DeviceSnapshot(agent=5001, mode="Ready"), "agent: 5001 is no str | None"  # type: ignore[arg-type]
    yield lambda: DeviceSnapshot(calls=[call()]), "is no tuple"  # type: ignore[arg-type]
    yield lambda: DeviceSnapshot(calls=("c1",)), "'c1' is no CallSnapshot"  # type: ignore[arg-type]
    yield lambda: DeviceSnapshot(agent="5001"), "mode: is needed where an agent is given"
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
