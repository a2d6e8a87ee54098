"""What the endpoint shows of events and calls: outside numbers and secrets masked, as in the log.

Ids of calls and recordings stay, or nothing could be told apart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from cti_listener.ops.masking import Masker

KEPT: Final = frozenset(
    {
        "callId",
        "eventTime",
        "newCall",
        "originalCallId",
        "primaryOldCall",
        "recordId",
        "secondaryOldCall",
        "serial",
        "sipCallId",
    }
)
"""Fields that are no numbers to call, however many digits they have."""

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
        """Return an event's object, or a notice's, as it may be shown."""
        masker = self._masker
        if masker is None:
            return dict(body)
        return {
            name: value if name in KEPT else _number(masker, value) for name, value in body.items()
        }

    def value(self, value: Any) -> Any:
        """Return any value of JSON as it may be shown."""
        return value if self._masker is None else self._masker.value(value)


def _number(masker: Masker, value: Any) -> Any:
    """Mask a value; a number to call may also stand there as one of JSON."""
    if type(value) is int and abs(value) >= _LONG:
        told = masker.text(str(value))
        return value if told == str(value) else told
    return masker.value(value)


def to_json(value: Any) -> bytes:
    """Write JSON on one line, in UTF-8; half a character, which has no UTF-8, is escaped."""
    try:
        return _READABLE(value).encode()
    except UnicodeEncodeError:
        return _ESCAPED(value).encode()
