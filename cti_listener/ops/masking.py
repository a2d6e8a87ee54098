"""What must not be read in a log or a listing: secrets always, outside phone numbers by default.

`logs` sends every line through a `Masker`; `configuration` shows settings through `mask_url`.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Final

from cti_listener.discretion import (
    MASK,
    NAMES_OF_WHO_IS_HEARD,
    TELLING_NAMES,
    Discretion,
    looks_secret,
)
from cti_listener.ops.numbers import Numbers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_SECRET_KEY: Final = re.compile(rf"(?:{TELLING_NAMES})$", re.IGNORECASE)
_QUERY: Final = re.compile(rf"([?&][\w.\-]*(?:{TELLING_NAMES})=)[^&\s#,\"']+", re.IGNORECASE)
# What follows a scheme in running text. The first form is a password with a space in it.
_ADDRESS: Final = re.compile(
    r"(?<=://)(?:"
    r"[^\s/?#@:\[]*:(?!\d*(?:[\s/?#,;.)'\"]|$))[^@\s]{0,256}\s[^\n]{0,256}@\S*"
    r"|(?:(?!://)[^\s?#])*(?:[?#]\S*)?)"
)
_WHOLE_ADDRESS: Final = re.compile(r"\s*[A-Za-z][\w+.\-]*://")
_CONTAINER: Final = re.compile(r"\s*[\[{]\s*[\[{\"]")  # of JSON
_WHOLE_QUERY: Final = re.compile(r"[?&]*[\w.\-]+=\S*")
_TRAILING: Final = ",.;:!?)>'\""
_QUERY_PART: Final = re.compile(r"[^?&]+")
_QUERY_NAME: Final = re.compile(r"[\w.\-]+")
_PLACEHOLDER: Final = re.compile(r"\{\w+\}")
_AFTER_AUTHORITY: Final = re.compile(r"[/?#]")
_BEFORE_QUERY: Final = re.compile(r"[?#]")
_WHO_IS_HEARD: Final = re.compile(rf"[?&](?:{NAMES_OF_WHO_IS_HEARD})=[^?&#]*", re.IGNORECASE)
_SECRET_PARAMETER: Final = re.compile(rf";[\w.\-]*(?:{TELLING_NAMES})=", re.IGNORECASE)
_PATH_PARAMETER: Final = re.compile(r";([\w.\-]+=)?[^/;]*")
_SPACE: Final = re.compile(r"\s")
_HOST: Final = re.compile(r"(?:\[[^\s@\[\]]*\]|[^\s@:\[\]]+)(?::\d{1,5})?")


def mask_url(text: str) -> str:
    """Take out what may be secret in an address: who comes, and every value of its query.

    Placeholders of a template stay. What cannot be read as an address shows nothing of what stands
    before its last "@". A text that is no address is searched for some; a query alone is masked
    as one.
    """
    if scheme := _WHOLE_ADDRESS.match(text):
        return scheme.group() + _mask_address(text[scheme.end() :])
    if _WHOLE_QUERY.fullmatch(text):
        return _mask_query(text)
    return _mask_addresses(text)


def mask_address(text: str) -> str:
    """Do the same with what is meant for an address, though it may be none: `me:secret@host`."""
    if _CONTAINER.match(text):
        return MASK
    if _WHOLE_ADDRESS.match(text):
        return mask_url(text)
    _, at, rest = text.rpartition("@")
    return (f"{MASK}@" if at else "") + _mask_after(rest)


def mask_path(path: Path) -> str:
    """Take out what is given for a secret's file and may be the secret itself: no file is there."""
    there = len(path.parts) > 1 and os.path.isdir(path.parent)  # noqa: PTH112 - raises nothing
    if os.path.exists(path) or (there and not looks_secret(path.name)):  # noqa: PTH110 - as above
        return str(path)
    return MASK


def is_secret_name(name: str) -> bool:
    """Tell whether what stands under this name is a secret."""
    return _SECRET_KEY.search(name) is not None


