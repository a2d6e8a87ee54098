"""The catalogue's examples, and events made like them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

NAMESPACE = "zhen04.cc"
SEVEN = ("namespace", "eventType", "srcDeviceId", "serial", "eventName", "eventTime", "callId")
"""What an event is told from others by: the names of `EventKey` on the wire."""

EXAMPLES: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((Path(__file__).parent / "events").glob("*.json"))
}
"""The 18 examples, by file."""

_serials = itertools.count(121_019)


def device_id(number: int | str) -> str:
    """Return `8002@zhen04.cc` for 8002."""
    return f"{number}@{NAMESPACE}"


def make(name: str = "delivered", device: int | str = 8002, **fields: Any) -> dict[str, Any]:
    """Return a csta event of a device, unlike any other, with these fields besides."""
    return {
        "eventName": name,
        "eventType": "csta",
        "namespace": NAMESPACE,
        "srcDeviceId": device_id(device),
        "deviceId": device_id(device),
        "serial": next(_serials),
        "eventTime": "2017.03.18 14:13:36",
        "callId": "37db6efe-57cc-4053-b0ce-24c96eba66b0",
        **fields,
    }


def make_agent(
    name: str = "agentReady", agent: int | str = 5002, device: int | str = 8002, **fields: Any
) -> dict[str, Any]:
    """Return an agent event, unlike any other, with these fields besides."""
    event = make(name, device, eventType="agent", agentId=device_id(agent), **fields)
    return {key: value for key, value in event.items() if key != "callId"}
