"""When to try again, and what is fatal; on tenacity's strategies.

The age of an outage decides, not the number of attempts, and it lives on across connections that do
not last: a server that accepts and closes is met ever more rarely.
"""

from __future__ import annotations

import random
from typing import Final

from tenacity import RetryCallState
from tenacity.wait import wait_base

from cti_listener.errors import ConnectError

SHORT: Final = 0.6
"""The longest wait, in seconds, at the beginning of an outage."""

RESTARTING: Final = 15.0
"""For so long, in seconds, a port without a listener is taken for a server that restarts."""


class wait_outage(wait_base):  # noqa: N801 - tenacity's strategies are spelled so
    """Wait at most as long as the outage has lasted, half of it at random.

    Args:
        longest: The cap, in seconds.
        pick: Picks between two bounds; replaced in tests.
    """

    def __init__(self, longest: float = 60.0, *, pick: random.Random | None = None) -> None:
        """Keep the cap."""
        self.longest = longest
        self._pick = pick or random.Random()  # noqa: S311 - jitter, not a secret

    def __call__(self, retry_state: RetryCallState) -> float:
        """Return the seconds to wait before the next attempt."""
        error = retry_state.outcome.exception() if retry_state.outcome else None
        return self.after(retry_state.seconds_since_start or 0.0, error)

    def after(self, age: float, error: BaseException | None = None) -> float:
        """Return the seconds to wait in an outage `age` seconds old; `error` is its latest."""
        ceiling = max(SHORT, age)
        # No short wait reaches beyond: all listeners of a server that went would end it together.
        restarting = age + SHORT <= RESTARTING
        if restarting and isinstance(error, ConnectError) and error.no_listener:
            ceiling = SHORT
        ceiling = min(ceiling, self.longest)
        return self._pick.uniform(ceiling / 2, ceiling)

    def first(self) -> float:
        """Return the seconds before the first attempt when a stable connection is lost.

        Short, since most losses are of the connection and not of the server; not nothing, lest all
        the listeners of a server that restarts come at once.
        """
        return self._pick.uniform(0.0, 0.2)
