"""What the server says to a handshake: which paths there are, who may in, which sub-protocol."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from cti_listener.simulator.stomp_door import VERSIONS

STOMP_PATH: Final = "/mvc/stomp/websocket"
JSON_PATH: Final = "/events"

_SUBPROTOCOLS: Final = [f"v{version.replace('.', '')}.stomp" for version in VERSIONS]


def target(connection: ServerConnection) -> str:
    """Return the path and query that the client asked for."""
    return connection.request.path if connection.request is not None else ""


def speaks_stomp(connection: ServerConnection) -> bool:
    """Tell whether the client came to the STOMP door."""
    return urlsplit(target(connection)).path == STOMP_PATH


def refuse(connection: ServerConnection, request: Request, token: str | None) -> Response | None:
    """Answer a handshake for a path that does not exist, or without the token; None: go on."""
    if urlsplit(request.path).path not in (STOMP_PATH, JSON_PATH):
        return connection.respond(HTTPStatus.NOT_FOUND, "No such endpoint\n")
    if token is not None and token not in _proofs(request):
        return connection.respond(HTTPStatus.UNAUTHORIZED, "Not logged in\n")
    return None


def choose_subprotocol(
    connection: ServerConnection, offered: Sequence[Subprotocol]
) -> Subprotocol | None:
    """Pick the best STOMP of those offered; none where JSON is spoken."""
    if not speaks_stomp(connection):
        return None
    return next((Subprotocol(one) for one in _SUBPROTOCOLS if one in offered), None)


def _proofs(request: Request) -> set[str]:
    """Return whatever in a handshake may be the token."""
    headers = request.headers
    found = {value.removeprefix("Bearer ") for value in headers.get_all("Authorization")}
    found.update(headers.get_all("sessionId"))
    for cookies in headers.get_all("Cookie"):
        found.update(cookie.partition("=")[2].strip() for cookie in cookies.split(";"))
    return found
