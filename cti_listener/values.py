"""What a wire value means: ids, the routing key, the server's time, identity, plain readings.

Everything here takes values as they came (`dict` from JSON) and never fails on one. Called by the
models (`event_base`) and, before any model is built, by the listener.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import datetime, tzinfo
from functools import cache, lru_cache
from hashlib import blake2b
from math import isnan
from operator import itemgetter
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

Payload = Mapping[str, Any]
"""An event object as received."""

BY_COPY: Final = frozenset({"params", "topics", "_type"})
"""Fields that tell how this copy travelled, not what happened; not compared."""

NO_CALL: Final = "0"
"""What a field says that names no call."""

NO_CALLS: Final = frozenset({None, "", NO_CALL})
"""What a field may say that names no call."""

_ROUTING_OF_AGENT: Final = ("srcDeviceId", "deviceId")
_ROUTING: Final = ("srcDeviceId", "eventSrc", "deviceId")
_OF_ALL: Final = ("namespace", "eventType", "serial", "eventName", "eventTime")
_said_of_all: Final = itemgetter(*_OF_ALL)
_SERVER_TIME: Final = "%Y.%m.%d %H:%M:%S"
_LONGEST_TIME: Final = 64
_EARLIEST: Final = 1970
_HASHABLE: Final = (str, int, float)  # a union takes five times as long to ask
_NUMBER: Final = (int, float)
_in_order: Final = json.JSONEncoder(sort_keys=True).encode
_OWN_HASH: Final = sys.hash_info.modulus
"""Whole numbers from 0 up to this have a hash each; -1 has that of -2, this one that of 0."""


@cache
def china() -> ZoneInfo:
    """Return China Standard Time, the zone the server's clock is taken to be in by default."""
    return ZoneInfo("Asia/Shanghai")


class EventKey(NamedTuple):
    """What makes two copies one event: the seven values, and the content where there is no serial.

    A counter restarts with the server, so the serial alone says nothing: the same serial with
    another name, time or call is another event. A serial that is no counter's, such as -1 or 5.0,
    is spelt out in the content too, since Python takes some of them for one.
    """

    namespace: Any
    event_type: Any
    device: str | None
    serial: Any
    event_name: Any
    event_time: Any
    call_id: Any
    content: str | None = None


def canonical_id(text: str) -> str:
    """Collapse a doubled domain: `8003@x.cc@x.cc` is `8003@x.cc`."""
    if text.count("@") < 2:  # noqa: PLR2004 - one "@" is the normal form
        return text
    user, _, rest = text.partition("@")
    domain = rest.partition("@")[0]
    times = text.count("@")
    # The length first: what is repeated need not be short, nor repeated seldom.
    doubled = len(rest) == times * (len(domain) + 1) - 1 and rest == "@".join([domain] * times)
    return f"{user}@{domain}" if doubled else text


def full_id(text: str, namespace: str | None) -> str:
    """Complete a short id with its namespace: `8002` in `zhen04.cc` is `8002@zhen04.cc`."""
    times = text.count("@")
    if times == 1:  # nearly always
        return text
    if times or not namespace:
        return canonical_id(text)
    return f"{text}@{namespace}"


def routing_key(payload: Payload) -> str | None:
    """Return the device whose subscription produced this copy; None if nothing tells.

    csta events: `srcDeviceId`, else `eventSrc` when it is a string, else `deviceId`. Agent events
        have their `eventSrc` passed over. `deviceId` is the device that changed, so it comes last.
    """
    device = payload.get("srcDeviceId")
    if type(device) is str and device.count("@") == 1:
        return device
    of_agent = payload.get("eventType") == "agent"
    for name in _ROUTING_OF_AGENT if of_agent else _ROUTING:
        if text := plain_text(payload.get(name)):
            return full_id(text, plain_text(payload.get("namespace")))
    return None


