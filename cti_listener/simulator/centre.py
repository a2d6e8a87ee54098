"""A contact centre on a virtual clock: who does what when, as one stream of events.

Pure: no clock and no task; the server paces the stream. The same arguments give the same stream.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from random import Random
from typing import Any, Final

from cti_listener.errors import ConfigurationError
from cti_listener.simulator.mix import Mix
from cti_listener.simulator.parties import Agent, Cast, Step, outside_number
from cti_listener.simulator.scenarios import FOLLOW_UPS, Scenario
from cti_listener.values import china

Timed = tuple[float, dict[str, Any]]
"""An event and when it happens, in seconds since the centre opened."""

FIRST_SERIALS: Final = {"agent": 11_050_819, "csta": 121_019}
"""Where the two counters begin, and fall back to when the server restarts."""

OPENING: Final = datetime(2017, 3, 18, 14, 13, 24)  # noqa: DTZ001 - the server's wall clock has no zone
"""When the centre opens unless told otherwise: the time of the catalogue's first example."""

_LOGGING_ON: Final = 2.0
_WRAP_UP: Final = 0.8
_BREAK: Final = (5.0, 60.0)
_BUSY: Final = 0.5
_PROBES: Final = 8


@dataclass(slots=True)
class _Activity:
    """A scenario under way."""

    scenario: Scenario
    agents: Sequence[Agent]
    steps: list[Step]
    at: int = 0


