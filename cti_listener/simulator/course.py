"""The stretches that scenarios are made of: calling by hand, getting to talk, hanging up.

Each is a generator of steps; some return the call that they made.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator

from cti_listener.simulator.calls import NORMAL, Call
from cti_listener.simulator.parties import Cast, Step

_QUEUED = 0.7
_RINGBACK = 0.8


def inbound(cast: Cast) -> Call:
    """Make a call from the outside number to the main agent, through the queue or straight."""
    queue = cast.queue if cast.chance(_QUEUED) else None
    return Call(cast, cast.outside, cast.agent.device, "Inbound", queue=queue)


def by_hand(cast: Cast, calling: str, called: str, *, original: Call | None = None) -> Call:
    """Make a call that one of the agents dials."""
    call_type = "Internal" if called in cast.devices else "Outbound"
    return Call(cast, calling, called, call_type, original=original)


def dial(call: Call) -> Iterator[Step]:
    """Off hook, and dialled."""
    yield from call.initiated(0.0)
    yield from call.originated(call.cast.pause(0.1, 1.0))


def ring(call: Call) -> Iterator[Step]:
    """Ring at the called party, who always hears it; the calling one may or may not."""
    to = [call.called]
    if call.cast.chance(_RINGBACK):
        to.insert(0, call.calling)
    yield from call.rings(call.cast.pause(0.5, 3.0), call.called, to=to)


def place(call: Call) -> Iterator[Step]:
    """Call by hand until the called party answers."""
    yield from dial(call)
    yield from ring(call)
    yield from call.answered(call.cast.pause(1.0, 12.0), call.called)


def connect(cast: Cast, host: str, other: str) -> Generator[Step, None, Call]:
    """Let the host and the other one talk, whoever of the two has called."""
    if cast.chance(0.5):
        call = by_hand(cast, host, other)
        yield from place(call)
    elif other in cast.devices:
        call = by_hand(cast, other, host)
        yield from place(call)
    else:
        call = inbound(cast)
        yield from call.rings(0.0, host)
        yield from call.answered(cast.pause(1.0, 12.0), host)
    return call


def talk(cast: Cast) -> float:
    """Pick how long people talk before the next thing happens."""
    return cast.pause(5.0, 60.0)


def hang_up(
    call: Call, parties: Iterable[str], *, delay: float | None = None, cause: str = NORMAL
) -> Iterator[Step]:
    """End a call between two, in either order.

    The one who called gets a copy of both hang-ups, the called one of its own only.
    """
    cast = call.cast
    leaving = list(parties)
    by = cast.rng.choice(leaving)
    if cast.chance(0.5):
        leaving.reverse()
    pause = talk(cast) if delay is None else delay
    for who in leaving:
        to = {who: None, **({call.calling: None} if call.calling in leaving else {})}
        for step in call.cleared(pause, who, to=to, cause=cause, by=by):
            yield step
            pause = 0.0


def disperse(call: Call, leavers: Iterable[str], host: str) -> Iterator[Step]:
    """End a conference: each leaves in turn, to the knowledge of those still in it.

    When the host goes, or one is left alone, whoever remains is dropped and hears of itself only.
    """
    for who in leavers:
        yield from call.cleared(talk(call.cast), who, by=who)
        call.parties.remove(who)
        if who == host or len(call.parties) == 1:
            break
    for dropped in call.parties:
        yield from call.cleared(0.0, dropped, to=[dropped], by=who)
