"""What follows from events: behind them, with a journal on disk with them, and after a crash."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cti_listener import (
    CallAnswered,
    CallEnded,
    CallRevised,
    CallStarted,
    ConfigurationError,
    Delivered,
    Derived,
    Event,
    Listener,
    Notice,
    following,
)
from cti_listener.journal import visits
from cti_listener.journal.purge import purge as purge_number
from cti_listener.testing import FakeSource, ManualClock
from tests.trackers.transcripts import read
from tests.turns import until

GOLDEN = Path(__file__).parent / "trackers" / "golden"
ALL = {title: lines for file in GOLDEN.glob("*.txt") for title, lines in read(file.read_text())}
ANSWERED = ALL["S is called and answers"]
CONSULTED = ALL["Consultation, then transfer"]


class Stage:
    """A listener with a source in the test's hands."""

    def __init__(self, path: Path | None = None, **options: Any) -> None:
        self.clock = ManualClock()
        self.source = FakeSource(self.clock)
        self.listener = Listener(
            self.source,
            namespace="a.cc",
            internal=r"\d{4}",
            journal=path,
            clock=self.clock,
            **options,
        )
        self.heard: list[Any] = []

    async def hear(self, happening: Event | Notice) -> None:
        self.heard.append(happening)

    async def settle(self) -> None:
        def is_settled() -> bool:
            stats = self.listener.stats()
            return not stats.waiting and (stats.journal is None or not stats.journal.pending)

        await until(is_settled)

    def known(self) -> bytes:
        return self.listener._engine.track().remembered()  # noqa: SLF001 - no user sees it

    def names(self) -> list[str]:
        return [one.event_name for one in self.heard]


async def test_what_follows_from_an_event_comes_right_behind_it_in_its_devices_order() -> None:
    stage = Stage()
    stage.listener.on(Event, Derived)(stage.hear)
    async with stage.listener:
        for line in ANSWERED:
            stage.source.send(line.payload)
        await stage.settle()
    assert stage.names() == [
        "delivered",
        "callStarted",
        "established",
        "callAnswered",
        "connectionCleared",
        "callEnded",
    ]


async def test_a_handler_of_one_device_is_told_of_its_calls_alone() -> None:
    stage = Stage()
    stage.listener.on(CallEnded, device="8002")(stage.hear)
    async with stage.listener:
        for line in CONSULTED:
            stage.source.send(line.payload)
        await stage.settle()
    assert [one.device for one in stage.heard] == ["8002@a.cc"]


async def test_who_asks_for_notices_is_not_told_of_calls() -> None:
    stage = Stage(track=True)
    stage.listener.on(Notice)(stage.hear)
    async with stage.listener:
        for line in ANSWERED:
            stage.source.send(line.payload)
        await stage.settle()
    assert "callEnded" not in stage.names()


async def test_the_views_show_what_goes_on_by_call_by_agent_and_by_device() -> None:
    stage = Stage(track=True)
    async with stage.listener:
        for line in ALL["An agent logs on, is ready, takes a call, works after it, is ready"][:4]:
            stage.source.send(line.payload)
        calls, agents = stage.listener.calls, stage.listener.agents
        assert list(calls) == ["c1"]
        assert calls["c1"].direction == "inbound"
        party = calls["c1"].party("8001@a.cc")
        assert party is not None
        assert party.state == "connected"
        assert agents["5001"] == agents["8001"] == agents["5001@a.cc"]
        assert agents["5001"].calls == ("c1",)
        assert agents["5001"].mode == "Ready"
        with pytest.raises(KeyError):
            calls["c2"]


async def test_tracking_begins_with_whoever_asks_first() -> None:
    stage = Stage()
    async with stage.listener:
        stage.source.send(ANSWERED[0].payload)
        assert len(stage.listener.calls) == 0  # that was before
        stage.source.send(ANSWERED[1].payload)
        assert stage.listener.calls["c1"].uncertain


async def test_one_may_wait_for_what_follows() -> None:
    stage = Stage()
    async with stage.listener:
        async with stage.listener.expect(CallAnswered, device="8001") as answered:
            for line in ANSWERED:
                stage.source.send(line.payload)
        assert answered.event.call.answered is not None


