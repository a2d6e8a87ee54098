"""A centre under continuous faults: is each event handled once, in order, or within a named gap?

    python -m bench.chaos [--seed N] [--seeds N] [--events N] [--feeds 1|2] [--never-both-down]
                          [--wire stomp|json|both] [--devices N] [--rate N] [--speed N]
                          [--haste N] [--journal PATH]

The simulated servers run in a process of their own and keep books (`stage`); this process listens.
In the end the books are held against what the handler saw (`witness`, `audit`). By these rules,
without any tolerance; both processes read one wall clock:

- **Sent**: an event of which a copy got out, to its last byte, to a session with a live
  subscription; or that was handled, since the server cannot know of the last bytes of a connection.
  A copy's time is when the server saw that it was out, never before it was.
- **Handled**: the handler was called with it. *Repeated*: called again. *Unknown*: never told.
- **In gaps**: not handled, and all its copies may be lost: each got out while one of the feeds
  was not connected, by its own account (from `Disconnected.since` to the next `Connected.at`).
  And there was a named gap while one of them was on its way: at some moment from when the event
  was told to when the copy got out. A gap for `server_restarted` excuses nothing, since no event
  is lost when a simulated counter falls back; nor does that for a message above `soft_size`,
  which has no length.
- **Before**: not handled, and sent before the listener was first connected. Nothing is promised.
- **Unaccounted**: all else that was sent and not handled.
- **Out of order**: the order is that of the centre's stream, repeats and reordering included,
  since all that befalls the stream does so before the servers have it. An event's place is where
  it was told first, or that of its first copy to arrive: the first that got out before the event
  was received and while every feed was connected, or one ahead of it that may have arrived, but
  none that was told later than that. One may have arrived that, for all a server knows, never got
  out, if nothing behind it did: the last bytes of a connection. The events of a device must have
  places that rise. With two
  feeds this is the same: both tell one stream, and first arrival wins. But where one feed brought
  events that the stream had moved behind their turn, and another, which is behind, then brings
  what follows all of them by the server's own time and number, that is in order: nothing else
  tells it.
- **Late** (two feeds): handled with `event.delivery.late`. Its place is not asked for, but it must
  be behind one of its device that was told later; and it must have been behind the centre for at
  least the hold, for so long the feeds are waited for, unless it was told while no server had a
  live subscription, when there was none to be waited for. *Disorderly late*: behind none but by
  time and number, and a feed was away meanwhile; what the server itself put out of order looks
  the same then.
- **Gap seconds**: the union of the named gaps, but for `server_restarted`, from the first
  connection to the end. They may be 1.5 times as long as no server had a live subscription, by its
  own books: from the last byte out to the next RECEIPT out, and before it the time of which nothing
  got out any more, or only behind a message that ended the connection (`heard`). Asked where that
  is 1 s and more. Without that time no client could hold it: of a server that is two seconds behind
  when its connection breaks, what it told for two seconds is lost while it had a subscription. Of
  several seeds together the gaps may be 1.5 times as long as no server had a subscription at all,
  and no more; a single run may have little of that, so its ratio is only told.

With `--never-both-down` the servers are in trouble by turns, and the stream has no message that
ends the connections of both. Then there must be no gap.

It ends with faults off, markers from every server handled, and the listener stopped. Then every gap
is closed, and `stats().gaps` tells the same as the notices did (it keeps the last 1000).
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import structlog

from bench.audit import END, Account, Audit, Evidence, Span, Spans, heard
from bench.far_side import Marks, far_side
from bench.stage import Books
from bench.trial import HOLD, Trial
from bench.witness import Seen
from cti_listener import Connected, Disconnected, Gap, Listener
from cti_listener.gaps import KEPT
from cti_listener.simulator import uncovered

RATIO = 1.5
"""How much longer the gaps may be than there was no subscription."""

AROUND = timedelta(seconds=3)
"""So much of what befell connections is told with what is wrong."""

ENOUGH = 1.0
"""For so long, in seconds, there must have been none for the ratio to say something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a trial."""

    trial: Trial
    account: Account
    books: Books
    reasons: Counter[str]
    gap_seconds: float
    uncovered_seconds: float
    unheard_seconds: float
    seconds: float
    notices: Sequence[Connected | Disconnected | Gap]
    problems: list[str] = field(default_factory=list)

    @property
    def broken(self) -> list[str]:
        """Say which promises are broken."""
        account, found = self.account, list(self.problems)
        if account.wrong:
            found.append("an event is unaccounted for, repeated, out of order, late or unknown")
        if self.trial.feeds == 1 and account.late:
            found.append("an event is late with one feed")
        if self.trial.never_both_down and self.uncovered_seconds:
            found.append("the bench had both servers down at once")
        elif self.trial.never_both_down and (account.in_gaps or self.gap_seconds):
            found.append("there is a gap though one server was always well")
        if self.gap_seconds > RATIO * max(self.unheard_seconds, ENOUGH):
            found.append(f"gaps are more than {RATIO} times as long as no subscription lived")
        return found

    @property
    def figures(self) -> str:
        """Return what was counted."""
        one = self.account
        names = ("sent", "handled", "in_gaps", "repeated", "out_of_order", "late", "unaccounted")
        rare = [
            name
            for name in ("before", "early_late", "idly_late", "disorderly_late", "unknown")
            if getattr(one, name)
        ]
        return "  ".join(
            f"{name.replace('_', ' ')} {getattr(one, name):,}" for name in (*names, *rare)
        )

    @property
    def times(self) -> str:
        """Return how long the gaps were, against what they should be."""
        return _times(*self.seconds_of_gaps)

    @property
    def seconds_of_gaps(self) -> tuple[float, float, float]:
        """How long the gaps were, no subscription lived, and nothing could be heard."""
        return self.gap_seconds, self.uncovered_seconds, self.unheard_seconds

    def __str__(self) -> str:
        stats = self.books.stats
        sums = {
            name: sum(getattr(one, name) for one in stats)
            for name in ("connections", "dropped", "frozen", "outages", "turned_away", "rejected",
                         "slow", "malformed", "lost")
        }  # fmt: skip
        told = Counter(one.repeat for one in self.books.told)
        heard = f"{told[False]:,} events and {told[True]:,} repeats told in {self.seconds:.1f} s"
        lines = [
            f"{self.trial}: {heard}",
            self.figures,
            self.times,
            ", ".join(f"{count} gaps {reason}" for reason, count in sorted(self.reasons.items())),
            ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in sums.items()),
            *(f"BROKEN: {one}" for one in self.broken),
            *self.account.findings,
            *(f"{at:%H:%M:%S.%f} {what}" for at, what in sorted(self._meanwhile())),
        ]
        return "\n    ".join(lines)

    def _meanwhile(self) -> Iterator[tuple[datetime, str]]:
        """Tell what befell connections when the first of what is wrong was told."""
        if not self.account.found:
            return
        since, until = self.account.found[0] - AROUND, self.account.found[0] + AROUND
        for notice in self.notices:
            if since <= notice.at <= until:
                yield notice.at, _shown(notice)
        for server, lives in zip("ab", self.books.lives, strict=False):
            for life in lives:
                if life.since <= until and (life.until or END) >= since:
                    yield life.since, f"{_shown(life)} of server {server}"


async def run(trial: Trial) -> Outcome:
    """Play, listen, and settle accounts."""
    began = time.perf_counter()
    async with far_side(trial.play()) as far:
        listener = Listener(trial.endpoints(far.urls), **trial.options())
        seen, marks = Seen(listener), Marks(listener)
        async with listener:
            await far.played()
            await far.calm()
            await marks.all_come(far)
            if trial.feeds > 1:  # by one feed; what the other still brings, or holds, is behind it
                await asyncio.sleep(2 * HOLD)
            ended = datetime.now(UTC)
            left = await listener.stop()
        books = await far.books()
    assert seen.began is not None
    told = [one for one in seen.gaps if one.reason != "server_restarted" and one.until != one.since]
    gaps = Spans(Span(gap.since, gap.until or END) for gap in told)
    alone = uncovered(chain(*books.lives), seen.began, ended)
    unheard = uncovered(heard(books), seen.began, ended)
    evidence = Evidence(
        told=books.told,
        copies=books.copies,
        handled=seen.handled,
        began=seen.began,
        gaps=gaps,
        outages=seen.outages,
        hold=HOLD,
        uncovered=Spans(Span(since, until) for since, until in alone),
    )
    return Outcome(
        trial=trial,
        account=Audit(evidence).account(),
        books=books,
        reasons=Counter(gap.reason for gap in seen.gaps),
        gap_seconds=gaps.seconds(Span(seen.began, ended)),
        uncovered_seconds=_seconds(alone),
        unheard_seconds=_seconds(unheard),
        seconds=time.perf_counter() - began,
        notices=seen.notices,
        problems=[
            *_differences(seen.gaps, listener.stats().gaps),
            *([f"{len(left)} lanes were left unhandled"] if left else []),
        ],
    )


def _shown(one: Any) -> str:
    """Return what is set of it, times without the day."""
    said = {each.name: getattr(one, each.name) for each in fields(one)}
    parts = (
        f"{name}={value:%H:%M:%S.%f}" if isinstance(value, datetime) else f"{name}={value}"
        for name, value in said.items()
        if value
    )
    return " ".join((type(one).__name__, *parts))


def _times(told: float, *due: float) -> str:
    """Return how long gaps were, against what they should be."""
    without, unheard = (
        f"{seconds:.2f} s ({told / seconds:.2f})" if seconds else "0 s" for seconds in due
    )
    return f"gaps {told:.2f} s, without a subscription {without}, nothing heard of {unheard}"


def _seconds(spans: Iterable[tuple[datetime, datetime]]) -> float:
    return sum((until - since).total_seconds() for since, until in spans)


def _differences(told: Sequence[Gap], kept: Sequence[Gap]) -> list[str]:
    """Say where the notices and `stats().gaps` differ."""
    notices = [_essence(gap) for gap in told][-KEPT:]
    ledger = [_essence(gap) for gap in kept][-KEPT:]
    still_open = [gap for gap in kept if gap.until is None]
    found = [f"a gap is open at the end: {gap}" for gap in still_open]
    if notices != ledger:
        odd = set(notices) ^ set(ledger)
        found.append(f"notices and stats().gaps differ in {len(odd)}: {sorted(odd)[:3]}")
    return found


def _essence(gap: Gap) -> tuple[Any, ...]:
    return gap.id, gap.since, gap.until, gap.reason, gap.destination


def main() -> None:
    """Run the trials and print what came of them; exit 1 if a promise is broken."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1, help="so many in a row, a line each")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--feeds", type=int, choices=(1, 2), help="default: one, then two")
    parser.add_argument("--never-both-down", action="store_true", help="two feeds, one always well")
    parser.add_argument("--devices", type=int, default=500)
    parser.add_argument("--rate", type=float, default=250.0, help="events a second of the centre")
    parser.add_argument("--speed", type=float, default=10.0, help="its seconds in one of ours")
    parser.add_argument("--haste", type=float, default=1.0, help="how often troubles come")
    parser.add_argument("--wire", choices=("stomp", "json", "both"), default="both")
    parser.add_argument("--journal", type=Path, help="one a run, with its seed and feeds as suffix")
    parser.add_argument("--verbose", action="store_true", help="show the listener's log")
    given = vars(parser.parse_args())
    seed, seeds, feeds = given.pop("seed"), given.pop("seeds"), given.pop("feeds")
    if not given.pop("verbose"):
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    chosen = (feeds,) if feeds else (2,) if given["never_both_down"] else (1, 2)
    broken = 0
    sums = {count: [0.0, 0.0, 0.0] for count in chosen}
    for number in range(seed, seed + seeds):
        for count in chosen:
            outcome = asyncio.run(run(Trial(seed=number, feeds=count, **given)))
            sums[count] = [*map(sum, zip(sums[count], outcome.seconds_of_gaps, strict=True))]
            brief = seeds > 1 and not outcome.broken
            line = f"{outcome.trial}: {outcome.figures}  {outcome.times}  {outcome.seconds:.0f} s"
            print(line if brief else outcome, flush=True)
            broken += bool(outcome.broken)
    for count, (gaps, without, unheard) in sums.items() if seeds > 1 else ():
        too_long = gaps > RATIO * max(without, ENOUGH)
        verdict = f"  BROKEN: more than {RATIO} times as long" if too_long else ""
        print(f"{seeds} seeds, feeds {count}: {_times(gaps, without, unheard)}{verdict}")
        broken += too_long
    if broken:
        sys.exit(f"a promise was broken {broken} times in {seeds * len(chosen)} runs")


if __name__ == "__main__":
    main()
