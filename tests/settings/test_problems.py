from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cti_listener.settings import load
from cti_listener.settings.making import ailments
from tests.settings.given import URL, problems, settings

if TYPE_CHECKING:
    from tests.settings.given import Write


NO_NAME = "has a name that no HTTP header has: letters, digits and hyphens make one"
NO_VALUE = "has a character that no HTTP header has: a control character, or none of Latin-1"
LIKE = "is not like wss://HOST[:PORT]/mvc/stomp/websocket"


def test_no_server_says_what_to_do_and_names_the_demo() -> None:
    [problem] = problems(load({}))
    assert problem == (
        "url: no server is configured; give --url wss://HOST/mvc/stomp/websocket, "
        "or set CTI_URL, or try --demo"
    )
    assert problems(load({"demo": True})) == []


def test_all_are_told_at_once_each_with_its_source(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(
        'silence_limt = 3\nwire = "stmp"\nopen_timeout = 0\nconfig = "x"\nping_interval = 20\n'
    )
    monkeypatch.setenv("CTI_DEVICES", "8002")
    monkeypatch.setenv("CTI_URL", "http://cti.example.com/")
    monkeypatch.setenv("CTI_COMPRESSION", "perhaps")
    found = load({"config": path, "count": -1, "device": ("8002",), "passcode_file": "/none"})
    assert problems(found) == [
        "CTI_DEVICES: no such setting; did you mean CTI_DEVICE?",
        f"{path}: silence_limt: no such setting; did you mean silence_limit?",
        f"{path}: config: a file cannot name another; give it by --config or CTI_CONFIG",
        (
            "CTI_URL: 'http://cti.example.com/' starts with http://; a WebSocket's address "
            "starts with ws://"
        ),
        f"{path}: wire: 'stmp' is not one of auto, stomp, json; did you mean stomp?",
        "--count: '-1' must be greater than or equal to 0",
        "CTI_COMPRESSION: 'perhaps' is neither true nor false",
        "--device: 8002 needs its namespace; give --ns NAMESPACE, or 8002@NAMESPACE",
        "--passcode-file: cannot read /none: No such file or directory",
        f"{path}: open_timeout: must be more than 0",
        "silence_limit: must be longer than ping_interval, or a quiet server passes for dead",
    ]
    assert found.settings.wire == "auto"
    assert "wire" not in found.sources


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ({"url": ("wss://",)}, f"--url: 'wss://' {LIKE}"),
        ({"url": ("ws://h:99999/",)}, f"--url: 'ws://h:99999/' {LIKE}"),
        ({"zone": "Mars"}, "--zone: 'Mars' is not a time zone's name, like Asia/Shanghai"),
        ({"duration": float("nan")}, "--duration: 'nan' is not a number"),
        ({"header": ("nonsense",)}, "--header: the value is not written NAME:VALUE"),
        ({"header": ("X:a\r\nY:b",)}, "--header: the value holds a line break, as none can"),
        ({"header": ("X:a\0b",)}, "--header: the value holds a NUL, as none can"),
        ({"key_file": __file__}, "--key-file: needs cert_file, the certificate it belongs to"),
        (
            {"durable": "cti-1"},
            (
                "--durable: needs durable_expires (seconds) and durable_max_length (messages): "
                "what the broker keeps for a listener that never comes back must have an end"
            ),
        ),
        ({"ca_file": "/none"}, "--ca-file: cannot read /none"),
        ({"device": ("",)}, "--device: is empty; leave the flag out, or give it a value"),
        ({"namespace": ""}, "--ns: is empty; leave the flag out, or give it a value"),
        ({"demo": True}, "--demo: is a server of its own; leave out --url, or --demo"),
        ({"config": "/none"}, "--config: cannot read /none: No such file or directory"),
        (
            {"passcode_file": "geheim"},
            (
                "--passcode-file: names no file (No such file or directory); "
                "the secret itself is given as passcode"
            ),
        ),
        ({"count": "geheim-4711"}, "--count: the value is not a whole number"),
        ({"count": "ten"}, "--count: 'ten' is not a whole number"),
        ({"header": ("X A:b",)}, f"--header: the value {NO_NAME}"),
        ({"header": ("X:a\x01b",)}, f"--header: the value {NO_VALUE}"),
        ({"header": ("X:\u20ac",)}, f"--header: the value {NO_VALUE}"),
        ({"origin": "http://\u20ac"}, f"--origin: 'http://\u20ac' {NO_VALUE}"),
        ({"vhost": "a\nb"}, "--vhost: 'a\\nb' holds a line break, as none can"),
        ({"login": "a\rb"}, "--login: 'a\\rb' holds a line break, as none can"),
        ({"namespace": "a\udcff"}, "--ns: 'a\\udcff' is not UTF-8 text"),
        ({"device": ("\udcff@a.cc",)}, "--device: '\\udcff@a.cc' is not UTF-8 text"),
        ({"topic": ("/topic/\udcff",)}, "--topic: '/topic/\\udcff' is not UTF-8 text"),
        ({"connect_header": ("X:\udcff",)}, "--connect-header: the value is not UTF-8 text"),
        ({"agent": ("a\0@a.cc",)}, "--agent: 'a\\x00@a.cc' holds a NUL, as nothing here can"),
        ({"to": ("jsonl:a\0",)}, "--to: 'jsonl:a\\x00' holds a NUL, as nothing here can"),
        ({"journal": "a\0"}, "--journal: 'a\\x00' holds a NUL, as nothing here can"),
        (
            {"internal": "a{99999999999}"},
            "--internal: is no regular expression: the repetition number is too large",
        ),
        ({"jsonl_every": 1e-300}, "--jsonl-every: '1e-300' must be 0, or 1 and more"),
        (
            {"config": "~nobody-here/x"},
            "--config: cannot read ~nobody-here/x: No such file or directory",
        ),
        (
            {"proxy": "ftp://x"},
            (
                "--proxy: 'ftp://x' is not auto (as the environment says), none, "
                "or a URL like socks5h://HOST:PORT"
            ),
        ),
    ],
)
def test_says_what_to_do(flags: dict[str, Any], problem: str) -> None:
    assert problems(load({"url": (URL,), **flags})) == [problem]


