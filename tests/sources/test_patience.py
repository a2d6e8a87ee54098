"""A limit counts the time in which the loop turns; it ends all the same."""

from __future__ import annotations

import asyncio
import time

import pytest

from cti_listener.sources.patience import HELD_UP, STEPS, turning


async def test_what_takes_longer_is_ended() -> None:
    with pytest.raises(TimeoutError):
        async with turning(0.05):
            await asyncio.Event().wait()


async def test_what_takes_its_time_is_left_alone() -> None:
    async with turning(10.0):
        await asyncio.sleep(0)


async def test_a_limit_of_0_is_over_at_once() -> None:
    with pytest.raises(TimeoutError):
        async with turning(0):
            await asyncio.Event().wait()


async def test_time_in_which_the_loop_was_held_up_does_not_count() -> None:
    answered = asyncio.Event()
    seconds = 0.2
    async with turning(seconds):
        time.sleep(2 * seconds)  # noqa: ASYNC251 - as a handler that blocks
        asyncio.get_running_loop().call_later(seconds / 4, answered.set)
        await answered.wait()


async def test_a_loop_that_is_held_up_again_and_again_ends_it_too() -> None:
    async def be_held_up() -> None:
        async with turning(STEPS * HELD_UP / 10):
            while True:
                time.sleep(1.2 * HELD_UP)  # noqa: ASYNC251 - as above
                await asyncio.sleep(0)

    with pytest.raises(TimeoutError):
        await be_held_up()
