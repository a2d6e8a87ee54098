"""Who sits where, and how the view tells it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from cti_listener import parse_event
from cti_listener.derived import AgentStateChanged
from cti_listener.event_base import Delivery
from cti_listener.snapshots import DeviceSnapshot
from cti_listener.tracking import Tracking
from tests.trackers.transcripts import BEGINNING, heard, read, tracking


def hear(tracked: Tracking, second: int, device: str, name: str, agent: str, **more: Any) -> None:
    at = BEGINNING + timedelta(seconds=second)
    payload = {
        "eventName": f"agent{name}",
        "eventType": "agent",
        "namespace": "a.cc",
        "eventTime": f"{at:%Y.%m.%d %H:%M:%S}",
        "serial": second,
        "srcDeviceId": f"{device}@a.cc",
        "agentId": agent,
        **more,
    }
    tracked.apply(parse_event(payload, delivery=Delivery(received_at=at)))


@pytest.fixture(params=["at once", "by the next run"])
def shift(request: pytest.FixtureRequest) -> Tracking:
    """One agent logs off, and another logs on at the same device, where a call goes on then."""
    tracked = tracking()
    hear(tracked, 0, "8001", "LoggedOn", "5001@a.cc", agentMode="Ready")
    hear(tracked, 10, "8001", "LoggedOff", "5001@a.cc")
    hear(tracked, 20, "8001", "LoggedOn", "5002@a.cc", agentMode="Ready")
    call = {
        "eventName": "delivered",
        "eventType": "csta",
        "callId": "c1",
        "srcDeviceId": "8001@a.cc",
        "alertingDevice": "8001@a.cc",
    }
    tracked.apply(parse_event(call, delivery=Delivery(received_at=BEGINNING)))
    if request.param == "at once":
        return tracked
    again = tracking()
    again.remember(tracked.remembered())
    return again


def test_after_a_change_of_shift_each_agent_is_shown_as_that_agent(shift: Tracking) -> None:
    left, there = shift.agents["5001@a.cc"], shift.agents["5002"]
    assert (left.id, left.mode, left.calls, left.uncertain) == ("5001@a.cc", "Logout", (), False)
    assert (there.id, there.mode, there.calls) == ("5002@a.cc", "Ready", ("c1",))
    assert {name: one.id for name, one in shift.agents.items()} == {
        "5001@a.cc": "5001@a.cc",
        "5002@a.cc": "5002@a.cc",
    }
    assert shift.agents["8001"].id == "5002@a.cc"
    assert shift.agents.modes()["Logout"] == 0


def test_who_comes_back_to_a_seat_sits_there_again(shift: Tracking) -> None:
    hear(shift, 30, "8001", "LoggedOff", "5002@a.cc")
    hear(shift, 40, "8001", "LoggedOn", "5001@a.cc", agentMode="NotReady")
    assert shift.agents["5001"].mode == "NotReady"
    assert shift.agents["5002"].mode == "Logout"


def test_whose_seat_is_taken_without_a_word_is_uncertain() -> None:
    tracked = tracking()
    hear(tracked, 0, "8001", "LoggedOn", "5001@a.cc", agentMode="Ready")
    hear(tracked, 20, "8001", "LoggedOn", "5002@a.cc", agentMode="Ready")
    assert tracked.agents["5001"].uncertain
    assert not tracked.agents["5002"].uncertain


def test_a_short_id_is_completed_by_the_device_where_no_namespace_is_told() -> None:
    tracked = tracking()
    hear(tracked, 0, "8001", "LoggedOn", "5001", namespace=None)
    assert [(name, one.id) for name, one in tracked.agents.items()] == [("5001@a.cc", "5001@a.cc")]


def test_an_agents_event_that_was_counted_later_counts_though_the_clock_went_back() -> None:
    tracked = heard("""
## The server's clock goes back by five seconds

100 8001 agentLoggedOn 5001 agentMode=Ready
95 8001 agentNotReady 5001
96 8001 agentReady 5001
101 8001 agentNotReady 5001
""")
    agent = tracked.agents["5001"]
    assert (agent.mode, agent.since) == ("NotReady", BEGINNING + timedelta(seconds=101))


def test_an_agent_sits_where_they_logged_on_last_whichever_is_heard_first() -> None:
    ((_, lines),) = read("""
## Nobody logs off

0 8001 agentLoggedOn 5001 agentMode=Ready
9 8002 agentLoggedOn 5001 agentMode=Ready
""")
    for order in lines, lines[::-1]:
        tracked = tracking()
        for line in order:
            tracked.apply(line.event(9.0))
        assert tracked.agents["5001"].device == "8002@a.cc"
        assert tracked.agents["8001"].mode == "Logout"
        assert tracked.agents["8001"].uncertain


def test_an_answer_that_seats_an_agent_has_them_gone_from_elsewhere() -> None:
    tracked = heard("\n## A seat\n\n0 8002 agentLoggedOn 5001 agentMode=Ready")
    snapshot = DeviceSnapshot(agent="5001", mode="Ready")
    notices = tracked.adopt("8001@a.cc", snapshot, BEGINNING + timedelta(seconds=60))
    assert [
        (one.device, one.agent.mode) for one in notices if isinstance(one, AgentStateChanged)
    ] == [
        ("8002@a.cc", "Logout"),
        ("8001@a.cc", "Ready"),
    ]
    assert tracked.agents["5001"].device == "8001@a.cc"
    assert tracked.agents["8002"].uncertain


def test_an_answer_seats_an_agent_where_they_have_sat_before() -> None:
    tracked = heard("""
## An agent moves from one seat to another

0 8002 agentLoggedOn 5001 agentMode=Ready
5 8002 agentLoggedOff 5001
10 8001 agentLoggedOn 5001 agentMode=Ready
""")
    snapshot = DeviceSnapshot(agent="5001", mode="Ready")
    tracked.adopt("8002@a.cc", snapshot, BEGINNING + timedelta(seconds=60))
    assert tracked.agents["5001"].device == "8002@a.cc"
    assert [tracked.agents[device].mode for device in ("8001", "8002")] == ["Logout", "Ready"]


def test_an_agent_who_moves_as_the_clock_goes_back_sits_where_they_were_counted_last() -> None:
    tracked = heard("""
## The clock goes back by an hour as an agent moves

3700 8001 agentLoggedOn 5001 agentMode=Ready
3710 8001 agentNotReady 5001
130 8002 agentLoggedOn 5001 agentMode=Ready
140 8002 agentNotReady 5001
""")
    agent = tracked.agents["5001"]
    assert (agent.device, agent.mode) == ("8002@a.cc", "NotReady")
    assert tracked.agents["8001"].mode == "Logout"
