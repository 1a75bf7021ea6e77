"""The configuration file: every problem with its line, or the frozen Config.

An INI file as configparser reads it, without interpolation, in UTF-8; section names are compared without regard to case.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, get_type_hints

from authmilter.config import dnslist, endpoint, scan
from authmilter.config.crosscheck import crosscheck
from authmilter.config.option import Option, kind_of, options_of, shown, suggestion
from authmilter.config.report import Report
from authmilter.config.schema import (
    Allow,
    Config,
    DmarcOverride,
    Dnsbl,
    Dnswl,
    Forwarders,
    LoginLimits,
    RecipientPolicy,
    Sign,
    Uribl,
    Weight,
)
from authmilter.errors import ConfigError

DEFAULT_PATH = "/etc/authmilter/authmilter.ini"
SECTIONS: Mapping[str, type] = MappingProxyType(
    {
        name: declared
        for name, declared in get_type_hints(Config).items()
        if isinstance(declared, type) and is_dataclass(declared)
    }
)


class Named(NamedTuple):
    """A kind of section that takes a name: its options, the field of Config that holds them, and the names' form."""

    declared: type
    field: str
    name: Callable[[str], str]
    example: str = "example.org"


# [KIND NAME]
NAMED_SECTIONS: Mapping[str, Named] = MappingProxyType(
    {
        "policy": Named(RecipientPolicy, "recipient_policies", endpoint.recipient),
        "sign": Named(Sign, "sign", endpoint.signing_pattern),
        "dmarc override": Named(DmarcOverride, "dmarc_overrides", endpoint.domain),
        "forwarders": Named(Forwarders, "recipient_forwarders", endpoint.recipient),
        "allow": Named(Allow, "allow", endpoint.recipient),
        "dnsbl": Named(Dnsbl, "dnsbl", dnslist.list_name, "example"),
        "dnswl": Named(Dnswl, "dnswl", dnslist.list_name, "example"),
        "uribl": Named(Uribl, "uribl", dnslist.list_name, "example"),
        "outbound_limits": Named(LoginLimits, "login_limits", endpoint.login, "news@example.org"),
    }
)

_LARGEST = 10 * 1024 * 1024


class Origin(NamedTuple):
    """Where an option was set."""

    source: str
    line: int

    def __str__(self) -> str:
        return f"{self.source}:{self.line}"


@dataclass(frozen=True)
class Loaded:
    """A configuration, where each (section, option) of it was set, and warnings as shown to the administrator."""

    config: Config
    origins: Mapping[tuple[str, str], Origin]
    warnings: tuple[str, ...] = ()


def find(path: str | None, usual: str = DEFAULT_PATH) -> str | None:
    """The file to read: `path` if given, else the usual one if there is one, else None for built-in defaults."""
    if path is not None:
        return path
    try:
        os.lstat(usual)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        pass  # one that may not be looked at must not pass for none: reading it will say why
    return usual


def load(path: str | None, text: str | None = None, *, check_files: bool = True) -> Config:
    """Read the configuration in `path`, or in `text`; neither is the built-in defaults.

    `check_files` also looks at what the configuration names: key files, users, groups.  Raises ConfigError with all
    problems at once.
    """
    return load_with_origins(path, text, check_files=check_files).config


def load_with_origins(path: str | None, text: str | None = None, *, check_files: bool = True) -> Loaded:
    """The same with the origin of every option that is set, and with warnings."""
    report = Report("".join(c if c.isprintable() else "?" for c in path or "configuration"))
    if text is None:
        text = _read_file(path, report.source) if path is not None else ""
    sections, problems = scan.scan(text)
    for problem in problems:
        report.error(problem.section, "", problem.message, problem.line)
    values = _Reader(report).read(sections)
    config = _build(values)
    crosscheck(config, report, check_files=check_files)
    report.raise_errors()
    origins = {place: Origin(report.source, line) for place, line in report.lines.items() if place[1]}
    return Loaded(config, MappingProxyType(origins), report.warnings)


def changed_needing_restart(old: Config, new: Config) -> list[str]:
    """Options that differ although a reload can't change them, as ``[section] option``."""
    return [
        f"[{section}] {name}"
        for section, declared in SECTIONS.items()
        for name, option in options_of(declared).items()
        if not option.reload and getattr(getattr(old, section), name) != getattr(getattr(new, section), name)
    ]


def check_sections() -> Mapping[str, type]:
    """The sections of the checks that have options."""
    from authmilter.check import options_sections  # imports every check

    return options_sections()


