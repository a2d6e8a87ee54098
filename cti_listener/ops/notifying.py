"""What systemd is told of the daemon: that it runs, how it stands, that it ends.

The protocol is that of sd_notify(3): one datagram of assignments to the socket that NOTIFY_SOCKET
names. Without that variable nothing is ever sent. `app` makes one `Notifier` a run.

READY=1 comes with the first subscription, or after `PATIENCE` without one. So a refusal, which ends
the run before it ever listened, fails the start; and a server that is away when the machine boots
holds up nothing that is ordered behind the unit. Whether the server is there is told by STATUS.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Final

from cti_listener.clock import Clock, SystemClock
from cti_listener.log import log

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from cti_listener.stats import Stats

PATIENCE: Final = 10.0
"""How long the first subscription is waited for before READY=1, in seconds."""

INTERVAL: Final = 2.0
"""How often the status is looked at, in seconds."""

MARGIN: Final = 5.0
"""What the end may take beyond the drain time, in seconds: closing, flushing, leaving."""


class Notifier:
    """Tells the service manager that started us, if there is one.

    What its socket does not take at once is sent with what follows, the latest of each kind.
    """

    def __init__(
        self,
        address: str | None,
        *,
        watchdog: float | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            address: The socket: a path, or with a leading "@" a name in the abstract namespace.
                None: nobody is told.
            watchdog: After so many seconds without a word we are taken for hung; None: never.
            clock: For tests.
        """
        self._address = address
        self._watchdog = watchdog
        self._clock = clock or SystemClock()
        self._unsent: dict[str, str] = {}
        self._status = ""
        self._is_ready = self._is_stopping = False
        self._began = self._clock.monotonic()
        self._stats: Callable[[], Stats] | None = None

    def __repr__(self) -> str:
        return f"<Notifier {self._address or 'off'}>"

    @property
    def is_on(self) -> bool:
        """Whether there is somebody to tell."""
        return self._address is not None

    @classmethod
    def from_environ(cls, environ: MutableMapping[str, str]) -> Notifier:
        """Take what systemd said of it out of the environment, so that no child speaks for us."""
        address = environ.pop("NOTIFY_SOCKET", None)
        period = environ.pop("WATCHDOG_USEC", "")
        whose = environ.pop("WATCHDOG_PID", "")
        watched = period.isdecimal() and int(period) and whose in {"", str(os.getpid())}
        return cls(address or None, watchdog=int(period) / 1_000_000 if watched else None)

    async def run(self, stats: Callable[[], Stats]) -> None:
        """Tell how the listener stands, for as long as the loop turns.

        Args:
            stats: Returns how it stands.
        """
        if self._address is None:
            return
        self._stats = stats
        interval = min(INTERVAL, self._watchdog / 2) if self._watchdog else INTERVAL
        while True:
            if self._watchdog:
                self._unsent["WATCHDOG"] = "1"
            self.look()
            await self._clock.sleep(interval)

    def look(self) -> None:
        """Tell at once what has changed since it was told last."""
        if self._stats is None or self._address is None:
            return
        stats = self._stats()
        waited = self._clock.monotonic() - self._began
        if not self._is_ready and (stats.connected or waited >= PATIENCE):
            self._is_ready = True
            self._unsent["READY"] = "1"
        if not self._is_stopping and (status := described(stats)) != self._status:
            self._status = self._unsent["STATUS"] = status
        self._send()

    def stopping(self, drain: float) -> None:
        """Tell that the end has begun, and ask for the time that it may take.

        Args:
            drain: How long handlers are given to finish, in seconds.
        """
        self._is_stopping = True
        self._unsent["STOPPING"] = "1"
        self._unsent["STATUS"] = f"Stopping: what has come is finished, for {drain:g} s at most"
        # Never less than the unit's own limit; more where the drain time was raised and that not.
        self._unsent["EXTEND_TIMEOUT_USEC"] = f"{(drain + MARGIN) * 1_000_000:.0f}"
        self._send()

    def failed(self, why: str) -> None:
        """Leave word of why the run ended; `systemctl status` goes on showing it.

        Args:
            why: With nothing secret in it.
        """
        self._unsent["STATUS"] = " ".join(why.split())  # a line break would begin another word
        self._send()

    def _send(self) -> None:
        if not self._unsent or self._address is None:
            return
        text = "".join(f"{name}={value}\n" for name, value in self._unsent.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(0)
                sender.sendto(text.encode(), _socket_address(self._address))
        except BlockingIOError:  # its queue is full, as when it is loaded anew
            return
        except (OSError, ValueError) as error:
            log.warning("notify_failed", problem=str(error))
            self._address = None  # once is enough: it will not come back
        self._unsent.clear()


def _socket_address(address: str) -> str:
    """Return an address of the protocol as the system takes it.

    Raises:
        ValueError: It is of a kind that is for virtual machines, or none.
    """
    if address.startswith("@"):
        return f"\0{address[1:]}"
    if address.startswith("/"):
        return address
    msg = f"NOTIFY_SOCKET={address} is neither a path nor an abstract name"
    raise ValueError(msg)


def described(stats: Stats) -> str:
    """Say in one line how a listener stands, as `systemctl status` shows it."""
    where = stats.url or "the server"
    if stats.connected:
        state = f"Connected to {where}"
    elif stats.connections:
        state = f"Lost {where}, connecting again"
    else:
        state = f"Connecting to {where}"
    gaps = len(stats.gaps)
    return f"{state}; {stats.distinct} events, {gaps} gap{'' if gaps == 1 else 's'}"
