"""What `Listener.on` makes of a user's function: a `Handler`, or a clear refusal."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from tenacity import (
    AsyncRetrying,
    retry_if_not_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from cti_listener.errors import HaltError, HandlerError

Retry = int | AsyncRetrying | stop_base | wait_base
"""How to try again what failed: how many more times, or a strategy of tenacity's."""

_BRIEFLY = wait_random_exponential(multiplier=0.1, max=5.0)
_UNLESS_HALTED = retry_if_not_exception_type(HaltError)


def as_coroutine_function(
    function: Callable[..., object], *, run_in_thread: bool
) -> Callable[[Any], Awaitable[object]]:
    """Return what the dispatcher can call.

    Args:
        function: A coroutine function; with `run_in_thread`, a plain one.
        run_in_thread: Run it in a thread of asyncio's default executor. A time limit then stops the
            waiting, not the thread.

    Raises:
        HandlerError: It cannot be called, is a plain function, or takes no argument.
    """
    if not callable(function):
        raise HandlerError("on", f"{function!r} cannot be called")
    name = getattr(function, "__qualname__", repr(function))
    is_coroutine_function = returns_awaitable(function)
    _refuse_without_argument(function, name)
    if run_in_thread:
        if is_coroutine_function:
            raise HandlerError(name, "is a coroutine function; leave run_in_thread out")
        return functools.partial(asyncio.to_thread, function)
    if not is_coroutine_function:
        raise HandlerError(
            name,
            "is a plain function and would stop the event loop while it runs; "
            "write it with 'async def', or register it with run_in_thread=True",
        )
    return function  # type: ignore[return-value]  # checked just above


def returns_awaitable(function: Callable[..., object]) -> bool:
    """Tell whether it is a coroutine function, whatever it is wrapped in."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(inspect.unwrap(function)) or inspect.iscoroutinefunction(
        type(function).__call__
    )


def _refuse_without_argument(function: Callable[..., object], name: str) -> None:
    try:
        inspect.signature(function).bind(None)
    except TypeError as error:
        raise HandlerError(name, f"must take one argument, the event: {error}") from None
    except ValueError:
        pass  # a builtin that does not tell its signature


def make_retry(retry: Retry | None) -> AsyncRetrying | None:
    """Turn what a user asks for into tenacity's own.

    Raises:
        HandlerError: It is neither a count nor a strategy that tells when to stop or how long to
            wait.
    """
    match retry:
        case None | AsyncRetrying():
            return retry
        case int() if retry >= 1 and retry is not True:
            strategy: dict[str, Any] = {"stop": stop_after_attempt(retry + 1), "wait": _BRIEFLY}
        case stop_base():
            strategy = {"stop": retry, "wait": _BRIEFLY}
        case wait_base():
            strategy = {"wait": retry}
        case _:
            problem = "is how many more times to try (1 or more), or a tenacity strategy"
            raise HandlerError("retry", f"{problem}, not {retry!r}")
    return AsyncRetrying(**strategy, retry=_UNLESS_HALTED, reraise=True)
