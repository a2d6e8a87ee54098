"""What `listener.calls` shows while some have left a call and others go on in it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from cti_listener.derived import CallEnded, CallRevised
from cti_listener.records import Call
from cti_listener.trackers.board import MOST_LEFT
from cti_listener.tracking import Tracking
from tests.trackers.transcripts import BEGINNING, heard, read, tracking

CUSTOMER = """
## A customer from a queue, whom B talks to and puts on hold

0 8003 delivered 8003 c1 900>8003 split=7000
4 8003 established 8003 c1 900>8003 split=7000
10 8003 recordStarted 8003 c1 record=r1 file=1.wav
20 8003 held 8003 c1
"""
CONSULTED = """
## B consults C

22 8003 originated 8003 c2 8003>8002
23 8002 delivered 8002 c2 8003>8002
27 8003 established 8002 c2 8003>8002
27 8002 established 8002 c2 8003>8002
"""
HANDED_OVER = """
## ... and hands over

40 8003 transferred 8003 c1 to=8002 primaryOldCall=c1 second=c2 into=c1
40 8002 transferred 8003 c1 to=8002 primaryOldCall=c1 second=c2 into=c1
40 8003 connectionCleared 8003 c1
40 8003 connectionCleared 8003 c2
40 8002 connectionCleared 8003 c1
"""
MUCH_LATER = """
## Another call, by which what is over is forgotten

200 8009 delivered 8009 c9 901>8009
"""
OVER = """
## The customer is done

210 8002 connectionCleared 8002 c1
"""


def states(call: Call) -> dict[str, str]:
    return {party.device.partition("@")[0]: party.state for party in call.parties}


def again(tracked: Tracking) -> Tracking:
    """Return what a later run knows."""
    resumed = tracking()
    resumed.remember(tracked.remembered())
    return resumed


@pytest.mark.parametrize("behind", [(), (MUCH_LATER,)], ids=["at once", "much later"])
def test_who_has_left_a_call_is_shown_as_long_as_it_goes_on(behind: tuple[str, ...]) -> None:
    tracked = heard(CUSTOMER, CONSULTED, HANDED_OVER, *behind)
    call = tracked.calls["c1"]
    assert again(tracked).calls["c1"] == call
    assert states(call) == {"8003": "cleared", "900": "connected", "8002": "connected"}
    assert (call.direction, call.queue) == ("inbound", "7000@a.cc")
    assert call.started == BEGINNING
    assert [one.to for one in call.transfers] == ["8002@a.cc"]
    assert len(call.holds) == len(call.recordings) == 1


def test_nobody_is_shown_in_a_conversation_that_has_hung_up_though_the_other_has_not() -> None:
    tracked = heard("""
## A calls B inside, and hangs up

0 8001 originated 8001 c1 8001>8002
1 8002 delivered 8002 c1 8001>8002
5 8001 established 8002 c1 8001>8002
5 8002 established 8002 c1 8001>8002
20 8001 connectionCleared 8001 c1
""")
    assert states(tracked.calls["c1"]) == {"8001": "cleared", "8002": "connected"}


def test_a_device_that_comes_back_into_a_call_is_shown_as_it_stands_now() -> None:
    tracked = heard("""
## A queue offers a call to S, to T, and to S again, within the second; T has let it ring before

0 8002 delivered 8002 c1 900>8002
1 8001 delivered 8001 c1 900>8001
5 8001 connectionCleared 8001 c1
5 8001 delivered 8001 c1 900>8001
""")
    assert states(tracked.calls["c1"])["8001"] == "alerting"


def test_a_later_run_shows_the_parties_in_the_same_order_and_the_same_queue() -> None:
    tracked = heard("""
## Two devices, of which the later one was heard of first, in another call

