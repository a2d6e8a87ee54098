"""How the answers of `cti-listen journal` look: lines and tables for people, JSON for programs.

What came from a server is printed such that it cannot steer a terminal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

from cti_listener.journal.purge import Purged
from cti_listener.journal.visits import Facts

EVENTS: Final = ("SEQ", "RECEIVED", "DEVICE", "EVENT", "CALL", "HANDLERS")
GAPS: Final = ("ID", "SINCE", "UNTIL", "REASON", "RECOVERED", "DEVICES")
DEAD: Final = ("ID", "FAILED", "HANDLER", "SEQ", "DEVICE", "EVENT", "ERROR")


def summary(facts: Facts) -> list[str]:
    """Tell how the journal stands."""
    size = f"{facts['bytes'] / (1 << 20):,.1f} MiB"
    lines = [
        f"{facts['path']}: {'in use by a listener' if facts['inUse'] else 'not in use'}, {size}",
        f"{count(facts['events'], 'event')} since {facts['oldest'] or '-'}",
        f"last sign of life {facts['lastSign'] or '-'}",
        f"{count(facts['gaps'], 'gap')}, {facts['openGaps']} open",
    ]
    for one in facts["handlers"]:
        line = f"handler {one['name']}: {one['unfinished']:,} unfinished"
        if one["oldestUnfinished"]:
            line += f" since {one['oldestUnfinished']}"
        line += f", {one['dead']:,} dead"
        lines.append(line if one["registered"] else f"{line}; not registered any more")
    return lines


def event_row(facts: Facts) -> Sequence[object]:
    """Return a row of `EVENTS`."""
    states = " ".join(f"{name}:{state}" for name, state in facts["handlers"].items())
    start = (facts["seq"], facts["receivedAt"], facts["device"])
    return (*start, _name(facts["event"]), facts["callId"], states)


def gap_row(facts: Facts) -> Sequence[object]:
    """Return a row of `GAPS`."""
    devices = ",".join(facts["devices"]) or "all"
    until = facts["until"] or "open"
    return (facts["id"], facts["since"], until, facts["reason"], facts["recovered"], devices)


def letter_row(facts: Facts) -> Sequence[object]:
    """Return a row of `DEAD`."""
    said = facts["error"].strip().splitlines() or [""]
    error = f"(to be retried) {said[-1]}" if facts["toBeRetried"] else said[-1]
    start = (facts["id"], facts["failedAt"], facts["handler"], facts["seq"])
    return (*start, facts["device"], _name(facts["event"]), error)


def whole(facts: Facts) -> list[str]:
    """Tell everything, the event and the traceback last."""
    long = [name for name in ("event", "error") if name in facts]
    lines = [f"{name}: {_text(value)}" for name, value in facts.items() if name not in long]
    if "event" in long:
        lines += ["event:", *json.dumps(facts["event"], ensure_ascii=False, indent=2).splitlines()]
    if "error" in long:
        lines += ["error:", *facts["error"].splitlines()]
    return lines


def purged_lines(purged: Purged, *, dry: bool) -> list[str]:
    """Tell what was erased, and what is left to do by hand."""
    what = f"{count(purged.events, 'event')} of {count(purged.calls, 'call')}"
    what += f", {count(purged.dead, 'dead letter')}, {count(purged.gaps, 'gap')} named them"
    lines = [f"{purged.number}: {'would erase' if dry else 'erased'} {what}"]
    if purged.problem is not None:
        lines.append(
            "traces may be left in the file, which could not be written anew: purge once more when"
            " it can be"
        )
    elif not dry and not purged.overwritten:
        lines.append(
            "traces are left in the file, which is in use: purge once more when no listener runs"
        )
    if purged.events and not dry:
        lines.append(
            "if the server repeats an erased event after a restart of the listener, it is taken for"
            " new, and kept again"
        )
    lines += [f"the copy {one} is not touched: delete it" for one in purged.copies]
    return lines


def count(number: int, what: str) -> str:
    """Return `1 gap`, `2 gaps`."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _name(event: Facts | None) -> object:
    return None if event is None else event.get("eventName")


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {one}" for name, one in value.items()) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


def plain(text: str) -> str:
    """Keep what a server sent from steering the terminal."""
    return "".join(one if one.isprintable() else f"\\x{ord(one):02x}" for one in text)


def table(head: Sequence[str], found: Iterable[Sequence[object]]) -> int:
    """Print rows under their heads; return exit code 0, as the two below."""
    cells = [[plain(_text(one)) for one in row] for row in found]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    texts = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in (head, *cells))
    return lines(texts if cells else ["none"])


def lines(texts: Iterable[str]) -> int:
    """Print lines."""
    for line in texts:
        encoding = sys.stdout.encoding or "utf-8"
        text = plain(line).encode(encoding, "backslashreplace").decode(encoding)
        sys.stdout.write(f"{text}\n")
    return 0


def objects(found: Iterable[Any]) -> int:
    """Print each as JSON, one a line."""
    for one in found:
        sys.stdout.write(json.dumps(one) + "\n")
    return 0
