"""What is wrong with a certificate, in words; `test_failures_to_connect` meets real ones."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from cti_listener.errors import ConfigurationError
from cti_listener.sources.options import ConnectionOptions
from cti_listener.sources.tls import context_for, meaning_of_certificate, meaning_of_tls

URL = "wss://cti.test/events"
SOUND = {"notBefore": "Jan  1 00:00:00 2000 GMT", "notAfter": "Jan  1 00:00:00 3000 GMT"}


def problem(code: int, *chain: dict[str, Any]) -> str:
    """Return what is said of a chain that OpenSSL refuses with this code."""
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = code, "out of order"
    vars(error)["chain"] = list(chain)
    return meaning_of_certificate(error, URL).problem


@pytest.mark.parametrize("code", [9, 10, 18, 19, 20, 21, 62, 64, 66])
def test_something_is_said_also_where_nothing_is_known_of_the_certificate(code: int) -> None:
    assert problem(code)
    assert problem(code, {})


@pytest.mark.parametrize(
    ("code", "dates", "said"),
    [
        (10, {"notAfter": "May  9 07:35:25 2020 GMT"}, "expired on 2020-05-09 07:35 UTC"),
        (
            9,
            {"notBefore": "May  9 07:35:25 2999 GMT"},
            "is valid only from 2999-05-09 07:35 UTC on",
        ),
    ],
)
def test_of_a_chain_the_certificate_is_named_whose_date_is_wrong(
    code: int, dates: dict[str, str], said: str
) -> None:
    subject = ((("organizationName", "Ours"),), (("commonName", "CA 1"),))
    authority = {**SOUND, **dates, "subject": subject}
    assert problem(code, {**SOUND, **dates}, SOUND).startswith(f"its certificate {said}")
    whose = "the certificate of Ours, CA 1, which vouches for its own,"
    assert problem(code, SOUND, authority).startswith(whose)
    assert said in problem(code, SOUND, authority)
    assert said not in problem(code, SOUND, SOUND)  # it is one that was not shown


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            (("DNS", "a.test"), ("IP Address", "10.0.0.1")),
            "for a.test, 10.0.0.1, not for cti.test;",
        ),
        (tuple(("DNS", f"{n}.test") for n in range(9)), "3.test, 4.test and 4 more, not for"),
        ((("DNS", "a\n\x9b.test"),), "for a??.test, not for"),
        ((("DNS", "a" * 300),), f"for {'a' * 100}, not for"),
        ((), "for no host that it names, not for"),
    ],
)
def test_the_hosts_that_a_certificate_is_for_are_named(names: Any, said: str) -> None:
    assert said in problem(62, {**SOUND, "subjectAltName": names})


def test_what_has_no_words_of_ours_has_those_of_openssl() -> None:
    error = ssl.SSLError(1, "[SSL: SOMETHING_ELSE] x")
    error.reason = "SOMETHING_ELSE"
    assert "TLS failed: something else" in str(meaning_of_tls(error, URL, certificate=False))
    assert "not trusted: out of order" in problem(66)


@pytest.mark.parametrize(
    ("cert", "key", "said"),
    [
        (
            "cert",
            None,
            "cert.pem: it holds no certificate, or not its key, in PEM; give the key as",
        ),
        ("key", None, "key.pem: it holds no certificate, or not its key, in PEM; give the key as"),
        ("cert", "cert", "the one holds no certificate in PEM, or the other no key"),
        ("key", "key", "the one holds no certificate in PEM, or the other no key"),
        ("cert", "other", "cert.pem with .*other.pem: the key belongs to another certificate"),
        ("cert", "absent", "cert.pem with .*absent.pem: .*No such file"),
    ],
)
def test_what_is_wrong_with_our_certificate_is_said(
    cert: str, key: str | None, said: str, tmp_path: Path
) -> None:
    authority = trustme.CA()
    ours, other = authority.issue_cert("us@zhen04.cc"), authority.issue_cert("you@zhen04.cc")
    ours.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    ours.private_key_pem.write_to_path(tmp_path / "key.pem")
    other.private_key_pem.write_to_path(tmp_path / "other.pem")
    options = ConnectionOptions(
        cert_file=tmp_path / f"{cert}.pem", key_file=tmp_path / f"{key}.pem" if key else None
    )
    with pytest.raises(ConfigurationError, match=said) as raised:
        context_for(options)
    assert raised.value.what == "cert_file"


def test_nobody_is_asked_for_the_pass_phrase_of_a_key(tmp_path: Path) -> None:
    ours = trustme.CA().issue_cert("listener@zhen04.cc")
    key = serialization.load_pem_private_key(ours.private_key_pem.bytes(), None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"s3cret"),
    )
    cert_file, key_file = tmp_path / "cert.pem", tmp_path / "key.pem"
    ours.cert_chain_pems[0].write_to_path(cert_file)
    key_file.write_bytes(encrypted)
    with pytest.raises(
        ConfigurationError, match=r"key\.pem: the key is encrypted; give it decrypted"
    ) as raised:
        context_for(ConnectionOptions(cert_file=cert_file, key_file=key_file))
    assert raised.value.what == "cert_file"
