"""Scenarios with three parties: transfers, consultations, conferences.

B is the main agent, who hands over or calls together; C is the second agent; A is the third agent
or, with two, the outside number.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

from cti_listener.simulator.calls import Call
from cti_listener.simulator.course import (
    by_hand,
    connect,
    dial,
    disperse,
    hang_up,
    place,
    ring,
    talk,
)
from cti_listener.simulator.parties import Cast, Step


def single_step_transfer(cast: Cast) -> Iterator[Step]:
    """B hands A to C without talking to C first."""
    b, c, a = cast.device(0), cast.device(1), cast.device(2)
    call = yield from connect(cast, b, a)
    hears = [a, b, c] if cast.chance(0.5) else [a, c]
    yield from call.rings(
        talk(cast), c, to=hears, ends=(a, c), redirected_from=b, cause="singleStepTransfer"
    )
    yield from call.transferred(cast.pause(0.0, 0.5), b, c, to=[a, b, c])
    yield from call.cleared(0.0, b, to=[a, b, c], cause="BLIND_TRANSFER", by=b)
    yield from call.answered(cast.pause(1.0, 10.0), c, to=[a, c], ends=(a, c))
    for _ in range(cast.rng.randint(1, 2)):
        yield from call.transferred(0.0, b, c, to=[a])
    yield from hang_up(call, [a, c])


def consult_transfer(cast: Cast) -> Iterator[Step]:
    """B talks to C first, then hands A over: C's call becomes A's, and both of B's end."""
    b, c, a = cast.device(0), cast.device(1), cast.device(2)
    held, consulted = yield from _consult(cast, a)
    yield from held.transferred(talk(cast), b, c, consulted=consulted, to=[b, a, c])
    yield from held.cleared(0.0, b, to=[b, a, c], cause="ATTENDED_TRANSFER", by=b)
    # B's second hang-up is one happening under two ids: C's call is the held one from here on.
    yield from consulted.cleared(0.0, b, to=[b], cause="ATTENDED_TRANSFER", by=b)
    yield from held.cleared(0.0, b, to=[c], cause="ATTENDED_TRANSFER", by=b)
    yield from hang_up(held, [a, c])


def consult_cancel(cast: Cast) -> Iterator[Step]:
    """B consults C, who may not even answer, and goes back to A."""
    b, c, a = cast.device(0), cast.device(1), cast.device(2)
    answered = cast.chance(0.7)
    held, consulted = yield from _consult(cast, a, answered=answered)
    cause = "NORMAL_CLEARING" if answered else "ORIGINATOR_CANCEL"
    for delay, who in ((talk(cast), b), (0.0, c)):
        yield from consulted.cleared(delay, who, to=[who], cause=cause, by=b)
    yield from held.retrieved(cast.pause(0.0, 1.0), b)
    yield from hang_up(held, [a, b])


def conference_host_first(cast: Cast) -> Iterator[Step]:
    """B calls A and C together and leaves first: everyone is dropped."""
    yield from _conference(cast, [0])


def conference_guest_then_host(cast: Cast) -> Iterator[Step]:
    """B calls A and C together; C leaves, then B."""
    yield from _conference(cast, [1, 0])


def conference_guest_then_other(cast: Cast) -> Iterator[Step]:
    """B calls A and C together; C leaves, then A."""
    yield from _conference(cast, [1, 2])


def single_step_conference(cast: Cast) -> Iterator[Step]:
    """B adds C to the call with A without talking to C first; they leave in any order."""
    b, c, a = cast.device(0), cast.device(1), cast.device(2)
    call = yield from connect(cast, b, a)
    yield from _join(call, talk(cast), b, c)
    yield from disperse(call, cast.rng.choice(([b], [c, b], [c, a])), host=b)


def _consult(
    cast: Cast, other: str, *, answered: bool = True
) -> Generator[Step, None, tuple[Call, Call]]:
    """B holds A and calls C, of which A sees nothing; return both calls."""
    b, c = cast.device(0), cast.device(1)
    held = yield from connect(cast, b, other)
    yield from held.held(talk(cast), b)
    consulted = by_hand(cast, b, c, original=held)
    if answered:
        yield from place(consulted)
    else:
        yield from dial(consulted)
        yield from ring(consulted)
    return held, consulted


def _conference(cast: Cast, leavers: list[int]) -> Iterator[Step]:
    """B consults C and calls all together, the call with C merging into A's.

    A fourth agent joins later, and leaves first.
    """
    b, c, a = cast.device(0), cast.device(1), cast.device(2)
    call, consulted = yield from _consult(cast, a)
    call.parties = [b, a, c]
    yield from call.conferenced(talk(cast), b, c, consulted=consulted)
    leaving = [cast.device(index) for index in leavers]
    if len(cast.agents) > 3:  # noqa: PLR2004 - A, B, C and one more
        newcomer = cast.device(3)
        yield from _join(call, talk(cast), b, newcomer)
        leaving.insert(0, newcomer)
    yield from disperse(call, leaving, host=b)


def _join(call: Call, delay: float, host: str, newcomer: str) -> Iterator[Step]:
    """Add a newcomer; every device, its own included, gets all three steps."""
    other = next(party for party in call.parties if party != host)
    call.parties.append(newcomer)
    ends = (other, newcomer)
    yield from call.rings(delay, newcomer, ends=ends, cause="singleStepConference")
    yield from call.answered(call.cast.pause(1.0, 10.0), newcomer, ends=ends)
    yield from call.conferenced(0.0, host, newcomer)
