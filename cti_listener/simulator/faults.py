"""Which faults the simulator has, how much of each, and how that is written on a command line.

To add a fault: write it (one of the stream in `stream_faults`, one of a connection here) and give
it a field of `Faults`. The order of the fields is the order in which the stream passes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields
from enum import StrEnum
from random import Random
from typing import Any, Final, NamedTuple, Self

from cti_listener.errors import ConfigurationError
from cti_listener.simulator import stream_faults
from cti_listener.simulator.stream_faults import Message, StreamFault
from cti_listener.values import Payload


class Act(StrEnum):
    """What can be done to a connection."""

    DROP = "drop"
    """End the TCP connection at once, without a closing handshake."""


class Cue(NamedTuple):
    """When to do what to a connection.

    Attributes:
        after: Seconds since the cue before, in real time.
        act: What to do.
    """

    after: float
    act: Act


ConnectionFault = Callable[[float, Random], Iterator[Cue]]
"""How much of the fault, chance; yields what to do to one connection, one after the other."""


def drops(every: float, rng: Random) -> Iterator[Cue]:
    """Drop the connection after a while: `every` seconds on average, none like the other."""
    yield Cue(rng.expovariate(1 / every), Act.DROP)


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a field of `Faults` means.

    Attributes:
        stream: The fault of the stream it sets.
        connection: The fault of a connection it sets.
        share: Whether its value is a share, from 0 to 1; else it is a number of seconds.
    """

    stream: StreamFault | None = None
    connection: ConnectionFault | None = None
    share: bool = False

    def check(self, name: str, value: float) -> None:
        if self.share and not 0 <= value <= 1:
            raise ConfigurationError(f"fault {name}", "is a share, from 0 to 1")
        if not self.share and not 0 < value < float("inf"):
            raise ConfigurationError(f"fault {name}", "is a number of seconds, more than 0")


def _share(fault: StreamFault) -> float:
    return field(default=0.0, metadata={"kind": _Kind(stream=fault, share=True)})


def _every(
    *, stream: StreamFault | None = None, connection: ConnectionFault | None = None
) -> float | None:
    return field(default=None, metadata={"kind": _Kind(stream, connection)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How much of which fault; none by default.

    Attributes:
        restart_every: The server's counters fall back every so many seconds of the stream.
        reorder: The share of events that come after later ones of their device.
        repeat: The share of events sent again, at once or later.
        malformed: The share of events ahead of which something comes that is none.
        drop_every: A connection is dropped after so many seconds, on average.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    restart_every: float | None = _every(stream=stream_faults.restarts)
    reorder: float = _share(stream_faults.reorders)
    repeat: float = _share(stream_faults.repeats)
    malformed: float = _share(stream_faults.malforms)
    drop_every: float | None = _every(connection=drops)

    def __post_init__(self) -> None:
        """Refuse what is out of its range, by name."""
        for name, kind in _KINDS.items():
            if (value := getattr(self, name)) is not None:
                kind.check(name, value)

    def __str__(self) -> str:
        """Write it as `parse` reads it."""
        return ",".join(f"{name}={value:g}" for name, _, value in self._set())

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `repeat=0.1,drop_every=30`; nothing at all means no faults.

        Raises:
            ConfigurationError: Not written so, an unknown fault, or a value out of range.
        """
        values: dict[str, Any] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, equals, value = (piece.strip() for piece in part.partition("="))
            name = name.replace("-", "_")
            if name not in _KINDS:
                raise ConfigurationError(
                    f"fault {name}", f"is unknown; there are: {', '.join(_KINDS)}"
                )
            if not equals:
                raise ConfigurationError(f"fault {name}", f"needs a value: {name}=0.1")
            if name in values:
                raise ConfigurationError(f"fault {name}", "is given twice")
            try:
                values[name] = float(value)
            except ValueError:
                raise ConfigurationError(f"fault {name}", f"{value!r} is not a number") from None
        return cls(**values)

    def apply(self, stream: Iterable[tuple[float, Payload]], *, seed: int = 0) -> Iterator[Message]:
        """Make messages of a stream of events, and have them go wrong."""
        messages: Iterator[Message] = (Message(at, event) for at, event in stream)
        for name, kind, value in self._set():
            if kind.stream is not None:
                messages = kind.stream(messages, value, _rng(seed, name))
        return messages

    def cues(self, connection: int, *, seed: int = 0) -> list[Iterator[Cue]]:
        """Return what goes wrong with the connection of this number; one script a fault."""
        return [
            kind.connection(value, _rng(seed, name, connection))
            for name, kind, value in self._set()
            if kind.connection is not None
        ]

    def _set(self) -> Iterator[tuple[str, _Kind, float]]:
        for name, kind in _KINDS.items():
            if value := getattr(self, name):
                yield name, kind, value


_KINDS: Final[dict[str, _Kind]] = {one.name: one.metadata["kind"] for one in fields(Faults)}


def _rng(seed: int, *names: object) -> Random:
    """Return chance of its own for each fault and connection."""
    return Random("/".join(map(str, (seed, *names))))  # chance, not secrecy