def test_a_file_that_is_no_toml_says_where(write: Write) -> None:
    [problem] = problems(load({"url": (URL,), "config": write("wire = stomp\n")}))
    assert re.search(r"is not TOML: .* \(at line 1, column 8\)", problem)


def test_two_names_of_one_setting_must_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTI_NS", "a.cc")
    monkeypatch.setenv("CTI_NAMESPACE", "b.cc")
    assert problems(load({"url": (URL,)})) == [
        "CTI_NS: contradicts CTI_NAMESPACE; set one of the two"
    ]


def test_a_secret_and_its_file_from_one_source_contradict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("x", encoding="utf-8")
    monkeypatch.setenv("CTI_TOKEN", "CANARY")
    monkeypatch.setenv("CTI_TOKEN_FILE", str(tmp_path / "secret"))
    assert problems(load({"url": (URL,)})) == [
        "CTI_TOKEN_FILE: is given beside CTI_TOKEN; give one of the two"
    ]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b"a\nb\n", "holds more than one line"),
        (b"\xff", "is not UTF-8 text"),
        (b"a\0b", "holds a NUL, as none can"),
    ],
)
def test_a_secret_file_that_cannot_be_right(content: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    found = load({"url": (URL,), "cookie_file": str(path)})
    assert problems(found) == [f"--cookie-file: {path} {why}"]


def test_the_byte_order_mark_of_an_editor_is_no_part_of_what_a_file_says(tmp_path: Path) -> None:
    secret, settings = tmp_path / "secret", tmp_path / "settings.toml"
    secret.write_text("CANARY\n", encoding="utf-8-sig")
    settings.write_text(f'url = "{URL}"\npasscode_file = "{secret}"\n', encoding="utf-8-sig")
    found = load({"config": settings})
    assert problems(found) == []
    assert found.settings.credentials().passcode == "CANARY"


def test_a_secret_file_that_went_wrong_since_is_named(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("CANARY", encoding="utf-8")
    found = load({"url": (URL,), "token_file": str(path)})
    path.write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(f"{path} is empty")):
        found.settings.credentials()


@pytest.mark.parametrize(
    "flags",
    [
        {"header": ("Authorization: CANARY",)},
        {"connect_header": ("sessionId: CANARY",)},
        {"url": ("wss://me:CANARY@host/",)},
        {"proxy": "http://me:CANARY@host/"},
    ],
)
def test_a_secret_among_the_flags_is_refused(flags: dict[str, Any]) -> None:
    [problem] = problems(load({"url": (URL,), **flags}))
    assert "is a secret, and others can read flags" in problem
    assert "CANARY" not in problem


def test_whom_to_listen_to_may_stand_in_a_flags_address() -> None:
    assert problems(load({"url": ("ws://host/events?device=8002@zhen04.cc",)})) == []


def test_no_secret_is_seen_in_what_is_shown(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTI_PASSCODE", "CANARY")
    monkeypatch.setenv("CTI_TOKEN", "CANARY")
    monkeypatch.setenv("CTI_HEADER", '{"X": "CANARY"}')
    monkeypatch.setenv("CTI_CONNECT_HEADER", "CANARY")  # wrong, and told without its value
    monkeypatch.setenv("CTI_URL", "wss://me:CANARY@h/?token=CANARY,nonsense://u:CANARY@h")
    monkeypatch.setenv("CTI_PROXY", "http://me:CANARY@h/")
    path = write('cookie = "CANARY"\nlog_level = "loud"\npasscode = ["CANARY"]\n')
    found = load({"config": path})
    assert len(found.problems) == 3
    assert "CANARY" not in repr((found, found.rows(), problems(found)))
    assert ("token", "********", "CTI_TOKEN") in found.rows()
    assert "CANARY" not in repr(found.settings.credentials())


def test_of_templates_only_keys_and_placeholders_are_shown(write: Write) -> None:
    path = write(
        'query = "token=CANARY&CANARY&auth=CANARY-{device}&agent={agent}"\n'
        'subscribe = [\'{"token": "CANARY", "n": [1, null], "who": "{device}"}\', '
        '"CANARY {agent}"]\n'
    )
    found = load({"url": (URL,), "config": path})
    shown = {name: value for name, value, _ in found.rows()}
    assert shown["query"] == "token=********&********&auth=********{device}&agent={agent}"
    assert shown["subscribe"] == (
        '{"token": "********", "n": ["********", null], "who": "{device}"}, ********{agent}'
    )


def test_the_query_of_the_default_is_shown_as_it_is() -> None:
    (query,) = [value for name, value, _ in load({}).rows() if name == "query"]
    assert query == "namespace={namespace}&device={device}&agent={agent}"


@pytest.mark.parametrize(
    "line",
    [
        'query = "token=CANARY-{devcie}"',
        """subscribe = ['{"token": "CANARY", "who": "{devcie}"}']""",
        'query = ["CANARY"]',
        'subscribe = ["CANARY {devcie}", "CANARY"]',
    ],
)
def test_a_mistake_in_a_template_is_told_without_its_values(write: Write, line: str) -> None:
    found = load({"url": (URL,), "config": write(f"{line}\n")})
    told = problems(found) or ailments(found.settings)
    assert len(told) == 1
    assert "CANARY" not in repr((told, found.rows()))


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("""query = ""\nsubscribe = ['{"who": "{agent}", "token": "CANARY"}']""", "subscribe"),
        ('query = "agent={agent}"', "query"),
    ],
)
def test_templates_that_tell_a_json_server_nothing_are_told_of_before_it_is_connected(
    write: Write, line: str, name: str
) -> None:
    line = f'{line}\nwire = "json"\nnamespace = "zhen04.cc"\ndevice = ["8002"]\n'
    found = load({"url": ("ws://127.0.0.1/events",), "config": write(line)})
    assert problems(found) == []
    [told] = ailments(found.settings)
    assert told.startswith(f"{name}: ")
    assert "CANARY" not in told


