"""`cti-listen journal`: look into a journal and put it in order, while a listener may be running.

`cti_listener.cli` mounts `journal_app`. Each command answers on stdout, readable or as JSON, one
object a line; a mistake is a line on stderr and an exit code.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

from cyclopts import App, Parameter

from cti_listener.errors import ConfigurationError, JournalError
from cti_listener.journal import printing, visits
from cti_listener.journal import purge as purging
from cti_listener.journal.base import EXIT_CODE, DamagedError
from cti_listener.journal.lock import in_use
from cti_listener.journal.rewriting import temporary_beside
from cti_listener.journal.visits import Odd

_OK: Final = 0
_NOT_THERE: Final = 1
_USAGE: Final = 2

_MOST: Final = (1 << 63) - 1
"""SQLite knows no larger number."""

Json = Annotated[bool, Parameter(name="--json", negative="")]
Only = Annotated[str | None, Parameter(negative="")]
Flag = Annotated[bool, Parameter(negative="")]

journal_app = App(
    name="journal",
    help="Look into a journal and put it in order, also while a listener runs.",
    help_epilogue="",
    result_action="return_value",
    print_error=False,
    exit_on_error=False,
    suppress_keyboard_interrupt=False,
)


@journal_app.command
def stats(path: Path, /, *, json: Json = False) -> int:
    """Tell how a journal stands: events, handlers and what they have to do, gaps, size."""

    def tell(db: sqlite3.Connection, odd: Odd) -> int:
        facts = visits.summary(db, path, odd)
        return printing.objects([facts]) if json else printing.lines(printing.summary(facts))

    return _visit(path, tell)


@journal_app.command(name="list")
def list_(
    path: Path,
    /,
    *,
    device: Only = None,
    call: Only = None,
    handler: Only = None,
    undone: Flag = False,
    limit: int = 20,
    json: Json = False,
) -> int:
    """List the newest events, oldest first, and who is done with them.

    Args:
        path: The journal.
        device: Only this device's, by its full id.
        call: Only this call's.
        handler: Only those owed to this handler.
        undone: Only those that a handler has yet to do.
        limit: How many at most; 0: all.
        json: One object a line, the event as received among it.
    """
    if not 0 <= limit <= _MOST:
        return _say(f"--limit: name how many, up to {_MOST}, or 0 for all", _USAGE)

    def tell(db: sqlite3.Connection, odd: Odd) -> int:
        found = visits.events(
            db,
            handler=handler,
            device=device,
            call=call,
            undone=undone,
            limit=limit,
            odd=odd,
        )
        return (
            printing.objects(found)
            if json
            else printing.table(printing.EVENTS, map(printing.event_row, found))
        )

    return _visit(path, tell)


@journal_app.command
def show(path: Path, seq: int, /, *, json: Json = False) -> int:
    """Show one event whole, by its number in the list."""

    def tell(db: sqlite3.Connection, odd: Odd) -> int:
        facts = visits.event(db, seq, odd) if abs(seq) <= _MOST else None
        if facts is None:
            return _say(f"{path}: there is no event {seq}", _NOT_THERE)
        return printing.objects([facts]) if json else printing.lines(printing.whole(facts))

    return _visit(path, tell)


@journal_app.command
def gaps(path: Path, /, *, json: Json = False) -> int:
    """List every gap: when events may have been missed, and why."""

    def tell(db: sqlite3.Connection, odd: Odd) -> int:
        found = visits.gaps(db, odd)
        return (
            printing.objects(found)
            if json
            else printing.table(printing.GAPS, map(printing.gap_row, found))
        )

    return _visit(path, tell)


@journal_app.command
def dead(path: Path, number: int | None = None, /, *, json: Json = False) -> int:
    """List what handlers failed on, or show one with its event and traceback."""

    def tell(db: sqlite3.Connection, odd: Odd) -> int:
        found = list(visits.dead(db, () if number is None else (number,), odd))
        if number is not None and not found:
            return _say(f"{path}: there is no dead letter {number}", _NOT_THERE)
        if json:
            return printing.objects(found)
        if number is not None:
            return printing.lines(printing.whole(found[0]))
        return printing.table(printing.DEAD, map(printing.letter_row, found))

    return _visit(path, tell)


@journal_app.command
def retry(
    path: Path,
    /,
    *numbers: int,
    handler: Only = None,
    all: Flag = False,  # noqa: A002 - the flag's name
    json: Json = False,
) -> int:
    """Have dead letters tried once more, each behind what its device waits for.

    Args:
        path: The journal.
        numbers: Which, by their numbers in `journal dead`.
        handler: All of this handler.
        all: All there are.
        json: The answer as JSON.
    """
    if sum(map(bool, (numbers, handler, all))) != 1:
        return _say("name dead letters by number, or --handler NAME, or --all", _USAGE)

    def tell(db: sqlite3.Connection, _odd: Odd) -> int:
        count = visits.retry(db, numbers=numbers, handler=handler)
        now = in_use(path)
        if json:
            return printing.objects([{"retried": count, "inUse": now}])
        when = "by the listener that runs" if now else "at the next start"
        return printing.lines(
            [f"{printing.count(count, 'dead letter')} to be tried once more, {when}"]
        )

    return _visit(path, tell, write=True)


@journal_app.command
def forget(path: Path, name: str, /, *, json: Json = False) -> int:
    """Drop a handler that is no more, with its unfinished events and dead letters."""

    def tell(db: sqlite3.Connection, odd: Odd) -> int:
        facts = visits.forget(db, path, name, odd)
        if json:
            return printing.objects([facts])
        what = f"{printing.count(facts['unfinished'], 'unfinished event')}, "
        what += printing.count(facts["dead"], "dead letter")
        return printing.lines([f"forgot {printing.plain(name)}: {what}"])

    return _visit(path, tell, write=True)


@journal_app.command
def purge(
    path: Path,
    /,
    *,
    number: Annotated[str, Parameter(negative="")],
    dry_run: Flag = False,
    json: Json = False,
) -> int:
    """Erase a person's calls: every event that names the number or is of a call it made or took.

    Args:
        path: The journal.
        number: As 13800138000 or 138-0013-8000, with any domain, or as 13800138000@zhen04.cc.
        dry_run: Only count.
        json: The answer as JSON.
    """
    if purging.plain_number(number) is None:
        return _say(
            f"--number: {number!r} is no number; write one as 13800138000 or +8613800138000,"
            " or an id whole, as 8002@zhen04.cc",
            _USAGE,
        )

    def tell(db: sqlite3.Connection, odd: Odd) -> int:
        with temporary_beside(db, path, os.environ):
            purged = purging.purge(db, path, number.strip(), dry=dry_run, odd=odd)
        if json:
            printing.objects([asdict(purged)])
        else:
            printing.lines(printing.purged_lines(purged, dry=dry_run))
        if purged.problem is not None:
            return _say(str(JournalError(path, purged.problem)), EXIT_CODE)
        return _OK if dry_run or purged.overwritten else _NOT_THERE

    return _visit(path, tell, write=True)


# Private


def _visit(
    path: Path, tell: Callable[[sqlite3.Connection, Odd], int], *, write: bool = False
) -> int:
    """Answer a question; a foreseeable failure becomes a line and an exit code.

    So does each row that cannot be read; the rest is told.
    """
    damaged: list[DamagedError] = []
    try:
        with visits.visit(path, write=write) as db:
            code = tell(db, damaged.append)
    except JournalError as error:
        return _say(str(error), EXIT_CODE)
    except ConfigurationError as error:
        return _say(str(error), _USAGE)
    except UnicodeEncodeError as error:  # a name that no journal has
        return _say(f"{path}: there is nothing of that name ({error})", _USAGE)
    for one in dict.fromkeys(map(str, damaged)):
        code = _say(f"journal {path}: is damaged: {one}", EXIT_CODE)
    return code


def _say(text: str, code: int) -> int:
    sys.stderr.write(f"cti-listen: {printing.plain(text)}\n")
    return code