class Centre:
    """A contact centre whose agents log on at the beginning and then do whatever the weights say.

    Only free agents take part in anything new. Agents who log off come back after a while, at
    whatever device is vacant. Where the rate is more than so many agents can do at a natural pace,
    everything takes less time.

    Args:
        seed: Decides all that chance decides.
        agents: How many agents: 5001 at device 8001, and so on.
        namespace: The namespace they are all in.
        rate: Events a second, on average.
        start: The server's wall clock at the beginning; an aware time is turned to China Standard
            Time.
        weights: How often to begin each scenario of `SCENARIOS`; those left out never.

    Attributes:
        now: The virtual time reached, in seconds since the opening.
        begun: How often each scenario was begun.

    Raises:
        ConfigurationError: An argument makes no sense.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        agents: int = 10,
        namespace: str = "zhen04.cc",
        rate: float = 5.0,
        start: datetime = OPENING,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        """Hire the agents; nothing happens before `run()`."""
        if agents < 1:
            raise ConfigurationError("agents", "must be 1 or more")
        if not rate > 0:
            raise ConfigurationError("rate", "must be more than 0 events a second")
        self.namespace = namespace
        self.rate = rate
        self.now = 0.0
        self.begun: Counter[str] = Counter()
        self._rng = Random(seed)  # chance, not secrecy
        self._start = _wall_clock(start)
        self._serials = dict(FIRST_SERIALS)
        self._stamped = (-1, self._start, "")  # whole second, the time it is, and as text
        self._agenda: list[tuple[float, int, _Activity | None]] = []
        self._order = count()
        self._free: list[Agent] = []
        self._waiting = False  # for an agent to be free
        self._debt = 0  # events of follow-ups, to be made up for
        self._vacant = [f"{8001 + n}@{namespace}" for n in range(agents, agents + 1 + agents // 20)]
        self._mix = Mix(weights, agents)
        self._tempo = self._natural_tempo(agents)
        self._open(agents)

    def __repr__(self) -> str:
        return (
            f"<Centre {self.namespace} at {self.now:.1f} s, "
            f"{len(self._free)} agents free, {sum(self.begun.values())} scenarios begun>"
        )

    def run(self, duration: float | None = None) -> Iterator[Timed]:
        """Yield what happens from `now` on, in order of time; for some seconds, or for ever.

        The events' values are shared between copies: take them as they are.
        """
        end = float("inf") if duration is None else self.now + duration
        agenda = self._agenda
        while agenda and agenda[0][0] <= end:
            at, order, activity = agenda[0]
            self.now = at
            if activity is None:
                heapq.heappop(agenda)
                self._begin()
                continue
            step = activity.steps[activity.at]
            activity.at += 1
            # The agenda is put right before the yield: nobody may ask for what comes after it.
            if activity.at < len(activity.steps):
                later = at + activity.steps[activity.at].delay * self._tempo
                heapq.heapreplace(agenda, (later, order, activity))
            else:
                heapq.heappop(agenda)
                self._end(activity)
            yield at, self._dress(step)
        if duration is not None:
            self.now = end

    def __iter__(self) -> Iterator[Timed]:
        """Yield what happens from `now` on, for ever."""
        return self.run()

    def restart(self) -> None:
        """Have the server restart: its counters fall back, whatever goes on goes on."""
        self._serials = dict(FIRST_SERIALS)

    # Beginning and ending scenarios

    def _open(self, agents: int) -> None:
        for n in range(agents):
            agent = Agent(f"{5001 + n}@{self.namespace}", f"{8001 + n}@{self.namespace}")
            self._schedule(FOLLOW_UPS["log_on"], (agent,), _LOGGING_ON * n / agents)
        heapq.heappush(self._agenda, (0.0, next(self._order), None))

    def _begin(self) -> None:
        """Begin a scenario with free agents, and fix when the next one begins.

        The gap is in proportion to the number of events, so that the rate holds whatever is begun.
        """
        if not self._free:
            self._waiting = True
            return
        scenario = self._mix.pick(self._rng, len(self._free))
        if scenario is None:
            self._waiting = True
            return
        most = min(scenario.most, len(self._free))
        wanted = self._rng.randint(scenario.fewest, most)
        agents = tuple(self._take_free() for _ in range(wanted))
        self.begun[scenario.name] += 1
        events = self._schedule(scenario, agents, 0.0) + self._debt
        self._debt = 0
        gap = self._rng.expovariate(self.rate / events)
        heapq.heappush(self._agenda, (self.now + gap, next(self._order), None))

    def _schedule(self, scenario: Scenario, agents: tuple[Agent, ...], delay: float) -> int:
        """Put a scenario on the agenda; return how many events it has."""
        steps = list(scenario.play(self._cast(agents, self._rng)))
        at = self.now + delay + steps[0].delay * self._tempo
        activity = _Activity(scenario, agents, steps)
        heapq.heappush(self._agenda, (at, next(self._order), activity))
        return len(steps)

    def _end(self, activity: _Activity) -> None:
        """See what becomes of the agents: free, wrapping up, on a break, or gone."""
        last = activity.steps[-1]
        mode = last.fields.get("agentMode")
        for agent in activity.agents:
            if mode == "Logout":
                self._vacant.append(agent.device)
                self._follow("log_on", self._seat(agent), self._away())
            elif mode == "NotReady":
                self._follow("come_back", agent, self._away())
            elif mode is None and self._rng.random() < _WRAP_UP:
                self._follow("after_call", agent, 0.0)
            else:
                self._set_free(agent)

    def _follow(self, name: str, agent: Agent, delay: float) -> None:
        self._debt += self._schedule(FOLLOW_UPS[name], (agent,), delay)

    def _away(self) -> float:
        return self._rng.uniform(*_BREAK) * self._tempo

    def _seat(self, agent: Agent) -> Agent:
        """Give an agent who comes back a vacant device, often another than before."""
        device = self._vacant.pop(self._rng.randrange(len(self._vacant)))
        return Agent(agent.id, device)

    def _take_free(self) -> Agent:
        free = self._free
        index = self._rng.randrange(len(free))
        free[index], free[-1] = free[-1], free[index]
        return free.pop()

    def _set_free(self, agent: Agent) -> None:
        self._free.append(agent)
        if self._waiting:
            self._waiting = False
            heapq.heappush(self._agenda, (self.now, next(self._order), None))

    def _cast(self, agents: tuple[Agent, ...], rng: Random) -> Cast:
        namespace = self.namespace
        return Cast(
            rng=rng,
            namespace=namespace,
            agents=agents,
            outside=outside_number(rng, namespace),
            queue=f"{rng.randint(7000, 7003)}@{namespace}",
        )

    def _natural_tempo(self, agents: int) -> float:
        """Find by how much everything must be shortened for the agents to manage the rate."""
        rng = Random(0)  # the same for every seed
        busy = events = 0.0
        for scenario, weight in self._mix:
            for size in range(_PROBES):
                wanted = scenario.fewest + size % (min(scenario.most, agents) - scenario.fewest + 1)
                crew = tuple(Agent(f"a{n}", f"d{n}") for n in range(wanted))
                steps = list(scenario.play(self._cast(crew, rng)))
                busy += weight * wanted * sum(step.delay for step in steps)
                events += weight * len(steps)
        return min(1.0, _BUSY * agents * events / (busy * self.rate)) if busy else 1.0

    # Events

    def _dress(self, step: Step) -> dict[str, Any]:
        """Make the event of a step: the envelope in the catalogue's order, then what it says."""
        name = step.name
        fields = step.fields
        kind = "agent" if name.startswith("agent") else "csta"
        serial = self._serials[kind]
        self._serials[kind] = serial + 1
        event: dict[str, Any] = {
            "eventName": name,
            "eventSrc": step.device,
            "eventTime": self._stamp(),
            "eventType": kind,
            "serial": serial,
            "namespace": self.namespace,
            "srcDeviceId": step.device,
        }
        if kind == "agent":
            del event["eventSrc"]
        elif name == "recordStarted":
            del event["srcDeviceId"]  # as in the catalogue's example
            now = self._stamped[1]
            return {**event, **fields, "fileName": fields["fileName"].format(now=now)}
        event.update(fields)
        return event

    def _stamp(self) -> str:
        """Return the server's wall clock, in whole seconds."""
        second = int(self.now)
        if second != self._stamped[0]:
            time = self._start + timedelta(seconds=second)
            self._stamped = (second, time, f"{time:%Y.%m.%d %H:%M:%S}")
        return self._stamped[2]


def _wall_clock(start: datetime) -> datetime:
    local = start if start.tzinfo is None else start.astimezone(china()).replace(tzinfo=None)
    return local.replace(microsecond=0)
