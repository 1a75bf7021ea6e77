"""The manual page authmilter.conf(5) and the commented sample, made from the schema.

Both are committed under ``packaging/``; a test makes them again and compares.
"""

import inspect
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, get_type_hints

from authmilter.check import DERIVED, Check, all_checks
from authmilter.config.ini import DEFAULT_PATH, NAMED_SECTIONS, SECTIONS, check_sections
from authmilter.config.mdoc import escape, is_table, literal, paragraphs, quoted, sentences, tagged, words
from authmilter.config.option import Option, options_of
from authmilter.config.schema import Config, Weight
from authmilter.policy import PRESETS
from authmilter.verdict import Action

_DATE = "November 22, 2026"  # of the newest change to this file's own text; the options need no date
_WIDTH = 110

_SCORES = """What each symbol weighs at the end of the message: a number, or an action: accept, reject, tempfail, quarantine,
discard or tag.  Symbols are METHOD_RESULT for METHOD of iprev, spf_helo, spf, dkim, arc, dmarc and RESULT of pass, fail,
softfail, neutral, none, policy, temperror, permerror, those of the sections [dnsbl NAME], [dnswl NAME] and [uribl NAME], and
those that are listed here.  The default that is told of a symbol is that of the preset balanced, in brackets that of strict where it
differs; observe has neither thresholds nor actions of its own.  A symbol with an action adds nothing to the score,
and one that is set to 0 is only shown.  [scores example.org] and [scores postmaster@example.org] hold for a recipient domain or mailbox."""

_FORMAT = """Sections and options, one per line.  A line that begins with # or ; is a comment, and so is what follows a ; behind
a blank.  An indented line continues the value above it.  The file is UTF-8.  Names of sections and options may be written
in upper or lower case.  Every option has a default, and an empty file is valid; sections and options that do not exist are errors.

`authmilter check-config` lists all problems of a file, `authmilter show-config` prints what is in force and where it was
set.  SIGHUP reads the file again; a file with problems is refused as a whole and changes nothing."""

_KINDS = (
    ("word | word", 'One of these words, in upper or lower case; "" stands for nothing at all.'),
    ("text", "All up to the end of the line, or to a comment."),
    ("number", "A number, whole unless its default has a point."),
    ("auto | number", "A number, or auto to have it found."),
    ("number | action", "A number, or one of: accept, reject, tempfail, quarantine, discard, tag."),
    ("duration", "A number with ms, s, m, h or d, such as 500ms or 36h; without unit: seconds."),
    ("size", "A number of octets; K, M, G and T stand for powers of 1024."),
    ("yes | no", "Also true and false, on and off, 1 and 0."),
    ("list", "Items parted by commas or lines."),
    ("weighted list", "The same; an item may have = and a number or action behind it."),
    ("networks", "A list of networks such as 192.0.2.0/24 or 2001:db8::/32; an address alone is a network of one."),
    ("limits", "A list of numbers in a time, such as 60/1m, 300/1h, 1000/1d; each holds besides the others."),
    ("score", "A number, or nothing for off."),
    ("path", "The name of a file, best from the root on."),
    ("mode", "File mode in octal, such as 0660."),
)

_SAMPLE_HEAD = """Configuration of authmilter; see authmilter.conf(5).

Every option is shown with its default.  Take the semicolon away to change one."""

_SAMPLE_SCORES = ("spf_fail = 4.0", "dmarc_temperror = tempfail")

_EXAMPLE = """[identity]
authserv_id = mx.example.org
local_domains = example.org, .example.org

[policy]
preset = balanced
enforce = no                  ; at first: see what would be done

[sign example.org]
selector = s2026
key_file = /etc/authmilter/keys/example.org.s2026.pem"""


class _Chapter(NamedTuple):
    """A section of the file: its title as written, its introduction, its options."""

    title: str
    introduction: str
    options: Mapping[str, Option]


def _chapters() -> Iterator[_Chapter]:
    """Every section, in the order of the schema."""
    for name in get_type_hints(Config):
        kind = next((kind for kind, named in NAMED_SECTIONS.items() if named.field == name), "")
        if name == "recipient_scores":
            continue  # the section [policy NAME] tells of it
        if name in SECTIONS:
            yield _chapter(name, SECTIONS[name])
        elif kind:
            yield _chapter(f"{kind} {NAMED_SECTIONS[kind].example}", NAMED_SECTIONS[kind].declared)
        elif name == "scores":
            yield _Chapter("scores", _SCORES, {})
        elif name == "checks":
            for section, declared in check_sections().items():
                yield _chapter(section, declared)


def _chapter(title: str, declared: type) -> _Chapter:
    return _Chapter(title, inspect.getdoc(declared) or "", options_of(declared))


def _symbols() -> Iterator[str]:
    """Symbols, and what they mean: those of each check, and those of several results."""
    shared: list[tuple[str, list[str]]] = []
    for check in all_checks():
        if check.meanings:
            yield from tagged(shared)
            shared = []
            yield from (".Pp", f".Sy {check.name} :", *sentences(check.help))
            yield from tagged(
                (f"Cm {symbol}", [*sentences(f"{meaning}  Default: {_default(check, symbol)}.")])
                for symbol, meaning in check.meanings.items()
            )
        elif check.scores:
            name = "" if check.name in check.scores else f"  The check is called {check.name}."
            text = [*sentences(f"{check.help}  {_defaults(check)}{name}")]
            shared.append((f"Cm {' , '.join(check.scores)}", text))
    derived = [
        (f"Cm {symbol}", [*sentences(f"{meaning}  Default: {_of_presets(symbol)}.")])
        for symbol, meaning in DERIVED.items()
    ]
    yield from tagged([*shared, *derived])
    yield from (".Pp", *sentences(_results()))


