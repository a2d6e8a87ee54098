from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cti_listener.ops.masking import Masker, carries_secret, mask_address, mask_path, mask_url
from cti_listener.values import EventKey


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("call from 33255500@welljoint.cc", "call from ****00@welljoint.cc"),
        ("13812345678", "138****5678"),
        ("+8613812345678", "+861****5678"),
        ("tel:13812345678;x", "tel:138****5678;x"),
        ("138****5678", "138****5678"),
        ("8002@zhen04.cc", "8002@zhen04.cc"),
        ("80021234@zhen04.cc", "80021234@zhen04.cc"),
        ("37db6efe-57cc-4053-b0ce-241234567890", "37db6efe-57cc-4053-b0ce-241234567890"),
        ("2017.03.18 14:13:24", "2017.03.18 14:13:24"),
        ("2026-11-22T14:13:24.123456Z", "2026-11-22T14:13:24.123456Z"),
        ("20180724111439_7829daaf.wav", "20180724111439_7829daaf.wav"),
        ("0.12345678", "0.12345678"),
    ],
)
def test_outside_numbers_are_masked_and_what_only_looks_alike_is_not(
    text: str, masked: str
) -> None:
    assert Masker(own=["80021234@zhen04.cc"]).text(text) == masked


def test_numbers_are_left_alone_when_asked() -> None:
    assert Masker(numbers=False).text("13812345678") == "13812345678"


def test_a_known_secret_is_masked_wherever_it_turns_up() -> None:
    masker = Masker()
    masker.learn(["geheim", "geheimer"])
    assert masker.text("x geheimer y geheim") == "x ******** y ********"
    assert masker.text("Z2VoZWltZXI= %67eheim") == "********= %67eheim"


def test_a_secret_too_short_to_look_for_is_masked_by_its_name() -> None:
    masker = Masker()
    masker.learn(["ab", ""])
    assert masker.text("about") == "about"
    assert masker.fields({"passcode": "ab"}) == {"passcode": "********"}


@pytest.mark.parametrize(
    "name",
    ["passcode", "token", "Authorization", "Cookie", "sessionId", "access_token", "api_key"],
)
def test_what_stands_under_a_secrets_name_is_masked(name: str) -> None:
    assert Masker().fields({name: "x", "about": {name: ["y"]}}) == {
        name: "********",
        "about": {name: "********"},
    }


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("wss://me:pw@host/x", "wss://********@host/x"),
        ("wss://BEARER@host/x", "wss://********@host/x"),
        ("http://PROXY@host", "http://********@host"),
        ("wss://a:b@c:d@[::1]:80/x", "wss://********@[::1]:80/x"),
        ("wss://host/x?token=abc&device=8002", "wss://host/x?token=********&device=********"),
        ("wss://host/x?t=abc,def;g=h&k", "wss://host/x?t=********&********"),
        ("wss://host/x?next=wss://me:pw@host", "wss://host/x?next=********"),
        ("wss://host/x?d={device}&a={agent_}&n=", "wss://host/x?d={device}&a={agent_}&n="),
        ("wss://host/x?d=s3cret{device}", "wss://host/x?d=********"),
        ("wss://host/x?d=8002@zhen04.cc", "wss://host/x?d=********"),
        ("wss://host/x?a=s3#cret", "wss://host/x?a=********#********"),
        ("wss://host/queue/8002@zhen04.cc", "wss://host/queue/8002@zhen04.cc"),
        ("wss://me:p/w@host/x?k=v", "wss://********@host/x?k=********"),
        ("wss://me:p?w#@d@host/x", "wss://********@host/x"),
        ("wss://me:my pw@host/x", "wss://********@host/x"),
        ("wss://me:p@w/x@host/x", "wss://********@host/x"),
        ("wss://host/x?s3@cret=v", "wss://host/x?********"),
        ("wss://me:p", "wss://me:********"),
        ("wss://host:8080/mvc/stomp/websocket", "wss://host:8080/mvc/stomp/websocket"),
        (
            "wss://host/a;jsessionid=s3/b;cret?k=v",
            "wss://host/a;jsessionid=********/b;********?k=********",
        ),
    ],
)
def test_addresses_lose_their_passwords(url: str, masked: str) -> None:
    assert mask_url(url) == masked
    assert Masker().text(f"lost {url}, again") == f"lost {masked}, again"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("me:s3cret@host/x", "********@host/x"),
        ("wss//me:s3@cret@host/x?t=s3cret", "********@host/x?t=********"),
        ("host?t=s3cret", "host?t=********"),
        ("wss://me:s3cret@host/x", "wss://********@host/x"),
        ("localhost:8080/x", "localhost:8080/x"),
        ("auto", "auto"),
    ],
)
def test_what_is_meant_for_an_address_loses_them_too(text: str, masked: str) -> None:
    assert mask_address(text) == masked