@pytest.mark.parametrize("name", ["dedupe_age", "journal_retention", "call_timeout"])
def test_a_time_beyond_the_calendar_is_refused(name: str) -> None:
    [told] = problems(load({"url": (URL,), name: 1e14}))
    assert "must be less than or equal to 315360000" in told


@pytest.mark.parametrize("name", ["device", "agent"])
@pytest.mark.parametrize("flags", [{}, {"subscribe": ("{agent}",)}])
def test_an_id_that_is_none_is_told(name: str, flags: dict[str, Any]) -> None:
    found = load({"url": (URL,), name: ("5001\n5002@a.cc",), **flags})
    assert problems(found) == []
    assert ailments(found.settings) == [
        f"{name}: '5001\\n5002@a.cc' has a character that no id has"
    ]


def test_so_is_a_namespace() -> None:
    found = load({"url": (URL,), "namespace": "a\nb"})
    assert ailments(found.settings) == ["namespace: 'a\\nb' has a character that no namespace has"]


@pytest.mark.parametrize("name", ["ca_file", "cert_file", "key_file", "health_file", "token_file"])
def test_a_nul_in_a_path_is_told(write: Write, name: str) -> None:
    found = load({"url": (URL,), "config": write(f'{name} = "\\u0000"\n')})
    assert [one for one in problems(found) if f"{name}: " in one and "holds a NUL" in one]


