"""Settings as the tests of this room give them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cti_listener.settings import Configuration, Settings, load

Write = Callable[[str], str]

URL = "ws://127.0.0.1:9/mvc/stomp/websocket"


def problems(configuration: Configuration) -> list[str]:
    return [str(problem) for problem in configuration.problems]


def settings(**flags: Any) -> Settings:
    """Return the settings that a server's address and these flags make."""
    configuration = load({"url": (URL,), **flags})
    assert problems(configuration) == []
    return configuration.settings
