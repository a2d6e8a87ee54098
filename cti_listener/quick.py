"""What is answered at once, without the command line's library.

`--version`, `healthcheck`, and `--help`, which was laid out beforehand (`help.txt`). A container's
keeper runs the check every few seconds, on cores that are the listener's. `__main__` and `cli` ask
here first; what is not plainly one of these is left to `cli`, mistakes included.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cti_listener import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

_OK: Final = 0
_UNWELL: Final = 1
_OUTPUT: Final = 74

UNWRITABLE: Final = frozenset({errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG})
"""What the system says of an output that takes nothing more."""

HELP: Final = Path(__file__).with_name("help.txt")
"""The help as `cli` lays it out on a terminal of so many columns; written by `make help-page`."""

COLUMNS: Final = 80

_LAYOUT: Final = ("COLUMNS", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "UNICODE_VERSION")
"""What of the environment may change how the help looks."""

_FLAGS: Final = ("--file", "--config", "--max-age")


def answer(tokens: Sequence[str]) -> int | None:
    """Answer a command line; return its exit code, or None where the answer is not ours to give."""
    open_standard_streams()
    if tokens == ["--version"]:
        return printed(__version__)
    if tokens in (["--help"], ["-h"]) and (page := _help_page()) is not None:
        return printed(page)
    if tokens[:1] == ["healthcheck"]:
        flags = _read(tokens[1:])
        if flags is not None:
            return healthcheck(*flags)
    return None


def _help_page() -> str | None:
    """Return the help; None where it has to be laid out anew: in less room, or another look."""
    if any(name in os.environ for name in _LAYOUT) or sys.stdout.encoding.lower() != "utf-8":
        return None
    if _columns() < COLUMNS:
        return None
    try:
        page = HELP.read_text(encoding="utf-8").removesuffix("\n")
    except OSError:
        return None
    if sys.stdout.isatty():
        return None if os.environ.get("TERM", "dumb") in ("dumb", "unknown") else page
    plain, *styled = page.split("\x1b[")
    return plain + "".join(text.partition("m")[2] for text in styled)


def _columns() -> int:
    """Return how much room there is on the terminal, though a pager may stand between."""
    for stream in range(3):
        try:
            return os.get_terminal_size(stream).columns or COLUMNS
        except OSError:
            continue
    return COLUMNS


def _read(tokens: Sequence[str]) -> tuple[Path | None, Path | None, float | None] | None:
    """Read the flags of `healthcheck`; None: they are not plainly right."""
    given: dict[str, str] = {}
    rest = iter(tokens)
    for token in rest:
        name, equals, value = token.partition("=")
        text = value if equals else next(rest, "")
        if name not in _FLAGS or name in given or not text or text.startswith("-"):
            return None
        given[name] = text
    file, config, age = (given.get(name) for name in _FLAGS)
    max_age = None
    if age is not None:
        try:
            max_age = float(age)
        except ValueError:
            return None
    return Path(file) if file else None, Path(config) if config else None, max_age


def healthcheck(file: Path | None, config: Path | None, max_age: float | None) -> int:
    """Tell by the exit code whether the listener is well, and on stderr why it is not.

    Args:
        file: Its health file; None: where the environment or the settings file says.
        config: The settings file; None: where the environment says.
        max_age: How many seconds the last sign of life may lie back; None: the default.
    """
    from cti_listener.ops import health  # noqa: PLC0415 - not for --version

    try:
        named = file or health.named_file(config, os.environ)
    except OSError as error:
        say(f"cannot read the settings file {error.filename}: {error.strerror}")
        return _UNWELL
    why = health.ailment(named, os.environ, health.MAX_AGE if max_age is None else max_age)
    if why is not None:
        say(why)
    return _OK if why is None else _UNWELL


def open_standard_streams() -> None:
    """See that 0, 1 and 2 are open: a socket that got such a number would be printed to."""
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number free: this one
            setattr(sys, name, os.fdopen(fd, "w" if fd else "r", closefd=False))


def printed(text: str) -> int:
    """Print a line; return the exit code, for stdout may be full, or nobody reads it."""
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except OSError as error:
        return unprintable(error)
    return _OK


def unprintable(error: OSError) -> int:
    """Say that stdout takes nothing, unless its reader has just left; return the exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still unwritten goes there at the exit
    if isinstance(error, BrokenPipeError):  # `cti-listen --help | head -1`
        return _OK
    say(f"cannot write the output: {error.strerror}")
    return _OUTPUT


def say(text: str) -> None:
    """Tell the user something, on stderr."""
    sys.stderr.write("".join(f"cti-listen: {line}\n" for line in text.splitlines()))
    sys.stderr.flush()
