"""From `--to URL` to a sink with its name.

The scheme says which kind: ours, or one that another package brings by an entry point of the group
`cti_listener.sinks`, whose name is the scheme.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Final, cast
from urllib.parse import urlsplit

from cti_listener.discretion import MASK, looks_secret
from cti_listener.errors import ConfigurationError
from cti_listener.sinks.base import SinkFactory, SinkOptions, without_tokens
from cti_listener.sinks.outlet import Outlet

GROUP: Final = "cti_listener.sinks"

_OURS: Final = {
    "jsonl": "cti_listener.sinks.jsonl",
    "stdout": "cti_listener.sinks.stdout",
    "http": "cti_listener.sinks.webhook",
    "https": "cti_listener.sinks.webhook",
}
_GIVEN: Final = re.compile(
    r"(?:(?P<name>[A-Za-z0-9][\w.\-]*)=)?(?P<url>(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*):.*)"
)
_RESERVED: Final = frozenset({"output"})
"""Names of the program's own handlers."""


def make_outlets(given: Sequence[str], options: SinkOptions) -> list[Outlet]:
    """Make a sink of each; nothing is opened yet.

    Args:
        given: URLs, each with a name of its own before it, or none: `crm=https://HOST/PATH`.
        options: What all are made with.

    Raises:
        ConfigurationError: One cannot be made, or two go by one name.
    """
    return list(_made(given, options))


def problems(given: Sequence[str], options: SinkOptions) -> list[str]:
    """Return what is wrong with each of them."""
    found = []
    for one in given:
        try:
            make_outlets([one], options)
        except ConfigurationError as error:
            found.append(str(error))
    if not found:
        try:
            make_outlets(given, options)
        except ConfigurationError as error:
            found.append(str(error))
    return found


def _made(given: Sequence[str], options: SinkOptions) -> Iterator[Outlet]:
    names = set(_RESERVED)
    for text in given:
        parts = _GIVEN.fullmatch(text)
        if parts is None:
            raise ConfigurationError("to", f"{_schemeless(text)}; {_what_there_is()}")
        scheme, url = parts["scheme"].lower(), parts["url"]
        name = parts["name"] or stable_name(url)
        if not _is_text(name):  # the journal keeps it
            problem = f"{name!r} is not UTF-8 text; give it a name of its own: NAME=URL"
            raise ConfigurationError("to", problem)
        if name in names:
            problem = f"there is a {name} already; give this one a name of its own: NAME=URL"
            raise ConfigurationError("to", problem)
        names.add(name)
        yield Outlet(name, _factory(scheme)(url, name=name, options=options), clock=options.clock)


def stable_name(url: str) -> str:
    """Return what a sink goes by: its URL, without what may be secret in it.

    That is who comes, the query and the fragment, and parts of the path that look like a token. A
    file goes by its absolute path.

    Raises:
        ConfigurationError: It cannot be read as a URL.
    """
    scheme, _, rest = url.partition(":")
    scheme = scheme.lower()
    if scheme == "jsonl":
        return f"jsonl:{os.path.abspath(rest)}"  # noqa: PTH100 - Path.absolute keeps ".."
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ConfigurationError("to", f"{scheme}: is followed by what is no address") from None
    host = f"[{host}]" if ":" in host else host
    where = f"//{host}" if parts.netloc else ""
    path = without_tokens("/".join(one.partition(";")[0] for one in parts.path.split("/")))
    return f"{scheme}:{where}{f':{port}' if port else ''}{path}"


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _factory(scheme: str) -> SinkFactory:
    if scheme in _OURS:
        return cast("SinkFactory", import_module(_OURS[scheme]).make)
    found = _others().get(scheme)
    if found is None:
        raise ConfigurationError("to", f"{scheme}: is no sink there is; {_what_there_is()}")
    try:
        return cast("SinkFactory", found.load())
    except Exception as error:
        problem = f"{scheme}: is {found.value}, which cannot be loaded: {error!r}"
        raise ConfigurationError("to", problem) from error


def _others() -> dict[str, EntryPoint]:
    return {one.name.lower(): one for one in entry_points(group=GROUP)}


def _what_there_is() -> str:
    others = "".join(f", {name}:..." for name in sorted(_others().keys() - _OURS.keys()))
    return f"there are jsonl:PATH, stdout:, https://HOST/PATH, http://HOST/PATH{others}"


def _schemeless(text: str) -> str:
    shown = MASK if looks_secret(text) and "/" not in text else repr(text)
    # Without a scheme there is no telling what may be secret in it.
    return f"{shown if '@' not in text and '?' not in text else MASK} has no scheme"
