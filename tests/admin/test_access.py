from __future__ import annotations

import pytest

from cti_listener.admin.access import (
    MOST_SESSIONS,
    SESSION_AGE,
    Access,
    Address,
    Hosts,
    refuse_open,
)
from cti_listener.errors import ConfigurationError
from cti_listener.testing import ManualClock
from tests.admin.support import EVERYWHERE, TOKEN


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:9464", "127.0.0.1", 9464),
        ("localhost:0", "localhost", 0),
        (":9464", "127.0.0.1", 9464),
        ("[::1]:9464", "::1", 9464),
        ("0.0.0.0:80", EVERYWHERE, 80),
    ],
)
def test_an_address_is_read_as_it_is_written(text: str, host: str, port: int) -> None:
    assert Address.read(text) == (host, port)
    assert Address.read(str(Address.read(text))) == (host, port)


@pytest.mark.parametrize("text", ["", "9464", "host", "host:", "::1:9464", "host:65536", "h:-1"])
def test_what_is_no_address_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"not like 127\.0\.0\.1:9464"):
        Address.read(text)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("localhost", True),
        ("::1", True),
        (EVERYWHERE, False),
        ("::", False),
        ("10.0.0.7", False),
        ("listener.example.com", False),
    ],
)
def test_the_loopback_alone_may_be_open(host: str, *, loopback: bool) -> None:
    address = Address(host, 9464)
    assert address.is_loopback is loopback
    refuse_open(address, TOKEN)
    if loopback:
        refuse_open(address, None)
    else:
        with pytest.raises(ConfigurationError, match="--admin-token-file"):
            refuse_open(address, None)


def test_a_token_that_can_be_guessed_is_refused_on_the_loopback_too() -> None:
    with pytest.raises(ConfigurationError, match="openssl rand"):
        refuse_open(Address("127.0.0.1", 1), "short")


@pytest.mark.parametrize(
    ("header", "here", "admitted"),
    [
        ("localhost:9464", "127.0.0.1", True),
        ("LOCALHOST", "127.0.0.1", True),
        ("localhost.", "127.0.0.1", True),
        ("127.0.0.1:1", "127.0.0.1", True),
        ("[::1]:9464", "::1", True),
        ("10.1.2.3:9464", "10.1.2.3", True),
        ("10.1.2.3:9464", "10.1.2.4", False),
        ("cti-listener:9464", "127.0.0.1", True),
        ("0.0.0.0:9464", "127.0.0.1", True),
        ("evil.example.com", "127.0.0.1", False),
        ("evil.example.com:9464", "127.0.0.1", False),
        ("localhost.evil.example.com", "127.0.0.1", False),
        ("127.0.0.1.evil.example.com", "127.0.0.1", False),
        ("localhost@evil.example.com", "127.0.0.1", False),
        ("localhost:80:80", "127.0.0.1", False),
        ("[::1]evil", "::1", False),
        ("", "127.0.0.1", False),
        ("", "", False),
    ],
)
def test_a_host_is_one_of_ours_or_refused(header: str, here: str, *, admitted: bool) -> None:
    assert Hosts(EVERYWHERE, ["cti-listener"]).admit(header, here) is admitted


def test_only_the_token_and_sessions_are_admitted() -> None:
    access = Access(TOKEN, ManualClock())
    session = access.begin()
    assert TOKEN not in session
    assert access.admits(f"Bearer {TOKEN}", None)
    assert access.admits(f"bearer  {TOKEN}", None)
    assert access.admits(None, session)
    for authorization in ("", TOKEN, f"Basic {TOKEN}", "Bearer", f"Bearer {TOKEN}x", "Bearer é"):
        assert not access.admits(authorization, None)
    for cookie in ("", TOKEN, session[:-1], f"{session}x"):
        assert not access.admits(None, cookie)
    assert not access.admits(None, None)
    assert TOKEN not in repr(access)


def test_a_wrong_token_is_not_made_up_for_by_a_session() -> None:
    access = Access(TOKEN, ManualClock())
    assert not access.admits("Bearer wrong", access.begin())


async def test_a_session_ends_by_itself_and_when_it_is_ended() -> None:
    clock = ManualClock()
    access = Access(TOKEN, clock)
    one, other = access.begin(), access.begin()
    access.end(one)
    assert (access.admits(None, one), access.admits(None, other)) == (False, True)
    await clock.advance(SESSION_AGE)
    assert not access.admits(None, other)


def test_sessions_are_bounded() -> None:
    access = Access(TOKEN, ManualClock())
    sessions = [access.begin() for _ in range(MOST_SESSIONS + 1)]
    assert [access.admits(None, one) for one in sessions] == [False] + [True] * MOST_SESSIONS
