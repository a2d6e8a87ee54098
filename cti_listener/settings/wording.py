"""How a setting's value, and what is wrong with it, is put to people; nothing secret survives.

Called by `loading` and `making`.
"""

from __future__ import annotations

import json
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import SecretStr

from cti_listener.discretion import MASK, looks_secret
from cti_listener.ops.masking import mask_address, mask_path, mask_url
from cti_listener.settings.model import Settings
from cti_listener.settings.readings import sink_url
from cti_listener.sinks.base import without_tokens

_IN_WORDS: Final = {
    "bool_parsing": "is neither true nor false",
    "bool_type": "is neither true nor false",
    "dict_type": "is not a table",
    "finite_number": "is not a number",
    "float_parsing": "is not a number",
    "float_type": "is not a number",
    "int_from_float": "is not a whole number",
    "int_parsing": "is not a whole number",
    "int_type": "is not a whole number",
    "path_type": "is not a path",
    "string_type": "is not text",
    "tuple_type": "is not a list",
}
"""How we say what pydantic says by these names."""

_ADDRESSES: Final = frozenset({"url", "proxy", "to"})
_SECRETS_FILES: Final = frozenset(
    {"passcode_file", "token_file", "cookie_file", "webhook_secret_file"}
)
_PLACEHOLDER: Final = re.compile(r"(\{\w+\})")


def explained(kind: str, message: str, name: str, value: object) -> str:
    """Say in words what is wrong with a value, and show it unless it may be secret."""
    annotation = Settings.model_fields[name].annotation
    parts = value if isinstance(value, tuple | list) else (value,)
    plain = all(isinstance(one, str | int | float) for one in parts)  # what is none may hold any
    # A token may have been given in the place of something else.
    texts = (one for one in parts if isinstance(one, str) and name not in _ADDRESSES)
    secret = any(map(looks_secret, texts)) or "SecretStr" in repr(annotation)
    quoted = repr(shown(value, name)) if plain and not secret else "the value"
    if kind == "literal_error":
        choices = get_args(annotation)
        near = get_close_matches(str(value).lower(), choices, 1)
        text = f"is not one of {', '.join(choices)}" + (
            f"; did you mean {near[0]}?" if near else ""
        )
    elif kind == "value_error":
        text = message.removeprefix("Value error, ")
    else:
        text = _IN_WORDS.get(kind) or message.replace("Input should be", "must be")
    return f"{quoted} {text}"


def shown(value: object, name: str = "") -> str:
    """Write a setting's value for people; nothing secret in it survives."""
    match value:
        case str() if name in _MASKS:
            text = _MASKS[name](value)
        case str() if name in _ADDRESSES:
            text = mask_address(value)
        case str() | Path() if name in _SECRETS_FILES:
            text = mask_path(Path(value))
        case bool():
            text = str(value).lower()
        case float():
            text = f"{value:g}"
        case SecretStr():
            text = MASK
        case tuple() | list():
            text = ", ".join(shown(one, name) for one in value)
        case dict():
            text = ", ".join(f"{key}: {shown(secret)}" for key, secret in value.items())
        case _:
            text = mask_url(str(value)) if value is not None else ""
    return text or "-"


def masked_sink(given: str) -> str:
    """Leave of a sink's URL what cannot be secret; the path of a file is none."""
    url = sink_url(given)
    name = given.removesuffix(url)
    if url.startswith("jsonl:"):
        return given
    if "://" not in url:
        return name + mask_address(url)
    scheme, _, rest = mask_url(url).partition("://")
    host, slash, path = rest.partition("/")
    return f"{name}{scheme}://{host}{slash}{without_tokens(path)}"


def masked_query(template: str) -> str:
    """Leave of a query its keys and placeholders: anything else in it may be a token."""
    parts = (part.partition("=") for part in template.split("&"))
    return "&".join(
        key + equals + _masked(value) if equals else _masked(key) for key, equals, value in parts
    )


def masked_message(template: str) -> str:
    """Leave of a message its keys, if it is JSON, and its placeholders."""
    try:
        return json.dumps(_masked_values(json.loads(template)), ensure_ascii=False)
    except ValueError:
        return _masked(template)


def _masked_values(value: Any) -> Any:
    match value:
        case dict():
            return {key: _masked_values(one) for key, one in value.items()}
        case list():
            return [_masked_values(one) for one in value]
        case None | bool():
            return value
        case _:
            return _masked(str(value))


def _masked(text: str) -> str:
    """Mask all but the placeholders."""
    pieces = _PLACEHOLDER.split(text)
    return "".join(
        piece if _PLACEHOLDER.fullmatch(piece) else MASK if piece else "" for piece in pieces
    )


_MASKS: Final = {"query": masked_query, "subscribe": masked_message, "to": masked_sink}
