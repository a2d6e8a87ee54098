"""The sink `jsonl:PATH`: JSON lines in a file, in the same form and order as on standard output.

A line is written by a thread of the sink's own, one at a time: a disk that hangs holds up this sink
and nobody else. What cannot be written (a full disk, a directory that is gone) is tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cti_listener.errors import ConfigurationError
from cti_listener.ops.output import json_line
from cti_listener.router import Happening, Order
from cti_listener.sinks.base import SinkOptions
from cti_listener.sinks.line_file import LineFile


class JsonlSink:
    """Appends one line each to a file, in order of arrival.

    Args:
        file: The file.
    """

    order: Order = "all"

    def __init__(self, file: LineFile) -> None:
        """Open nothing yet."""
        self._file = file
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cti-jsonl")

    def __repr__(self) -> str:
        return f"<JsonlSink {self._file!r}>"

    async def open(self) -> None:
        """Open the file.

        Raises:
            ConfigurationError: It cannot be written to as things stand.
        """
        try:
            await self._do(self._file.open)
        except BlockingIOError:
            text = f"another process writes to {self._file.path}; give each a file of its own"
            raise ConfigurationError("to", text) from None
        except OSError as error:
            raise _unwritable(self._file, error) from None

    async def take(self, happening: Happening) -> None:
        """Append one line; raise `OSError` if that is not possible now."""
        line = json_line(happening) + b"\n"
        await self._do(lambda: self._file.write(line))

    async def reopen(self) -> None:
        """Open the file of this name anew, after another program has put it aside."""
        await self._do(self._file.reopen)

    async def close(self) -> None:
        """Have all of it on the disk."""
        try:
            await self._do(self._file.close)
        finally:
            self._thread.shutdown(wait=False)

    async def _do(self, work: Callable[[], None]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, work)


def make(url: str, *, name: str, options: SinkOptions) -> JsonlSink:  # noqa: ARG001 - one protocol
    """Make one of `jsonl:PATH`.

    Raises:
        ConfigurationError: There is no path, no directory for it, or no file to write to.
    """
    text = url.partition(":")[2]
    path = Path(text)
    if not path.name or text.endswith("/"):
        raise ConfigurationError("to", "jsonl: needs a file; write jsonl:PATH")
    path = path.absolute()
    if not path.parent.is_dir():
        raise ConfigurationError("to", f"jsonl: there is no directory {path.parent}; make it first")
    file = LineFile(
        path,
        max_size=options.jsonl_max_size,
        every=options.jsonl_every,
        sync=options.jsonl_sync,
        zone=options.zone,
        now=options.clock.now,
    )
    try:
        file.look()
    except OSError as error:
        raise _unwritable(file, error) from None
    return JsonlSink(file)


def _unwritable(file: LineFile, error: OSError) -> ConfigurationError:
    return ConfigurationError("to", f"cannot write to {file.path}: {error.strerror or error}")
