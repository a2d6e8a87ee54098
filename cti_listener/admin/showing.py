"""What the endpoint shows of events and calls: outside numbers and secrets masked, as in the log.

In an event a number to call may be one of JSON's, or a name, and stand however deep. Ids of calls
and recordings stay, or nothing could be told apart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from cti_listener.discretion import MASK
from cti_listener.ops.masking import Masker, is_secret_name

IDS: Final = frozenset({"callId", "originalCallId", "recordId", "sipCallId"})
"""Fields that are no numbers to call, however many digits they have, wherever they stand."""

KEPT: Final = IDS | {
    "agentId",
    "eventTime",
    "newCall",
    "primaryOldCall",
    "secondaryOldCall",
    "serial",
}
"""The same in an event, but for the data of others that travel with a call."""

OURS: Final = KEPT | {"attempts", "calls", "consulted", "dropped", "formerIds", "id"}
"""The same in what the listener says itself."""

OTHERS: Final = "userData"
"""What stands under this name is named by whoever put it there."""

IN_FULL: Final = 1 << 13
"""So many characters of texts in one event are masked with care, the rest in haste."""

_LONG: Final = 1_000_000
"""A number from here on may be one to call."""

_READABLE: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_ESCAPED: Final = json.JSONEncoder(separators=(",", ":")).encode


class Shown:
    """Turns objects into what may be shown.

    Args:
        masker: What masks; None: everything is shown as received.
    """

    def __init__(self, masker: Masker | None) -> None:
        """Show so much."""
        self._masker = masker

    @property
    def masked(self) -> bool:
        """Whether outside numbers are masked."""
        return self._masker is not None and self._masker.numbers

    def body(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return an event's object as it may be shown."""
        return dict(body) if self._masker is None else _Look(self._masker).fields(body, KEPT)

    def ours(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return a notice, or a snapshot, as it may be shown."""
        return dict(body) if self._masker is None else _Look(self._masker).fields(body, OURS)


class _Look:
    """One look at one object, all that is in it, once."""

    __slots__ = ("_left", "_masker")

    def __init__(self, masker: Masker) -> None:
        self._masker = masker
        self._left = IN_FULL

    def fields(self, fields: Mapping[str, Any], kept: frozenset[str]) -> dict[str, Any]:
        """Mask named values, and the names."""
        shown: dict[str, Any] = {}
        for name, value in fields.items():
            told = self._text(name)
            if told in shown:  # two that differ in what is masked
                told = f"{told}#{len(shown)}"
            if value and is_secret_name(name):
                shown[told] = MASK
            elif name in kept and _is_plain(value):
                shown[told] = value
            else:
                shown[told] = self._value(value, IDS if name == OTHERS else kept)
        return shown

    def _value(self, value: Any, kept: frozenset[str]) -> Any:
        if isinstance(value, str):
            return self._text(value)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int | float):
            return self._number(value)
        if isinstance(value, Mapping):
            return self.fields(value, kept)
        if isinstance(value, list | tuple):
            return [self._value(one, kept) for one in value]
        return self._text(str(value))

    def _number(self, value: float) -> Any:
        """Mask a number that may be one to call."""
        if not self._masker.numbers or -_LONG < value < _LONG:
            return value
        written = repr(value)
        told = self._text(written)
        return value if told == written else told

    def _text(self, text: str) -> str:
        self._left -= len(text)
        return self._masker.text(text, in_haste=self._left < 0)


def _is_plain(value: Any) -> bool:
    """Tell whether a value is one, or a list of such, and holds no names."""
    if isinstance(value, list | tuple):
        return not any(isinstance(one, Mapping | list | tuple) for one in value)
    return not isinstance(value, Mapping)


def to_json(value: Any) -> bytes:
    """Write JSON on one line, in UTF-8; half a character, which has no UTF-8, is escaped."""
    try:
        return _READABLE(value).encode()
    except UnicodeEncodeError:
        return _ESCAPED(value).encode()