def test_a_path_of_any_bytes_is_shown_on_any_terminal() -> None:
    found = load({"url": (URL,), "journal": "\udcff.db"})
    assert ("journal", "\\udcff.db", "--journal") in found.rows()


@pytest.mark.parametrize("name", ["token", "cookie"])
def test_a_secret_that_no_header_can_carry_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(f"CTI_{name.upper()}", "CANARY\u20ac")
    assert problems(load({"url": (URL,)})) == [f"CTI_{name.upper()}: the value {NO_VALUE}"]
    monkeypatch.delenv(f"CTI_{name.upper()}")
    path = tmp_path / "secret"
    path.write_text("CANARY\x01", encoding="utf-8")
    found = load({"url": (URL,), f"{name}_file": path})
    assert problems(found) == [f"--{name}-file: {path} {NO_VALUE}"]


def test_a_host_that_has_no_name_is_told() -> None:
    [told] = ailments(load({"url": ("ws://ä..b/",)}).settings)
    assert told == (
        "url: 'ws://ä..b/' is no WebSocket URL: it cannot be read; "
        "it looks like wss://HOST/mvc/stomp/websocket"
    )


@pytest.mark.parametrize("name", ["heartbeat_send", "heartbeat_receive"])
@pytest.mark.parametrize("seconds", [-1.0, 86_401.0, 1e308])
def test_a_heart_beat_that_no_header_can_ask_for_is_told(
    write: Write, name: str, seconds: float
) -> None:
    found = load({"url": (URL,), "config": write(f"{name} = {seconds}\n")})
    [told] = ailments(found.settings)
    assert told == f"{name}: must be from 0 to 86400 seconds"


@pytest.mark.parametrize("proxy", ["http://host:99999", "http://"])
def test_a_proxy_that_is_no_address_is_told(proxy: str) -> None:
    for found in (settings(proxy=proxy), load({"demo": True, "proxy": proxy}).settings):
        [told] = ailments(found)
        assert told.startswith("proxy: is no proxy's URL: ")


@pytest.mark.parametrize("scheme", ["wss", "WSS"])
@pytest.mark.parametrize("name", ["ca_file", "cert_file"])
def test_a_file_that_holds_no_certificate_is_told(tmp_path: Path, name: str, scheme: str) -> None:
    path = tmp_path / "junk.pem"
    path.write_text("junk", encoding="utf-8")
    found = load({"url": (f"{scheme}://127.0.0.1:9/mvc/stomp/websocket",), name: path})
    assert problems(found) == []
    [told] = ailments(found.settings)
    assert told.startswith(f"{name}: cannot be ")


def test_a_sink_whose_name_no_journal_can_keep_is_told(tmp_path: Path) -> None:
    [told] = ailments(settings(to=(f"jsonl:{tmp_path}/\udcff",)))
    assert "give it a name of its own" in told
    assert ailments(settings(to=(f"x=jsonl:{tmp_path}/\udcff",))) == []
