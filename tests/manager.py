"""The socket of a service manager, where a service says how it stands: sd_notify(3)."""

from __future__ import annotations

import asyncio
import socket

from tests.program import LIMIT


class Manager:
    """The socket of a service manager."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self._socket.setblocking(False)

    async def told(self) -> dict[str, str]:
        """Wait for the next message; return what it assigns."""
        async with asyncio.timeout(LIMIT):
            return self._read(await asyncio.get_running_loop().sock_recv(self._socket, 4096))

    async def told_of(self, name: str) -> dict[str, str]:
        """Wait for the message that assigns this."""
        while name not in (message := await self.told()):
            pass
        return message

    def waiting(self) -> list[dict[str, str]]:
        """Return the messages that wait to be read."""
        messages = []
        while True:
            try:
                messages.append(self._read(self._socket.recv(4096)))
            except BlockingIOError:
                return messages

    @staticmethod
    def _read(message: bytes) -> dict[str, str]:
        return dict(line.split("=", 1) for line in message.decode().splitlines())

    def close(self) -> None:
        self._socket.close()