async def test_one_may_wait_for_the_wrap_up_once_a_call_ended() -> None:
    stage = Stage()
    waiting, wrap_ups = asyncio.Event(), list[float | None]()

    @stage.listener.on(CallEnded)
    async def complete(ended: CallEnded) -> None:
        async with stage.listener.expect(CallRevised, device=ended.device) as revised:
            waiting.set()
        wrap_ups.append(revised.event.call.wrap_up_seconds)

    lines = ALL["An agent logs on, is ready, takes a call, works after it, is ready"]
    async with stage.listener:
        for line in lines[:5]:  # up to the hang-up
            stage.source.send(line.payload)
        await waiting.wait()
        for line in lines[5:]:
            stage.source.send(line.payload)
        await stage.settle()
    assert wrap_ups == [20.0]


async def test_after_a_gap_devices_are_uncertain_and_nothing_is_suspected() -> None:
    stage = Stage()
    stage.listener.on(Derived)(stage.hear)
    async with stage.listener:
        stage.source.send(ANSWERED[0].payload)
        stage.source.disconnect()
        stage.source.connect()
        stage.source.send(ANSWERED[2].payload)  # it was answered meanwhile
        await stage.settle()
    assert stage.names() == ["callStarted", "callEnded"]
    assert stage.heard[-1].call.uncertain
    assert stage.listener.stats().inconsistencies == 0


async def test_a_call_that_shows_no_sign_for_too_long_is_given_up() -> None:
    stage = Stage(call_timeout=100.0)
    stage.listener.on(CallEnded)(stage.hear)
    async with stage.listener:
        stage.source.send(ANSWERED[0].payload)
        await stage.clock.advance(90.0)
        assert not stage.heard
        await stage.clock.advance(30.0)
        await stage.settle()
        assert len(stage.listener.calls) == 0
    (ended,) = stage.heard
    assert ended.inferred
    assert ended.call.inferred
    assert ended.call.cause == "expired"