def _defaults(check: Check) -> str:
    weights = {symbol: _default(check, symbol) for symbol in check.scores}
    if len(set(weights.values())) == 1:
        return f"Default: {weights.popitem()[1]}."
    return f"Defaults: {', '.join(f'{symbol} = {weight}' for symbol, weight in weights.items())}."


def _default(check: Check, symbol: str) -> str:
    return _of_presets(symbol, check.scores[symbol], check.strict.get(symbol, check.scores[symbol]))


def _of_presets(symbol: str, balanced: Weight = 0.0, strict: Weight = 0.0) -> str:
    """What a symbol has under balanced, and under strict where that differs; given is what the check itself declares."""
    usual, other = (
        _weight(PRESETS[preset].get(symbol, declared))
        for preset, declared in (("balanced", balanced), ("strict", strict))
    )
    return usual if usual == other else f"{usual} (strict: {other})"


def _results() -> str:
    """Results of methods that count by themselves."""
    declared = {*DERIVED, *(symbol for check in all_checks() for symbol in check.scores)}
    named = dict.fromkeys(symbol for preset in PRESETS.values() for symbol in preset if symbol not in declared)
    return (
        "Of the results of methods themselves these have a default: "
        f"{', '.join(f'{symbol} = {_of_presets(symbol)}' for symbol in named)}.  All others have 0."
    )


def _weight(weight: float | Action) -> str:
    return weight.value if isinstance(weight, Action) else f"{weight:g}"


def render_sample() -> str:
    """The sample configuration: every option, commented out, with its default."""
    lines = [*_remark(_SAMPLE_HEAD)]
    for title, introduction, options in _chapters():
        lines += ["", *_remark(introduction), f"{';' if ' ' in title else ''}[{title}]"]
        if title == "scores":
            lines += [f";{example}" for example in _SAMPLE_SCORES]
        for name, option in options.items():
            lines += _remark(option.help)
            lines += [f";{line}" for line in _assignment(name, option.example or option.write(option.default))]
    return "\n".join(lines) + "\n"


def _remark(text: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        lines = paragraph.split("\n")
        if not is_table(lines):
            lines = textwrap.wrap(paragraph, _WIDTH - 2, break_on_hyphens=False)
        yield from (f"# {line}" for line in lines)


def _assignment(name: str, value: str) -> list[str]:
    text = f"{name} = {value}".rstrip()
    return textwrap.wrap(text, _WIDTH - 1, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)


def render_manual(extra: Sequence[tuple[str, str]] = ()) -> str:
    """authmilter.conf(5) in mdoc(7).

    `extra` are further sections as title and text.  Paragraphs of the text are parted by empty lines; one whose lines
    all begin with four blanks is set as it stands.
    """
    lines = [
        '.\\" Made by `authmilter manual` from the options as declared; changes are lost.',
        f".Dd {_DATE}",
        ".Dt AUTHMILTER.CONF 5",
        ".Os",
        ".Sh NAME",
        ".Nm authmilter.conf",
        ".Nd configuration of the authmilter mail filter",
        ".Sh DESCRIPTION",
        *paragraphs(_FORMAT),
        ".Pp",
        "Values are of these kinds:",
        *tagged((f"Ar {words(form)}", [*sentences(meaning)]) for form, meaning in _KINDS),
    ]
    for title, introduction, options in _chapters():
        lines += [f".Ss [{escape(title)}]\\&", *paragraphs(introduction)]
        if title == "scores":
            lines += _symbols()
        lines += tagged((f"Cm {name} No = Ar {words(o.kind.form)}", [*_entry(o)]) for name, o in options.items())
    for title, text in extra:
        lines += [f".Sh {escape(title.upper())}", *paragraphs(text)]
    lines += [
        ".Sh FILES",
        *tagged(
            [(f"Pa {DEFAULT_PATH}", ["Read unless", ".Fl c", "names another file; without it the defaults hold."])]
        ),
        ".Sh EXAMPLES",
        "A first configuration:",
        *literal(_EXAMPLE.split("\n")),
        ".Sh SEE ALSO",
        ".Xr postconf 5 ,",
        ".Xr authmilter 8",
        ".Sh STANDARDS",
        *sentences("RFC 6376, 7208, 7372, 8301, 8463, 8601, 8616, 8617, 9989."),
    ]
    return "\n".join(lines) + "\n"


def _entry(option: Option) -> Iterator[str]:
    yield from sentences(option.help)
    limits = [
        f"{word} {option.write(limit)}"
        for word, limit in (("at least", option.at_least), ("at most", option.at_most))
        if limit is not None
    ]
    if limits:
        yield from sentences(f"A{' and '.join(limits)[1:]}.")
    default = option.write(option.default)
    yield from ["Default:", f'.Ql "\\&{quoted(default)}\\&" .'] if default else ["Default: empty."]
    if not option.reload:
        yield "A change needs a restart."
