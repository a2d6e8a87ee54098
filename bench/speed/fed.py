"""The listener fed by `picows`: what an extra on it would bring.

A stand-in for the transport, with as much as a race needs: no TLS, proxy, credentials or pings, and
nothing of when the socket was read, by which the real one tells since when events may be missed.
"""

from __future__ import annotations

from typing import Any

from bench.speed import receivers
from bench.speed.sender import Load
from cti_listener.sources import endpoints
from cti_listener.sources.transport import Ears


class _Transport:
    """What a life asks of its transport."""

    close_code = None
    close_reason = ""
    silent_for = 0.0

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def pause(self) -> None:
        self._transport.underlying_transport.pause_reading()

    def resume(self) -> None:
        self._transport.underlying_transport.resume_reading()

    def abort(self) -> None:
        self._transport.disconnect(graceful=False)

    async def close(self) -> None:
        self._transport.disconnect()
        await self._transport.wait_disconnected()


async def _connect(url: str, *, ears: Ears, **_: Any) -> _Transport:
    import picows  # noqa: PLC0415 - a peer, which need not be installed

    class Feeding(picows.WSListener):  # type: ignore[misc]  # untyped
        def on_ws_connected(self, _transport: Any) -> None:
            ears.handshake_done(None)

        def on_ws_frame(self, _transport: Any, frame: Any) -> None:
            ears.message_received(frame.get_payload_as_bytes())

        def on_ws_disconnected(self, _transport: Any) -> None:
            ears.connection_lost()

    transport, _ = await picows.ws_connect(Feeding, url)
    return _Transport(transport)


async def ours_by_picows(sender: str, load: Load) -> float:
    """The whole listener, its frames cut out by `picows`."""
    opens = vars(endpoints)["open_transport"]
    vars(endpoints)["open_transport"] = _connect
    try:
        return await receivers.ours_json(sender, load)
    finally:
        vars(endpoints)["open_transport"] = opens
