"""Records: what stands on the command line is read back, and is as its schema says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import TypeAdapter

from cti_listener.derived import DERIVED, CallEnded, Derived, read_derived
from cti_listener.records import CallRecord
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


def schema() -> dict[str, Any]:
    """Return what the schema says, without docstrings: those are for who reads the code."""

    def bare(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: bare(one) for name, one in value.items() if name != "title"}
        return [bare(one) for one in value] if isinstance(value, list) else value

    made: dict[str, Any] = bare(TypeAdapter(CallRecord).json_schema())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


def test_what_follows_from_events_is_read_back_from_the_command_lines_json() -> None:
    notices = every_notice()
    assert len({type(one) for one in notices}) == len(DERIVED)
    for notice in notices:
        assert read_derived(json.loads(json.dumps(notice.as_wire()))) == notice


def test_a_notice_of_another_version_is_not_read() -> None:
    assert read_derived({"eventName": "callForgotten"}) is None


def test_the_schema_is_that_of_the_record() -> None:
    assert json.loads(SCHEMA.read_text("utf-8")) == schema()


def test_each_record_has_all_that_the_schema_names_and_no_more() -> None:
    names = set(schema()["properties"])
    records = [one for one in every_notice() if isinstance(one, CallEnded)]
    for notice in records:
        assert set(notice.as_wire()["call"]) == names
    assert records


@pytest.mark.parametrize("name", ["otherParty", "ringSeconds", "wrapUpSeconds", "formerIds"])
def test_names_are_in_camel_case(name: str) -> None:
    assert name in schema()["properties"]
