"""The daemon's sign of life: a small file, written while its event loop turns.

`app` writes it every two seconds; `cti-listen healthcheck` reads it, and is run often, so this room
imports next to nothing. It proves that the loop turns, never that the server is there: a restart by
the container's keeper mends the first, not the second.

Where none is named, each process has its own file in a directory of its user's, so that several
listeners of one user do not pass for each other, and the check needs no setting.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import threading
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

INTERVAL: Final = 2.0
"""How often it is written, in seconds."""

MAX_AGE: Final = 15.0
"""A sign older than this, in seconds, says that the loop hangs."""

_MOST: Final = 1 << 20
"""No more than so many bytes of a file are read: it may be a device without an end."""


class HealthFile:
    """The sign of life of this process.

    Attributes:
        path: Where it is written.
    """

    def __init__(self, path: Path) -> None:
        """Write to `path`, which the next `beat` replaces."""
        self.path = path
        self._lock = threading.Lock()  # `app` writes in a thread, and may be told to end meanwhile
        self._removed = False
        self._draft = path.with_name(f".{path.name}.{os.getpid():07}")  # all equally long

    def beat(self, facts: Mapping[str, object]) -> None:
        """Write a new sign; who reads finds the old one or the new one, whole.

        Raises:
            OSError: It cannot be written.
        """
        sign = {"pid": os.getpid(), "monotonic": time.monotonic(), **facts}
        with self._lock:
            if self._removed:
                return
            # The draft is made new: one that lies there, link or not, is not ours to follow.
            self._draft.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with os.fdopen(os.open(self._draft, flags, 0o600), "w", encoding="utf-8") as file:
                json.dump(sign, file)
            self._draft.replace(self.path)

    def unwritable(self) -> str | None:
        """Return why `beat` would fail; None if nothing speaks for it."""
        from cti_listener import places  # noqa: PLC0415 - not for `healthcheck`

        try:
            places.see_makeable(self._draft)
        except OSError as error:
            return f"cannot write {self.path}: {error.strerror}"
        return None

    def remove(self) -> None:
        """Leave nothing behind, now or later; a file that is not ours by now stays."""
        self._removed = True
        if not self._lock.acquire(timeout=1.0):
            return  # a disk that hangs, which must not keep us as well
        with contextlib.suppress(OSError, ValueError):
            if _sign_in(self.path)["pid"] == os.getpid():
                self.path.unlink()
        with contextlib.suppress(OSError):
            self._draft.unlink()
        self._lock.release()


def unfit(path: Path) -> str | None:
    """Return why no sign of life may be written to a path; None if it may.

    What is there is replaced, so it must be an older sign, or empty.
    """
    try:
        if not path.parent.is_dir():
            return f"there is no directory {path.parent}; make it first{_maker(path.parent)}"
        with contextlib.suppress(FileNotFoundError):
            found = path.stat()
            if not stat.S_ISREG(found.st_mode):
                return f"{path} is no file; name one"
            if found.st_size:
                _sign_in(path)
    except PermissionError as error:
        return f"cannot read {path}: {error.strerror}{_whose(path)}"
    except OSError as error:
        return f"cannot read {path}: {error.strerror}"
    except ValueError:
        return f"{path} is not a listener's health file; it is left as it is, name another file"
    return HealthFile(path).unwritable()


def _maker(directory: Path) -> str:
    """Tell of who makes a directory in /run, which is empty after each start of the machine."""
    by_systemd = directory.is_relative_to("/run")
    return ", or leave it to RuntimeDirectory= of a systemd unit" if by_systemd else ""


def _whose(path: Path) -> str:
    """Say what to do about another user's file, which may be a sign of life or anything else."""
    try:
        owner = path.stat().st_uid
        if owner == os.geteuid():
            return ""
        name = path.owner()
    except OSError:
        return ""
    except KeyError:  # a user without a name
        name = f"user {owner}"
    return f"; it is {name}'s, delete it if a listener left it there"


def own_file(environ: Mapping[str, str]) -> HealthFile:
    """Return this process's file where none was named.

    Raises:
        OSError: There is no directory for it that is safely ours.
    """
    refused: OSError | None = None
    for directory in _directories(environ):
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
            _refuse_foreign(directory)
            file = HealthFile(directory / f"{os.getpid()}.json")
            file.beat({})
        except OSError as error:
            refused = refused or error
        else:
            return file
    raise refused or FileNotFoundError("no directory")


