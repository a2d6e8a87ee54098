"""Reads the settings from flags, environment and file, and tells every mistake at once.

Flags > `CTI_*` environment > file (TOML) > defaults. `cli` calls `load`; a `Configuration` knows
for each value where it came from, and `check` prints it. Nothing secret is in a problem's text.
"""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource

from cti_listener.errors import ConfigurationError
from cti_listener.ops.masking import carries_secret
from cti_listener.settings.model import ALIASES, Settings
from cti_listener.settings.readings import sink_url
from cti_listener.settings.wording import explained, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

SourceKind = Literal["flag", "environment", "file", "default"]

_PREFIX: Final = "CTI_"
_OWN_NAMES: Final = frozenset({"CTI_REQUIRE_SERVERS"})
"""Environment variables of this project that are no settings."""

# Kubernetes gives every container the addresses of the services beside it, under their names: one
# called `cti` or `cti-server` must not keep us from starting.
_SERVICE_LINK: Final = re.compile(
    r".*(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)"
)

_NOT_ON_ARGV: Final = "is a secret, and others can read flags; use a --config file, or"
_ONLY_OFF_ARGV: Final = re.compile(r"auth|cookie|token|secret|pass|session|key", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One mistake: which setting, where it was made, and what to do about it."""

    name: str
    kind: SourceKind
    source: str
    text: str

    def __str__(self) -> str:
        return f"{self.source}: {self.text}"


class SettingsError(ConfigurationError):
    """What is wrong with the settings, all of it.

    Attributes:
        problems: Every mistake found.
    """

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        """Keep every problem."""
        super().__init__("settings", "\n".join(map(str, problems)))
        self.problems = problems

    def __str__(self) -> str:
        return self.problem

    @property
    def usage_only(self) -> bool:
        """Whether nothing but flags is at fault."""
        return all(problem.kind == "flag" for problem in self.problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """What the sources say together.

    Attributes:
        settings: The effective settings; a value at fault stands at its default.
        sources: For each setting that is not at its default, where it came from.
        problems: Every mistake found.
    """

    settings: Settings
    sources: Mapping[str, str]
    problems: tuple[Problem, ...]

    def rows(self) -> list[tuple[str, str, str]]:
        """Return each setting's name, value and source, secrets masked."""
        return [
            (name, _printable(shown(value, name)), self.sources.get(name, "default"))
            for name, value in self.settings
        ]


def load(flags: Mapping[str, Any]) -> Configuration:
    """Read every source.

    Args:
        flags: The settings given on the command line, by name.
    """
    return _Loader(flags).load()


class _Loader:
    """Collects values with their sources, and problems, source by source."""

    def __init__(self, flags: Mapping[str, Any]) -> None:
        self.values: dict[str, Any] = {}
        self.kinds: dict[str, SourceKind] = {}
        self.problems: list[Problem] = []
        self.flags = flags
        self.path: Path | None = None

    def load(self) -> Configuration:
        self._take(self.flags, "flag")
        self._check_argv()
        self._take(self._environment(), "environment")
        if (path := self.values.get("config")) is not None:
            self.path = Path(os.path.expanduser(path))  # noqa: PTH111 - that raises nothing
            self._take(self._file(self.path), "file")
        self._settle_pairs()
        settings = self._build()
        self._check_together(settings)
        sources = {
            name: self._source(name) for name in self.values if name in settings.model_fields_set
        }
        problems = {(p.name, p.source): p for p in reversed(self.problems)}  # the first of each
        return Configuration(
            settings=settings, sources=sources, problems=tuple(reversed(problems.values()))
        )

    def _take(self, values: Mapping[str, Any], kind: SourceKind) -> None:
        """Take what no source before this one has given."""
        for name, value in values.items():
            if name not in self.values:
                self.values[name] = value
                self.kinds[name] = kind

    def _environment(self) -> dict[str, Any]:
        found = dict(EnvSettingsSource(Settings)())
        for alias, name in ALIASES.items():
            other = os.environ.get(_PREFIX + alias.upper())
            if other and found.setdefault(name, other) != other:
                text = f"contradicts {_PREFIX}{name.upper()}; set one of the two"
                self._add(name, text, "environment", source=_PREFIX + alias.upper())
        for key, value in os.environ.items():
            if (
                key.startswith(_PREFIX)
                and key not in _OWN_NAMES
                and not _is_service_link(key, value)
            ):
                self._check_known(key, key.removeprefix(_PREFIX).lower(), "environment")
        return found

    def _file(self, path: Path) -> dict[str, Any]:
        where = self._source("config")
        try:
            found = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        except OSError as error:
            self._add("config", f"cannot read {path}: {error.strerror}", source=where)
            return {}
        except ValueError as error:  # not TOML, or not UTF-8
            self._add("config", f"{path} is not TOML: {error}", source=where)
            return {}
        known = {}
        for key, value in found.items():
            name = ALIASES.get(key, key)
            if name == "config":
                self._add(
                    name, "a file cannot name another; give it by --config or CTI_CONFIG", "file"
                )
            elif self._check_known(f"{path}: {key}", key, "file"):
                known[name] = value
        return known

    def _check_known(self, source: str, name: str, kind: SourceKind) -> bool:
        """Refuse a name that is no setting, and suggest the nearest that is."""
        if name in Settings.model_fields or name in ALIASES:
            return True
        near = get_close_matches(
            name.replace("-", "_").lower(), [*Settings.model_fields, *ALIASES], 1
        )
        shape = (
            f"{_PREFIX}{near[0].upper()}"
            if near and kind == "environment"
            else near[0]
            if near
            else ""
        )
        self._add(
            name,
            f"no such setting; did you mean {shape}?" if near else "no such setting; see --help",
            kind,
            source=source,
        )
        return False

    def _settle_pairs(self) -> None:
        """Of a secret and the file it may be read from, the stronger source's counts."""
        strength = get_args(SourceKind)
        for name in ("passcode", "token", "cookie", "admin_token"):
            pair = [n for n in (name, f"{name}_file") if n in self.values]
            if len(pair) < 2:  # noqa: PLR2004 - a pair
                continue
            ranks = [strength.index(self.kinds[n]) for n in pair]
            if ranks[0] == ranks[1]:
                self._add(pair[1], f"is given beside {self._source(pair[0])}; give one of the two")
            weaker = pair[ranks.index(max(ranks))]
            del self.values[weaker]

    def _build(self) -> Settings:
        """Make the settings of what is right, noting what is not."""
        values = dict(self.values)
        try:
            return Settings(**values)
        except ValidationError as error:
            for detail in error.errors(include_url=False, include_context=False):
                name = str(detail["loc"][0])
                self._add(name, explained(detail["type"], detail["msg"], name, values.get(name)))
                values.pop(name, None)
        right = {name: value for name, value in values.items() if not self._is_wrong(name)}
        return Settings(**right)

    def _check_together(self, settings: Settings) -> None:
        """Find what each value alone does not show; what is wrong by itself has been told."""
        if settings.demo and self.kinds.get("url") == "flag":
            self._add("demo", "is a server of its own; leave out --url, or --demo")
        for name, text in settings.contradictions():
            if not self._is_wrong(name):
                self._add(name, text)

    def _check_argv(self) -> None:
        """Refuse flags that must be a slip: nothing where an id was meant, or a secret."""
        for name, given in self.flags.items():
            if given == "" or (isinstance(given, tuple) and "" in given):
                # `--device "$DEVICE"`, unset, must not listen to everybody.
                self._add(name, "is empty; leave the flag out, or give it a value")
        for name in ("header", "connect_header"):
            for line in self.flags.get(name) or ():
                title = line.partition(":")[0].strip()
                if _ONLY_OFF_ARGV.search(title):
                    self._add(name, f"{title} {_NOT_ON_ARGV} {_PREFIX}{name.upper()}")
        self._check_addresses()

    def _check_addresses(self) -> None:
        for name in ("url", "proxy"):
            given = self.flags.get(name) or ()
            for url in (given,) if isinstance(given, str) else given:
                if carries_secret(url):
                    self._add(name, f"its password {_NOT_ON_ARGV} {_PREFIX}{name.upper()}")
        for sink in map(sink_url, self.flags.get("to") or ()):
            if "://" in sink and carries_secret(sink):
                self._add("to", f"its password {_NOT_ON_ARGV} {_PREFIX}TO")

    def _is_wrong(self, name: str) -> bool:
        return any(problem.name == name for problem in self.problems)

    def _add(
        self, name: str, text: str, kind: SourceKind | None = None, *, source: str | None = None
    ) -> None:
        kind = kind or self.kinds.get(name, "default")
        self.problems.append(
            Problem(name=name, kind=kind, source=source or self._source(name, kind), text=text)
        )

    def _source(self, name: str, kind: SourceKind | None = None) -> str:
        match kind or self.kinds.get(name):
            case "flag":
                return "--ns" if name == "namespace" else f"--{name.replace('_', '-')}"
            case "environment":
                ns = name == "namespace" and not os.environ.get("CTI_NAMESPACE")
                return f"{_PREFIX}{'NS' if ns else name.upper()}"
            case "file":
                return f"{self.path}: {name}"
            case _:
                return name


def _printable(text: str) -> str:
    """Escape the bytes of a path that are no UTF-8."""
    return text.encode(errors="backslashreplace").decode()


def _is_service_link(key: str, value: str) -> bool:
    return bool(_SERVICE_LINK.fullmatch(key)) or (
        key.endswith("_PORT") and value.startswith(("tcp://", "udp://", "sctp://"))
    )
