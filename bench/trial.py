"""What `bench.chaos` tries: how much goes wrong, and how the listener is set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal

from bench.stage import NAMESPACE, Play, Url

HOLD = 0.5
"""How long a feed that comes back is held, in seconds."""

QUICK: dict[str, Any] = {
    "ping_interval": 0.5,
    "silence_limit": 1.5,
    "heartbeat_send": 1.0,
    "heartbeat_receive": 1.0,
    "max_wait": 0.3,
    "receipt_timeout": 0.3,
    "open_timeout": 1.0,
    "close_timeout": 0.5,
    "max_size": 256 * 1024,
    "soft_size": 64 * 1024,
}
"""A listener that is quick to notice and to come back, so that there is much to notice."""

STREAM = (
    "restart_every=37,reorder=0.02,repeat=0.05,storm=0.001:50,malformed=0.005,invalid_utf8=0.003,"
    "deep=0.0005:5000"
)
"""What goes wrong with the centre's stream, and ends no connection."""

TOO_LARGE = "oversized=0.00004:300000,bomb=0.00004:1"
"""What does: messages above `max_size`."""

RULES = "no_receipts=0.15,no_heartbeats=0.15,slow_heartbeats=0.15,zero_heartbeats=0.15,refuse=0.05"
"""How a broker may behave to a session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What to try.

    Attributes:
        haste: How many times as often as usual connections and servers are in trouble.
    """

    seed: int
    feeds: int = 1
    events: int = 100_000
    devices: int = 500
    rate: float = 250.0
    speed: float = 10.0
    wire: Literal["stomp", "json", "both"] = "both"
    never_both_down: bool = False
    journal: Path | None = None
    haste: float = 1.0

    def __str__(self) -> str:
        feeds = "one feed" if self.feeds == 1 else "two feeds"
        apart = ", never both down" if self.never_both_down else ""
        return f"seed {self.seed}, {feeds}{apart}, {self.wire}"

    def play(self) -> Play:
        """Draw what goes wrong; intensities differ from seed to seed."""
        rng = Random(self.seed)  # noqa: S311 - chance, not secrecy
        stall, drip = rng.choice((0.2, 0.7, 2.0)), rng.choice((0.05, 0.3))
        often = {
            "drop": "7",
            "reset": "7",
            "half_open": "10",
            "stall": f"3:{stall}",
            "drip": f"4:{drip}",
            "error": "12",
            "flap": "13:0.3",
            "away": "13:0.4",
            "expire": "17:0.3",
        }
        return Play(
            seed=self.seed,
            events=self.events,
            devices=self.devices,
            rate=self.rate,
            speed=self.speed,
            servers=self.feeds,
            stream=(
                "oversized=0.0002:100000",  # above soft_size
                *((STREAM,) if self.never_both_down else (STREAM, TOO_LARGE)),
            ),
            troubles=",".join((*map(self._hastened, often.items()), RULES)),
            heartbeat=(1000, 1000),
            rest=3 * HOLD if self.never_both_down else None,
            max_size=QUICK["max_size"],
        )

    def _hastened(self, trouble: tuple[str, str]) -> str:
        name, (every, *amount) = trouble[0], trouble[1].split(":")
        # By turns, each has less than half the time.
        haste = self.haste * (4 if self.never_both_down else 1)
        return ":".join((f"{name}_every={float(every) / haste:g}", *amount))

    def endpoints(self, urls: Sequence[Url]) -> list[str]:
        """Return the endpoints: each server by its wire; where there is one, it may have both."""
        match self.wire:
            case "stomp":
                return [url.stomp for url in urls]
            case "json":
                return [url.json for url in urls]
            case "both" if len(urls) == 1:
                return list(urls[0])
            case "both":
                return [url[index % 2] for index, url in enumerate(urls)]

    def options(self) -> dict[str, Any]:
        """Return the keywords of the listener."""
        options: dict[str, Any] = {
            "namespace": NAMESPACE,
            "lane_size": 10_000,
            "proxy": None,
            **QUICK,
        }
        if self.feeds > 1:
            options |= {"redundancy": self.feeds, "splice_hold": HOLD}
        if (path := self.journal) is not None:
            # One for each trial: centres open alike, and what a journal saw before is a repeat.
            options["journal"] = path.with_stem(f"{path.stem}-{self.seed}-{self.feeds}")
        return options
