from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cti_listener import Event, HaltError, Listener
from cti_listener.admin.probes import SLOW_COMMIT, TICK_AGE, Check, answer, liveness, readiness
from cti_listener.journal import JournalStats
from cti_listener.stats import Stats
from cti_listener.testing import FakeSource
from tests.admin.support import served
from tests.examples import NAMESPACE, make
from tests.turns import until

NOW = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)


def stats_of(**fields: object) -> Stats:
    """Return the stats of a listener that is well, but for these."""
    stats = Listener(FakeSource(), namespace=NAMESPACE).stats()
    names = {name: getattr(stats, name) for name in Stats.__dataclass_fields__}
    return Stats(**{**names, "connected": True, **fields})


def journal_of(**fields: object) -> JournalStats:
    well = {"pending": 0, "committed": 9, "commits": 3, "last_seq": 9, "bytes": 1, "max_bytes": 2}
    return JournalStats(**{**well, "oldest_undone": None, "dead": 0, **fields})  # type: ignore[arg-type]  # as they come


def failing(checks: list[Check]) -> list[str]:
    return [one.name for one in checks if not one.ok]


@pytest.mark.parametrize(
    ("age", "expected"),
    [(None, []), (0.0, []), (TICK_AGE, []), (TICK_AGE + 0.1, ["supervisor"])],
)
def test_a_supervisor_that_hangs_is_not_alive(age: float | None, expected: list[str]) -> None:
    assert failing(liveness(age)) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, []),
        ({"connected": False}, ["subscribed"]),
        ({"draining": True}, ["not_draining"]),
        ({"journal": journal_of()}, []),
        ({"journal": journal_of(open=False)}, ["journal"]),
        ({"journal": journal_of(under_way=SLOW_COMMIT)}, []),
        ({"journal": journal_of(under_way=SLOW_COMMIT + 1)}, ["journal"]),
        ({"oldest_unhandled_at": NOW - timedelta(seconds=60)}, []),
        ({"oldest_unhandled_at": NOW - timedelta(seconds=61)}, ["oldest_unhandled"]),
    ],
)
def test_each_check_fails_for_its_own_reason(
    fields: dict[str, object], expected: list[str]
) -> None:
    checks = readiness(stats_of(**fields), NOW, 60.0)
    assert failing(checks) == expected
    status, body = answer(checks)
    assert status == (503 if expected else 200)
    assert [name for name, one in body["checks"].items() if not one["ok"]] == expected


def test_the_handler_that_is_behind_is_named() -> None:
    stats = stats_of(oldest_unhandled_at=NOW - timedelta(seconds=7), oldest_unhandled_by="work")
    (check,) = (one for one in readiness(stats, NOW, 60.0) if one.name == "oldest_unhandled")
    assert check == Check("oldest_unhandled", ok=True, detail="work is 7.0 s behind")


def test_any_age_is_young_enough_when_there_is_no_limit() -> None:
    stats = stats_of(oldest_unhandled_at=NOW - timedelta(days=3))
    assert failing(readiness(stats, NOW, 0.0)) == []


async def test_liveness_does_not_ask_for_the_server_and_readiness_does() -> None:
    async with served() as it:
        assert (await it.get("/livez"))[0] == (await it.get("/readyz"))[0] == 200
        it.source.disconnect()
        assert [(await it.get(path))[0] for path in ("/livez", "/readyz")] == [200, 503]
        assert (await it.json("/readyz"))["checks"]["subscribed"]["ok"] is False
        it.source.connect()
        assert (await it.get("/readyz"))[0] == 200


async def test_it_lives_but_is_not_ready_while_it_drains() -> None:
    async with served() as it:
        release = asyncio.Event()

        @it.listener.on()
        async def slow(_event: Event) -> None:
            await release.wait()

        it.source.send(make())
        await until(lambda: it.listener.stats().waiting)
        stopping = asyncio.get_running_loop().create_task(it.listener.stop())
        await until(lambda: it.listener.stats().draining)
        assert (await it.json("/readyz"))["checks"]["not_draining"]["ok"] is False
        assert (await it.get("/livez"))[0] == 200
        release.set()
        assert await stopping == []


@pytest.mark.parametrize("kept", [False, True])
async def test_an_event_that_is_handled_for_too_long_makes_it_not_ready(
    tmp_path: Path, *, kept: bool
) -> None:
    journal = tmp_path / "j.db" if kept else None
    async with served(admin={"ready_max_age": 1e-6}, journal=journal) as it:
        release = asyncio.Event()

        @it.listener.on()
        async def slow(_event: Event) -> None:
            await release.wait()

        assert (await it.get("/readyz"))[0] == 200
        it.source.send(make())
        await until(lambda: it.listener.stats().waiting)
        checks = (await it.json("/readyz"))["checks"]
        assert [name for name, one in checks.items() if not one["ok"]] == ["oldest_unhandled"]
        release.set()
        await until(lambda: it.listener.stats().waiting == 0)
        assert (await it.get("/readyz"))[0] == 200


@pytest.mark.parametrize("kept", [False, True])
async def test_a_handler_that_has_halted_is_named(tmp_path: Path, *, kept: bool) -> None:
    journal = tmp_path / "j.db" if kept else None

    def register(listener: Listener) -> None:
        @listener.on(name="hook")
        async def hook(_event: Event) -> None:
            raise HaltError("gone")

        @listener.on(name="quick")
        async def quick(_event: Event) -> None: ...

    admin = {"ready_max_age": 1e-6}
    async with served(admin=admin, register=register, journal=journal) as it:
        it.source.send(make())
        await until(lambda: it.listener.stats().handlers["hook"].halted)
        await until(lambda: it.listener.stats().handlers["quick"].handled == 1)
        check = (await it.json("/readyz"))["checks"]["oldest_unhandled"]
        assert check["ok"] is False
        assert re.fullmatch(r"hook, which halted, is \d+\.\d s behind", check["detail"])


async def test_a_journal_that_broke_is_told() -> None:
    async with served() as it:
        assert (await it.json("/readyz"))["checks"]["journal"]["detail"] == "there is none"
