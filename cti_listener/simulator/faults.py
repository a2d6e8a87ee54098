"""Which faults the simulator has, how much of each, and how that is written on a command line.

To add a fault: write it (one of the stream in `stream_faults`, one of a connection or the server in
`connection_faults`) and give it a field of `Faults`. The order of the fields is the order in which
the stream passes them.
"""
# ruff: noqa: RUF009 - what `_share` and `_every` return are fields, each its own

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from random import Random
from typing import Any, Final, Self

from cti_listener.errors import ConfigurationError
from cti_listener.simulator import connection_faults, stream_faults
from cti_listener.simulator.connection_faults import (
    Act,
    Cue,
    RuleFault,
    Script,
    once,
    repeatedly,
    steadily,
)
from cti_listener.simulator.fault_kinds import Amount, Dose, Kind, seconds
from cti_listener.simulator.stomp_door import StompRules
from cti_listener.simulator.stream_faults import Message, StreamFault
from cti_listener.values import Payload


def _share(
    text: str,
    *,
    stream: StreamFault | None = None,
    rule: RuleFault | None = None,
    amount: Amount | None = None,
) -> Dose:
    kind = Kind(text=text, share=True, amount=amount, stream=stream, rule=rule)
    return field(default=0.0, metadata={"kind": kind})


