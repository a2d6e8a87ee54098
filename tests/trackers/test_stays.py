"""Stays of a device in a call that answers tell of, and what is left of those that are over."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from cti_listener.derived import CallEnded, CallRevised, CallStarted
from cti_listener.event_base import Event
from cti_listener.notices import Gap
from cti_listener.records import CallRecord
from cti_listener.snapshots import CallSnapshot, DeviceSnapshot
from tests.trackers.transcripts import BEGINNING, heard, read, tracking

SERIALS = itertools.count(500)
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


def test_of_a_call_that_was_given_up_it_is_not_known_how_long_they_talked_or_it_rang() -> None:
    for lines in ANSWERED.splitlines()[3:6], ANSWERED.splitlines()[3:5]:
        tracked = heard("\n## Nobody hangs up\n\n" + "\n".join(lines))
        (notice,) = [one for one in tracked.expire(at(86_400)) if isinstance(one, CallEnded)]
        record = notice.call
        assert record.inferred
        assert record.talk_seconds is None
        assert record.ring_seconds == (1.0 if record.was_answered else None)


@pytest.mark.parametrize("restarts", [False, True])
def test_the_last_record_names_the_events_that_tell_of_the_work_after_it(*, restarts: bool) -> None:
    ((_, lines),) = read(ANSWERED)
    tracked = heard("\n".join(ANSWERED.splitlines()[:-1]))
    if restarts:
        tracked, before = tracking(), tracked
        tracked.remember(before.remembered())
    record = [one.call for one in tracked.apply(lines[-1].event()) if isinstance(one, CallRevised)]
    assert [key.event_name for key in record[0].events] == [
        "delivered",
        "established",
        "recordStarted",
        "connectionCleared",
        "agentWorkingAfterCall",
        "agentReady",
    ]
    assert [key.serial for key in record[0].events] == [101, 102, 103, 104, 105, 106]


def test_a_call_handed_to_a_device_takes_no_id_from_another_that_has_it() -> None:
    tracked = heard("""
## C is out of a consultation as the call is handed over, and is called by its id once more

0 8001 delivered 8001 c2 8003>8001
20 8001 connectionCleared 8001 c2
22 8001 transferred 8003 c1 to=8001 primaryOldCall=c1 second=c2 into=c1
23 8001 delivered 8001 c2 8003>8001
""")
    assert set(tracked.calls) == {"c1", "c2"}
    assert tracked.calls["c1"].former_ids == ()


@pytest.mark.parametrize("serial", [-1, -2, -3])
def test_a_record_names_all_its_events_whatever_their_serials(serial: int) -> None:
    tracked = tracking()
    ((_, lines),) = read(ANSWERED)
    keys, ends = [], []
    for line in lines[1:5]:
        line.payload["serial"] = serial
        event = line.event()
        keys.append(event.key)
        ends += [one for one in tracked.apply(event) if isinstance(one, CallEnded)]
    assert [one.call.events for one in ends] == [tuple(keys)]


def test_serials_that_are_written_as_text_count() -> None:
    text = """
## A queue offers a call again in the second in which it has taken it back

0 8001 delivered 8001 c1 900>8001 split=7000
20 8001 connectionCleared 8001 c1
20 8001 delivered 8001 c1 900>8001 split=7000
25 8001 established 8001 c1 900>8001 split=7000
60 8001 connectionCleared 8001 c1
"""
    assert records(text, written=str) == records(text, written=int)


def records(text: str, *, written: type) -> list[tuple[CallRecord, int]]:
    """Return the records, and how many events each names, where serials are written so."""
    tracked = tracking()
    found = []
    for _, lines in read(text):
        for line in lines:
            line.payload["serial"] = written(line.payload["serial"])
            ends = [one.call for one in tracked.apply(line.event()) if isinstance(one, CallEnded)]
            found += [(replace(call, events=()), len(call.events)) for call in ends]
    return found


def test_a_call_goes_through_a_thousand_hands() -> None:
    tracked = tracking()
    hands = 1200
    for n in range(hands):
        tell = f"{n} {1000 + n} transferred {1000 + n} c1 to={1001 + n} second=c1 into=c1"
        tracked.apply(read_one(f"{n} {1000 + n} delivered {1000 + n} c1 900>{1000 + n} split=7000"))
        tracked.apply(read_one(tell))
        tracked.apply(read_one(tell.replace(f"{1000 + n} transferred", f"{1001 + n} transferred")))
    last = 1000 + hands
    (end,) = tracked.apply(read_one(f"{hands} {last} connectionCleared {last} c1"))
    assert isinstance(end, CallEnded)


def read_one(words: str) -> Event:
    ((_, (line,)),) = read(f"\n## One\n\n{words}")
    line.payload["serial"] = next(SERIALS)
    return line.event()


# Allocations over a gap

ALLOCATED = """
## An agent is set aside

0 8001 agentLoggedOn 5001 agentMode=Ready
5 8001 agentAllocated 5001
"""
FREED = """
## ... and is not any more

100 8001 agentReady 5001
"""
RINGS = """
## A call rings

{} 8001 delivered 8001 c1 {}>8001 {}
{} 8001 connectionCleared 8001 c1
"""


@pytest.mark.parametrize(
    ("second", "calling", "said", "missed", "texts", "direction", "uncertain"),
    [
        (20, "900", "split=7000", False, [ALLOCATED], "predictive", False),
        (20, "900", "split=7000", True, [ALLOCATED], "predictive", True),
        (320, "900", "split=7000", False, [ALLOCATED], "inbound", False),  # nobody waits so long
        (320, "900", "split=7000", True, [ALLOCATED], "inbound", True),
        (320, "900", "split=7000", True, [ALLOCATED, FREED], "inbound", True),
        (320, "8002", "split=7000", True, [ALLOCATED, FREED], "internal", False),
        (320, "900", "split=7000 type=Inbound", True, [ALLOCATED, FREED], "inbound", False),
    ],
)
def test_whether_an_agent_was_set_aside_is_doubtful_after_a_gap_until_the_agent_is_heard(
    *,
    second: int,
    calling: str,
    said: str,
    missed: bool,
    texts: list[str],
    direction: str,
    uncertain: bool,
) -> None:
    tracked = heard(*texts)
    if missed:
        tracked.missed(Gap(at=at(10), id=1, since=at(9), until=at(10), reason="disconnected"))
    ((_, lines),) = read(RINGS.format(second, calling, said, second + 9))
    ends = [one for line in lines for one in tracked.apply(line.event())]
    (record,) = [one.call for one in ends if isinstance(one, CallEnded)]
    assert (record.direction, record.uncertain) == (direction, uncertain)


def test_once_the_agent_is_heard_after_a_gap_it_is_known() -> None:
    tracked = heard(ALLOCATED)
    tracked.missed(Gap(at=at(10), id=1, since=at(9), until=at(10), reason="disconnected"))
    tracked.apply(read_one("100 8001 agentReady 5001"))
    ((_, lines),) = read(RINGS.format(110, "900", "split=7000", 119))
    ends = [one for line in lines for one in tracked.apply(line.event())]
    (record,) = [one.call for one in ends if isinstance(one, CallEnded)]
    assert (record.direction, record.uncertain) == ("inbound", False)
