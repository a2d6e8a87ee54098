"""Stays of a device in a call that answers tell of, and what is left of those that are over."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest

from cti_listener.derived import CallEnded, CallStarted
from cti_listener.snapshots import CallSnapshot, DeviceSnapshot
from cti_listener.tracking import Tracking
from tests.trackers.transcripts import BEGINNING, read, tracking

DEVICE = "8001@a.cc"
ANSWERED = """
## An agent takes a call and works after it

0 8001 agentLoggedOn 5001 agentMode=Ready
1 8001 delivered 8001 c1 900>8001
2 8001 established 8001 c1 900>8001
2 8001 recordStarted 8001 c1 record=r1
20 8001 connectionCleared 8001 c1
21 8001 agentWorkingAfterCall 5001
30 8001 agentReady 5001
"""
NEXT = """
## Another call at another device, by which what is over is forgotten

40 8002 delivered 8002 c9 901>8002
"""


def at(second: float) -> datetime:
    return BEGINNING + timedelta(seconds=second)


def heard(*texts: str) -> Tracking:
    tracked = tracking()
    for text in texts:
        for _, lines in read(text):
            for line in lines:
                tracked.apply(line.event())
    return tracked


@pytest.mark.parametrize("texts", [(ANSWERED,), (ANSWERED, NEXT)], ids=["just over", "forgotten"])
@pytest.mark.parametrize(("answered", "goes_on"), [(24.5, True), (2.0, False), (None, False)])
def test_an_answer_tells_of_another_stay_only_if_that_began_later(
    *, texts: tuple[str, ...], answered: float | None, goes_on: bool
) -> None:
    tracked = heard(*texts)
    one = CallSnapshot(
        id="c1", state="connected", answered=None if answered is None else at(answered)
    )
    notices = tracked.adopt(DEVICE, DeviceSnapshot(calls=(one,)), at(41))
    assert any(isinstance(notice, CallStarted) for notice in notices) is goes_on
    assert ("c1" in tracked.calls) is goes_on


@pytest.mark.parametrize("later", [1.0, 3600.0])
def test_a_call_that_was_given_up_goes_on_if_an_answer_says_so(later: float) -> None:
    tracked = heard(NEXT)
    given_up = at(40 + 5 * 3600)
    assert [type(one) for one in tracked.expire(given_up)] == [CallEnded]
    now = given_up + timedelta(seconds=later)
    tracked.expire(now)
    one = CallSnapshot(id="c9", state="connected")
    notices = tracked.adopt("8002@a.cc", DeviceSnapshot(calls=(one,)), now)
    assert isinstance(notices[0], CallStarted)


def test_nothing_is_left_of_a_call_but_its_id_minutes_after_it() -> None:
    tracked = heard(ANSWERED)
    assert json.loads(tracked.remembered())["calls"]["legs"] != []
    for minutes in (1, 2, 4):
        tracked.expire(at(30 + 60 * minutes))
    assert json.loads(tracked.remembered())["calls"]["legs"] == []