def _read_file(path: str, source: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST + 1)
    except FileNotFoundError:
        raise ConfigError([f"{source}: no such file"]) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ConfigError([f"{source}: {getattr(error, 'strerror', None) or error}"]) from None
    if len(data) > _LARGEST:
        raise ConfigError([f"{source}: is larger than {_LARGEST // 1024**2}M"])
    try:
        return data.decode("utf-8-sig")  # some editors write a byte order mark
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{source}:{line}: is not UTF-8 (octet {data[error.start]:#04x})"]) from None


class _Reader:
    """From sections as written to values: section title -> option -> value."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.known: dict[str, type] = {**SECTIONS, **check_sections()}

    def read(self, sections: list[scan.Section]) -> dict[str, dict[str, Any]]:
        """Values of all sections that exist, without those that have an error."""
        values: dict[str, dict[str, Any]] = {}
        for section in sections:
            title = self._title(section)
            if title is None:
                continue
            if (title, "") in self.report.lines:
                first = self.report.lines[title, ""]
                self.report.error(title, "", f"section is already on line {first}", section.line)
            else:
                self.report.lines[title, ""] = section.line
            found = values.setdefault(title, {})
            for entry in section.entries:
                if (title, entry.name) in self.report.lines:
                    first = self.report.lines[title, entry.name]
                    self.report.error(title, "", f"{entry.name}: is already set on line {first}", entry.line)
                    continue
                self.report.lines[title, entry.name] = entry.line
                try:
                    found[entry.name] = self._weight(entry) if _is_scores(title) else self._value(title, entry)
                except ValueError as error:
                    self.report.error(title, entry.name, str(error))
        return values

    def _title(self, section: scan.Section) -> str | None:
        """Normal form of the section's title; None, reported, if there is no such section."""
        kind, name = [*section.title.split(None, 1), "", ""][:2]
        kind = kind.lower()
        first, _, rest = name.partition(" ")
        if f"{kind} {first.lower()}" in NAMED_SECTIONS:
            kind, name = f"{kind} {first.lower()}", rest.strip()
        error = ""
        if kind in NAMED_SECTIONS and name:
            try:
                return f"{kind} {NAMED_SECTIONS[kind].name(name)}"
            except ValueError as problem:
                error = str(problem)
        elif kind == "scores" and name:
            try:
                return f"{kind} {endpoint.recipient(name)}"
            except ValueError as problem:
                error = str(problem)
        elif kind == "scores" or kind in self.known:
            if not name:
                return kind
            error = f"[{kind}] takes no name"
        elif kind in NAMED_SECTIONS:
            error = f"needs a name, as in [{kind} {NAMED_SECTIONS[kind].example}]"
        else:
            error = f"unknown section {shown(section.title)}{suggestion(kind, self._kinds())}"
        self.report.error(section.title, "", error, section.line)
        return None

    def _kinds(self) -> set[str]:
        return {"scores", *self.known, *NAMED_SECTIONS}

    def _value(self, title: str, entry: scan.Entry) -> Any:
        option = self._option(title, entry.name)
        try:
            return option.read(entry.text)
        except ValueError as error:
            raise ValueError(f"{entry.name}: {error}") from None

    def _option(self, title: str, name: str) -> Option:
        named = NAMED_SECTIONS.get(title.rpartition(" ")[0])
        options = options_of(named.declared if named else self.known[title])
        if name in options:
            return options[name]
        hint = suggestion(name, options)
        if not hint:
            elsewhere = [f"[{s}]" for s, declared in self.known.items() if name in options_of(declared)]
            hint = f", it belongs to {' or '.join(elsewhere)}" if 1 <= len(elsewhere) <= 3 else ""
        raise ValueError(f"unknown option {shown(name)}{hint}")

    def _weight(self, entry: scan.Entry) -> Weight:
        from authmilter.check import is_dynamic, known_symbols

        symbols = known_symbols()
        if entry.name not in symbols and not is_dynamic(entry.name):
            raise ValueError(f"unknown symbol {shown(entry.name)}{suggestion(entry.name, symbols)}")
        try:
            weight: Weight = kind_of(Weight).read(entry.text)
        except ValueError as error:
            raise ValueError(f"{entry.name}: {error}") from None
        return weight


def _is_scores(title: str) -> bool:
    return title.partition(" ")[0] == "scores"


def _build(values: Mapping[str, Mapping[str, Any]]) -> Config:
    named: dict[str, dict[str, Any]] = {found.field: {} for found in NAMED_SECTIONS.values()}
    recipient_scores: dict[str, Mapping[str, Weight]] = {}
    for title, options in values.items():
        kind, _, name = title.rpartition(" ")
        if kind == "scores":
            recipient_scores[name] = MappingProxyType(dict(options))
        elif kind == "policy":
            named["recipient_policies"][name] = RecipientPolicy(**options, given=frozenset(options))
        elif kind:
            named[NAMED_SECTIONS[kind].field][name] = NAMED_SECTIONS[kind].declared(**options)
    fields: dict[str, Any] = {name: declared(**values.get(name, {})) for name, declared in SECTIONS.items()}
    fields |= {name: MappingProxyType(sections) for name, sections in named.items()}
    return Config(
        **fields,
        scores=MappingProxyType(values.get("scores", {})),
        recipient_scores=MappingProxyType(recipient_scores),
        checks=MappingProxyType(
            {name: declared(**values.get(name, {})) for name, declared in check_sections().items()}
        ),
        policy_set=frozenset(values.get("policy", {})),
    )
