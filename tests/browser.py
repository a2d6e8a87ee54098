"""A browser for the tests of the page: Debian's chromium, without a window."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from playwright.async_api import Browser, Page, async_playwright

from tests.servers import need_server

CHROMIUM: Final = Path("/usr/bin/chromium")
PATIENCE: Final = 15_000.0
"""The longest a test waits for what must show, in milliseconds."""


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Run the browser; a start takes a second, so a module keeps one, and its event loop."""
    need_server("chromium", CHROMIUM)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        await browser.close()


@asynccontextmanager
async def browsed(browser: Browser, **options: Any) -> AsyncIterator[Page]:
    """Open a page that shares nothing with others.

    What its console complains of, or its script fails on, fails the test.
    """
    complaints: list[str] = []
    async with asyncio.timeout(55):
        context = await browser.new_context(**{"locale": "en-US", **options})
        try:
            page = await context.new_page()
            page.set_default_timeout(PATIENCE)
            page.on(
                "console", lambda one: complaints.append(one.text) if one.type == "error" else None
            )
            page.on("pageerror", lambda error: complaints.append(str(error)))
            yield page
        finally:
            await context.close()
    # What the browser says of answers that are meant to be so, and of a server that is away.
    expected = ("net::ERR", "status of 403")
    unexpected = [one for one in complaints if not any(text in one for text in expected)]
    assert unexpected == []