@pytest.mark.parametrize("wrong", [{"internal": "("}, {"call_timeout": 0.0}])
def test_what_cannot_work_is_said_at_once(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Listener("ws://localhost/", namespace="a.cc", **wrong)


async def test_a_full_lane_drops_the_oldest_of_what_follows_and_tells_it() -> None:
    stage = Stage()
    held = asyncio.Event()
    dropped = []

    async def slow(notice: CallStarted) -> None:
        await held.wait()
        stage.heard.append(notice)

    stage.listener.on(CallStarted, lane_size=2)(slow)
    async with stage.listener:
        for number in range(6):
            stage.source.send({**ANSWERED[0].payload, "callId": f"c{number}", "serial": number})
        await until(lambda: any(one.dropped for one in stage.listener.stats().handlers.values()))
        dropped = [one.dropped for one in stage.listener.stats().handlers.values()]
        held.set()
        await stage.settle()
    assert dropped == [6 - len(stage.heard)]
    assert stage.heard[-1].call.id == "c5"


class TestWithAJournal:
    """What follows is on disk with its event."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "journal.db"

    @staticmethod
    def image(path: Path) -> Path:
        """Return what a crash would leave behind now."""
        there = path.with_name("crashed.db")
        for end in ("", "-wal"):
            shutil.copy(f"{path}{end}", f"{there}{end}")
        return there

    async def test_it_comes_right_behind_its_event(self, path: Path) -> None:
        stage = Stage(path)
        stage.listener.on(Event, Derived, name="all")(stage.hear)
        stage.listener.on(Derived)(stage.hear)
        async with stage.listener:
            for line in ANSWERED:
                stage.source.send(line.payload)
            await stage.settle()
        durable = ["delivered", "callStarted", "established", "callAnswered"]
        assert [name for name in stage.names() if name != "callEnded"][:1] == ["delivered"]
        assert sorted(stage.names()) == sorted(
            [
                *durable,
                "connectionCleared",
                "callEnded",
                "callStarted",
                "callAnswered",
                "callEnded",
            ]
        )

    async def test_what_a_handler_has_not_done_at_a_crash_is_told_again(self, path: Path) -> None:
        stage = Stage(path)

        @stage.listener.on(CallEnded, name="records")
        async def never(_: CallEnded) -> None:
            await asyncio.Event().wait()

        async with stage.listener:
            for line in ANSWERED:
                stage.source.send(line.payload)
            await until(lambda: stage.listener.stats().handlers["records"].waiting == 1)
            crashed = self.image(path)
            await stage.listener.stop(drain=0.0)
        again = Stage(crashed)
        again.listener.on(CallEnded, name="records")(again.hear)
        async with again.listener:
            await until(lambda: bool(again.heard))
            await again.settle()
        (ended,) = again.heard
        assert isinstance(ended, CallEnded)
        assert ended.redelivered
        assert ended.call.talk_seconds == 60.0

    @pytest.mark.parametrize("title", [title for title in ALL if "progress" not in title])
    @pytest.mark.parametrize("every", [1, 4, 5000])
    async def test_after_a_crash_calls_and_agents_are_as_without_it(
        self, path: Path, title: str, every: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(following, "KEPT_EVERY", every)
        monkeypatch.setattr(following, "KEPT_PER_LEG", 0)
        stage = Stage(path, track=True)
        lines = ALL[title]
        async with stage.listener:
            for line in lines[: len(lines) // 2]:
                stage.source.send(line.payload)
            await stage.settle()
            crashed = self.image(path)
            known = stage.known()
        again = Stage(crashed, track=True)
        async with again.listener:
            resumed = again.known()
        assert without_doubt(resumed) == without_doubt(known)

    async def test_a_crash_right_behind_a_gap_leaves_no_call_more_certain_than_it_was(
        self, path: Path
    ) -> None:
        stage = Stage(path, track=True)
        async with stage.listener:
            stage.source.send(ANSWERED[0].payload)
            await stage.settle()
            await stage.clock.advance(2.0)  # since it was kept last
            stage.source.disconnect()
            stage.source.connect()
            await stage.settle()
            assert stage.listener.calls["c1"].uncertain
            epoch = json.loads(stage.known())["agents"]["epoch"]
            stage.source.send(ANSWERED[1].payload)  # once this is on disk, so is the rest
            await stage.settle()
            crashed = self.image(path)
        assert await asyncio.to_thread(self.kept_epoch, crashed) == epoch

    @staticmethod
    def kept_epoch(path: Path) -> int:
        with visits.visit(path) as db:
            ((kept,),) = db.execute("SELECT tracked FROM state")
        return int(json.loads(kept)["agents"]["epoch"])

    async def test_a_run_that_did_not_track_leaves_nothing_to_go_on_with(self, path: Path) -> None:
        for track, expected in ((True, 1), (False, None), (True, 0)):
            stage = Stage(path, track=track)
            async with stage.listener:
                if expected == 1:
                    stage.source.send(ANSWERED[0].payload)
                await stage.settle()
                if track:
                    assert len(stage.listener.calls) == expected

    async def test_a_dead_letter_that_is_tried_again_is_folded_once(self, path: Path) -> None:
        stage = Stage(path, track=True)

        @stage.listener.on(Delivered, name="pops")
        async def fails(_: Delivered) -> None:
            raise ValueError

        async with stage.listener:
            for line in ANSWERED:
                stage.source.send(line.payload)
            await stage.settle()

        def retry() -> int:
            with visits.visit(path, write=True) as db:
                return visits.retry(db, handler="pops")

        assert await asyncio.to_thread(retry) == 1
        again = Stage(path)
        again.listener.on(Delivered, name="pops")(again.hear)
        again.listener.on(Derived)(again.hear)
        async with again.listener:
            await until(lambda: again.names() == ["delivered"])
            await again.settle()
            calls = json.loads(again.known())["calls"]
            ((_, number),) = calls["board"]["over"]
        assert again.names() == ["delivered"]
        assert len(calls["legs"][number]["facts"]) == len(ANSWERED)


def without_doubt(known: bytes) -> Any:
    """Return what is known, but for what a start makes uncertain: the time between was missed."""
    told = json.loads(known)
    told["agents"].pop("epoch")
    board = told["calls"]["board"]
    for name in ("epoch", "certain", "followed"):
        board.pop(name)
    for leg in told["calls"]["legs"]:
        leg.pop("holds")
    return told


class TestWhatIsToldOnce:
    """An end is told once, through crashes, pauses and what the journal has dropped."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "journal.db"

    async def test_a_call_that_was_given_up_is_not_given_up_again_after_a_crash(
        self, path: Path
    ) -> None:
        stage = Stage(path, call_timeout=100.0)
        stage.listener.on(CallEnded, name="records")(stage.hear)
        async with stage.listener:
            stage.source.send(ANSWERED[0].payload)
            await stage.settle()
            await stage.clock.advance(130.0)
            await until(lambda: bool(stage.heard))
            await stage.settle()
            crashed = TestWithAJournal.image(path)
        again = Stage(crashed, call_timeout=100.0)
        again.listener.on(CallEnded, name="records")(again.hear)
        async with again.listener:
            assert len(again.listener.calls) == 0
            await again.clock.advance(300.0)
            await again.settle()
        assert all(one.redelivered for one in again.heard)  # its mark may not have been on disk

    async def test_what_is_known_is_kept_by_time_as_well(self, path: Path) -> None:
        stage = Stage(path, track=True)
        async with stage.listener:
            stage.source.send(ANSWERED[0].payload)
            await stage.settle()
            await stage.clock.advance(following.KEPT_FOR + 20.0)
            stage.source.send(ANSWERED[1].payload)  # once that is on disk, so is what went before
            await stage.settle()

            def kept() -> int:
                with visits.visit(path) as db:
                    return int(db.execute("SELECT tracked_seq FROM state").fetchone()[0])

            assert await asyncio.to_thread(kept) == 1

    async def test_where_events_are_gone_that_followed_nothing_is_resumed(self, path: Path) -> None:
        stage = Stage(path, track=True)
        async with stage.listener:
            for line in ANSWERED:
                stage.source.send(line.payload)
            await stage.settle()
            crashed = TestWithAJournal.image(path)

        def drop() -> None:
            with visits.visit(crashed, write=True) as db:
                db.execute("DELETE FROM event WHERE seq = 2")

        await asyncio.to_thread(drop)
        again = Stage(crashed, track=True)
        calls = again.listener.calls
        async with again.listener:
            again.source.send({**ANSWERED[0].payload, "callId": "c2"})
            assert list(calls) == ["c2"]  # the view is of what is known now
            again.source.send({**ANSWERED[2].payload, "callId": "c2", "serial": 300})
            assert json.loads(again.known())["calls"]["board"]["at"] == []
            calls = json.loads(again.known())["calls"]
            ((_, number),) = calls["board"]["over"]
        assert calls["legs"][number]["call"] == "c2"

    async def test_a_purge_takes_what_was_known_of_calls_as_well(self, path: Path) -> None:
        stage = Stage(path, track=True)
        async with stage.listener:
            stage.source.send({**ANSWERED[0].payload, "callingDevice": "13800138000@a.cc"})
            await stage.settle()

        def purge() -> bytes:
            with visits.visit(path, write=True) as db:
                purge_number(db, path, "13800138000")
            return path.read_bytes()

        assert b"13800138000" not in await asyncio.to_thread(purge)

    async def test_what_cannot_be_kept_ends_no_run(self, path: Path) -> None:
        stage = Stage(path)
        stage.listener.on(CallStarted, name="pops")(stage.hear)
        async with stage.listener:
            # Half a character has no UTF-8, and Python writes no number of so many digits out.
            huge = {"failedCode": 10**4400, "eventName": "failed", "serial": 77}
            stage.source.send({**ANSWERED[0].payload, "userData": {"name": "\ud800"}})
            stage.source.send({**ANSWERED[0].payload, **huge})
            await stage.settle()
        assert stage.names() == ["callStarted"]

    async def test_a_bug_in_tracking_costs_no_event(self, monkeypatch: pytest.MonkeyPatch) -> None:
        stage = Stage(track=True)
        stage.listener.on(Event)(stage.hear)

        def fail(*_: object) -> None:
            raise RuntimeError

        async with stage.listener:
            monkeypatch.setattr("cti_listener.tracking.Tracking.apply", fail)
            stage.source.send(ANSWERED[0].payload)
            await stage.settle()
        assert stage.names() == ["delivered"]
        assert not stage.listener.stats().bad

    async def test_a_full_lane_leaves_what_follows_in_the_journal(self, path: Path) -> None:
        stage = Stage(path)
        held = asyncio.Event()

        @stage.listener.on(CallStarted, name="pops", lane_size=2)
        async def slow(notice: CallStarted) -> None:
            await held.wait()
            await stage.hear(notice)

        async with stage.listener:
            for number in range(30):
                call = {"callId": f"c{number}", "serial": number}
                stage.source.send({**ANSWERED[0].payload, **call})
            await until(lambda: stage.listener.stats().handlers["pops"].waiting == 2)
            held.set()
            await until(lambda: len(stage.heard) == 30)
        assert [one.call.id for one in stage.heard] == [f"c{number}" for number in range(30)]
        assert not any(one.redelivered for one in stage.heard)
