"""Transcripts: what devices hear, in a few words a line, and what the trackers make of it.

A file of `golden/` holds some. A line that begins with a number is an event: when, whose copy, its
name, whose step, which call, who calls whom, what else; behind the bar, what follows from it. Below
a `CallEnded` or `CallRevised` stands its record, with all that is not as in an empty one. Parties
are devices of `a.cc`; those of three digits are outside.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from cti_listener import parse_event
from cti_listener.derived import CallEnded, CallRevised, Derived, Inconsistency
from cti_listener.event_base import Delivery, Event
from cti_listener.events import CATALOGUE, CallEvent
from cti_listener.records import CallRecord, Recording
from cti_listener.tracking import Tracking
from cti_listener.values import china

BEGINNING = datetime(2026, 3, 2, 9, 0, 0, tzinfo=china())
FIELDS = {
    "to": "transferredToDevice",
    "added": "addedParty",
    "hangup": "hangupDevice",
    "second": "secondaryOldCall",
    "into": "newCall",
    "type": "callType",
    "record": "recordId",
    "file": "fileName",
    "code": "failedCode",
    "original": "originalCallId",
}
PARTIES = {"to", "added", "hangup", "split"}


class Everything:
    """Somebody who wants every kind of notice."""

    def __contains__(self, _kind: object) -> bool:
        return True


def tracking(**options: Any) -> Tracking:
    """Return a tracking whose outside numbers have three digits."""
    return Tracking(wanted=Everything(), namespace="a.cc", internal=r"\d{4}", **options)


@dataclass
class Line:
    """An event of a transcript.

    Attributes:
        text: Its words.
        payload: The object on the wire.
        second: When it happens, and comes.
    """

    text: str
    payload: dict[str, Any]
    second: float

    def event(self, second: float | None = None) -> Event:
        """Return it as it comes, at a second of its own or another."""
        came = BEGINNING + timedelta(seconds=self.second if second is None else second)
        return parse_event(self.payload, delivery=Delivery(received_at=came))


def read(text: str) -> Iterator[tuple[str, list[Line]]]:
    """Yield the title and the events of each transcript in a file."""
    for block in text.split("\n## ")[1:]:
        title, *lines = block.splitlines()
        events = [line.partition("|")[0].strip() for line in lines if line[:1].isdigit()]
        yield title, [_line(words, number) for number, words in enumerate(events, 100)]


def _line(text: str, serial: int) -> Line:
    when, device, name, whose, *rest = text.split()
    of_agent = name.startswith("agent")
    at = BEGINNING + timedelta(seconds=int(when))
    payload: dict[str, Any] = {
        "eventName": name,
        "eventType": "agent" if of_agent else "csta",
        "eventTime": f"{at:%Y.%m.%d %H:%M:%S}",
        "serial": serial,
        "namespace": "a.cc",
        "srcDeviceId": f"{device}@a.cc",
        "deviceId": f"{device if of_agent else whose}@a.cc",
    }
    if of_agent:
        payload["agentId"] = f"{whose}@a.cc"
    else:
        kind = CATALOGUE[name]
        assert issubclass(kind, Event)
        if kind.own_field not in (None, "device_id"):
            payload[str(kind.model_fields[str(kind.own_field)].alias)] = f"{whose}@a.cc"
        if (rest and issubclass(kind, CallEvent)) or name == "recordStarted":
            payload["callId"] = rest.pop(0)
    for word in rest:
        calling, arrow, called = word.partition(">")
        if arrow:
            payload |= {"callingDevice": f"{calling}@a.cc", "calledDevice": f"{called}@a.cc"}
            continue
        key, _, value = word.partition("=")
        payload[FIELDS.get(key, key)] = f"{value}@a.cc" if key in PARTIES else value
    return Line(text, payload, float(when))


def heard(*texts: str) -> Tracking:
    """Return what a tracking knows that has heard all of these transcripts."""
    tracked = tracking()
    for text in texts:
        for _, lines in read(text):
            for line in lines:
                tracked.apply(line.event())
    return tracked


def told(title: str, lines: list[Line]) -> str:
    """Return a transcript as it stands in a file, with what the trackers make of it."""
    made = [f"## {title}", ""]
    tracked = tracking()
    for line in lines:
        notices = tracked.apply(line.event())
        names = ", ".join(_named(one) for one in notices)
        made.append(f"{line.text:<80} | {names}" if names else line.text)
        made += [
            f"    {shown(one.call)}" for one in notices if isinstance(one, CallEnded | CallRevised)
        ]
    assert not tracked.calls, "a call leaked"
    return "\n".join(made) + "\n"


def _named(notice: Derived) -> str:
    name = type(notice).__name__
    if isinstance(notice, Inconsistency):
        return f"{name}({notice.got} for {'/'.join(notice.expected)})"
    return f"{name}({notice.agent.mode})" if hasattr(notice, "agent") else name


def shown(record: CallRecord) -> str:
    """Return a record in a few words: all of it that is not as in an empty one."""
    words = []
    for one in fields(CallRecord):
        value = getattr(record, one.name)
        empty = None if one.default is MISSING else one.default
        if value != empty and one.name not in {"events", "revision"}:
            words.append(f"{one.name}={_short(value)}")
    return " ".join(words)


def _short(value: object) -> str:
    match value:
        case datetime():
            return f"{(value - BEGINNING).total_seconds():g}"
        case tuple():
            return ",".join(_short(one) for one in value)
        case Recording():
            return f"{value.id}:{value.file_name}:{_short(value.started)}-{_short(value.stopped)}"
        case float():
            return f"{value:g}"
        case _:
            return str(value).replace("@a.cc", "")
