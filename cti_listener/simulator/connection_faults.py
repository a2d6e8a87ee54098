"""What can go wrong with a connection or the whole server, each fault a script or another rule.

A script yields cues: `sessions` does to its connection what they say, `outages` to the server. A
rule is changed for some sessions from their beginning. Each fault draws from a `random.Random` of
its own. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from enum import StrEnum
from random import Random
from typing import NamedTuple

from cti_listener.simulator.stomp_door import StompRules


class Act(StrEnum):
    """What can be done to a connection; the last three: to the whole server."""

    DROP = "drop"
    """End the TCP connection at once, without a closing handshake."""

    RESET = "reset"
    """End it by a TCP reset."""

    FREEZE = "freeze"
    """Neither read nor write any more, and leave the connection standing."""

    STALL = "stall"
    """Write nothing for so many seconds."""

    DRIP = "drip"
    """Write a few bytes at a time for so many seconds."""

    ERROR = "error"
    """Send an ERROR and close; where JSON is spoken, close with 1011."""

    FLAP = "flap"
    """For so many seconds, accept connections and close them at once."""

    LEAVE = "leave"
    """For so many seconds, be away: no connections, TCP refused."""

    EXPIRE = "expire"
    """For so many seconds, do not take the credentials shown so far; end the sessions."""


class Cue(NamedTuple):
    """When to do what.

    Attributes:
        after: Seconds since the cue before was done, in real time.
        act: What to do.
        amount: For how long, where that is a question.
    """

    after: float
    act: Act
    amount: float = 0.0


Script = Callable[[float, float, Random], Iterator[Cue]]
"""How often, how much, chance; yields what to do, one after the other."""


def once(act: Act) -> Script:
    """Do it to each connection after a while: seconds on average, none like the other."""

    def script(every: float, amount: float, rng: Random) -> Iterator[Cue]:
        yield Cue(rng.expovariate(1 / every), act, amount)

    return script


def repeatedly(act: Act) -> Script:
    """Do it to each connection time and again, none like the other."""

    def script(every: float, amount: float, rng: Random) -> Iterator[Cue]:
        while True:
            yield Cue(rng.expovariate(1 / every), act, amount)

    return script


def steadily(act: Act) -> Script:
    """Do it to the server time and again, after half to one and a half times the time given."""

    def script(every: float, amount: float, rng: Random) -> Iterator[Cue]:
        while True:
            yield Cue(every * rng.uniform(0.5, 1.5), act, amount)

    return script


RuleFault = Callable[[StompRules, float], StompRules]
"""How the broker behaves, how much; returns how it behaves to the sessions concerned."""


def no_receipts(rules: StompRules, amount: float) -> StompRules:
    """Send no RECEIPT."""
    del amount
    return replace(rules, receipts=False)


def no_heartbeats(rules: StompRules, amount: float) -> StompRules:
    """Promise heart-beats and send none."""
    del amount
    return replace(rules, lateness=float("inf"))


def slow_heartbeats(rules: StompRules, amount: float) -> StompRules:
    """Take so many times as long as was promised between heart-beats."""
    return replace(rules, lateness=amount)


def zero_heartbeats(rules: StompRules, amount: float) -> StompRules:
    """Advertise `0,0`."""
    del amount
    return replace(rules, heartbeat=(0, 0))


def refuses(rules: StompRules, amount: float) -> StompRules:
    """Refuse every destination."""
    del amount
    return replace(rules, refuse_all=True)
