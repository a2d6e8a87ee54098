"""The schema of a line that `cti-listen --calls` prints, made of the code: it has the code's words.

    python -m tests.call_schema > docs/call-record.schema.json

A test holds that file to it.
"""

from __future__ import annotations

import json
import re
import sys
from inspect import cleandoc
from typing import Any, Final

from pydantic import TypeAdapter
from pydantic.alias_generators import to_camel

from cti_listener.derived import CallEnded, CallRevised
from cti_listener.records import CallRecord

_ATTRIBUTE: Final = re.compile(r"^    (\w+): (.*(?:\n {8,}.*)*)", re.MULTILINE)


def schema() -> dict[str, Any]:
    """Return the schema."""
    made: dict[str, Any] = _without_titles(TypeAdapter(CallEnded).json_schema())
    definitions = made["$defs"]
    for one in definitions.values():
        text, _, attributes = one["description"].partition("Attributes:\n")
        one["description"] = _in_json(text)
        _describe(one["properties"], attributes)
    for base in CallEnded.__mro__:
        _describe(made["properties"], cleandoc(base.__doc__ or "").partition("Attributes:\n")[2])
    properties = {
        "eventType": {"const": "listener"},
        "eventName": {
            "enum": [CallEnded.event_name, CallRevised.event_name],
            "description": f"`{CallEnded.event_name}` is told once, as the device is out of the "
            f"call; what becomes known later makes a `{CallRevised.event_name}` with the whole "
            "record anew, the last of which is final.",
        },
        **made["properties"],
    }
    properties["call"] = {"$ref": f"#/$defs/{CallRecord.__name__}", "description": "The record."}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A line of `cti-listen --calls` that tells a call's record",
        "type": "object",
        "properties": properties,
        "required": ["eventType", "eventName", *made["required"]],
        "$defs": definitions,
    }


def _without_titles(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_titles(one) for name, one in value.items() if name != "title"}
    return [_without_titles(one) for one in value] if isinstance(value, list) else value


def _describe(properties: dict[str, Any], attributes: str) -> None:
    """Give each property the sentence of its attribute."""
    for name, said in _ATTRIBUTE.findall(attributes):
        if to_camel(name) in properties:
            properties[to_camel(name)]["description"] = _in_json(said)


def _in_json(text: str) -> str:
    """Say the same of JSON: `null`, names in camel case, in one line."""
    text = re.sub(r"\bNone\b", "null", " ".join(text.split()))
    return re.sub(r"`([a-z_]+(?: - [a-z_]+)*)`", lambda one: f"`{_camel(one[1])}`", text)


def _camel(names: str) -> str:
    return " - ".join(to_camel(name) for name in names.split(" - "))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(schema(), indent=2, ensure_ascii=False) + "\n")
