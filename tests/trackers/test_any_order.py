"""Whatever comes, in whatever order, lost and repeated: no failure, no leak, no end told twice."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cti_listener import parse_event
from cti_listener.derived import CallEnded, CallRevised, CallStarted, Derived
from cti_listener.event_base import Delivery
from cti_listener.notices import Gap
from cti_listener.records import CallRecord
from tests.trackers.transcripts import BEGINNING, tracking

DEVICES = ["8001", "8002"]
PARTIES = [*DEVICES, "900"]
CALLS = ["c1", "c2", "c3"]
WHOSE = {
    "serviceInitiated": "initiatedDevice",
    "originated": "callingDevice",
    "delivered": "alertingDevice",
    "established": "answeringDevice",
    "held": "holdingDevice",
    "retrieved": "retrievingDevice",
    "transferred": "transferringDevice",
    "conferenced": "conferencingDevice",
    "connectionCleared": "releasingDevice",
    "recordStarted": "deviceId",
    "recordStopped": "deviceId",
    "failed": "deviceId",
    "callEnd": "deviceId",
}
NO_BEGINNINGS = {"connectionCleared", "recordStarted", "recordStopped"}
AGENTS = ["LoggedOn", "LoggedOff", "Ready", "NotReady", "WorkingAfterCall", "Allocated"]


class AnyOrder(RuleBasedStateMachine):
    """A server that says what it likes, and what must hold all the same."""

    def __init__(self) -> None:
        super().__init__()
        self.tracked = tracking(timeout=600.0)
        self.seconds = 0
        self.serial = 100
        self.last: dict[str, Any] | None = None
        self.begun: Counter[str] = Counter()
        self.unseen: Counter[str] = Counter()  # whose beginning nobody saw
        self.ended: Counter[str] = Counter()

    @rule(
        name=st.sampled_from(sorted(WHOSE)),
        device=st.sampled_from(DEVICES),
        party=st.sampled_from([*PARTIES, None]),
        call=st.sampled_from([*CALLS, 5]),
        other=st.sampled_from([*CALLS, "0", None]),
        ends=st.sampled_from([None, ("8001", "8002"), ("900", "8001"), ("8001", "900")]),
        to=st.sampled_from([*PARTIES, None]),
        passes=st.integers(-2, 4),
        numbered=st.booleans(),
        unreadable=st.sampled_from([None] * 9 + ["0001.01.01 00:00:00", "9999.12.31 23:59:59", ""]),
    )
    def hears(
        self,
        *,
        name: str,
        device: str,
        party: str | None,
        call: str | int,
        other: str | None,
        ends: tuple[str, str] | None,
        to: str | None,
        passes: int,
        numbered: bool,
        unreadable: str | None,
    ) -> None:
        self.serial += 1
        at = BEGINNING + timedelta(seconds=max(0, self.seconds + passes))
        payload: dict[str, Any] = {
            "eventName": name,
            "eventType": "csta",
            "namespace": "a.cc",
            "eventTime": f"{at:%Y.%m.%d %H:%M:%S}",
            "srcDeviceId": f"{device}@a.cc",
        }
        if unreadable is not None:
            payload["eventTime"] = unreadable
        if numbered:
            payload["serial"] = self.serial - passes
        if name != "recordStopped":
            payload["callId"] = call
        if ends is not None:
            payload |= {"callingDevice": ends[0], "calledDevice": ends[1]}
        if party is not None:
            payload[WHOSE[name]] = f"{party}@a.cc"
        if name == "transferred":
            payload |= {"secondaryOldCall": other, "newCall": call, "transferredToDevice": to}
        if name == "conferenced":
            payload |= {"secondaryOldCall": other, "newCall": other and call, "addedParty": to}
        if name.startswith("record"):
            payload |= {"recordId": "r", "fileName": "f"}
        self.seconds += max(0, passes)
        self._give(payload)

    @rule(
        name=st.sampled_from(AGENTS),
        device=st.sampled_from(DEVICES),
        agent=st.sampled_from(["5001", "5002"]),
        passes=st.integers(-2, 10),
    )
    def hears_of_an_agent(self, name: str, device: str, agent: str, passes: int) -> None:
        self.serial += 1
        at = BEGINNING + timedelta(seconds=max(0, self.seconds + passes))
        self.seconds += max(0, passes)
        self._give(
            {
                "eventName": f"agent{name}",
                "eventType": "agent",
                "namespace": "a.cc",
                "eventTime": f"{at:%Y.%m.%d %H:%M:%S}",
                "serial": self.serial,
                "srcDeviceId": f"{device}@a.cc",
                "agentId": f"{agent}@a.cc",
            }
        )

    @precondition(lambda self: self.last is not None)
    @rule()
    def hears_it_again(self) -> None:
        assert self.last is not None
        self._give(self.last)

    @rule(seconds=st.integers(1, 700))
    def nothing_happens_for_a_while(self, seconds: int) -> None:
        self.seconds += seconds
        self._note(self.tracked.expire(self._now))

    @rule(device=st.sampled_from([*DEVICES, None]))
    def something_is_missed(self, device: str | None) -> None:
        devices = frozenset() if device is None else frozenset({f"{device}@a.cc"})
        self.tracked.missed(
            Gap(
                at=self._now,
                id=1,
                since=self._now,
                until=self._now,
                reason="disconnected",
                devices=devices,
            )
        )

    @rule()
    def goes_on_in_the_next_run(self) -> None:
        kept = self.tracked.remembered()
        self.tracked = tracking(timeout=600.0)
        self.tracked.remember(kept)
        assert self.tracked.remembered() == kept

    @property
    def _now(self) -> Any:
        return BEGINNING + timedelta(seconds=self.seconds)

    def _give(self, payload: dict[str, Any]) -> None:
        self.last = payload
        event = parse_event(payload, delivery=Delivery(received_at=self._now))
        self._note(self.tracked.apply(event))

    def _note(self, notices: Any) -> None:
        for notice in notices:
            assert isinstance(notice, Derived)
            if isinstance(notice, CallStarted):
                self.begun[notice.device] += 1
            if isinstance(notice, CallEnded):
                self.ended[notice.device] += 1
                self.unseen[notice.device] += all(
                    one.event_name in NO_BEGINNINGS for one in notice.call.events
                )
            if isinstance(notice, CallEnded | CallRevised):
                self._check(notice.call)

    def _check(self, record: CallRecord) -> None:
        parts = record.ring_seconds or 0.0, record.talk_seconds or 0.0, record.hold_seconds
        assert min(parts) >= 0
        assert (record.wrap_up_seconds or 0.0) >= 0
        assert sum(parts) <= (record.ended - record.started).total_seconds() + 1
        assert record.ended >= record.started

    @invariant()
    def no_end_is_told_twice(self) -> None:
        for device, ended in self.ended.items():
            assert ended <= self.begun[device] + self.unseen[device], device

    @invariant()
    def every_view_can_be_looked_at(self) -> None:
        for call in self.tracked.calls.values():
            assert call.ended is None
        for agent in self.tracked.agents.values():
            assert agent.mode

    def teardown(self) -> None:
        for call in list(self.tracked.calls):
            for device in DEVICES:
                self.serial += 1
                self._give(
                    {
                        "eventName": "connectionCleared",
                        "eventType": "csta",
                        "namespace": "a.cc",
                        "eventTime": f"{self._now:%Y.%m.%d %H:%M:%S}",
                        "serial": self.serial + 100,
                        "srcDeviceId": f"{device}@a.cc",
                        "releasingDevice": f"{device}@a.cc",
                        "callId": call,
                    }
                )
        assert not self.tracked.calls, "a call leaked after all had hung up"


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=150, stateful_step_count=40)
