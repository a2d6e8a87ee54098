"""What tests of real servers share: whether the server is here, and ports to run it on."""

from __future__ import annotations

import os
import random
import socket
from pathlib import Path

import pytest


def need_server(name: str, program: Path) -> None:
    """Skip the test when the server `name` is not on this machine.

    Under `CTI_REQUIRE_SERVERS=1`, as in CI, the test fails instead.

    Args:
        name: What the reader would install, such as the Debian package.
        program: The file that is there when it is installed.
    """
    if program.exists():
        return
    if os.environ.get("CTI_REQUIRE_SERVERS") == "1":
        pytest.fail(f"{name} is not on this machine, and CTI_REQUIRE_SERVERS=1 asks for it")
    pytest.skip(f"{name} is not on this machine")


def free_ports(count: int) -> list[int]:
    """Return loopback ports that nothing listens on, and that no client is given either.

    They lie below the range outgoing connections take theirs from. A port from within it could be
    gone before the server has it, or while the server is down for a moment; and a client that
    retries a port of that range is sooner or later connected to itself.
    """
    below = _first_ephemeral_port()
    # Not the seeded generator: two runs at once would try the same ports in the same order.
    candidates = random.SystemRandom().sample(range(10_000, below), below - 10_000)
    found: list[int] = []
    for port in candidates:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    message = f"no {count} free ports below {below}"
    raise RuntimeError(message)


def _first_ephemeral_port() -> int:
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        first = 0
    return first if first > 11_000 else 32_768
