"""How a run ends: exit codes, what is said with each, and the signals that ask for it.

Called by `app` and `cli`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from cti_listener.errors import (
    CertificateError,
    ConfigurationError,
    JournalError,
    RefusedError,
    UnreachableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

_ASKING: Final = (signal.SIGTERM, signal.SIGINT)

PATIENCE: Final = 0.5
"""How long threads that do nothing any more may take to end, in seconds."""


class ExitCode(IntEnum):
    """How a run ended; what sysexits.h has a number for has that number."""

    OK = 0
    UNWELL = 1
    USAGE = 2
    UNREACHABLE = 69
    INTERNAL = 70
    OUTPUT = 74
    """Also the journal: what must be written cannot be."""
    UNDRAINED = 75
    REFUSED = 77
    CONFIGURATION = 78


def verdict(failure: Exception) -> tuple[ExitCode, str]:
    """Return the exit code for what ended a run, and what to tell the user to do."""
    match failure:
        case ConfigurationError():
            return ExitCode.CONFIGURATION, str(failure)
        case JournalError():
            return ExitCode.OUTPUT, str(failure)
        case CertificateError():
            return ExitCode.REFUSED, str(failure)
        case RefusedError():
            advice = "check the URL, and who we are to it (CTI_LOGIN, CTI_PASSCODE, CTI_TOKEN)"
            return ExitCode.REFUSED, f"refused by {failure}; {advice}"
        case UnreachableError():
            return ExitCode.UNREACHABLE, str(failure)
        case _:
            return ExitCode.INTERNAL, f"{type(failure).__name__}: {failure}; this is a bug"


@contextmanager
def signals(
    asked: Callable[[str], None],
    at_once: Callable[[], None],
    reload: Callable[[], None] | None = None,
) -> Iterator[None]:
    """Take SIGTERM and SIGINT within the block, and SIGHUP if somebody wants to hear of it.

    The first one asks to stop; the second leaves at once, even if the event loop hangs. A handler
    of our own does that, since the default one does nothing in a container's first process.

    Args:
        asked: Called in the event loop with the signal's name.
        at_once: Called before leaving at once.
        reload: Called in the event loop on SIGHUP, which then ends nothing.
    """
    loop = asyncio.get_running_loop()
    taken = _ASKING if reload is None else (*_ASKING, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in taken}

    def leave(number: int, _frame: FrameType | None) -> None:
        at_once()
        os._exit(128 + number)

    def ask(number: signal.Signals) -> None:
        for one in _ASKING:
            loop.remove_signal_handler(one)
            signal.signal(one, leave)
        asked(number.name)

    for number in _ASKING:
        loop.add_signal_handler(number, ask, number)
    if reload is not None:
        loop.add_signal_handler(signal.SIGHUP, reload)
    try:
        yield
    finally:
        for number in taken:
            loop.remove_signal_handler(number)
            signal.signal(number, before[number])


def leave_if_held_up(code: int) -> None:
    """Leave at once, with this code, if a thread hangs: the interpreter would wait for it for ever.

    A disk that hangs holds its threads, and no call to the system can be taken back. To be called
    when all that can be closed is: nothing more is done then.
    """
    until = time.monotonic() + PATIENCE
    for thread in threading.enumerate():
        if thread.daemon or thread is threading.current_thread():
            continue
        thread.join(max(0.0, until - time.monotonic()))
        if thread.is_alive():
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    stream.flush()
            os._exit(code)
