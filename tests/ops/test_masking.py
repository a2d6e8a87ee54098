from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from time import thread_time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cti_listener.ops.masking import Masker, carries_secret, mask_address, mask_path, mask_url
from cti_listener.settings import Settings
from cti_listener.values import EventKey


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("call from 33255500@welljoint.cc", "call from ****00@welljoint.cc"),
        ("13812345678", "138****5678"),
        ("+8613812345678", "+861****5678"),
        ("tel:13812345678;x", "tel:138****5678;x"),
        ("138-0013-8000", "138****8000"),
        ("138 0013 8000", "138****8000"),
        ("138.0013.8000", "138****8000"),
        ("138\u20110013\u20118000", "138****8000"),
        ("138\u200b0013\u200b8000", "138****8000"),
        ("１３８００１３８０００", "１３８****８０００"),
        ("+86 138 0013 8000", "+861****8000"),
        ("+86 13800138000", "+86 138****8000"),
        ("0755-26881234@zhen04.cc", "0755-****34@zhen04.cc"),
        ("(0755) 2688-1234", "(075****1234"),
        ("（0755）26881234", "（0755）****34"),
        ("+1 (212) 555-0123", "+121****0123"),
        ("2688-1234", "****34"),
        ("26881234-8002", "****34-8002"),
        ("021-20261128", "021-****28"),
        ("20261128", "****28"),
        ("13800138000_8002_20261128.wav", "138****8000_8002_20261128.wav"),
        ("8002-13800138000-20261128141336.wav", "8002-138****8000-20261128141336.wav"),
        ("rec13800138000.wav", "rec138****8000.wav"),
        ("/rec/zhen04.cc/2026/1128/13800138000.mp3", "/rec/zhen04.cc/2026/1128/138****8000.mp3"),
        ("8002@zhen04.cc_13800138000.wav", "8002@zhen04.cc_138****8000.wav"),
        ("2026-11-28 13800138000", "2026-11-28 138****8000"),
        ("8002 2026-11-28 138 0013 8000", "8002 2026-11-28 138****8000"),
        (
            "13800138000-37db6efe-57cc-4053-b0ce-241234567890",
            "138****8000-37db6efe-57cc-4053-b0ce-241234567890",
        ),
        ("1.13800138000 2.13900139000", "1.138****8000 2.139****9000"),
        ("13800138000.0", "138****8000.0"),
        ("13800138000 13900139000", "138****8000 139****9000"),
        ("80021234 138-0013-8000", "80021234 138****8000"),
        ("wss://a13800138000.cc/x", "wss://a138****8000.cc/x"),
        ("8002@zhen13800138000.cc", "8002@zhen138****8000.cc"),
        ("0x13800138000", "0x138****8000"),
        ("客户13800138000来电", "客户138****8000来电"),
    ],
)
def test_outside_numbers_are_masked_however_they_are_written(text: str, masked: str) -> None:
    assert Masker(own=["80021234@zhen04.cc"]).text(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "138****5678",
        "8002@zhen04.cc",
        "80021234@zhen04.cc",
        "agent 80021234, 80021235",
        "8002_8003_5002",
        "8002@t20180724.cc",
        "8002@zhen04.cc|37db6efe-57cc-4053-b0ce-241234567890",
        "37db6efe-57cc-4053-b0ce-241234567890",
        "9fd96944566be581ac1b02f9a1974283",
        "2017.03.18 14:13:24",
        "2026-11-22T14:13:24.123456Z",
        "2026-11-28T14:13:24.123+08:00",
        "28.11.2026 14:13",
        "14:13:24.1234567",
        "20180724111439_7829daaf.wav",
        "20180724-111439-8002.wav",
        "20261128T141336Z",
        "/rec//bzkun.cc/2018/0724/8009@bzkun.cc/20180724111439_7829daaf-9694-4566-be58-1ac1b02f9a19.wav",
        "0.12345678",
        "172.30.10.8",
        "172.30.110.18:61613",
        "wss://ip-172-30-110-18.example.com:8080/mvc",
        "wss://node1234567.example.com/mvc",
        "Chrome/120.0.6099.109",
        "<Task at 0x7f8812345678>",
        "/topic/event.agent.*.5002",
        "1048 of 4096",
    ],
)
def test_what_only_looks_like_an_outside_number_stays_readable(text: str) -> None:
    assert Masker(own=["80021234@zhen04.cc", "80021235"]).text(text) == text


@pytest.mark.parametrize("before", ["", "8002 ", "x", "_", "2026.11.28 ", "0.", "10.0.0.1 "])
@pytest.mark.parametrize("after", ["", " 8002", "x", "_", "@zhen04.cc", ".wav", "-1", ".5"])
def test_a_mobile_is_masked_whatever_stands_around_it(before: str, after: str) -> None:
    assert "13800138000" not in Masker().text(f"{before}13800138000{after}")


@pytest.mark.parametrize(
    "piece",
    ["1", "1-", "1 - ", "13800138000 ", "0.", "0.1", "1.1.", "12.", "a1", "@a", "1:", "37db6efe-"],
)
def test_a_hostile_text_is_masked_in_a_time_that_grows_with_its_length(piece: str) -> None:
    def took(length: int) -> float:
        """Return the least processor time of some tries."""
        text = (piece * length)[:length]
        tries = []
        for _ in range(5):
            began = thread_time()
            masker.text(text)
            tries.append(thread_time() - began)
        return max(min(tries), 0.0005)

    masker = Masker()
    assert took(16_000) < 100 * took(1000)  # if it grew with the square: 256
    assert took(400_000) < 100 * took(20_000)  # 400


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
        ("wss://me:p@w/cret?k=x@host/x", "wss://********@host/x"),
        ("wss://me:p@w/cret#x@host/x", "wss://********@host/x"),
        (
            "wss://me:pw@host/x?device=8002@h.cc&t=v",
            "wss://********@host/x?device=********&t=********",
        ),
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
        ('[{"t": "s3cret"}]', "********"),
        ('{"t": "s3cret', "********"),
        ("[::1]:8080/x", "[::1]:8080/x"),
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


_DIVIDING = st.text(st.sampled_from("aZ0 :/?#@[&=,"), max_size=8)


@given(_DIVIDING, _DIVIDING)
@example("=@0?", "=@0?")
@example("@0/", "#")
def test_nothing_is_left_of_an_unreadable_password(before: str, after: str) -> None:
    assert "s3cret" not in mask_url(f"wss://me:p{before}s3cret{after}@host/")


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


def test_the_hosts_of_the_servers_are_not_masked_wherever_they_are_named() -> None:
    settings = Settings(
        url=("wss://cti-5967884777-abcde:8008/mvc/stomp/websocket",), device=("80021234",)
    )
    masker = Masker(own=settings.own())
    told = "the host name cti-5967884777-abcde cannot be resolved"
    assert masker.text(told) == told
    assert masker.text("80021234 called 13800138000") == "80021234 called 138****8000"
