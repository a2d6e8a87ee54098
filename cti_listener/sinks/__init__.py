"""Sinks: where events go besides the output, each a handler of its own (`--to URL`).

`base` says what a sink is, `making` makes one of a URL, `outlet` is one as a handler of the
listener, `running` runs them all; `jsonl`, `webhook` and `stdout` come with the package. Called by
`app`, and by `settings` to tell what is wrong with a URL.
"""

from cti_listener.sinks.base import Order, Reopenable, Sink, SinkOptions

__all__ = ["Order", "Reopenable", "Sink", "SinkOptions"]
