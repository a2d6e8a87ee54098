"""Numbers to call, found in texts: however they are grouped, and in whatever they stand.

`masking` asks. Seven digits make a number, alone or in groups with little between them. What has as
many and is none is told by its form, and stays: dates and times, UUIDs and digests, addresses of
machines, fractions. Time grows with the text's length, whatever it holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

FEWEST: Final = 7
"""So many digits may be a number to call; ids of an installation are shorter as a rule."""

_MOBILE: Final = 11
"""So many digits and more keep their first three and last four, as people are used to read it."""

LONG: Final = 1 << 14
"""In a text of so many characters no form is told, since each costs a microsecond or two."""

_SHORT: Final = 64
_KEPT: Final = 4096
"""So many short texts are remembered: the numbers of a call come with each of its events."""

# Blanks, dashes, brackets, and what is not seen. Slashes and underscores part what a path is of.
_GAP: Final = (
    r" \t\xa0\u1680\u2000-\u200a\u202f\u205f\u3000"
    r"\-\u2010-\u2015\u2212\uff0d()\uff08\uff09\xad\u200b-\u200f\u2060\ufeff"
)
_MANY: Final = re.compile(rf"\d(?:[{_GAP}.]{{0,3}}\d){{{FEWEST - 1}}}")
_ALL: Final = re.compile(rf"{_MANY.pattern}[\d{_GAP}.]*")
_GROUPS: Final = re.compile(rf"\d+(?:[{_GAP}]{{1,3}}\d+)*")
_DIGITS: Final = re.compile(r"(\d+)")

_DAY: Final = r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])"
_TIME: Final = r"(?:[01]\d|2[0-3])[0-5]\d[0-5]\d"
_BYTE: Final = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_HEX: Final = "[0-9A-Fa-f]"
_NAME: Final = rf"(?:(?!\d{{{_MOBILE}}})[0-9A-Za-z])*"  # in the name of a host
_FORMS: Final = re.compile(
    r"(?=[\d.@:A-Fa-fi])(?:"  # most characters begin none of them
    # A number in groups with points between: the one form here that is a number to call.
    r"(?P<pointed>(?<![\d.])(?!" + rf"{_BYTE}(?:\.{_BYTE}){{3}}(?!\d|\.\d)"
    r"|(?:19|20)\d\d\.[01]?\d\.[0-3]?\d(?!\d)|[0-3]\d\.[01]\d\.(?:19|20)\d\d(?!\d))"
    r"\d{2,5}(?:\.\d{2,5}){2,5}(?!\d))"
    # 37db6efe-57cc-4053-b0ce-24c96eba66b0; digests and ids of as many digits; 0x7f8812345678
    rf"|(?<!{_HEX}){_HEX}{{8}}(?:-{_HEX}{{4}}){{3}}-{_HEX}{{12}}(?!{_HEX})"
    rf"|(?<![0-9A-Za-z])(?=\d{{0,63}}[A-Fa-f])(?:{_HEX}{{64}}|{_HEX}{{40}}|{_HEX}{{32}}|{_HEX}{{24}})(?![0-9A-Za-z])"
    rf"|(?<![0-9A-Za-z])0x(?=\d{{0,15}}[A-Fa-f]){_HEX}{{1,16}}(?!{_HEX})"
    # @zhen04.cc; wss://node1.example.com; 172.30.10.8; ip-172-30-10-8
    rf"|@[A-Za-z]{_NAME}(?:\.[A-Za-z]{_NAME})*"
    rf"|(?:(?<=ws)|(?<=wss)|(?<=http)|(?<=https))://[A-Za-z](?:(?!\d{{{_MOBILE}}})[0-9A-Za-z.\-])*"
    rf"|(?<![\d.]){_BYTE}(?:\.{_BYTE}){{3}}(?!\d|\.\d)"
    rf"|(?<![0-9A-Za-z])ip(?:-{_BYTE}){{4}}(?!\d)"
    # 2017.03.18, 2017-03-18, 18.03.2017; 14:13:24.123456
    r"|(?<!\d)(?:19|20)\d\d([\-.])(?:0?[1-9]|1[0-2])\2(?:0[1-9]|[12]\d|3[01]|[1-9])(?!\d)"
    r"|(?<!\d)(?:0[1-9]|[12]\d|3[01])([\-.])(?:0[1-9]|1[0-2])\3(?:19|20)\d\d(?!\d)"
    r"|(?<![\d:])\d{1,2}:\d\d(?::\d\d(?:[.,]\d{1,9})?)?(?!\d)"
    # 20180724111439, also with thousandths, or parted; a day alone in the name of a file only
    rf"|(?<!\d){_DAY}{_TIME}(?:\d{{3}})?(?!\d)"
    rf"|(?<!\d)(?<!\d[\-\s().]){_DAY}[\-_ T]{_TIME}(?:\d{{3}})?(?!\d)"
    rf"|(?<=[_/\\]){_DAY}(?!\d)"
    rf"|(?<!\d)(?<!\d[\-\s().])(?<!\d[)\-\s][\s\-(]){_DAY}(?=[_/\\]|[.\-][A-Za-z])"
    r"|(?<![\d.])0\.(?!1[3-9]\d{9}(?!\d))\d{1,17}(?!\d)"
    r")"
)


class Numbers:
    """Masks numbers to call.

    Args:
        own: Ids that are none, with or without a domain.
    """

    def __init__(self, own: Iterable[str] = ()) -> None:
        """Leave these as they are."""
        users = (name.partition("@")[0] for name in own)
        self._own = frozenset(digits for user in users for digits in _DIGITS.findall(user))
        self._remembered = lru_cache(_KEPT)(self._told)

    def masked(self, text: str, *, in_haste: bool = False) -> str:
        """Return a text without the numbers in it.

        Args:
            text: Which.
            in_haste: Mask whatever has as many digits, though its form tells that it is none.
        """
        if len(text) < FEWEST or not _MANY.search(text):
            return text
        if in_haste or len(text) >= LONG:
            return _ALL.sub("****", text)
        return self._remembered(text) if len(text) <= _SHORT else self._told(text)

    def _told(self, text: str) -> str:
        """Leave what is told by its form, and mask the numbers in between."""
        parts, at = [], 0
        for form in _FORMS.finditer(text):
            parts.append(_GROUPS.sub(self._mask_groups, text[at : form.start()]))
            pointed = form["pointed"]
            parts.append(_masked("".join(pointed.split("."))) if pointed else form.group())
            at = form.end()
        parts.append(_GROUPS.sub(self._mask_groups, text[at:]))
        return "".join(parts)

    def _mask_groups(self, found: re.Match[str]) -> str:
        """Mask groups of digits: a long one for itself, short ones as far as they go together."""
        pieces = _DIGITS.split(found.group())  # what is between stands at the even places
        told: list[str] = []
        begin = 0
        for place in range(1, len(pieces), 2):
            digits = pieces[place]
            own = digits in self._own
            if own or len(digits) >= FEWEST:
                told += (_together(pieces[begin:place]), digits if own else _masked(digits))
                begin = place + 1
        told.append(_together(pieces[begin:]))
        return "".join(told)


def _together(pieces: list[str]) -> str:
    """Mask groups that are short alone, and what is between them, if they are long together."""
    digits = "".join(pieces[1::2])
    if len(digits) < FEWEST:
        return "".join(pieces)
    return f"{pieces[0]}{_masked(digits)}{pieces[-1] if len(pieces) % 2 else ''}"


def _masked(digits: str) -> str:
    """Mask digits."""
    head, tail = (digits[:3], digits[-4:]) if len(digits) >= _MOBILE else ("", digits[-2:])
    return f"{head}****{tail}"
