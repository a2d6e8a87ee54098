"""Secrets are taken out of texts however they are written, and found wherever they stand."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cti_listener.discretion import (
    MASK,
    Discretion,
    in_message,
    in_query,
    in_url,
    in_value,
    in_values,
)

SECRETS = st.text(st.characters(exclude_categories=["Cs"]), min_size=4, max_size=30)


@given(SECRETS, st.text(max_size=20), st.text(max_size=20))
def test_no_secret_is_left_in_a_text(secret: str, before: str, after: str) -> None:
    discretion = Discretion([secret])
    for form in (
        secret,
        quote(secret),
        quote(secret, safe=""),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        repr(secret)[1:-1],
        base64.b64encode(secret.encode()).decode().rstrip("="),
        base64.urlsafe_b64encode(secret.encode()).decode().rstrip("="),
    ):
        assert form in MASK or form not in discretion.text(f"{before}{form}{after}")
        assert MASK in discretion.text(f"{before}{form}{after}")


@given(st.sampled_from(["geheim-4711", "x y\nz/ä@"]), st.text("abg-", max_size=9), st.integers(4))
def test_half_a_secret_at_the_end_of_what_was_cut_is_taken_out(
    secret: str, before: str, length: int
) -> None:
    discretion = Discretion([secret, "another-one"])
    cut = f"{before}: {secret[:length]}"
    assert discretion.words(cut) == f"{before}: {MASK}"
    assert discretion.words(f"{cut}'") == f"{before}: {MASK}'"
    assert discretion.data(cut.encode()) == f"{before}: {MASK}".encode()


@pytest.mark.parametrize("text", ["", "nothing of it", "gehe4711", "ge", "geheim, and more"])
def test_what_is_no_secret_stays(text: str) -> None:
    discretion = Discretion(["geheim-4711", "abc", ""])
    assert discretion.text(text) == text
    assert discretion.words(text) == text
    assert Discretion().words(text) == text


def test_a_token_is_known_also_in_lower_case_and_a_word_only_as_it_is() -> None:
    discretion = Discretion(["T0KEN-ABC", "Geheim"])
    assert discretion.text("https://t0ken-abc.test/geheim") == f"https://{MASK}.test/geheim"


def test_bytes_that_are_no_text_stay_bytes() -> None:
    assert Discretion(["geheim"]).data(b"\xff\x00geheim\xfe") == b"\xff\x00********\xfe"


def test_of_two_secrets_the_longer_is_taken_out_first_and_more_can_be_learned() -> None:
    discretion = Discretion(["geheim"]).about(["geheimer"])
    assert discretion.text("geheimer, geheim") == f"{MASK}, {MASK}"
    assert repr(discretion) == "<Discretion about 2 secrets>"


def test_an_exception_is_judged_by_all_that_stands_behind_it() -> None:
    discretion = Discretion(["geheim-4711"])
    shown, hidden, held = ValueError("geheim-4711"), ValueError("no"), ValueError("no")
    hidden.__context__ = ValueError("no")
    hidden.__context__.__cause__ = shown
    hidden.__context__.__context__ = hidden  # a ring
    held.secret = "geheim-4711"  # type: ignore[attr-defined]
    assert discretion.is_broken_by(shown)
    assert discretion.is_broken_by(hidden)
    assert discretion.is_broken_by(held)
    assert not discretion.is_broken_by(ValueError("geheim"))
    assert not discretion.is_broken_by(None)


@pytest.mark.parametrize(
    ("url", "secrets"),
    [
        ("wss://me:s%20cret@h/x", {"s%20cret", "s cret", "me:s cret"}),
        ("wss://T0KEN@h/x", {"T0KEN"}),
        ("wss://h/a;jsessionid=abc/b;v=1;w=0123456789?token=xyz1", {"abc", "0123456789", "xyz1"}),
        ("wss://h/x?namespace=zhen04.cc&device=8002@zhen04.cc&agent_id=0123456789", set()),
        ("wss://h/x?all=true&v=2", set()),
        ("wss://h/x?k=a%2Fb%2F0123456789", {"a%2Fb%2F0123456789", "a/b/0123456789"}),
        ("wss://[::1", set()),
        ("auto", set()),
        ("", set()),
    ],
)
def test_secrets_are_found_in_an_address(url: str, secrets: set[str]) -> None:
    assert {text for text in in_url(url) if text} == secrets


@pytest.mark.parametrize(
    ("query", "secrets"),
    [
        ("namespace={namespace}&device={device}", set()),
        ("key=k-4711-{device}", {"k-4711-"}),
        ("token={agent}abcd;ABCDEFGH1", {"abcd", "ABCDEFGH1"}),
    ],
)
def test_secrets_are_found_in_a_query(query: str, secrets: set[str]) -> None:
    found = {text for text in in_query(query) if text}
    assert found <= secrets
    assert len(found) >= len(secrets) - 1  # seven characters under a name that tells nothing


@pytest.mark.parametrize(
    ("message", "secrets"),
    [
        ('{"do": "subscribe", "token": "abcd", "to": {"device": "{device}"}}', {"abcd"}),
        ('{"as": ["me", "0123456789"], "n": [1, null, true]}', {"0123456789"}),
        ('{"namespace": "zhen04.cc-0123", "k": "{device}0123456789"}', {"0123456789"}),
        ("SUB {device} abcdefg1/h, now", {"abcdefg1/h"}),
        ("SUB {device}", set()),
    ],
)
def test_secrets_are_found_in_a_message(message: str, secrets: set[str]) -> None:
    assert {text for text in in_message(message) if text} == secrets


@pytest.mark.parametrize(
    ("value", "pieces"),
    [
        ("Bearer abc.def-0123", {"abc.def-0123"}),
        ("JSESSIONID=A0B1C2D3; theme=dark", {"JSESSIONID=A0B1C2D3", "A0B1C2D3"}),
        ("a long sentence of words", set()),
        ("T0KEN", set()),
    ],
)
def test_of_a_secret_the_pieces_that_tell_by_themselves_are_secrets_too(
    value: str, pieces: set[str]
) -> None:
    assert set(in_value(value)) == {value, *pieces}


def test_a_header_is_a_secret_by_its_name_or_its_looks() -> None:
    headers = {
        "X-Tenant": "seven",
        "sessionId": "abcd",
        "X-Mine": "ABCDEFG1",
        "device": "0123456789",
    }
    assert set(in_values(headers)) == {"abcd", "ABCDEFG1"}
