"""What may be registered as a handler, and what is refused with a reason."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import tenacity

from cti_listener.errors import HandlerError
from cti_listener.event_base import Event
from cti_listener.registration import as_coroutine_function, make_retry


async def good(event: Event) -> None:
    pass


def plain(event: Event) -> None:
    pass


async def without_argument() -> None:
    pass


async def of_two(event: Event, other: object) -> None:
    pass


async def of_two_with_a_default(event: Event, other: object = None) -> None:
    pass


class Called:
    async def __call__(self, event: Event) -> None:
        pass

    async def method(self, event: Event) -> None:
        pass


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


@pytest.mark.parametrize(
    "function",
    [
        good,
        of_two_with_a_default,
        Called(),
        Called().method,
        functools.partial(of_two, other=1),
        decorated(good),
    ],
)
def test_coroutine_functions_of_one_argument_are_taken_as_they_are(
    function: Callable[..., Any],
) -> None:
    assert as_coroutine_function(function, run_in_thread=False) is function


@pytest.mark.parametrize(
    ("function", "in_thread", "words"),
    [
        (plain, False, "plain: is a plain function .* run_in_thread=True"),
        (lambda _: None, False, "is a plain function"),
        (without_argument, False, "must take one argument, the event"),
        (of_two, False, "must take one argument, the event"),
        (lambda: None, True, "must take one argument, the event"),
        (good, True, "good: is a coroutine function; leave run_in_thread out"),
        (7, False, "7 cannot be called"),
        (Called, False, "must take one argument|is a plain function"),
    ],
)
def test_what_cannot_be_a_handler_is_refused_with_its_reason(
    *, function: Any, in_thread: bool, words: str
) -> None:
    with pytest.raises(HandlerError, match=words):
        as_coroutine_function(function, run_in_thread=in_thread)


async def test_a_plain_function_is_taken_to_a_thread_when_asked_for() -> None:
    given: list[object] = []
    run = as_coroutine_function(given.append, run_in_thread=True)
    await run("event")
    assert given == ["event"]


@pytest.mark.parametrize("retry", [0, -1, True, False, 1.5, "3", tenacity.retry_always])
def test_a_retry_that_is_neither_count_nor_strategy_is_refused(retry: Any) -> None:
    with pytest.raises(HandlerError, match=r"retry: is how many more times"):
        make_retry(retry)


def test_no_retry_is_none_and_a_strategy_of_ones_own_is_kept() -> None:
    own = tenacity.AsyncRetrying()
    assert make_retry(None) is None
    assert make_retry(own) is own
