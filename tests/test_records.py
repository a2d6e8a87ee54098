"""Records: what stands on the command line is read back, and is as its schema says."""

from __future__ import annotations

import json

import pytest

from cti_listener.derived import DERIVED, CallEnded, CallRevised, Derived, read_derived
from tests.call_schema import schema
from tests.program import ROOT
from tests.trackers.transcripts import read, tracking

SCHEMA = ROOT / "docs" / "call-record.schema.json"
GOLDEN = ROOT / "tests" / "trackers" / "golden"


def every_notice() -> list[Derived]:
    found: list[Derived] = []
    for file in sorted(GOLDEN.glob("*.txt")):
        for _, lines in read(file.read_text()):
            tracked = tracking()
            for line in lines:
                found += tracked.apply(line.event())
    return found


def test_what_follows_from_events_is_read_back_from_the_command_lines_json() -> None:
    notices = every_notice()
    assert len({type(one) for one in notices}) == len(DERIVED)
    for notice in notices:
        assert read_derived(json.loads(json.dumps(notice.as_wire()))) == notice


def test_a_notice_of_another_version_is_not_read() -> None:
    assert read_derived({"eventName": "callForgotten"}) is None


def test_the_schema_is_what_the_code_says() -> None:
    how = "python -m tests.call_schema > docs/call-record.schema.json"
    assert json.loads(SCHEMA.read_text("utf-8")) == schema(), how


def test_each_line_has_all_that_the_schema_names_and_no_more() -> None:
    described = schema()
    of_line, of_record = described["properties"], described["$defs"]["CallRecord"]["properties"]
    lines = [one.as_wire() for one in every_notice() if isinstance(one, CallEnded | CallRevised)]
    assert {line["eventName"] for line in lines} == set(of_line["eventName"]["enum"])
    for line in lines:
        assert line.keys() <= of_line.keys()
        assert set(described["required"]) <= line.keys()
        assert line["call"].keys() == of_record.keys()


@pytest.mark.parametrize("name", ["otherParty", "ringSeconds", "wrapUpSeconds", "formerIds"])
def test_what_a_record_has_is_described_under_its_name_in_json(name: str) -> None:
    properties = schema()["$defs"]["CallRecord"]["properties"]
    assert name in properties
    assert all(one["description"] for one in properties.values())
