"""The crew: tasks that run the lanes of a ready-list, as few as will do.

Only one worker looks for work at a time, and it wakes the next one before it runs a handler, which
may wait: so a burst of handlers that never wait costs two workers, not a task each. The dispatcher
puts lanes on the list, and runs them.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from typing import Final

from cti_listener.lanes import Lane

SPARE: Final = 8
"""How many workers stay when there is nothing to do."""

Worker = asyncio.Task[None]


class Crew:
    """Runs lanes that are ready.

    Args:
        run_ready: Runs a round of what is ready, as this worker; tells whether the worker can go
            on.
        crashed: Called with an error that is a bug of ours.

    Attributes:
        ready: Lanes that hold something and that nobody runs, in order.
        open: Whether handlers run.
        woken: A worker was woken and has not begun.
    """

    def __init__(
        self,
        run_ready: Callable[[Worker], Awaitable[bool]],
        crashed: Callable[[BaseException], None],
    ) -> None:
        """Start with no worker."""
        self.ready: deque[Lane] = deque()
        self.open = False
        self.woken = False
        self._run_ready = run_ready
        self._crashed = crashed
        # Not a task group: its end waits for every task, and a handler may refuse to be cancelled.
        self._workers: set[Worker] = set()
        self._idle: list[asyncio.Future[None]] = []
        self._context = contextvars.copy_context()  # every handler begins with

    def __len__(self) -> int:
        return len(self._workers)

    def start(self) -> None:
        """Begin to run what is ready."""
        self.open = True
        self._context = contextvars.copy_context()
        self.see_to_it()

    def see_to_it(self) -> None:
        """See to it that somebody looks at what is ready."""
        if self.ready and not self.woken and self.open:
            self._wake()

    def close(self, but: Collection[object]) -> list[Worker]:
        """Run nothing more; cancel all workers but these, and return who was cancelled."""
        self.open = False
        self.ready.clear()
        workers = [worker for worker in self._workers if worker not in but]
        for worker in workers:
            worker.cancel()
        return workers

    def is_as_it_began(self) -> bool:
        """Tell whether the running handler left no context variables, which no other must find."""
        try:
            return contextvars.copy_context() == self._context
        except Exception:  # noqa: BLE001 - values that will not be compared are new ones
            return False

    # Private

    def _wake(self) -> None:
        self.woken = True
        while self._idle:
            sleeper = self._idle.pop()
            if not sleeper.done():
                sleeper.set_result(None)
                return
        worker = asyncio.get_running_loop().create_task(
            self._work(), name="cti-worker", context=self._context.copy()
        )
        self._workers.add(worker)
        worker.add_done_callback(self._ended)

    def _ended(self, worker: Worker) -> None:
        self._workers.discard(worker)
        error = None if worker.cancelled() else worker.exception()
        if worker.cancelled() or error is not None:
            self.woken = False  # it may be the one that was woken, and what it was woken for waits
            self.see_to_it()
        if error is not None:
            self._crashed(error)

    async def _work(self) -> None:
        """Take lanes from the ready-list, until there are workers to spare."""
        worker = asyncio.current_task()
        assert worker is not None  # noqa: S101 - for the type checker
        self.woken = False
        while True:
            if self.open and self.ready and not await self._run_ready(worker):
                self.see_to_it()
                return
            self.see_to_it()  # what is left is another's, after the loop had its turn
            if not self.open or len(self._idle) >= SPARE:
                return
            sleeper = asyncio.get_running_loop().create_future()
            self._idle.append(sleeper)
            await sleeper
            self.woken = False
