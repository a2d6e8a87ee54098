"""What a sink is, and what it is made with.

A sink is a handler with an `open` and a `close`. It knows nothing of the pipeline or the journal:
lanes, retries, what is owed and dead letters are those of any handler.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

from cti_listener.clock import Clock, SystemClock
from cti_listener.discretion import MASK
from cti_listener.ops.descriptor import Descriptor
from cti_listener.router import Happening, Order

__all__ = ["Order", "Reopenable", "Sink", "SinkFactory", "SinkOptions", "without_tokens"]


_TOKEN: Final = re.compile(r"(?=.*[0-9A-Z])[\w\-.~%+=]{16,}")
"""A part of a path that may be a token, as chat services put it there: long, and no plain words."""


def without_tokens(path: str) -> str:
    """Mask the parts of a URL's path that may be tokens."""
    return "/".join(MASK if _TOKEN.fullmatch(part) else part for part in path.split("/"))


class Sink(Protocol):
    """Takes what happens and has it kept or known elsewhere.

    Attributes:
        order: `device`: what happens to one device one after the other, the devices side by side;
            `all`: one at a time altogether, in order of arrival.
    """

    order: Order

    async def open(self) -> None:
        """Get ready; called once, before the listener starts.

        Raises:
            ConfigurationError: It can never work as asked: the run ends with exit code 78. What may
                pass, such as a receiver that is away, is for `take` to meet.
        """

    async def take(self, happening: Happening) -> None:
        """Take one event, record or notice; to return is to say that it is safe.

        It may be given again what it was given before: when it raised, was cancelled at the end, or
        the process was killed.

        Raises:
            SinkAwayError: Not now: the same is given again, after a wait; what comes behind it in
                its lane waits. So does any `OSError`.
            HaltError: Not in this run: it is given nothing any more.
            Exception: Never, such as `SinkError`: with a journal it is a dead letter, and the next
                has its turn.
        """

    async def close(self) -> None:
        """Let go of everything; called once, when nothing more will be given."""


@runtime_checkable
class Reopenable(Protocol):
    """A sink that can begin anew with what it has open, as after a rotation of files."""

    async def reopen(self) -> None:
        """Open anew what it writes to, and read its files again; on SIGHUP.

        Raises:
            OSError: It cannot; it goes on with what it had, or tries again when it takes something.
            ConfigurationError: A file is not what it should be; it goes on with what it had.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkOptions:
    """What sinks are made with, whatever their kind; times in seconds, sizes in bytes.

    Attributes:
        namespace: The contact centre's domain, if one was given.
        zone: Where the server's clock hangs.
        ca_file: Authorities to trust besides the system's (PEM).
        webhook_secret_file: The keys that sign what is posted, one a line.
        webhook_timeout: How long one request may take in all.
        webhook_connections: How many requests go on at once, for each webhook.
        jsonl_max_size: A file that would grow above is put aside; 0: never.
        jsonl_every: A file is put aside with so much time; 0: never.
        jsonl_sync: Whether each line is on the disk before it counts as written.
        stdout: What stands for standard output; shared with the program's own output.
        learn: Told of secrets that no log may show.
        clock: The clock; for tests.
    """

    namespace: str | None = None
    zone: tzinfo = UTC
    ca_file: Path | None = None
    webhook_secret_file: Path | None = None
    webhook_timeout: float = 15.0
    webhook_connections: int = 16
    jsonl_max_size: int = 0
    jsonl_every: float = 0.0
    jsonl_sync: bool = False
    stdout: Descriptor | None = None
    learn: Callable[[Iterable[str]], None] = lambda _: None
    clock: Clock = field(default_factory=SystemClock)


class SinkFactory(Protocol):
    """Makes a sink; what an entry point of the group `cti_listener.sinks` names."""

    def __call__(self, url: str, *, name: str, options: SinkOptions) -> Sink:
        """Make one; nothing is opened yet, and no loop runs.

        Args:
            url: The URL as given, without the name that may stand before it.
            name: What it is called in logs and in the journal; holds no secret.
            options: What all sinks are made with.

        Raises:
            ConfigurationError: The URL, or an option it needs, is wrong; it says what to do.
        """