def carries_secret(url: str) -> bool:
    """Tell whether an address holds what must not stand on a command line.

    A query's values do by their names only: `?device=8002` is no secret, though masked.
    """
    scheme = _WHOLE_ADDRESS.match(url)
    authority = _authority(url[scheme.end() :] if scheme else url)
    readable = not authority or _HOST.fullmatch(authority)
    return not readable or bool(_QUERY.search(url) or _SECRET_PARAMETER.search(url))


def _mask_addresses(text: str) -> str:
    """Mask the addresses in running text, and what stands under a secret's name."""

    def mask(found: re.Match[str]) -> str:
        address = found.group().rstrip(_TRAILING)
        return _mask_address(address) + found.group()[len(address) :]

    return _QUERY.sub(rf"\1{MASK}", _ADDRESS.sub(mask, text))


def _mask_address(rest: str) -> str:
    """Mask an address, given without its scheme."""
    authority = _authority(rest)
    _, at, host = authority.rpartition("@")
    after = rest[len(authority) :]
    path = _BEFORE_QUERY.split(after, maxsplit=1)[0]
    again = at and "@" in _WHO_IS_HEARD.sub("", after)
    doubtful = again or "://" in path or _SPACE.search(path)
    if doubtful or not _HOST.fullmatch(host):
        # No telling where the password ends: it may hold any of what divides an address.
        _, at, tail = rest.rpartition("@")
        if not at and ":" in host and not _HOST.fullmatch(host):
            return f"{host.partition(':')[0]}:{MASK}"
        host, after = "", tail
    return (f"{MASK}@" if at else "") + host + _mask_after(after)


def _mask_after(text: str) -> str:
    """Mask what follows a path: a query, and a fragment, which may be the rest of a password."""
    text, hash_mark, fragment = text.partition("#")
    path, mark, query = text.partition("?")
    path = _PATH_PARAMETER.sub(rf";\1{MASK}", path)
    return f"{path}{mark}{_mask_query(query)}{hash_mark}{MASK if fragment else ''}"


def _mask_query(query: str) -> str:
    return _QUERY_PART.sub(_mask_part, query)


def _mask_part(found: re.Match[str]) -> str:
    name, equals, value = found.group().partition("=")
    if not equals or not _QUERY_NAME.fullmatch(name):  # a key alone, or the rest of a password
        name, equals, value = "", "", found.group()
    return f"{name}{equals}{value if not value or _PLACEHOLDER.fullmatch(value) else MASK}"


def _authority(rest: str) -> str:
    return _AFTER_AUTHORITY.split(rest, maxsplit=1)[0]


class Masker:
    """Takes out of what is logged what is nobody's business.

    Attributes:
        numbers: Whether outside phone numbers are masked: seven digits and more (`numbers`),
            whatever domain follows, since outside numbers come with the namespace's too. Ids of
            the installation itself are shorter; longer ones are told by `own`.
    """

    def __init__(self, *, numbers: bool = True, own: Iterable[str] = ()) -> None:
        """Mask outside numbers too unless `numbers` is off; `own` ids are never masked."""
        self.numbers = numbers
        self._numbers = Numbers(own)
        self._discretion = Discretion()

    def learn(self, secrets: Iterable[str]) -> None:
        """Never show these again, wherever they turn up and however they are written.

        Those of three characters and fewer are masked by the name they stand under only.
        """
        self._discretion = self._discretion.about(secrets)

    def text(self, text: str, *, in_haste: bool = False) -> str:
        """Mask one text; in haste, more of it than need be."""
        text = self._discretion.text(text)
        if "://" in text:
            text = _mask_addresses(text)
        return self._numbers.masked(text, in_haste=in_haste) if self.numbers else text

    def value(self, value: object) -> object:
        """Mask a value of any kind: what containers hold, numbers as they are, else as text.

        A number that is none of a text is our own where this is called; `admin.showing` masks those
        that came by the wire.
        """
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
            if value and isinstance(name, str) and is_secret_name(name)
            else self.value(value)
            for name, value in fields.items()
        }
