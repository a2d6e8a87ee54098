"""What happens as a CloudEvent: structured mode, JSON (CloudEvents 1.0, JSON Event Format).

`data` is the object that the command line prints. The id is made of what identifies the event, so
that the same is told by the same id however often it is sent, in whatever run.
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import datetime
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from cti_listener.derived import Derived, OfRecord
from cti_listener.event_base import Event
from cti_listener.notices import Notice
from cti_listener.router import Happening

CONTENT_TYPE: Final = "application/cloudevents+json"

_READABLE: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_ESCAPED: Final = json.JSONEncoder(separators=(",", ":"))
_KEY: Final = json.JSONEncoder(separators=(",", ":"), sort_keys=True, default=str)

# What the strings of a context attribute may not hold (CloudEvents 1.0, "Type System").
_NOT_ALLOWED: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


class CloudEvent(NamedTuple):
    """One, ready to be sent.

    Attributes:
        id: Tells it from all others of its source.
        text: All of it, as JSON that UTF-8 can hold.
    """

    id: str
    text: str


def cloud_event(happening: Happening, *, namespace: str | None = None) -> CloudEvent:
    """Return what happened as a CloudEvent.

    Args:
        happening: An event, a record or a notice.
        namespace: Where it happened, if it does not say so itself.
    """
    match happening:
        case Event():
            kind, device, data = "event", happening.device, happening.as_received()
            time = happening.event_time
            identity: Any = happening.key
            where = happening.namespace or namespace_of(device)
        case _:
            kind, data, time = "listener", happening.as_wire(), happening.at
            device = happening.device if isinstance(happening, Derived) else None
            identity = _identity(happening, data)
            where = namespace_of(device)
    event_type = f"cti.{kind}.{_clean(happening.event_name) or 'unknown'}"
    identified = hashlib.sha256(_KEY.encode([event_type, identity]).encode()).hexdigest()[:32]
    body: dict[str, Any] = {
        "specversion": "1.0",
        "id": identified,
        "source": _source(where or namespace),
        "type": event_type,
    }
    if device and _clean(device):
        body["subject"] = _clean(device)
    if time is not None:
        body["time"] = _rfc3339(time)
    body |= {"datacontenttype": "application/json", "data": data}
    return CloudEvent(identified, _text(body))


def _identity(notice: Notice, data: dict[str, Any]) -> Any:
    """Return what makes a notice that one; a record is another with each revision."""
    if isinstance(notice, OfRecord):
        record = notice.call
        return [notice.event, record.device, record.id, record.started, record.revision]
    if isinstance(notice, Derived):
        # What an earlier run may have begun with is the same notice.
        return {name: value for name, value in data.items() if name != "redelivered"}
    return data


def namespace_of(device: str | None) -> str | None:
    """Return the namespace that a full id names."""
    return device.partition("@")[2] or None if device else None


def _source(namespace: str | None) -> str:
    return f"/cti/{quote(namespace, safe='', errors='replace')}" if namespace else "/cti"


def _rfc3339(time: datetime) -> str:
    text = time.isoformat(timespec="seconds" if not time.microsecond else "milliseconds")
    return text.replace("+00:00", "Z")


def _clean(text: str) -> str:
    return _NOT_ALLOWED.sub("", text)


def _text(body: dict[str, Any]) -> str:
    text = _READABLE.encode(body)
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate is JSON, and no UTF-8
        return _ESCAPED.encode(body)
    return text
