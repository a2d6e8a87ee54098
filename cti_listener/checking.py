"""Settings to `cti-listen check --connect`: which servers are tried, as whom, and for how long.

`cli` calls `check_connection`; `ops.connecting` goes the way.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from cti_listener.app import demo_server
from cti_listener.interest import Interest
from cti_listener.ops.connecting import Connecting
from cti_listener.ops.masking import Masker
from cti_listener.settings.making import completed
from cti_listener.sources.endpoints import Endpoints
from cti_listener.sources.options import (
    ConnectionKeywords,
    ConnectionOptions,
    secrets_of_credentials,
)

if TYPE_CHECKING:
    from cti_listener.settings import Settings
    from cti_listener.sources.options import Credentials

SECONDS: Final = 5.0
"""For how long events are counted unless `duration` says otherwise."""


def check_connection(settings: Settings) -> int:
    """Go the way to each server, step by step, on stdout; return the exit code."""
    return asyncio.run(_check(completed(settings)))


async def _check(settings: Settings) -> int:
    # A durable queue is left alone: what it holds is the listener's, and acknowledged by it.
    keywords: ConnectionKeywords = {
        **settings.connection(),
        "durable": None,
        "durable_expires": None,
        "durable_max_length": None,
    }
    options = ConnectionOptions.from_keywords(keywords)
    masker = Masker(numbers=settings.mask_numbers, own=settings.own())
    masker.learn(settings.secrets())

    async def credentials() -> Credentials:
        found = await asyncio.to_thread(settings.credentials)
        masker.learn(secrets_of_credentials(found))
        return found

    def say(line: str) -> None:
        sys.stdout.write(f"{masker.text(line)}\n")
        sys.stdout.flush()

    async with AsyncExitStack() as stack:
        urls = settings.url
        if settings.demo:
            server = await stack.enter_async_context(demo_server(settings))
            urls = (server.json_url if settings.wire == "json" else server.stomp_url,)
        auth = credentials if settings.has_credentials else None
        return await Connecting(
            Endpoints(urls, settings.wire, auth, options, "a", ZoneInfo(settings.zone)),
            options,
            Interest(settings.namespace, settings.device, settings.agent),
            seconds=settings.duration or SECONDS,
            say=say,
        ).check()