def _every(
    text: str,
    *,
    stream: StreamFault | None = None,
    connection: Script | None = None,
    server: Script | None = None,
    amount: Amount | None = None,
) -> Dose | None:
    kind = Kind(text=text, amount=amount, stream=stream, connection=connection, server=server)
    return field(default=None, metadata={"kind": kind})


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How much of which fault; none by default. `describe()` tells what each does.

    A fault of the stream takes a share of the events, one of a session's rules a share of the
    sessions, any other a number of seconds on average. Where a fault also has a size, the value may
    be a pair: `Faults(stall_every=(30, 5))`, or `stall_every=30:5` as text.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    restart_every: Dose | None = _every(
        "The server's counters fall back, in seconds of the stream", stream=stream_faults.restarts
    )
    reorder: Dose = _share(
        "An event comes after later ones of its device", stream=stream_faults.reorders
    )
    repeat: Dose = _share("An event comes again, at once or later", stream=stream_faults.repeats)
    storm: Dose = _share(
        "Behind an event, a burst of the last ones again",
        stream=stream_faults.storms,
        amount=Amount("events", 50, 1, 1e6),
    )
    malformed: Dose = _share(
        "Ahead of an event, a message that is no JSON object", stream=stream_faults.malforms
    )
    invalid_utf8: Dose = _share(
        "Ahead of an event, its text with bytes that are no UTF-8",
        stream=stream_faults.invalid_utf8,
    )
    deep: Dose = _share(
        "Ahead of an event, JSON nested so deep",
        stream=stream_faults.deep,
        amount=Amount("levels", 100_000, 2, 1e8),
    )
    oversized: Dose = _share(
        "Ahead of an event, a message of so much",
        stream=stream_faults.oversized,
        amount=Amount("bytes", 5_000_000, 2, 1e9),
    )
    bomb: Dose = _share(
        "Ahead of an event, to those who take compression, a small message that becomes large",
        stream=stream_faults.bombs,
        amount=Amount("MiB", 16, 1, 1024),
    )
    split: Dose = _share("An event goes to one session only", stream=stream_faults.splits)
    drop_every: Dose | None = _every(
        "A session's TCP connection ends, without a closing handshake", connection=once(Act.DROP)
    )
    reset_every: Dose | None = _every(
        "A session's TCP connection is reset", connection=once(Act.RESET)
    )
    half_open_every: Dose | None = _every(
        "A session stops reading and writing, and its connection stands",
        connection=once(Act.FREEZE),
    )
    stall_every: Dose | None = _every(
        "A session writes nothing for a while, then goes on",
        connection=repeatedly(Act.STALL),
        amount=seconds(5),
    )
    drip_every: Dose | None = _every(
        "A session writes a few bytes at a time for a while",
        connection=repeatedly(Act.DRIP),
        amount=seconds(1),
    )
    error_every: Dose | None = _every(
        "A session ends with an ERROR; a JSON one with 1011", connection=once(Act.ERROR)
    )
    no_receipts: Dose = _share(
        "A STOMP session gets no RECEIPT", rule=connection_faults.no_receipts
    )
    no_heartbeats: Dose = _share(
        "A STOMP session is promised heart-beats and gets none",
        rule=connection_faults.no_heartbeats,
    )
    slow_heartbeats: Dose = _share(
        "A STOMP session gets its heart-beats so much slower than promised",
        rule=connection_faults.slow_heartbeats,
        amount=Amount("times", 10, 1, 1e6),
    )
    zero_heartbeats: Dose = _share(
        "A STOMP session is told 0,0 for heart-beats", rule=connection_faults.zero_heartbeats
    )
    refuse: Dose = _share(
        "A STOMP session has its destinations refused", rule=connection_faults.refuses
    )
    flap_every: Dose | None = _every(
        "All sessions end, and new ones are closed at once for a while",
        server=steadily(Act.FLAP),
        amount=seconds(3),
    )
    away_every: Dose | None = _every(
        "All sessions end, and TCP is refused for a while",
        server=steadily(Act.LEAVE),
        amount=seconds(3),
    )
    expire_every: Dose | None = _every(
        "All sessions end, and the credentials they came with draw 401 for a while",
        server=steadily(Act.EXPIRE),
        amount=seconds(3),
    )

    def __post_init__(self) -> None:
        """Refuse what is out of its range, by name."""
        given = ((name, kind, getattr(self, name)) for name, kind in _KINDS.items())
        _complain(
            (f"fault {name}", problem)
            for name, kind, dose in given
            if dose is not None and (problem := kind.problem(dose))
        )

    def __str__(self) -> str:
        """Write it as `parse` reads it."""
        doses = ((name, getattr(self, name)) for name, *_ in self._set())
        return ",".join(f"{name}={_written(dose)}" for name, dose in doses)

    @classmethod
    def describe(cls) -> str:
        """Tell every fault: its name, how it is written, what goes wrong; one a line."""
        heads = {name: f"{name}={kind.shape}" for name, kind in _KINDS.items()}
        width = max(map(len, heads.values()))
        return "\n".join(f"{heads[name]:{width}}  {kind.told}" for name, kind in _KINDS.items())

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `repeat=0.1,stall_every=30:5`; nothing at all means no faults.

        Raises:
            ConfigurationError: Not written so, an unknown fault, or a value out of range.
        """
        doses: dict[str, Any] = {}
        problems: list[tuple[str, str]] = []
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, _, value = (piece.strip() for piece in part.partition("="))
            name = name.replace("-", "_")
            try:
                dose = _read(name, value, doses)
            except ConfigurationError as error:
                problems.append((error.what, error.problem))
            else:
                doses[name] = dose
        _complain(problems)
        return cls(**doses)

    def apply(
        self, stream: Iterable[tuple[float, Payload] | Message], *, seed: int = 0
    ) -> Iterator[Message]:
        """Make messages of a stream of events, and have them go wrong."""
        messages: Iterator[Message] = (Message(*one) for one in stream)
        for name, kind, often, amount in self._set():
            if kind.stream is not None:
                messages = kind.stream(messages, often, amount, _rng(seed, name))
        return messages

    def cues(self, connection: int, *, seed: int = 0) -> list[Iterator[Cue]]:
        """Return what goes wrong with the connection of this number; one script a fault."""
        return [
            kind.connection(often, amount, _rng(seed, name, connection))
            for name, kind, often, amount in self._set()
            if kind.connection is not None
        ]

    def server_cues(self, *, seed: int = 0) -> list[Iterator[Cue]]:
        """Return what goes wrong with the whole server; one script a fault."""
        return [
            kind.server(often, amount, _rng(seed, name))
            for name, kind, often, amount in self._set()
            if kind.server is not None
        ]

    def rules(self, rules: StompRules, connection: int, *, seed: int = 0) -> StompRules:
        """Return how the broker behaves to the connection of this number."""
        for name, kind, often, amount in self._set():
            if kind.rule is not None and _rng(seed, name, connection).random() < often:
                rules = kind.rule(rules, amount)
        return rules

    def _set(self) -> Iterator[tuple[str, Kind, float, float]]:
        for name, kind in _KINDS.items():
            if (dose := getattr(self, name)) is not None:
                often, amount = kind.doses(dose)
                if often:
                    yield name, kind, often, amount


_KINDS: Final[dict[str, Kind]] = {one.name: one.metadata["kind"] for one in fields(Faults)}


def _read(name: str, value: str, before: Mapping[str, object]) -> Dose:
    """Read one fault's value."""
    what = f"fault {name}"
    if name not in _KINDS:
        near = get_close_matches(name, _KINDS, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(_KINDS)}"
        raise ConfigurationError(what, f"is unknown; {hint}")
    if not value:
        example = "30" if not _KINDS[name].share else "0.1"
        raise ConfigurationError(what, f"needs a value: {name}={example}")
    if name in before:
        raise ConfigurationError(what, "is given twice")
    try:
        often, *amount = (float(number) for number in value.split(":", 1))
    except ValueError:
        allowed = _KINDS[name].shape
        raise ConfigurationError(what, f"{value!r} is not a number; write {allowed}") from None
    dose: Dose = (often, amount[0]) if amount else often
    if problem := _KINDS[name].problem(dose):
        raise ConfigurationError(what, problem)
    return dose


def _written(dose: Dose) -> str:
    return ":".join(f"{number:.10g}" for number in (dose if isinstance(dose, tuple) else (dose,)))


def _complain(problems: Iterable[tuple[str, str]]) -> None:
    """Raise all problems there are as one."""
    found = list(problems)
    if found:
        what, problem = found[0]
        rest = [f"{name}: {text}" for name, text in found[1:]]
        raise ConfigurationError(what, "; ".join([problem, *rest]))


def _rng(seed: int, *names: object) -> Random:
    """Return chance of its own for each fault and connection."""
    return Random("/".join(map(str, (seed, *names))))  # chance, not secrecy
