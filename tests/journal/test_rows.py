"""Rows: what is written is read as the same, by any process, however much at once."""

from __future__ import annotations

import json
import math
import re
import sqlite3
from contextlib import closing
from dataclasses import fields
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from cti_listener.events import load_json
from cti_listener.journal import gap_rows, rows, schema
from cti_listener.notices import Gap
from cti_listener.testing import START
from cti_listener.values import EventKey, identity, routing_key
from tests.examples import SEVEN

TEXTS = st.text(st.characters(), max_size=8)  # lone surrogates and NUL among them
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(TEXTS, JSON, max_size=5))
def test_a_payload_is_read_as_it_was(payload: dict[str, object]) -> None:
    with closing(sqlite3.connect(":memory:")) as db:
        query = "SELECT CAST(? AS TEXT)"
        (text,) = db.execute(query, (rows.encode(payload),)).fetchone()
    assert load_json(text) == payload


def test_what_python_takes_for_json_is_read_as_it_was() -> None:
    payload = load_json(
        '{"a": NaN, "b": -Infinity, "c": 1e400, "d": 123456789012345678901234567890}'
    )
    again = load_json(rows.encode(payload))
    assert math.isnan(again.pop("a"))
    assert again == {"b": -math.inf, "c": math.inf, "d": 123456789012345678901234567890}


def test_a_payload_nested_as_deep_as_can_be_read_is_written() -> None:
    payload: dict[str, object] = {}
    for _ in range(190):
        payload = {"a": payload}
    assert load_json(rows.encode(payload)) == payload


def test_a_gap_is_read_as_it_was_with_each_of_its_fields() -> None:
    key = EventKey("zhen04.cc", "csta", "d", 1, "delivered", None, "call")
    gap = Gap(
        at=START,
        id=3,
        since=START,
        until=START,
        reason="refused",
        devices=frozenset({"d", "e"}),
        destination="/topic/x",
        recovered=True,
        last_before=key,
        first_after=key,
    )
    plain = Gap(at=START, id=3, since=START, until=None, reason="half_open")
    assert gap_rows.gap_of(3, gap_rows.gap_body(gap)) == gap
    assert gap_rows.gap_of(3, gap_rows.gap_body(plain)) == plain
    assert {
        one.name for one in fields(Gap) if getattr(gap, one.name) == getattr(plain, one.name)
    } == {
        "at",
        "id",
        "since",
    }


@given(TEXTS)
def test_any_text_can_be_stored(text: str) -> None:
    stored = rows.storable(text)
    with closing(sqlite3.connect(":memory:")) as db:
        (back,) = db.execute("SELECT ?", (stored,)).fetchone()
    assert rows.text_of(back) == text
    assert isinstance(stored, bytes) == bool(re.search("[\ud800-\udfff]", text))


@given(st.integers(0, 300), st.sampled_from([2, 7, 64, 32766]))
def test_many_rows_are_inserted_in_order_whatever_a_statement_may_hold(
    count: int, variables: int
) -> None:
    insert = rows.Insert("INSERT INTO t (a, b) SELECT column1, column2", 2)
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, a, b)")
        db.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, variables)
        flat = [value for number in range(count) for value in (number, None)]
        last = rows.insert_many(db, insert, flat)
        found = db.execute("SELECT id, a, b FROM t ORDER BY id").fetchall()
    assert found == [(number + 1, number, None) for number in range(count)]
    assert last == (count or None)


@given(
    st.lists(
        st.dictionaries(st.sampled_from(SEVEN) | TEXTS, JSON | st.just(math.nan), max_size=8),
        max_size=4,
    ),
    st.integers(0, 5),
)
def test_what_was_written_is_seen_by_the_same_identity(
    payloads: list[dict[str, object]], most: int
) -> None:
    insert = (
        "INSERT INTO event (digest, received_at, feed, wanted, late, payload)"
        " VALUES (0, 0.0, ?, 1, 0, CAST(? AS TEXT))"
    )
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(schema.TABLES)
        for payload in payloads:
            db.execute(insert, ("a", rows.encode(payload)))
        db.execute(insert, ("", "{}"))  # what follows from events is none
        db.execute(insert, ("a", "{"))  # and what cannot be read is not seen
        seen = rows.seen(db, 0, most + 1)
    hashes = [hash(identity(payload, routing_key(payload))) for payload in payloads]
    assert list(seen) == hashes[max(0, len(hashes) - most) :]


def test_a_damaged_page_takes_only_its_own_event(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    long = json.dumps({"serial": 1, "cause": "x" * 20_000})
    texts = ['{"serial": 0}', long, '{"serial": 2}']
    with closing(sqlite3.connect(path)) as db:
        db.executescript(schema.TABLES)
        for text in texts:
            db.execute(
                "INSERT INTO event (digest, received_at, feed, wanted, late, payload)"
                " VALUES (0, 0.0, 'a', 1, 0, ?)",
                (text,),
            )
        db.commit()
        (page,) = db.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek(path.read_bytes().index(b"x" * (page - 4)) // page * page)
        file.write(b"\x7f\xff\xff\xff")  # where the next page of it would be
    with closing(sqlite3.connect(path)) as db:
        seen = rows.seen(db, 0, 10)
    payloads = [json.loads(texts[0]), json.loads(texts[2])]
    assert list(seen) == [hash(identity(one, routing_key(one))) for one in payloads]
