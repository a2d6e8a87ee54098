"""Text for a terminal: what was received made harmless, columns by display width, colour.

Called by `pretty` (events) and `logs` (the console form).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

# What a sender could steer a terminal or a reader's eye with: control characters (escape sequences
# begin with one), line separators, marks that turn the direction of writing, lone surrogates.
_STEERING: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)

RESET: Final = "\x1b[0m"
STYLES: Final = {
    "plain": "",
    "dim": "\x1b[2m",
    "bold": "\x1b[1m",
    "red": "\x1b[31m",
    "green": "\x1b[32m",
    "yellow": "\x1b[33m",
    "blue": "\x1b[34m",
    "magenta": "\x1b[35m",
    "cyan": "\x1b[36m",
    "alarm": "\x1b[1;31m",
}


def colour_wanted(*, terminal: bool, environ: Mapping[str, str]) -> bool:
    """Tell whether to write in colour: on a terminal, unless told otherwise.

    An environment variable counts when it is not empty, as no-color.org has it.
    """
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return True
    return terminal and environ.get("TERM") != "dumb"


def clean(text: str) -> str:
    """Write what would steer a terminal as its escape, visibly."""
    if text.isascii() and text.isprintable():
        return text
    return _STEERING.sub(lambda found: ascii(found.group())[1:-1], text)


def width(text: str) -> int:
    """Return how many columns a clean text takes; Chinese characters take two."""
    if text.isascii():
        return len(text)
    return sum(map(_columns_of, text))


def _columns_of(character: str) -> int:
    # Its tables take longer to read in than the rest of the program to begin: not before needed.
    from wcwidth import wcwidth  # noqa: PLC0415

    return max(wcwidth(character), 0)


def cut(text: str, columns: int) -> str:
    """Shorten a clean text to so many columns, marking that it was."""
    if len(text) * 2 <= columns or width(text) <= columns:
        return text
    taken, kept = 0, []
    for character in text:
        taken += _columns_of(character)
        if taken > columns - 1:
            break
        kept.append(character)
    return "".join(kept) + "…"


def pad(text: str, columns: int) -> str:
    """Fill a clean text up to so many columns."""
    return text + " " * (columns - width(text))


def styled(text: str, style: str) -> str:
    """Give a text a style of `STYLES`."""
    code = STYLES[style]
    return f"{code}{text}{RESET}" if code else text
