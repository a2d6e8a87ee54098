"""Which scenario comes next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate
from random import Random

from cti_listener.errors import ConfigurationError
from cti_listener.simulator.scenarios import SCENARIOS, Scenario


class Mix:
    """What can be begun, and how often.

    Args:
        weights: How often each scenario of `SCENARIOS`, by name; None: as they are listed there.
        agents: How many agents there are; what takes more is left out.

    Raises:
        ConfigurationError: A scenario is unknown, a weight is negative, or nothing is left.
    """

    def __init__(self, weights: Mapping[str, float] | None, agents: int) -> None:
        """Check the weights and leave out what cannot be done."""
        if weights is None:
            weights = {name: scenario.weight for name, scenario in SCENARIOS.items()}
        for name, weight in weights.items():
            if name not in SCENARIOS:
                known = ", ".join(SCENARIOS)
                raise ConfigurationError("weights", f"no scenario {name!r}; there are: {known}")
            if not 0 <= weight < float("inf"):
                raise ConfigurationError("weights", f"{name} must be 0 or more")
        self._all = [
            (SCENARIOS[name], weight)
            for name, weight in weights.items()
            if weight and SCENARIOS[name].fewest <= agents
        ]
        if not self._all:
            raise ConfigurationError("weights", f"leave nothing that {agents} agents can do")
        self._by_free: dict[int, tuple[list[Scenario], list[float]]] = {}

    def __iter__(self) -> Iterator[tuple[Scenario, float]]:
        """Yield each scenario and its weight."""
        return iter(self._all)

    def pick(self, rng: Random, free: int) -> Scenario | None:
        """Pick one that so many free agents can do; None if there is none."""
        free = min(free, max(scenario.fewest for scenario, _ in self._all))
        if free not in self._by_free:
            able = [(one, weight) for one, weight in self._all if one.fewest <= free]
            self._by_free[free] = ([one for one, _ in able], list(accumulate(w for _, w in able)))
        scenarios, bounds = self._by_free[free]
        return rng.choices(scenarios, cum_weights=bounds)[0] if scenarios else None
