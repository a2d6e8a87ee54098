"""How many events a second, on the same frames."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from bench.speed import receivers
from bench.speed.fed import ours_by_picows
from bench.speed.ratios import Row, over, race, rate, row
from bench.speed.receivers import Receiver
from bench.speed.sender import Load

PEERS: dict[str, Receiver] = {
    "json.loads alone": receivers.json_loads_only,
    "aiohttp": receivers.bare_aiohttp,
    "picows": receivers.bare_picows,
    "a task for each event": receivers.task_per_event,
    "one queue for all": receivers.single_queue,
}
STOMP_PEERS: dict[str, tuple[Receiver, float]] = {
    "stomp.py": (receivers.stomp_py, 5.0),
    "stompman": (receivers.stompman_client, 8.0),
}
"""How many times as fast the listener should be."""

APART = 2000
"""So many frames later each comes again, in a row of its own: its text is not kept for so long."""

TURNS = 3
"""So many times the rounds have STOMP and JSON for themselves: what lies between them is less than
what one round differs from the next by."""

MODULES = {"stomp.py": "stomp", "picows": "picows", "stompman": "stompman"}


def throughput(sender: str, events: int, rounds: int) -> Iterator[Row]:
    """Compare rates; repeats count as frames. Peers that are not installed are left out."""
    load = Load(events)
    fewer = Load(max(1, events // 4))  # for those that take long
    twice = Load(events // 2, times=2)
    apart = Load(events, times=2, apart=APART)  # twice as long: the first ones are known to nobody
    missing = {name for name, module in MODULES.items() if find_spec(module) is None}
    peers = {name: peer for name, peer in PEERS.items() if name not in missing}
    stomp_peers = {name: peer for name, peer in STOMP_PEERS.items() if name not in missing}
    runs: dict[str, tuple[Receiver, Load]] = {
        "bare": (receivers.bare_websockets, load),
        "json": (receivers.ours_json, load),
        "by websockets": (receivers.ours_by_websockets, load),
        "stomp": (receivers.ours_stomp, load),
        "twice": (receivers.ours_json, twice),
        "apart": (receivers.ours_json, apart),
        **({"by picows": (ours_by_picows, load)} if "picows" in peers else {}),
        **{name: (receiver, load) for name, receiver in peers.items()},
        **{name: (receiver, fewer) for name, (receiver, _) in stomp_peers.items()},
    }
    seconds = race(sender, runs, rounds)
    pair = race(sender, {name: runs[name] for name in ("json", "stomp")}, TURNS * rounds)
    bare, ours, stomp = seconds["bare"], seconds["json"], seconds["stomp"]
    yield row(
        "JSON: the listener to bare websockets",
        over(bare, ours),
        at_least=0.9,
        detail=f"{rate(ours, events)} to {rate(bare, events)}",
    )
    yield row(
        "JSON: the same, framed by websockets as well",
        over(bare, seconds["by websockets"]),
        at_least=0.9,
        detail=rate(seconds["by websockets"], events),
    )
    if "picows" in peers:
        yield row(
            "JSON: the same, framed by picows",
            over(bare, seconds["by picows"]),
            at_least=1.5,
            detail=rate(seconds["by picows"], events),
        )
    for name in peers:
        theirs = seconds[name]
        yield row(f"JSON: the listener to {name}", over(theirs, ours), detail=rate(theirs, events))
    if "picows" in peers:
        yield row("JSON: picows alone to bare websockets", over(bare, seconds["picows"]))
    yield row(
        "STOMP: the listener to itself in JSON",
        over(pair["json"], pair["stomp"]),
        at_least=0.85,
        detail=f"{rate(pair['stomp'], events)} to {rate(pair['json'], events)}",
    )
    for name, (_, goal) in stomp_peers.items():
        theirs = [one * events / fewer.events for one in seconds[name]]
        yield row(
            f"STOMP: the listener to {name}{' (without wsaccel)' if name == 'stomp.py' else ''}",
            over(theirs, stomp),
            at_least=goal,
            detail=rate(theirs, events),
        )
    yield row(
        "Each event twice, in frames: to distinct ones",
        over(ours, seconds["twice"]),
        at_least=1.5,
        detail=rate(seconds["twice"], events),
    )
    yield row(
        f"  the same, each {APART:,} frames later",
        over([2 * one for one in ours], seconds["apart"]),
        at_least=1.5,
        detail=rate(seconds["apart"], 2 * events),
    )
    for name in sorted(missing):
        print(f"({name} is not installed here; `make bench` has it)")
