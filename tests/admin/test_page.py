"""The page in a browser: what it shows of a listener, and what it does when that goes away."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from cti_listener import Listener
from cti_listener.admin import make_admin
from cti_listener.ops.masking import Masker
from cti_listener.simulator import Centre, SimulatorServer
from cti_listener.testing import FakeSource, ManualClock
from tests.admin.support import TOKEN, Served, served
from tests.browser import browsed, chromium
from tests.examples import NAMESPACE, device_id, make, make_agent
from tests.servers import free_ports
from tests.turns import until

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as running:
        yield running


async def opened(page: Page, it: Served) -> None:
    """Open the page, and wait until it shows how things stand and reads along."""
    await page.goto(it.admin.url)
    await reads_along(page, it)


async def reads_along(page: Page, it: Served) -> None:
    await expect(page.get_by_role("status")).to_contain_text("Connected")
    await until(lambda: it.admin._answers.ring.readers)  # noqa: SLF001 - nothing on it says so


def tile(page: Page, agent: int) -> Any:
    return page.locator(".agents li").filter(has_text=str(agent))


async def test_agents_and_calls_follow_what_happens(browser: Browser) -> None:
    async with served() as it, browsed(browser) as page:
        await opened(page, it)
        await expect(page.locator("#no-agents")).to_be_visible()
        it.source.send(make_agent("agentReady"))
        await expect(tile(page, 5002)).to_contain_text("Ready")
        rings = make(alertingDevice=device_id(8002), callingDevice="7001", calledDevice="8002")
        it.source.send({**rings, "callType": "Inbound"})
        await expect(tile(page, 5002)).to_contain_text("Ringing")
        it.source.send(make("established", answeringDevice=device_id(8002)))
        await expect(tile(page, 5002)).to_contain_text("Talking")
        await expect(page.locator("#calls tbody tr")).to_have_count(1)
        await expect(page.locator("#calls tbody .state")).to_have_text("Talking")
        it.source.send(make("connectionCleared", releasingDevice=device_id(8002)))
        await expect(page.locator("#no-calls")).to_be_visible()
        it.source.send(make_agent("agentNotReady", reason="用餐"))
        await expect(tile(page, 5002)).to_contain_text("Not ready")
        await expect(tile(page, 5002)).to_contain_text("用餐")
        names = page.locator(".events .name")
        await expect(names).to_have_text(
            ["agentNotReady", "connectionCleared", "established", "delivered", "agentReady"]
        )


async def test_clocks_run(browser: Browser) -> None:
    async with served() as it, browsed(browser) as page:
        await opened(page, it)
        clock = page.locator("#status [data-since]")
        before = await clock.text_content()
        await expect(clock).not_to_have_text(before or "")


async def test_outside_numbers_are_masked_wherever_they_stand(browser: Browser) -> None:
    outside = "13812345678"
    async with served(admin={"masker": Masker()}) as it, browsed(browser) as page:
        await opened(page, it)
        it.source.send(make_agent("agentReady"))
        who = {"callingDevice": device_id(outside), "calledDevice": device_id(8002)}
        it.source.send(make(alertingDevice=device_id(8002), **who))
        it.source.send(make("established", answeringDevice=device_id(8002), **who))
        await expect(tile(page, 5002)).to_contain_text("138****5678")
        await expect(page.locator("#calls tbody")).to_contain_text("138****5678")
        await expect(page.locator(".events .detail").first).to_contain_text("138****5678")
        await expect(page.get_by_text("outside numbers masked")).to_be_visible()
        assert outside not in await page.content()


async def test_a_lost_connection_and_its_gap_are_shown(browser: Browser) -> None:
    async with served() as it, browsed(browser) as page:
        await opened(page, it)
        it.source.disconnect("half_open")
        await expect(page.get_by_role("status")).to_contain_text("Not connected")
        await expect(page.locator("#gaps")).to_contain_text("server fell silent")
        await expect(page.locator("#gaps")).to_contain_text("open")
        it.source.connect()
        await expect(page.get_by_role("status")).to_contain_text("Connected")
        await expect(page.locator("#gaps .open")).to_have_count(0)


async def test_it_says_when_nobody_answers_and_goes_on_when_somebody_does(browser: Browser) -> None:
    (port,) = free_ports(1)
    source = FakeSource()
    listener = Listener(source, namespace=NAMESPACE)
    async with listener, browsed(browser) as page:
        async with make_admin(listener, port=port) as admin:
            await page.goto(admin.url)
            await expect(page.get_by_role("status")).to_contain_text("Connected")
        await expect(page.get_by_role("status")).to_contain_text("does not answer")
        async with make_admin(listener, port=port):
            await expect(page.get_by_role("status")).to_contain_text("Connected")
            await until(lambda: list(listener._handover.taps))  # noqa: SLF001 - it reads along again
            source.send(make("held"))
            await expect(page.locator(".events .name")).to_contain_text(["held"])


async def test_it_asks_for_the_token_once(browser: Browser) -> None:
    async with served(admin={"token": TOKEN}) as it, browsed(browser) as page:
        await page.goto(it.admin.url)
        field = page.get_by_label("Token")
        await expect(field).to_be_focused()
        await field.fill("wrong")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_have_text("This is not the token.")
        await field.fill(TOKEN)
        await page.get_by_role("button", name="Enter").click()
        await reads_along(page, it)
        it.source.send(make("held"))
        await expect(page.locator(".events .name")).to_have_text(["held"])
        assert await page.evaluate("document.cookie") == ""
        await page.reload()
        await expect(page.get_by_role("status")).to_contain_text("Connected")


async def test_a_session_can_be_left_after_a_reload_too(browser: Browser) -> None:
    async with served(admin={"token": TOKEN}) as it, browsed(browser) as page:
        await page.goto(it.admin.url)
        await page.get_by_label("Token").fill(TOKEN)
        await page.keyboard.press("Enter")
        leave = page.get_by_role("button", name="Leave")
        await expect(leave).to_be_visible()
        await page.reload()
        await leave.click()
        await expect(page.get_by_label("Token")).to_be_visible()
        await page.reload()
        await expect(page.get_by_label("Token")).to_be_visible()


async def test_where_no_token_is_asked_for_there_is_nothing_to_leave(browser: Browser) -> None:
    async with served() as it, browsed(browser) as page:
        await opened(page, it)
        await expect(page.get_by_role("button", name="Leave")).to_be_hidden()


@pytest.mark.parametrize(
    ("zone", "told", "wall"),
    [
        ("Asia/Shanghai", "Asia/Shanghai", "14:13:36"),
        (timezone(timedelta(hours=5, minutes=30)), "UTC+05:30", "11:43:36"),
    ],
)
async def test_all_times_are_the_servers_and_it_says_so(
    browser: Browser, zone: Any, told: str, wall: str
) -> None:
    at = datetime(2026, 3, 18, 6, 13, 36, tzinfo=UTC)
    clock = ManualClock(at)
    async with (
        served(zone=zone, clock=clock) as it,
        browsed(browser, timezone_id="Europe/Berlin") as page,
    ):
        await opened(page, it)
        it.source.send(make("held", eventTime=f"2026.03.18 {wall}"))
        it.source.send(make("retrieved", eventTime="2026-03-18T06:13:36Z"))
        it.source.send(make("failed", eventTime="long ago"))
        times = page.locator(".events time")
        await expect(times).to_have_text(["", wall, wall])
        it.source.disconnect("half_open")
        await expect(times.first).to_have_text(wall)
        await expect(page.locator("#gaps .mono")).to_have_text([wall])
        for title in ("#events-title", "#gaps-title"):
            await expect(page.locator(title)).to_contain_text(f"times in {told}")


@pytest.mark.parametrize(
    ("locale", "ready"), [("zh-CN", "就绪"), ("en-GB", "Ready"), ("de-DE", "Ready")]
)
async def test_it_speaks_the_browsers_language(browser: Browser, locale: str, ready: str) -> None:
    async with served() as it, browsed(browser, locale=locale) as page:
        await page.goto(it.admin.url)
        it.source.send(make_agent("agentReady"))
        await expect(tile(page, 5002)).to_contain_text(ready)
        language = await page.locator("html").get_attribute("lang")
        assert language == ("zh-CN" if locale == "zh-CN" else "en")
        assert not re.search(
            r"\bundefined\b|\bNaN\b|\{0\}", await page.locator("body").inner_text()
        )


async def test_both_languages_have_the_same_words(browser: Browser) -> None:
    async with served() as it, browsed(browser) as page:
        await opened(page, it)
        assert await page.evaluate(
            "Object.keys(WORDS.en).sort().join() === Object.keys(WORDS.zh).sort().join()"
        )


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_what_is_written_can_be_told_from_what_is_behind(
    browser: Browser, scheme: str
) -> None:
    """WCAG 2.2, 1.4.3: a contrast of 4.5 to 1 at least, of every colour text is written in."""
    async with served() as it, browsed(browser, color_scheme=scheme) as page:
        await opened(page, it)
        contrasts: dict[str, float] = await page.evaluate(_CONTRASTS)
        assert {name: value for name, value in contrasts.items() if value < 4.5} == {}
        assert len(contrasts) == 9


_CONTRASTS = """() => {
  const probe = document.body.appendChild(document.createElement("i"));
  const light = (name) => {
    probe.style.color = `var(${name})`;
    const parts = getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3).map((c) => c / 255);
    const [r, g, b] = parts.map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const names = ["ink", "quiet", "accent", "good", "talk", "ring", "bad", "wrap", "off"];
  const ground = light("--sheet");
  return Object.fromEntries(names.map((name) => {
    const one = light(`--${name}`);
    return [name, (Math.max(one, ground) + 0.05) / (Math.min(one, ground) + 0.05)];
  }));
}"""


async def test_the_keyboard_alone_picks_agents_by_state(browser: Browser) -> None:
    async with served() as it, browsed(browser) as page:
        it.source.send(make_agent("agentReady", agent=5002, device=8002))
        it.source.send(make_agent("agentNotReady", agent=5003, device=8003))
        await opened(page, it)
        chip = page.get_by_role("button", name="Not ready")
        await chip.focus()
        await page.keyboard.press("Enter")
        await expect(page.locator(".agents li")).to_have_count(1)
        await expect(chip).to_have_attribute("aria-pressed", "true")
        await expect(chip).to_be_focused()
        await page.keyboard.press("Space")
        await expect(page.locator(".agents li")).to_have_count(2)


async def test_a_reader_of_the_screen_finds_its_way(browser: Browser) -> None:
    async with served() as it, browsed(browser) as page:
        await opened(page, it)
        await expect(page.get_by_role("main")).to_be_visible()
        for name in ("Agents", "Calls in progress", "Events a second", "Last events"):
            await expect(page.get_by_role("region", name=name)).to_be_visible()
        await expect(page.get_by_role("status")).to_have_attribute("aria-live", "polite")
        await expect(page.get_by_role("img", name="Events a second")).to_be_visible()
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to the board")).to_be_focused()


@pytest.mark.parametrize("width", [320, 360, 390, 1400])
async def test_nothing_hangs_over_the_edge_and_no_agent_is_cut_off(
    browser: Browser, width: int
) -> None:
    size = {"width": width, "height": 844}
    async with served() as it, browsed(browser, viewport=size) as page:
        for number in range(12):
            it.source.send(make_agent("agentReady", agent=5000 + number, device=8000 + number))
        for agent in ("wang.xiaoming", "maintenance-2nd-floor@hangzhou.example.com"):
            it.source.send(make_agent("agentReady", agent=agent, device=f"80021{len(agent)}"))
        await opened(page, it)
        await expect(page.locator(".agents li")).to_have_count(14)
        wide = await page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width
        assert await page.evaluate(_CUT_OFF) == []


_CUT_OFF = """() => [...document.querySelectorAll(".agents .who *")].filter((one) => {
  const [inner, tile] = [one.getBoundingClientRect(), one.closest("li").getBoundingClientRect()];
  return one.scrollWidth > one.clientWidth + 1 && one.clientWidth > 0
    || inner.right > tile.right || inner.left < tile.left;
}).map((one) => one.textContent)"""


async def test_a_server_that_restarts_on_the_same_port_comes_back_on_the_page(
    browser: Browser,
) -> None:
    centre = Centre(seed=5, agents=6, rate=40.0, namespace=NAMESPACE)
    async with SimulatorServer(centre=centre, await_subscriber=True) as server:
        listener = Listener(server.stomp_url, namespace=NAMESPACE)
        async with (
            make_admin(listener, masker=Masker()) as admin,
            listener,
            browsed(browser) as page,
        ):
            await page.goto(admin.url)
            await expect(page.locator(".agents li")).to_have_count(6)
            await server.stop()
            await expect(page.get_by_role("status")).to_contain_text("Not connected")
            await server.start()
            await expect(page.get_by_role("status")).to_contain_text("Connected")
            await expect(page.locator("#gaps li")).to_have_count(1)
            events = page.locator(".figures dd").nth(1)
            await expect(events).not_to_have_text(await events.inner_text())
