"""The names of log lines: those in docs/logs.md are those in the code, with their levels."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from typing import TYPE_CHECKING

from tests.program import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LEVELS = {
    "debug": "debug",
    "info": "info",
    "warning": "warning",
    "error": "error",
    "exception": "error",
    "critical": "critical",
}


def logged() -> dict[str, set[str]]:
    """Return the levels at which each name is logged anywhere in the package."""
    found = defaultdict[str, set[str]](set)
    for path in sorted((ROOT / "cti_listener").rglob("*.py")):
        for name, level in calls(path):
            found[name].add(level)
    return dict(found)


def calls(path: Path) -> Iterator[tuple[str, str]]:
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        level = LEVELS.get(node.func.attr)
        logger = ast.unparse(node.func.value)
        if level is None or not (logger == "log" or logger.startswith("structlog.get_logger(")):
            continue
        match node.args:
            case [ast.Constant(value=str(name))]:
                yield name, level
            case [ast.Name(id="LEFT_OUT")]:
                yield "lines_left_out", level
            case _:
                message = f"{path}:{node.lineno}: a line's name is a text that can be looked for"
                raise AssertionError(message)


def documented() -> dict[str, set[str]]:
    text = (ROOT / "docs" / "logs.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([\w, ]+) \| .+ \|$", text, re.MULTILINE)
    return {name: set(levels.split(", ")) for name, levels in rows}


def test_every_name_is_documented_with_its_levels_and_no_other() -> None:
    assert documented() == logged()


def test_names_are_of_one_form() -> None:
    assert [name for name in logged() if not re.fullmatch(r"[a-z]+(_[a-z]+)*", name)] == []
