"""How a setting's text is read: lists, headers, addresses, zones, and what each may be.

`model` builds its fields on these types.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from cti_listener.admin.access import Address
from cti_listener.errors import ConfigurationError

# RFC 9110, 5.1 and 5.5
_HTTP_NAME: Final = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_HTTP_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")

_HALVES: Final = re.compile("[\ud800-\udfff]")
"""Half a character, as Python has for a byte that is no UTF-8."""


def _split(value: object) -> object:
    """Take a list from an environment variable: a JSON list, or values between commas."""
    if isinstance(value, int) and not isinstance(value, bool):  # an id, written without quotes
        return (str(value),)
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.startswith("["):
        try:
            return tuple(json.loads(text))
        except ValueError:
            msg = "is neither a JSON list nor values between commas"
            raise ValueError(msg) from None
    if text.startswith("{"):  # one message template, commas and all
        return (text,)
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _split_each(value: object) -> object:
    """Let ids and names be joined by commas within one flag too: none of them can hold one."""
    parts = _split(value)
    if not isinstance(parts, list | tuple):
        return parts
    nested = [_split(part) for part in parts]
    return tuple(text for part in nested for text in (part if isinstance(part, tuple) else (part,)))


def _split_headers(value: object) -> object:
    """Take headers from a table, a list of `NAME: VALUE`, or such lines in one text."""
    if isinstance(value, str):
        text = value.strip()
        try:
            value = json.loads(text) if text.startswith(("{", "[")) else text.splitlines()
        except ValueError:
            msg = 'is neither NAME:VALUE nor a JSON object {"NAME": "VALUE"}'
            raise ValueError(msg) from None
    if isinstance(value, list | tuple):
        pairs = [str(line).partition(":") for line in value if str(line).strip()]
        if not all(name.strip() and colon for name, colon, _ in pairs):
            msg = "is not written NAME:VALUE"
            raise ValueError(msg)
        value = {name.strip(): text.strip() for name, _, text in pairs}
    return value


def line(text: str) -> str:
    """Return a text of one line.

    Raises:
        ValueError: It holds what would end a header, and begin another.
    """
    if "\n" in text or "\r" in text:
        msg = "holds a line break, as none can"
        raise ValueError(msg)
    if "\0" in text:
        msg = "holds a NUL, as none can"
        raise ValueError(msg)
    return text


def _one_line(headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
    """Refuse what would let one header smuggle in another."""
    for name, text in headers.items():
        line(name + text.get_secret_value())
    return headers


def in_http(text: str) -> str:
    """Refuse what no HTTP header can carry; return the rest as it is.

    Raises:
        ValueError: It holds such.
    """
    if not _HTTP_VALUE.fullmatch(text):
        msg = "has a character that no HTTP header has: a control character, or none of Latin-1"
        raise ValueError(msg)
    return text


def _secret_in_http(secret: SecretStr) -> SecretStr:
    in_http(secret.get_secret_value())
    return secret


def _http_headers(headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
    for name, text in headers.items():
        if not _HTTP_NAME.fullmatch(name):
            msg = "has a name that no HTTP header has: letters, digits and hyphens make one"
            raise ValueError(msg)
        _secret_in_http(text)
    return headers


def _secret_line(secret: SecretStr) -> SecretStr:
    line(secret.get_secret_value())
    return secret


def _endpoints(urls: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse what is no WebSocket address, and say what it should look like."""
    for url in urls:
        try:
            parts = urlsplit(url)
            reachable = parts.hostname is not None and parts.port != 0
        except ValueError:
            reachable = False
        else:
            if parts.scheme in {"http", "https"}:
                msg = f"starts with {parts.scheme}://; a WebSocket's address starts with ws{parts.scheme[4:]}://"
                raise ValueError(msg)
        if not reachable or parts.scheme not in {"ws", "wss"}:
            msg = "is not like wss://HOST[:PORT]/mvc/stomp/websocket"
            raise ValueError(msg)
    return urls


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        msg = "is not a time zone's name, like Asia/Shanghai"
        raise ValueError(msg) from None
    return name


def _proxy(text: str) -> str:
    if text in {"auto", "none"} or urlsplit(text).scheme in {
        "http",
        "https",
        "socks4",
        "socks4a",
        "socks5",
        "socks5h",
    }:
        return text
    msg = "is not auto (as the environment says), none, or a URL like socks5h://HOST:PORT"
    raise ValueError(msg)


def sink_url(given: str) -> str:
    """Return a sink's URL without the name that may stand before it."""
    return re.sub(r"^[A-Za-z0-9][\w.\-]*=(?=[A-Za-z][A-Za-z0-9+.\-]*:)", "", given)


def refuse_uncarried(value: object, *, any_bytes: bool = False) -> None:
    """Refuse a NUL, and what was given in bytes that are no UTF-8.

    Args:
        value: A setting's value.
        any_bytes: Let those bytes pass, as they do in a path.

    Raises:
        ValueError: It holds such.
    """
    match value:
        case Path():
            refuse_uncarried(str(value), any_bytes=True)
        case SecretStr():
            refuse_uncarried(value.get_secret_value())
        case tuple():
            for one in value:
                refuse_uncarried(one, any_bytes=any_bytes)
        case dict():
            refuse_uncarried((*value, *value.values()))
        case str() if "\0" in value:
            msg = "holds a NUL, as nothing here can"
            raise ValueError(msg)
        case str() if not any_bytes and _HALVES.search(value):
            msg = "is not UTF-8 text"
            raise ValueError(msg)


def _period(seconds: float) -> float:
    if 0 < seconds < 1:
        msg = "must be 0, or 1 and more"
        raise ValueError(msg)
    return seconds


def _address(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        return str(Address.read(text))
    except ConfigurationError as error:
        raise ValueError(error.problem) from None


Names = Annotated[tuple[str, ...], BeforeValidator(_split_each)]
Templates = Annotated[tuple[str, ...], BeforeValidator(_split)]
Headers = Annotated[
    dict[str, SecretStr], BeforeValidator(_split_headers), AfterValidator(_one_line)
]
HttpHeaders = Annotated[Headers, AfterValidator(_http_headers)]
HttpText = Annotated[str, AfterValidator(in_http)]
HttpSecret = Annotated[SecretStr, AfterValidator(_secret_in_http)]
Line = Annotated[str, AfterValidator(line)]
SecretLine = Annotated[SecretStr, AfterValidator(_secret_line)]
# An address may hold a password.
Endpoints = Annotated[Templates, AfterValidator(_endpoints), Field(repr=False)]
At = Annotated[str | None, AfterValidator(_address)]
Zone = Annotated[str, AfterValidator(_known_zone)]
Proxy = Annotated[str, AfterValidator(_proxy), Field(repr=False)]
Destinations = Annotated[Templates, Field(repr=False)]
# So may what is sent to a JSON endpoint.
Query = Annotated[str, Field(repr=False)]
Messages = Annotated[Templates, Field(repr=False)]
Seconds = Annotated[float, Field(ge=0)]
Period = Annotated[Seconds, AfterValidator(_period)]
