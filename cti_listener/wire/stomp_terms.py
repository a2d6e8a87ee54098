"""What a durable subscription is asked for with, and what RabbitMQ makes of it.

Called by `wire.stomp_queues`, and by the source, which explains what is refused.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from hashlib import blake2b, md5
from typing import Final

_ROUTED: Final = re.compile(r"/(?:topic|exchange/[^/]+)/(.+)", re.DOTALL)
"""Its group is the routing key, or a pattern of them."""

_INEQUIVALENT: Final = re.compile(r"inequivalent arg '([\w-]{1,40})'")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a durable subscription is to be.

    Attributes:
        name: Begins the id of each; unique per replica and feed.
        expires: How long the broker keeps it without us, in seconds.
        max_length: How many messages it holds; with more, the oldest are dropped.
        prefetch: How many are on their way, unacknowledged, at once.
    """

    name: str
    expires: float
    max_length: int
    prefetch: int

    def id_for(self, destination: str) -> str:
        """Return the subscription's id: the same in every run, another for each destination."""
        return f"{self.name}.{blake2b(destination.encode(), digest_size=6).hexdigest()}"

    def headers(self, destination: str) -> dict[str, str]:
        """Return the headers of its SUBSCRIBE, but for the receipt."""
        return {
            "id": self.id_for(destination),
            "destination": destination,
            "durable": "true",
            "auto-delete": "false",  # by default RabbitMQ's goes with its last consumer
            "ack": "client-individual",
            "prefetch-count": str(self.prefetch),
            "x-expires": str(round(self.expires * 1000)),
            "x-max-length": str(self.max_length),
        }


def queue_name(destination: str, subscription: str) -> str | None:
    """Return what RabbitMQ calls the queue of a durable subscription; None if that is not known.

    It is a digest of the routing key and the id, as Erlang writes a pair of texts.
    """
    routed = _ROUTED.fullmatch(destination)
    if routed is None:
        return None
    texts = [text.encode() for text in (routed[1], subscription)]
    pair = b"\x83h\x02" + b"".join(b"k" + len(text).to_bytes(2) + text for text in texts)
    digest = urlsafe_b64encode(md5(pair, usedforsecurity=False).digest()).decode()
    return f"stomp-subscription-{digest.rstrip('=')}"


def differing_argument(detail: str) -> str | None:
    """Return which argument RabbitMQ says a queue has otherwise; None if it says no such thing."""
    found = _INEQUIVALENT.search(detail)
    if found is None:
        return None
    setting = {"x-expires": "durable_expires", "x-max-length": "durable_max_length"}.get(found[1])
    return f"{found[1]} ({setting})" if setting else found[1]
