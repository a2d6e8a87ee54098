"""Each row of the table of sequences, and what becomes of it: reviewed by hand, line by line.

`docs/architecture.md` says what a record is. A change here is a change of what users get.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from datetime import datetime
from math import inf
from pathlib import Path
from typing import Any

import pytest

from cti_listener.derived import CallEnded, CallRevised, CallStarted
from cti_listener.records import CallRecord
from cti_listener.trackers.legs import FAR
from tests.trackers.transcripts import Line, read, told, tracking

FILES = sorted((Path(__file__).parent / "golden").glob("*.txt"))
TRANSCRIPTS = [
    pytest.param(lines, id=f"{file.stem}: {title}")
    for file in FILES
    for title, lines in read(file.read_text())
]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_what_devices_hear_makes_these_notices_and_records(file: Path) -> None:
    text = file.read_text()
    head = text.partition("\n## ")[0].strip()
    assert "\n".join([f"{head}\n", *(told(*one) for one in read(text))]) == text


@pytest.mark.parametrize("lines", TRANSCRIPTS)
def test_each_call_that_began_at_a_device_ends_there_once(lines: list[Line]) -> None:
    tracked = tracking()
    begun: list[str] = []
    ended: list[str] = []
    for line in lines:
        for notice in tracked.apply(line.event()):
            if isinstance(notice, CallStarted):
                begun.append(notice.device)
            elif isinstance(notice, CallEnded) and (
                notice.call.was_answered or notice.call.started < notice.call.ended
            ):
                ended.append(notice.device)  # else only its end was seen
    assert sorted(begun) == sorted(ended)
    assert not tracked.calls


@pytest.mark.parametrize("lines", TRANSCRIPTS)
def test_two_neighbours_of_a_device_swapped_make_the_same_final_records(
    lines: list[Line],
) -> None:
    """Unless the record says that it is uncertain; the list of its events is as they came."""
    straight = final_records([(line, line.second) for line in lines])
    swaps = 0
    for device in {line.payload["srcDeviceId"] for line in lines}:
        own = [i for i, line in enumerate(lines) if line.payload["srcDeviceId"] == device]
        for first, second in itertools.pairwise(own):
            if lines[second].second - lines[first].second > FAR.total_seconds():
                continue  # so late is nothing but what a clock set back looks like
            came = [(line, line.second) for line in lines]
            late = came.pop(first)[0]
            came.insert(second, (late, lines[second].second))  # it comes when the later one does
            swapped = final_records(came)
            doubted = {stay[:2] for stay, record in swapped.items() if record.uncertain}
            for stay in straight.keys() | swapped.keys():
                same = swapped.get(stay) == straight.get(stay)
                assert same or stay[:2] in doubted, lines[first].text
            swaps += 1
    assert swaps or len(lines) < 3


@pytest.mark.parametrize("lines", TRANSCRIPTS)
def test_who_remembers_at_any_moment_goes_on_as_who_never_stopped(lines: list[Line]) -> None:
    straight, tracked = tracking(), tracking()
    for line in lines:
        follows = straight.apply(line.event())
        again = tracking()
        again.remember(tracked.remembered())
        tracked = again
        assert tracked.apply(line.event()) == follows, line.text
    assert json.loads(tracked.remembered()) == json.loads(straight.remembered())


def final_records(came: list[tuple[Line, float]]) -> dict[tuple[str, str, datetime], CallRecord]:
    """Return the last record of each stay of a device in a call, less which events it lists."""
    tracked = tracking()
    final: dict[tuple[str, str, datetime], CallRecord] = {}
    ended = 0
    for line, second in came:
        for notice in tracked.apply(line.event(second)):
            if isinstance(notice, CallEnded | CallRevised):
                ended += isinstance(notice, CallEnded)
                bare = replace(notice.call, events=(), revision=1)
                final[notice.device, bare.id, bare.started] = bare
    assert not tracked.calls, "a call leaked"
    return final


@pytest.mark.parametrize(
    "data",
    [{}, {"data": {"a": [1, 2.5, None, True]}}, {"n": 10**30}, {"half": "\ud800"}, {"inf": inf}],
)
def test_user_data_are_told_as_they_came(data: dict[str, Any]) -> None:
    lines = dict(one for file in FILES for one in read(file.read_text()))["S is called and answers"]
    tracked, again = tracking(), tracking()
    for line in lines[:2]:
        tracked.apply(replace(line, payload={**line.payload, "userData": data}).event())
    assert tracked.calls["c1"].user_data == data
    again.remember(tracked.remembered())
    assert again.calls["c1"].user_data == data
