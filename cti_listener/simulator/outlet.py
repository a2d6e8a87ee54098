"""What stands between a session's WebSocket and its TCP connection; holds bytes back, and counts.

Whatever is written passes here, what the WebSocket writes by itself (pongs, closing frames)
included, so a session that is silent is wholly silent.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import sys
from typing import Any, Final, cast

from websockets.asyncio.server import ServerConnection

from cti_listener.clock import Clock, SystemClock

_SIOCOUTQNSD: Final = 0x894B
"""How Linux is asked how much of what it was given has not left for the peer."""

_POLL: Final = 0.005
"""How often to ask that while a peer takes nothing, in seconds."""


class Outlet:
    """A transport that can be held up; all else it passes on.

    Bytes count as out when the operating system has sent them. What a peer that is cut off has
    not been sent is therefore known, to the byte; over loopback what was sent is in the peer's
    hands.

    Args:
        transport: The TCP connection.

    Attributes:
        clock: Tells when bytes went out.
        given: How many bytes were written by the WebSocket so far.
        out: How many of them are out, as far as is known.
        last_out: When that last became more.
        frozen: Whether nothing passes any more, in either direction.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        """Let everything pass."""
        self.clock: Clock = SystemClock()
        self.given = 0
        self.out = 0
        self.last_out = self.clock.now()
        self.frozen = False
        self._transport = transport
        self._holds = 0
        self._held = bytearray()
        self._eof = False  # to be written behind what is held
        self._full = False  # the transport waits for the peer
        self._stirred = asyncio.Event()  # set when more may be out, or never will

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def __repr__(self) -> str:
        state = "frozen" if self.frozen else "held" if self._holds else "open"
        return f"<Outlet {state}, {self.out} of {self.given} bytes out>"

    @property
    def room(self) -> bool:
        """Whether more may be written: nothing is held back, and the peer takes it."""
        return not self._held and not self._full

    # What the WebSocket asks of it

    def write(self, data: bytes) -> None:
        """Write, or hold it back."""
        self.given += len(data)
        if self._holds:
            self._held += data
        else:
            self._transport.write(data)

    def write_eof(self) -> None:
        """End the writing, behind what is held back."""
        if self._holds:
            self._eof = True
        else:
            self._transport.write_eof()

    def peer_lags(self, *, lags: bool) -> None:
        """Learn whether the peer's slowness is felt."""
        self._full = lags
        self._stirred.set()

    # What faults ask of it

    def hold(self) -> None:
        """Let nothing out until as many `resume()`."""
        self._holds += 1

    def release(self, n: int) -> None:
        """Let so many of the bytes out that are held back, if nothing else holds them."""
        if self._holds == 1 and self._held and not self._transport.is_closing():
            self._transport.write(bytes(self._held[:n]))
            del self._held[:n]
            self._stirred.set()

    def resume(self) -> None:
        """Let out all that was held back, unless it is held for another reason."""
        self.release(len(self._held))
        self._holds -= 1
        if not self._holds and self._eof and not self._transport.is_closing():
            self._transport.write_eof()
        self._stirred.set()

    def freeze(self) -> None:
        """Let nothing pass ever again."""
        self.note()
        self.frozen = True
        self.hold()

    def reset(self) -> None:
        """End the connection by a TCP reset; what the system still has to send is lost."""
        linger = struct.pack("ii", 1, 0)
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._transport.abort()

    # What is out

    def note(self) -> int:
        """Find how many bytes are out by now; of a connection that is ending, nothing is learnt."""
        if not self._transport.is_closing():
            waiting = len(self._held) + self._transport.get_write_buffer_size()
            out = self.given - waiting - self._unsent()
            if out > self.out:
                self.out, self.last_out = out, self.clock.now()
        return self.out

    async def stir(self) -> None:
        """Wait until more may be out."""
        if self._holds or self._full:
            self._stirred.clear()
            await self._stirred.wait()
        else:
            await asyncio.sleep(_POLL)

    def _unsent(self) -> int:
        sock = self._transport.get_extra_info("socket")
        if sys.platform != "linux" or sock is None or sock.fileno() < 0:
            return 0
        answer = fcntl.ioctl(sock.fileno(), _SIOCOUTQNSD, b"\0" * 4)
        return int(struct.unpack("i", answer)[0])


class Connection(ServerConnection):
    """A WebSocket that writes through an `Outlet`, and goes deaf when that is frozen."""

    outlet: Outlet

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Put the outlet in between."""
        self.outlet = Outlet(cast("asyncio.Transport", transport))
        super().connection_made(cast("asyncio.Transport", self.outlet))

    def data_received(self, data: bytes) -> None:
        """Take what the client says; note what answers it drew."""
        if not self.outlet.frozen:
            super().data_received(data)
            self.outlet.note()

    def pause_writing(self) -> None:
        """Learn that the peer is slow."""
        super().pause_writing()
        self.outlet.peer_lags(lags=True)

    def resume_writing(self) -> None:
        """Learn that it no longer is."""
        super().resume_writing()
        self.outlet.peer_lags(lags=False)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let nobody wait for a peer that is gone."""
        super().connection_lost(exc)
        self.outlet.peer_lags(lags=False)