0 8002 delivered 8002 c9 901>8002 split=7009
5 8003 delivered 8003 c1 900>8003 split=7000
9 8002 delivered 8002 c1 900>8002 split=7001
""")
    assert dict(again(tracked).calls) == dict(tracked.calls)


def test_of_a_call_that_is_over_nobody_is_kept() -> None:
    tracked = heard(CUSTOMER, CONSULTED, HANDED_OVER, MUCH_LATER, OVER)
    board = tracked.call_tracker.board
    assert "c1" not in tracked.calls
    assert [leg.device for leg in board.left("c1")] == ["8002@a.cc"]  # for what comes late
    tracked.expire(BEGINNING + timedelta(seconds=220))
    assert not board.left("c1")


def test_of_many_who_have_left_a_call_the_latest_are_kept() -> None:
    offers = [
        f"{n} {8100 + n} delivered {8100 + n} c1 900>{8100 + n}\n"
        f"{n} {8100 + n} connectionCleared {8100 + n} c1"
        for n in range(1, 3 * MOST_LEFT)
    ]
    tracked = heard("\n## One who rings all the while\n\n0 8002 delivered 8002 c1 900>8002")
    for offer in offers:
        for _, lines in read(f"\n## Another is offered it\n\n{offer}"):
            for line in lines:
                tracked.apply(line.event())
    left = [one.device for one in tracked.call_tracker.board.left("c1")]
    assert len(left) == MOST_LEFT
    assert left[-1] == f"{8100 + 3 * MOST_LEFT - 1}@a.cc"


def test_the_record_of_a_call_that_was_handed_over_has_what_the_giver_knew() -> None:
    lines = [line for _, lines in read(CUSTOMER + CONSULTED + HANDED_OVER + OVER) for line in lines]
    lines[0].payload["userData"] = lines[1].payload["userData"] = {"crm": "77"}
    tracked = tracking()
    notices = [notice for line in lines for notice in tracked.apply(line.event())]
    (record,) = [
        one.call for one in notices if isinstance(one, CallEnded) and one.device == "8002@a.cc"
    ]
    assert record.transferred_from == "8003@a.cc"
    assert (record.other_party, record.other_internal) == ("900@a.cc", False)
    assert (record.queue, record.user_data) == ("7000@a.cc", {"crm": "77"})
    assert record.direction == "internal"  # B called C


def test_a_giver_that_is_heard_of_late_still_tells_the_record_what_it_knew() -> None:
    lines = [line for _, lines in read(CUSTOMER + CONSULTED + HANDED_OVER + OVER) for line in lines]
    late = [line for line in lines if line.text.startswith(("40 8003 transferred", "40 8003 conn"))]
    tracked = tracking()
    early = [line for line in lines if line not in late]
    for line in early:
        tracked.apply(line.event())
    notices = [notice for line in late for notice in tracked.apply(line.event(211.0))]
    (record,) = [
        one.call for one in notices if isinstance(one, CallRevised) and one.device == "8002@a.cc"
    ]
    assert (record.other_party, record.queue) == ("900@a.cc", "7000@a.cc")


@pytest.mark.parametrize(
    ("lines", "shown"),
    [
        (["0 8001 delivered 8001 c1 900>8001"], {"8001": "alerting", "900": "initiated"}),
        (["0 8001 originated 8001 c1 8001>900"], {"8001": "initiated", "900": "initiated"}),
        (
            ["0 8001 originated 8001 c1 8001>900", "2 8001 delivered 900 c1 8001>900"],
            {"8001": "initiated", "900": "alerting"},
        ),
        (
            ["0 8001 originated 8001 c1 8001>7000", "9 8001 established 900 c1 8001>900"],
            {"8001": "connected", "900": "connected"},
        ),
        (["0 8001 serviceInitiated 8001 c1"], {"8001": "initiated"}),
    ],
)
def test_who_is_on_the_far_side_is_shown_from_the_first(
    lines: list[str], shown: dict[str, str]
) -> None:
    tracked = heard("\n## A call\n\n" + "\n".join(lines))
    assert states(tracked.calls["c1"]) == shown


def test_of_two_who_came_in_one_second_the_one_that_was_counted_first_tells_the_direction() -> None:
    tracked = heard("""
## A colleague's call rings at the second before it is dialled there, and is told first

0 8002 delivered 8002 c1 8001>8002
""")
    ((_, lines),) = read("\n## Dialled\n\n0 8001 originated 8001 c1 8001>8002 type=Outbound")
    lines[0].payload["serial"] = 7  # the other has 100
    tracked.apply(lines[0].event())
    assert tracked.calls["c1"].direction == "outbound"
