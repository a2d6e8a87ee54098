"""Runs the sinks beside a listener: opened and closed, its handlers, and what became of it all.

Called by `app`: `attach` before the listener starts, `opened` for the length of a run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

from cti_listener.listener import Listener
from cti_listener.router import Kind
from cti_listener.sinks.outlet import CLOSING, OUTCOMES, Outlet


@asynccontextmanager
async def opened(
    outlets: Sequence[Outlet], hung_up: asyncio.Event | None = None, *, within: float = CLOSING
) -> AsyncIterator[None]:
    """Have all of them open within the block, and begin anew with their files when asked.

    Args:
        outlets: The sinks.
        hung_up: Set on SIGHUP; None: nobody asks.
        within: How long they may take to close, all at once, in seconds.

    Raises:
        ConfigurationError: One can never work as asked.
    """
    began: list[Outlet] = []
    # Not a task group: it would wrap what ends the run, which decides on the exit code.
    reopener = None
    try:
        for outlet in outlets:
            await outlet.open()
            began.append(outlet)
        if hung_up is not None:
            reopening = _reopen_when(hung_up, outlets)
            reopener = asyncio.get_running_loop().create_task(reopening, name="cti-reopen")
        yield
    finally:
        if reopener is not None:
            reopener.cancel()
            await asyncio.wait([reopener], timeout=within)
        await asyncio.gather(*(outlet.close(within) for outlet in began))


async def _reopen_when(asked: asyncio.Event, outlets: Sequence[Outlet]) -> None:
    while True:
        await asked.wait()
        asked.clear()
        for outlet in outlets:
            await outlet.reopen()


def attach(
    listener: Listener, outlets: Sequence[Outlet], kinds: Sequence[Kind], *, kept: bool
) -> None:
    """Register each as a handler of its own: durable with a journal, and nothing is dropped.

    Args:
        listener: Whose handlers they are.
        outlets: The sinks.
        kinds: What they get.
        kept: Whether the listener has a journal.
    """
    for outlet in outlets:
        outlet.kept = kept
        register = listener.on(
            *kinds,
            order=outlet.order,
            overflow="block",
            retry=outlet.retry,
            name=outlet.name,
        )
        register(outlet.take)


def records(listener: Listener, outlets: Sequence[Outlet]) -> dict[tuple[str, str], int]:
    """Return what became of what the sinks were to get, by sink and outcome."""
    handlers = listener.stats().handlers
    found: dict[tuple[str, str], int] = {}
    for outlet in outlets:
        found.update({(outlet.name, outcome): outlet.counts[outcome] for outcome in OUTCOMES})
        found[outlet.name, "halted"] = handlers[outlet.name].withheld
    return found


def shortfall(left: int, drain: float, outlets: Sequence[Outlet]) -> str:
    """Say what was not passed on in this run, and is lost; nothing if nothing is.

    Args:
        left: How many events were left over at the end.
        drain: How long the end could take, in seconds.
        outlets: The sinks there were.
    """
    said = []
    halted = _names(one for one in outlets if one.halted)
    if left and halted:
        said.append(f"{left} events were not passed on; {halted} took no more")
    elif left:
        done = "passed on" if outlets else "printed"
        within = f"within the drain time of {drain:g} s"
        said.append(f"{left} events were not {done} {within}; give it more by --drain")
    if lost := sum(one.lost for one in outlets):
        who = _names(one for one in outlets if one.lost)
        text = f"{lost} events were refused by {who}, and are lost"
        said.append(f"{text}; with --journal such are kept as dead letters")
    return ". ".join(said)


def _names(outlets: Iterable[Outlet]) -> str:
    return ", ".join(one.name for one in outlets)
