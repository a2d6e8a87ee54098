"""The sink `stdout:`: JSON lines on standard output, beside whatever is printed there."""

from __future__ import annotations

from cti_listener.errors import ConfigurationError, HaltError
from cti_listener.ops.descriptor import Descriptor
from cti_listener.ops.output import json_line
from cti_listener.router import Happening, Order
from cti_listener.sinks.base import SinkOptions


class StdoutSink:
    """Writes one line each, whole, in order of arrival."""

    order: Order = "all"

    def __init__(self, descriptor: Descriptor) -> None:
        """Keep where to write."""
        self._descriptor = descriptor

    async def open(self) -> None:
        """Do nothing: it is open."""

    async def take(self, happening: Happening) -> None:
        """Write one line; return when it is written."""
        try:
            await self._descriptor.write(json_line(happening) + b"\n")
        except BrokenPipeError:
            raise HaltError("the reader of stdout has left") from None

    async def close(self) -> None:
        """Leave it open: it is not ours."""


def make(url: str, *, name: str, options: SinkOptions) -> StdoutSink:
    """Make it.

    Raises:
        ConfigurationError: The URL says more than `stdout:`.
    """
    if url.partition(":")[2]:
        raise ConfigurationError("to", f"{name} takes nothing behind the colon; write stdout:")
    return StdoutSink(options.stdout or Descriptor(1))
