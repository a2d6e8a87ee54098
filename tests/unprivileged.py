"""A user whom the system refuses something, also where the tests run as root."""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401 - else imported later, by whom may not read it
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NOBODY = 65534


@contextmanager
def unprivileged() -> Iterator[Path]:
    """Be a user who is not root until the end of the block; yield a directory of this user's."""
    with tempfile.TemporaryDirectory() as name, _nobody(name):
        yield Path(name)


@contextmanager
def _nobody(directory: str) -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    os.chown(directory, _NOBODY, _NOBODY)
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Let nobody write to a directory until the end of the block."""
    directory.chmod(0o500)
    try:
        yield
    finally:
        directory.chmod(0o700)
