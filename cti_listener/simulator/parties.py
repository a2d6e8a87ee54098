"""Who takes part in a scenario, and what one step of it is.

Pure: chance comes from a `random.Random` handed in, time is a number of seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, NamedTuple

Fields = Mapping[str, Any]
"""What a step says beyond its envelope; shared by the copies of one happening, so never changed."""

_MOBILE: Final = ("130", "135", "138", "139", "150", "158", "186", "188")
_MASKED: Final = 0.4


class Step(NamedTuple):
    """One device's copy of something that happens.

    Attributes:
        delay: Seconds since the step before; 0 for a further copy of the same happening.
        device: Whose copy it is.
        name: The event's name.
        fields: What it says beyond its envelope (name, type, time, serial, namespace, whose copy).
    """

    delay: float
    device: str
    name: str
    fields: Fields


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent and the device where they sit, both as full ids."""

    id: str
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """Who takes part, and the chance that decides what may or may not occur.

    Attributes:
        rng: Where chance comes from.
        namespace: The namespace all of them are in.
        agents: The agents who take part, the main one first.
        outside: An outside number, as a full id.
        queue: The queue that inbound calls come through, as a full id.
        devices: The agents' devices; only they get copies.
    """

    rng: Random
    namespace: str
    agents: tuple[Agent, ...]
    outside: str
    queue: str
    devices: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        """Note whose devices get copies."""
        object.__setattr__(self, "devices", frozenset(agent.device for agent in self.agents))

    @property
    def agent(self) -> Agent:
        """The main agent."""
        return self.agents[0]

    def device(self, index: int) -> str:
        """Return the device of one of the agents; the outside number if there are not so many."""
        return self.agents[index].device if index < len(self.agents) else self.outside

    def inside(self, ids: Iterable[str]) -> list[str]:
        """Return those who get copies: outside parties get none."""
        return [one for one in ids if one in self.devices]

    def chance(self, probability: float) -> bool:
        """Decide whether something occurs."""
        return self.rng.random() < probability

    def pause(self, shortest: float, longest: float) -> float:
        """Pick how long something takes, in seconds."""
        return shortest + self.rng.random() * (longest - shortest)

    def new_id(self) -> str:
        """Make the id of a call or a recording: a random UUID (RFC 9562, version 4)."""
        digits = f"{self.rng.getrandbits(128):032x}"
        variant = "89ab"[int(digits[16], 16) & 3]
        return (
            f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"
        )

    def agent_step(
        self, delay: float, name: str, mode: str, *, reason: str | None = None
    ) -> Iterator[Step]:
        """Tell the main agent's device that the agent's mode changed."""
        who = self.agent
        fields: dict[str, Any] = {
            "deviceId": who.device,
            "agentId": who.id,
            "agentMode": mode,
            "devices": {"Voice": who.device},
        }
        if reason is not None:
            fields["reason"] = reason
        yield Step(delay, who.device, name, fields)


def outside_number(rng: Random, namespace: str) -> str:
    """Make up an outside number as the server writes it: `138****1234@zhen04.cc`, or unmasked.

    The middle of an unmasked one is always `0000`, so that it is plainly nobody's.
    """
    middle = "****" if rng.random() < _MASKED else "0000"
    return f"{rng.choice(_MOBILE)}{middle}{rng.randrange(10_000):04d}@{namespace}"