def identity(payload: Payload, device: str | None) -> tuple[Any, ...]:
    """Return the values of the event's `EventKey`, hashable, as a plain tuple for speed."""
    try:
        namespace, kind, serial, name, time = _said_of_all(payload)
    except KeyError:
        namespace, kind, serial, name, time = map(payload.get, _OF_ALL)
    call = payload.get("callId")
    if (
        type(serial) is int
        and 0 <= serial < _OWN_HASH
        and type(time) is type(name) is type(kind) is type(namespace) is str
        and (type(call) is str or call is None)
    ):
        return namespace, kind, device, serial, name, time, call, None
    return _odd_identity(payload, (namespace, kind, device, serial, name, time, call))


def _odd_identity(payload: Payload, said: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the identity of an event of which something is missing, or of another type.

    Python takes some values for others, as 1 for True, or has one hash for them, as for -1 and -2;
    one, NaN, is not even equal to itself. Then all that was said tells.
    """
    serial, others = said[3], (*said[:3], *said[4:])
    hashable = tuple([value if _is_hashable(value) else None for value in said])
    if hashable[3] is None or not all(map(_is_itself, others)):
        return (*hashable, content_digest(payload))
    if _is_itself(serial):
        return (*said, None)
    # Python refuses to write out a huge number in decimal.
    return (*said, hex(serial) if type(serial) is int else repr(serial))


def _is_itself(value: object) -> bool:
    """Tell whether nothing else that JSON can say is equal to a value, or has its hash."""
    return value is None or type(value) is str or (type(value) is int and 0 <= value < _OWN_HASH)


def _is_hashable(value: object) -> bool:
    return isinstance(value, _HASHABLE) and not (type(value) is float and isnan(value))


def content_digest(payload: Payload) -> str:
    """Return a digest of everything that was said, less how this copy travelled (`BY_COPY`)."""
    said = payload
    if type(payload) is not dict or not payload.keys().isdisjoint(BY_COPY):
        said = {name: value for name, value in payload.items() if name not in BY_COPY}
    return blake2b(_in_order(said).encode(), digest_size=16).hexdigest()


def read_time(text: str, zone: tzinfo | None = None) -> datetime | None:
    """Read the server's wall clock, `2017.03.18 14:13:24`, or ISO 8601; None if it is neither.

    Nor is it one if it is before 1970: no clock shows that which was ever set.

    `zone` is where the server's clock hangs, China Standard Time by default.
    """
    # What is this long is no time, and is not to be kept.
    return None if len(text) > _LONGEST_TIME else _read_time(text, zone)


@lru_cache(maxsize=1024)
def _read_time(text: str, zone: tzinfo | None) -> datetime | None:
    try:
        time = datetime.strptime(text, _SERVER_TIME)  # noqa: DTZ007 - it has no zone; ours is added
    except ValueError:
        if text.isdigit():  # a count of seconds, that ISO 8601 would put in another century
            return None
        try:
            time = datetime.fromisoformat(text)
        except ValueError:
            return None
    if time.year < _EARLIEST:
        return None
    return time if time.tzinfo else time.replace(tzinfo=zone or china())


def seconds_between(earlier: str, later: str) -> float | None:
    """Return how much later one of the server's times is than another; None if either is none."""
    begin, end = read_time(earlier), read_time(later)
    return None if begin is None or end is None else (end - begin).total_seconds()


def plain_text(value: object) -> str | None:
    """Take a string, or a number where a string was due."""
    if isinstance(value, str):
        return value
    if isinstance(value, _NUMBER) and not isinstance(value, bool):
        try:
            return str(value)
        except ValueError:  # an int of more digits than Python writes out
            return None
    return None


def plain_int(value: object) -> int | None:
    """Take a whole number, also one written as text (`"8343300"`) or as a float (`12.0`)."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    # Longer digit strings are no counter, and int() of a huge one is slow.
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 20:  # noqa: PLR2004
        return int(value)
    return None


def plain_bool(value: object) -> bool | None:
    """Take a truth value, also one written as text or as 0 and 1."""
    if isinstance(value, bool):
        return value
    known = {"true": True, "false": False, "1": True, "0": False, 1: True, 0: False}
    if isinstance(value, str):
        return known.get(value.lower())
    return known.get(value) if isinstance(value, int) else None
