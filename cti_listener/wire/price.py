"""What a message may hold: each thing in it has a price in bytes, and its length has to pay.

What a message costs us is not told by its length: a mebibyte holds two thousand events or 350,000
empty objects, and the event loop stands still for all of them. So the codecs ask here before they
read on; what is too dear is `too_large`. Nothing real is: an event of 250 bytes costs some 200, and
longer ones cost less of their length.
"""

from __future__ import annotations

import re
from typing import Final

from cti_listener.errors import BadMessageError, BadReason
from cti_listener.events import load_json

FREE: Final = 128 * 1024
"""What a message may hold in any case, in bytes: some thousand events, however short."""

EVENT: Final = 88
"""A part of a JSON message that may be an event, beside the object it is."""

FRAME: Final = 144
"""A STOMP frame."""

HEADER: Final = 12
"""A header line of it."""

BAD: Final = 512
"""What is no frame or no event, or ends a session: it takes long to tell, and is rare."""

CONTAINER: Final = 24
"""An object or array in JSON."""

COMMA: Final = 8
"""A comma in JSON: a value more."""

COLON: Final = 200
"""A colon in JSON, a name more, where half a character is: all is read three times then."""

NAMES: Final = 20_000
"""So many of these cost nothing, nor does one in `A_NAME` bytes: real events have no more."""

A_NAME: Final = 20

CHEAP: Final = FREE // CONTAINER
"""A message up to this many bytes holds no JSON that is not free."""

_SMALL: Final = 200
_TELLING: Final = b'"[{,:'
_HALF: Final = re.compile(
    rb"\\u[dD](?:[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD])[c-fC-F])"
)
_SILENT: Final = bytes(set(range(256)) - set(_TELLING))


def allowance(size: int) -> int:
    """Return how much a message of so many bytes may hold."""
    return max(FREE, size)


def price_of_json(text: bytes) -> int:
    """Return what objects, arrays and values cost: never too little, for text that is JSON.

    A bracket or comma in a string costs nothing, if the whole seems to cost more than its length,
    or half a character is in it.
    """
    half = _HALF.search(text.replace(b"\\\\", b"  ")) is not None
    price = _price(text, half, len(text))
    if price <= max(_SMALL, len(text)) and not half:
        return price
    # In what is left, a quote begins or ends a string; two in a row change nothing for the rest.
    left = text.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _SILENT)
    return _price(b"".join(left.replace(b'""', b"").split(b'"')[::2]), half, len(text))


def why_too_dear(text: bytes) -> tuple[BadReason, str]:
    """Return the reason why JSON text is left out that costs too much, and the detail of it.

    What is nested too deep from its very beginning is `too_deep`, as it is when it is short.
    """
    try:
        load_json(text[:CHEAP])
    except BadMessageError as error:
        if error.reason == "too_deep":
            return error.reason, error.detail
    return "too_large", "more objects, arrays and values than a message of its length may hold"


def _price(text: bytes, half: bool, size: int) -> int:  # noqa: FBT001 - private
    price = CONTAINER * (text.count(b"{") + text.count(b"[")) + COMMA * text.count(b",")
    if half:
        price += COLON * max(0, text.count(b":") - max(NAMES, size // A_NAME))
    return price
