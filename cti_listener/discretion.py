"""What must never be shown: the secrets of a connection, taken out of whatever text has them.

Servers and proxies repeat what they were sent, plain or encoded: in an ERROR, in the reason of a
close, in a header. `sources` takes the secrets of a connection out of their words, `ops.masking`
those of the program out of its log.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, quote_plus, unquote, urlsplit

MASK: Final = "********"

TELLING_NAMES: Final = (
    r"pass(?:code|wd|word)?|secret|token|auth(?:orization)?|cookie|session_?id|api_?key|signature"
)
"""A name that ends in one of these is that of a secret."""

NAMES_OF_WHO_IS_HEARD: Final = r"(?:namespace|ns|device|agent)(?:_?id)?s?"
"""What stands under one of these is in every event and no secret, an "@" in it or not."""

_SECRET_NAME: Final = re.compile(rf"(?:{TELLING_NAMES})$", re.IGNORECASE)
_WHO_IS_HEARD: Final = re.compile(NAMES_OF_WHO_IS_HEARD, re.IGNORECASE)
_BETWEEN_WORDS: Final = re.compile(r"[\s;,]+")
_BETWEEN_VALUES: Final = re.compile(r"[^\w.\-+/@%=]+")
_PATH_PARAMETER: Final = re.compile(r";([^/;]*)")
_QUOTED: Final = re.compile("%..")
_PLACEHOLDER: Final = re.compile(r"\{\w+\}")
_QUOTES: Final = "'\""
_SHORTEST: Final = 4
_SHORTEST_TOKEN: Final = 8
_LONGEST_WORD: Final = 20


class Discretion:
    """Knows secrets, and takes them out of texts: as they are, quoted for a URL, JSON, in base64.

    Args:
        secrets: What must not be shown. Shorter ones than four characters are passed over: without
            them half of every line would be blank.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """Learn what must not be shown."""
        self._secrets = frozenset(one for one in secrets if len(one) >= _SHORTEST)
        forms = {form for one in self._secrets for form in _forms(one)}
        self._forms = sorted(forms, key=len, reverse=True)  # one may be part of another

    def __repr__(self) -> str:
        return f"<Discretion about {len(self._secrets)} secrets>"

    def about(self, more: Iterable[str]) -> Discretion:
        """Return one that knows these secrets too."""
        return Discretion(self._secrets.union(more))

    def text(self, text: str) -> str:
        """Take the secrets out of a text."""
        for form in self._forms:
            text = text.replace(form, MASK)
        return text

    def words(self, text: str) -> str:
        """Take them out of what may have been cut: half a secret at its end goes as well."""
        text = self.text(text)
        bare = text.rstrip(_QUOTES)
        begin = min((self._half_at_end(bare, form) for form in self._forms), default=len(bare))
        return text if begin == len(bare) else text[:begin] + MASK + text[len(bare) :]

    @staticmethod
    def _half_at_end(text: str, form: str) -> int:
        """Return where the half of a secret begins that ends a text; its length if none does."""
        at = text.find(form[:_SHORTEST], max(0, len(text) - len(form) + 1))
        while at >= 0:
            if form.startswith(text[at:]):
                return at
            at = text.find(form[:_SHORTEST], at + 1)
        return len(text)

    def data(self, data: bytes) -> bytes:
        """Take them out of bytes, which may have been cut."""
        return self.words(data.decode(errors="surrogateescape")).encode(errors="surrogateescape")

    def is_broken_by(self, error: BaseException | None) -> bool:
        """Tell whether an exception, or one behind it, shows a secret to whoever prints it."""
        behind = [error]
        for one in behind:
            if one is not None:
                shown = f"{one} {one!r} {vars(one)}"
                if self.text(shown) != shown:
                    return True
                behind += [
                    other for other in (one.__cause__, one.__context__) if other not in behind
                ]
        return False


def _forms(secret: str) -> Iterator[str]:
    """Yield the ways in which a secret may be written."""
    yield from (secret, json.dumps(secret)[1:-1], repr(secret)[1:-1])
    if looks_secret(secret):  # else it is a word, and all others like it would go too
        yield secret.lower()  # as in the name of a host
    for safe in ("/", ""):
        quoted = quote(secret, safe=safe, errors="replace")
        yield quoted
        yield _QUOTED.sub(lambda found: found.group().lower(), quoted)
    yield quote_plus(secret, errors="replace")
    data = secret.encode(errors="replace")
    yield base64.b64encode(data).decode().rstrip("=")
    yield base64.urlsafe_b64encode(data).decode().rstrip("=")


# Where secrets are


def looks_secret(text: str) -> bool:
    """Tell a token from a word, where no name tells: long, and not made of letters alone."""
    if len(text) > _LONGEST_WORD and not any(map(str.isspace, text)):
        return True
    return len(text) >= _SHORTEST_TOKEN and any(map(str.isdigit, text))


def in_value(value: str) -> Iterator[str]:
    """Yield a secret, and what of it may be repeated by itself: the token of a header, a cookie."""
    yield value
    for word in _BETWEEN_WORDS.split(value):
        for piece in (word, word.partition("=")[2]):
            if piece != value and looks_secret(piece):
                yield piece


def in_values(values: Mapping[str, str]) -> Iterator[str]:
    """Yield the secrets among named values, as headers and the parts of a query are."""
    for name, value in values.items():
        if _WHO_IS_HEARD.fullmatch(name):
            continue
        if _SECRET_NAME.search(name) or looks_secret(value):
            yield from in_value(value)


def in_url(url: str) -> Iterator[str]:
    """Yield the secrets in a URL: of its user, of its path's parameters, of its query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return
    user, password = parts.username or "", parts.password or ""
    yield from (password or user, unquote(password or user))
    if password:
        yield f"{unquote(user)}:{unquote(password)}"  # in base64, a header
    yield from in_query("&".join((*_PATH_PARAMETER.findall(parts.path), parts.query)))


def in_query(query: str) -> Iterator[str]:
    """Yield the secrets in a query, or in a template of one."""
    for part in re.split("[&;]", query):
        name, equals, value = part.partition("=")
        for text in _PLACEHOLDER.split(value if equals else name):
            yield from in_values({name: text})
            yield from in_values({name: unquote(text)})


def in_message(template: str) -> Iterator[str]:
    """Yield the secrets in a message, or in a template of one."""
    try:
        yield from _in_json("", json.loads(template))
    except ValueError:
        yield from filter(looks_secret, _BETWEEN_VALUES.split(_PLACEHOLDER.sub(" ", template)))


def _in_json(name: str, value: Any) -> Iterator[str]:
    match value:
        case dict():
            for key, one in value.items():
                yield from _in_json(key, one)
        case list():
            for one in value:
                yield from _in_json(name, one)
        case str():
            for text in _PLACEHOLDER.split(value):
                yield from in_values({name: text})
        case _:
            pass
