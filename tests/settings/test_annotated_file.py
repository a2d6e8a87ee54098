from __future__ import annotations

import re
import tomllib
from pathlib import Path

from cti_listener.settings import Settings, load
from tests.settings.given import problems

ANNOTATED = Path(__file__).parent.parent.parent / "config" / "cti-listener.toml"


def test_is_every_default() -> None:
    found = load({"config": str(ANNOTATED), "demo": True})
    assert problems(found) == []
    written = tomllib.loads(ANNOTATED.read_text(encoding="utf-8"))
    for name, field in Settings.model_fields.items():
        if name not in {"config", "demo"} and field.default is not None:
            assert name in written, f"{name} is missing in {ANNOTATED.name}"
            assert getattr(found.settings, name) == field.default


def test_shows_what_has_no_default_as_an_example() -> None:
    text = ANNOTATED.read_text(encoding="utf-8")
    examples = re.findall(r"^# (\w+ = .*)$", text, re.MULTILINE)
    shown = tomllib.loads("\n".join(examples))
    unset = {name for name, field in Settings.model_fields.items() if field.default is None}
    assert shown.keys() == unset - {"config"}
    Settings.model_validate(shown)


def test_names_each_setting_once_in_the_order_of_the_model() -> None:
    text = ANNOTATED.read_text(encoding="utf-8")
    names = re.findall(r"^(?:# )?(\w+) = ", text, re.MULTILINE)
    assert names == [name for name in Settings.model_fields if name != "config"]