def test_a_path_is_shown_where_a_secret_cannot_be_meant(tmp_path: Path) -> None:
    file = tmp_path / "t0ken-0123456789"
    assert mask_path(file) == "********"
    file.touch()
    assert mask_path(file) == str(file)
    assert mask_path(tmp_path / "passcode") == str(tmp_path / "passcode")
    for odd in ("passcode", "no-such-place/passcode", "x" * 5000, "a\0b"):
        assert mask_path(Path(odd)) == "********"


def test_addresses_in_one_text_are_masked_each() -> None:
    text = "from wss://h/a?k=v to 'http://TOK@p:8', wss://a/x,wss://me:pw@b/, of 8002@zhen04.cc."
    masked = "from wss://h/a?k=******** to 'http://********@p:8', wss://a/x,wss://********@b/"
    assert Masker().text(text) == f"{masked}, of 8002@zhen04.cc."


def test_a_query_given_alone_is_masked_as_one() -> None:
    assert mask_url("key=s3cret&device={device}") == "key=********&device={device}"
    assert mask_url("/topic/event.agent.*.{agent_}") == "/topic/event.agent.*.{agent_}"
    assert mask_url("8002@zhen04.cc") == "8002@zhen04.cc"


@pytest.mark.parametrize(
    ("url", "carries"),
    [
        ("wss://host:8080/x?device=8002@zhen04.cc", False),
        ("wss://[::1]:80/x", False),
        ("auto", False),
        ("wss://me:pw@host/", True),
        ("wss://BEARER@host/", True),
        ("wss://me:p/w@host/", True),
        ("wss://host/?a=1&token=x", True),
        ("wss://host/x;jsessionid=x", True),
    ],
)
def test_what_must_not_stand_on_a_command_line_is_told(url: str, carries: bool) -> None:  # noqa: FBT001
    assert carries_secret(url) is carries


@given(st.text(st.characters()))
def test_masking_takes_any_text(text: str) -> None:
    for one in (text, f"wss://{text}", f"x wss://{text}"):
        mask_url(one)
        Masker().text(one)


@given(st.text(st.sampled_from("aZ0 :/?#@[&=,"), max_size=8))
def test_nothing_is_left_of_an_unreadable_password(around: str) -> None:
    assert "s3cret" not in mask_url(f"wss://me:p{around}s3cret{around}@host/")


def test_values_keep_their_kind_where_they_are_no_text() -> None:
    key = EventKey("zhen04.cc", "csta", "13812345678", 11050819, "held", "x", "1")
    moment = datetime(2026, 11, 22, tzinfo=UTC)
    masked = Masker().fields({"key": key, "serial": 11050819, "ok": True, "no": None, "at": moment})
    assert masked == {
        "key": ["zhen04.cc", "csta", "138****5678", 11050819, "held", "x", "1", None],
        "serial": 11050819,
        "ok": True,
        "no": None,
        "at": "2026-11-22 00:00:00+00:00",
    }