def named_file(config: Path | None, environ: Mapping[str, str]) -> Path | None:
    """Find the file named in the settings as the listener does, without what reading them takes.

    Args:
        config: The settings file; None: the one the environment names.
        environ: The environment.

    Raises:
        OSError: The settings file cannot be read.
    """
    if named := environ.get("CTI_HEALTH_FILE"):
        return Path(named)
    if given := config or environ.get("CTI_CONFIG"):
        with contextlib.suppress(ValueError, RuntimeError):  # or too deep, or in nobody's home
            text = _read(Path(given).expanduser())
            if isinstance(named := tomllib.loads(text).get("health_file"), str):
                return Path(named)
    return None


def ailment(named: Path | None, environ: Mapping[str, str], max_age: float = MAX_AGE) -> str | None:
    """Return why the listener is not well; None if it is.

    Args:
        named: The health file named in the settings; None: any listener of this user.
        environ: The environment, which tells the directories.
        max_age: The oldest sign of life that counts, in seconds.
    """
    if named is not None:
        try:
            return _found_in(named, max_age)
        except FileNotFoundError:
            return f"{named} is missing: the listener is not running, or not yet"
    found: list[str | None] = []
    for path in _own_signs(environ):
        with contextlib.suppress(FileNotFoundError):  # it ended meanwhile, and took its sign along
            found.append(_found_in(path, max_age))
    if not found:
        return "no listener of this user is running; is it another user's, or CTI_HEALTH_FILE set?"
    return next(filter(None, found), None)


def _directories(environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield where a user's files may be; /dev/shm is left where a container is read-only."""
    name = f"cti-listener-{os.getuid()}"
    places = environ.get("XDG_RUNTIME_DIR"), environ.get("TMPDIR"), "/tmp", "/dev/shm"  # noqa: S108 - what is made there is checked to be ours
    yield from (Path(place, name) for place in places if place and place.startswith("/"))


def _refuse_foreign(directory: Path) -> None:
    """Refuse a directory that another user made to lead us astray, or can change."""
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        msg = f"{directory} is not this user's own directory"
        raise PermissionError(msg)


def _own_signs(environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield the files of living processes; what a killed one left is taken away."""
    for directory in _directories(environ):
        with contextlib.suppress(OSError):
            _refuse_foreign(directory)
            for path in directory.glob("*.json"):
                if _lives(path.stem):
                    yield path
                else:
                    path.unlink(missing_ok=True)


def _lives(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:
        pass  # lives, as another user
    return True


def _found_in(path: Path, max_age: float) -> str | None:
    """Return what a sign of life says against its process.

    Raises:
        FileNotFoundError: There is none.
    """
    try:
        sign = _sign_in(path)
        # The monotonic clock is the machine's: the same in every process, and no setting moves it.
        age = time.monotonic() - float(sign["monotonic"])
        pid = sign["pid"]
    except FileNotFoundError:
        raise
    except OSError as error:
        return f"cannot read {path}: {error.strerror}"
    except (ValueError, TypeError, OverflowError):
        return f"{path} is not a listener's health file"
    if not 0 <= age <= max_age:
        when = f"{age:.0f} s ago" if age >= 0 else "before the machine was started"
        return f"the event loop of process {pid} last turned {when}"
    return None


def _sign_in(path: Path) -> dict[str, Any]:
    """Read a sign of life.

    Raises:
        OSError: It cannot be read.
        ValueError: It is none.
    """
    try:
        sign = json.loads(_read(path))
    except RecursionError:
        sign = None
    if not isinstance(sign, dict) or not {"pid", "monotonic"} <= sign.keys():
        msg = "is no sign of life"
        raise ValueError(msg)
    return sign


def _read(path: Path) -> str:
    """Read a small file, and wait for nobody to write it.

    Raises:
        OSError: It cannot be read.
        ValueError: It is large, or not UTF-8.
    """

    def at_once(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NONBLOCK)

    with open(path, "rb", opener=at_once) as file:
        text = file.read(_MOST + 1) or b""  # None: a pipe to which nothing was written yet
    if len(text) > _MOST:
        msg = f"{path} is larger than {_MOST} bytes"
        raise ValueError(msg)
    return text.decode("utf-8")
