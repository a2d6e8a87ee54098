"""Faults as they are written on a command line: read, written, described, refused."""

from __future__ import annotations

from dataclasses import fields

import pytest

from cti_listener.errors import ConfigurationError
from cti_listener.simulator.faults import Faults


def test_faults_are_read_from_a_text() -> None:
    text = " repeat=0.1, drop-every = 30 ,reorder=0.25"
    assert Faults.parse(text) == Faults(repeat=0.1, drop_every=30.0, reorder=0.25)
    assert Faults.parse("") == Faults()


def test_faults_are_written_as_they_are_read() -> None:
    faults = Faults(repeat=0.1, drop_every=30, restart_every=2.5)
    assert str(faults) == "restart_every=2.5,repeat=0.1,drop_every=30"
    assert Faults.parse(str(faults)) == faults
    assert str(Faults()) == ""
    assert str(Faults(stall_every=(30, 5), oversized=0.01)) == "oversized=0.01,stall_every=30:5"
    assert Faults.parse("stall_every=30:5") == Faults(stall_every=(30, 5))


def test_every_fault_is_described_as_it_is_written() -> None:
    lines = Faults.describe().splitlines()
    assert [line.partition("=")[0] for line in lines] == [one.name for one in fields(Faults)]
    assert "oversized=SHARE[:BYTES]" in lines[7]
    assert lines[7].endswith("Ahead of an event, a message of so much (5000000 bytes).")


def test_a_fault_without_a_size_of_its_own_has_the_usual_one() -> None:
    (ahead, _) = Faults(oversized=1).apply([(0.0, {})])
    assert ahead.body is not None
    assert len(ahead.body) == 5_000_000


def test_all_that_cannot_be_read_is_told_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Faults.parse("repaet=1,dorp-every=2,storm=2")
    assert str(caught.value) == (
        "fault repaet: is unknown; did you mean repeat?"
        "; fault dorp_every: is unknown; did you mean drop_every?"
        "; fault storm: is a share, from 0 to 1"
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("repaet=0.1", "fault repaet: is unknown; did you mean repeat?"),
        ("repeat", "fault repeat: needs a value"),
        ("repeat=a lot", "fault repeat: 'a lot' is not a number"),
        ("repeat=2", "fault repeat: is a share, from 0 to 1"),
        ("repeat=nan", "fault repeat: is a share, from 0 to 1"),
        ("drop_every=0", "fault drop_every: is a number of seconds, more than 0"),
        ("drop_every=inf", "fault drop_every: is a number of seconds, more than 0"),
        ("repeat=0.1,repeat=0.2", "fault repeat: is given twice"),
        ("=3", "is unknown; there are: restart_every, reorder, repeat, storm, malformed"),
        ("repeat=0.1:3", "fault repeat: takes one number only"),
        ("stall_every=3:x", "fault stall_every: '3:x' is not a number; write SECONDS[:SECONDS]"),
        (
            "oversized=0.1:0",
            "fault oversized: takes a number of bytes behind the colon, 2 to 1000000000",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(text: str, problem: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Faults.parse(text)
    assert problem in str(caught.value)
