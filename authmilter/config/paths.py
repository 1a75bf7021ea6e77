"""The files that a configuration names: keys, passwords, certificates and maps."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

from authmilter.config.ini import NAMED_SECTIONS, SECTIONS
from authmilter.config.option import FilePath, kind_of, options_of
from authmilter.config.schema import Config

_FORM = kind_of(FilePath).form
_STATE = frozenset((("classifier", "table"),))  # what the daemon writes itself


class Named(NamedTuple):
    """A file, and the option that names it."""

    section: str  # its title, such as ``sign example.org``
    option: str
    path: str  # as written


def named_files(config: Config) -> Iterator[Named]:
    """Every file that an option names and the daemon only reads, in the order of the schema."""
    for title, section in _sections(config):
        for name in _options(title, section):
            if path := getattr(section, name):
                yield Named(title, name, path)


def with_files(config: Config, place: Callable[[str], str]) -> Config:
    """The same configuration, in which each of these paths is what `place` makes of it."""

    def moved(title: str, section: Any) -> Any:
        paths = {name: path for name in _options(title, section) if (path := getattr(section, name))}
        return replace(section, **{name: place(path) for name, path in paths.items()})

    def all_moved(kind: str, sections: Mapping[str, Any]) -> Mapping[str, Any]:
        return MappingProxyType({name: moved(f"{kind} {name}".strip(), section) for name, section in sections.items()})

    fields: dict[str, Any] = {name: moved(name, getattr(config, name)) for name in SECTIONS}
    fields |= {named.field: all_moved(kind, getattr(config, named.field)) for kind, named in NAMED_SECTIONS.items()}
    return replace(config, **fields, checks=all_moved("", config.checks))


def _sections(config: Config) -> Iterator[tuple[str, Any]]:
    for name in SECTIONS:
        yield name, getattr(config, name)
    for kind, named in NAMED_SECTIONS.items():
        for name, section in getattr(config, named.field).items():
            yield f"{kind} {name}", section
    yield from config.checks.items()


def _options(title: str, section: Any) -> Iterator[str]:
    declared: type = type(section)
    for name, option in options_of(declared).items():
        if option.kind.form == _FORM and (title, name) not in _STATE:
            yield name
