"""What every answer has, and short answers in JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from cti_listener.admin.showing import to_json

ALWAYS: Final[Mapping[str, str]] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "cti_listener",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Headers of all answers, unless one has its own."""


def told(status: int, body: Mapping[str, Any]) -> web.Response:
    """Return an answer in JSON."""
    return web.Response(status=status, body=to_json(body) + b"\n", content_type="application/json")


def refused(status: int, text: str) -> web.Response:
    """Return an answer that says no, and what to do about it."""
    return told(status, {"error": text})
