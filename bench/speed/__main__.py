"""One table: this project and its peers, side by side.

    make bench                       or, where the peers are installed:
    python -m bench.speed [--rounds N] [--events N] [--only PART ...] [--quick]

Each line is a ratio, or a figure with a goal of its own; in brackets the least and the most of the
rounds. Machines vary, and so do rates: it is the ratio within one run that tells.
docs/performance.md says how each is measured, and what stops those that are not met.
"""

from __future__ import annotations

import argparse
import logging
import platform
import sys
from collections.abc import Callable, Iterator

import structlog

from bench.speed.growth import growth
from bench.speed.journalled import journalled
from bench.speed.latency import latency
from bench.speed.many import many
from bench.speed.profiled import profiled
from bench.speed.ratios import Row
from bench.speed.reconnecting import reconnecting
from bench.speed.scraped import scraped
from bench.speed.sender import sending
from bench.speed.starting import starting
from bench.speed.throughput import throughput
from bench.speed.tracked import tracked

FEWEST = 1000
"""With fewer events a race is over before it has begun."""


def main() -> int:
    """Run the parts that are asked for; return 1 if a goal is not met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("--only", nargs="+", metavar="PART", help="some of the parts")
    parser.add_argument("--quick", action="store_true", help="without the minute of the crowd")
    given = parser.parse_args()
    rounds, events = given.rounds, given.events
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    parts: dict[str, Callable[[str], Iterator[Row]]] = {
        "throughput": lambda sender: throughput(sender, events, rounds),
        "journal": lambda sender: journalled(sender, events, rounds),
        "tracking": lambda sender: tracked(sender, events, rounds),
        "admin": lambda sender: scraped(sender, rounds),
        "latency": lambda sender: latency(sender, max(2000, events // 5), rounds),
        "growth": lambda sender: growth(sender, events, rounds),
        "many": lambda sender: many(sender, rounds),
        "starting": lambda sender: starting(sender, rounds),
        "reconnecting": lambda _: reconnecting(rounds, crowd=not given.quick),
        "profile": lambda sender: profiled(sender, events, rounds),
    }
    if rounds < 1 or events < FEWEST:
        parser.error(f"--rounds: 1 at least; --events: {FEWEST:,} at least")
    unknown = set(given.only or ()) - parts.keys()
    if unknown:
        parser.error(f"--only: one of {', '.join(parts)}")
    print(f"Python {platform.python_version()}, {rounds} rounds of {events:,} events\n")
    met = True
    with sending() as sender:
        for name in given.only or parts:
            for line in parts[name](sender):
                print(line, flush=True)
                met = met and line.met is not False
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
