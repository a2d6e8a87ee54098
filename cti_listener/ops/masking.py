"""What must not be read in a log or a listing: secrets always, outside phone numbers by default.

`logs` sends every line through a `Masker`; `configuration` shows settings through `mask_url`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MASK: Final = "********"

_NAMES: Final = (
    r"pass(?:code|wd|word)?|secret|token|auth(?:orization)?|cookie|session_?id|api_?key|signature"
)
_SECRET_KEY: Final = re.compile(rf"(?:{_NAMES})$", re.IGNORECASE)
_USERINFO: Final = re.compile(r"(?<=://)([^\s/@:?#]*):[^\s/@?#]*@")
_QUERY: Final = re.compile(rf"([?&][\w.\-]*(?:{_NAMES})=)[^&\s#,\"']+", re.IGNORECASE)
# A number is digits that stand alone: not a piece of a UUID, a version, a decimal or a file's name.
_NUMBER: Final = re.compile(r"(?<![\w.\-])\d{7,}(?![\w\-]|\.\d)(?:@[\w.\-]+)?")
_SHORTEST_SECRET: Final = 4
_MOBILE: Final = 11


def mask_url(text: str) -> str:
    """Take passwords and tokens out of the addresses in a text."""
    return _QUERY.sub(rf"\1{MASK}", _USERINFO.sub(rf"\1:{MASK}@", text))


class Masker:
    """Takes out of what is logged what is nobody's business.

    Attributes:
        numbers: Whether outside phone numbers are masked: runs of seven digits and more, whatever
            domain follows, since outside numbers come with the namespace's too. Ids of the
            installation itself are shorter; longer ones are told by `own`.
    """

    def __init__(self, *, numbers: bool = True, own: Iterable[str] = ()) -> None:
        """Mask outside numbers too unless `numbers` is off; `own` ids are never masked."""
        self.numbers = numbers
        self._own = {name.partition("@")[0] for name in own}
        self._secrets: set[str] = set()
        self._known: re.Pattern[str] | None = None

    def learn(self, secrets: Iterable[str]) -> None:
        """Never show these again, wherever they turn up.

        Shorter ones than four characters would blank out half of every line; they are masked by the
        name they stand under only.
        """
        new = {text for text in secrets if len(text) >= _SHORTEST_SECRET} - self._secrets
        if new:
            self._secrets |= new
            longest_first = sorted(self._secrets, key=len, reverse=True)
            self._known = re.compile("|".join(map(re.escape, longest_first)))

    def text(self, text: str) -> str:
        """Mask one text."""
        if self._known is not None:
            text = self._known.sub(MASK, text)
        if "://" in text:
            text = mask_url(text)
        return _NUMBER.sub(self._mask_number, text) if self.numbers else text

    def value(self, value: object) -> object:
        """Mask a value of any kind: what containers hold, numbers as they are, else as text."""
        match value:
            case str():
                return self.text(value)
            case None | bool() | int() | float():
                return value
            case dict():
                return self.fields(value)
            case list() | tuple() | set() | frozenset():
                return [self.value(item) for item in value]
            case _:
                return self.text(str(value))

    def fields(self, fields: Mapping[Any, Any]) -> dict[Any, Any]:
        """Mask named values; those under a secret's name altogether."""
        return {
            name: MASK
            if value and isinstance(name, str) and _SECRET_KEY.search(name)
            else self.value(value)
            for name, value in fields.items()
        }

    def _mask_number(self, found: re.Match[str]) -> str:
        digits, at, domain = found.group().partition("@")
        if digits in self._own:
            return found.group()
        # A mobile keeps its network and its last four, as people here are used to read it.
        head, tail = (digits[:3], digits[-4:]) if len(digits) >= _MOBILE else ("", digits[-2:])
        return f"{head}****{tail}{at}{domain}"
