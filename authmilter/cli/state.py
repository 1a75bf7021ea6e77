"""`authmilter state`: what is kept across messages, for an operator who must release a sender now.

It opens the store of the configuration itself, while the daemon runs, or does not.
"""

import argparse
import asyncio
import base64
import io
import json
import os
import pwd
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from authmilter.cli import EX_USAGE
from authmilter.cli.subject import Subject, fields_of
from authmilter.cli.terminal import duration, escaped, paint, plural, table, unescaped
from authmilter.config import ini
from authmilter.config.endpoint import parse_store
from authmilter.config.option import Limit, Seconds, suggestion
from authmilter.config.schema import Config
from authmilter.errors import ConfigError, StartError, StoreError
from authmilter.interfaces import Entry, ManagedStore, Space
from authmilter.server.state import find_state
from authmilter.spaces import spaces
from authmilter.store import load_password, open_store, preload
from authmilter.store.front import Front

EX_NOTHING = 1
LIMIT = 1000
PAGE = 200  # rows that are aligned together
PATIENCE = Seconds(10.0)  # an operator waits longer than a message does
ALL = sys.maxsize
_LONGEST_VALUE = 40  # characters of it that a row shows
_FIELD = re.compile(r"\{(\w+)[^}]*\}")  # of a format string
_WHOM = "address, network, mailbox, domain or login"


class Kept(NamedTuple):
    """An entry with its place."""

    space: Space
    key: str
    entry: Entry


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `list`, `release`, `forget` and `export`."""
    deeds = parser.add_subparsers(metavar="list|release|forget|export", required=True, dest="deed")
    one = _deed(deeds, "list", "Show entries, with their keys as `forget` takes them.")
    one.add_argument("space", nargs="?", metavar="SPACE", help="kind of state (default: all)")
    one.add_argument("prefix", nargs="?", default="", metavar="PREFIX", help="what the keys begin with")
    one.add_argument("--subject", metavar="TEXT", help=f"only what names this {_WHOM}")
    one.add_argument("--limit", type=_number, default=LIMIT, metavar="N", help=f"entries at most (default: {LIMIT})")
    one.add_argument("--json", action="store_true", help="one JSON object per line")
    one = _deed(deeds, "release", "Lift all that holds somebody up now.")
    one.add_argument("subjects", nargs="+", metavar="SUBJECT", help=_WHOM)
    one.add_argument("--json", action="store_true", help="one JSON object per line")
    one.epilog = (
        "Of all entries that name SUBJECT, greylisted triplets need wait no longer, and counts for limits of connections "
        "and messages are forgotten, as is the spam that reputation knows.  What speaks in favour of SUBJECT stays.  "
        "Who has not written yet has no entry: name him in except_networks, except_domains or except_recipients of "
        "[greylist].  Exit status: 1 if nothing held any of them up."
    )
    one = _deed(deeds, "forget", "Forget entries, whether they hold somebody up or speak for him.")
    one.add_argument("space", nargs="?", metavar="SPACE", help="kind of state")
    one.add_argument("keys", nargs="*", metavar="KEY", help="keys as `list` shows them")
    one.add_argument("--subject", metavar="TEXT", help=f"in all spaces: what names this {_WHOM}")
    one.epilog = (
        "A sender whose greylisted triplet is forgotten waits anew: `authmilter state release` lets him pass.  With [store] "
        "hash_addresses, --subject finds keys that can be made of it and of the configuration, and says which can't."
    )
    one = _deed(deeds, "export", "Write every entry, as one JSON object per line.")
    one.add_argument("space", nargs="?", metavar="SPACE", help="kind of state (default: all)")
    parser.epilog = (
        "Exit status: 0 done, 1 there was nothing to release or forget, 69 the store is not to be had, 78 the configuration can't "
        "be used."
    )


def _deed(deeds: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = deeds.add_parser(name, help=text, description=text, allow_abbrev=False)
    parser.add_argument("-c", "--config", metavar="FILE", default=argparse.SUPPRESS, help="configuration")
    return parser


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:18]) == int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Raises ConfigError, and StartError if the store is not to be had."""
    known = spaces()
    space = getattr(args, "space", None)
    if space is not None and space not in known:
        names = ", ".join(known) or "there is none"
        return _usage(f"unknown space {escaped(space)!r}{suggestion(space, known)}: {names}")
    if args.deed == "forget" and bool(args.keys) is (args.subject is not None):
        return _usage("forget takes SPACE KEY..., or --subject TEXT")
    if args.deed == "forget" and args.subject is not None and space is not None:
        return _usage("forget --subject looks in all spaces: name none")
    if getattr(args, "subject", None) is not None and not Subject(args.subject).text:
        return _usage("--subject must not be empty")
    if not all(Subject(text).text for text in getattr(args, "subjects", ())):
        return _usage("SUBJECT must not be empty")
    chosen = list(known.values()) if space is None else [known[space]]
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a key may have letters that the locale has not
    config = ini.load(ini.find(args.config), check_files=False)
    path = _file(config)
    if path is None and parse_store(config.store.url).kind == "sqlite":
        print("nothing kept yet", file=sys.stderr)
        return EX_NOTHING if args.deed in ("forget", "release") else 0
    password = _password(config)
    if path is not None:
        preload(config.store)  # what the owner of the file may not be able to read
        _become_owner(path)
    try:
        return asyncio.run(_run(args, config, path, password, chosen))
    except StoreError as error:
        raise StartError(str(error)) from None


def _usage(message: str) -> int:
    print(f"authmilter state: {message}", file=sys.stderr)
    return EX_USAGE


# -- the store --------------------------------------------------------------------------------------------------------


def _file(config: Config) -> Path | None:
    """The file of the state, if it is in a file, and there is one."""
    if parse_store(config.store.url).kind == "memory":
        raise StartError(
            "[store] url is memory: each worker keeps its own state, which nobody else can look at; a restart forgets it"
        )
    try:
        path = find_state(config.store.url)
        if path is not None and not os.access(path, os.R_OK | os.W_OK):
            _refuse(path)
        # SQLite makes files beside it.
        if path is not None and not os.access(path.parent, os.R_OK | os.W_OK | os.X_OK):
            _refuse(path.parent)
    except PermissionError as error:
        _refuse(Path(error.filename))
    return path


def _refuse(path: Path) -> NoReturn:
    raise StartError(f"{path}: permission denied: run this as root, or as the user of the daemon")


def _become_owner(path: Path) -> None:
    """As root, go on as the owner of the file.

    What SQLite or we have to make anew is then the daemon's too, and whatever is in the file is read without the rights
    of root.
    """
    status = path.lstat()
    if os.geteuid() != 0 or status.st_uid == 0:
        return
    try:
        os.setgroups([status.st_gid])
        os.setgid(status.st_gid)
        os.setuid(status.st_uid)
    except OSError as error:
        raise StartError(f"{path}: can't become its owner, user {_user(status.st_uid)}: {error}") from None


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _password(config: Config) -> str:
    try:
        return load_password(config.store.password_file)
    except ValueError as error:
        raise ConfigError([f"[store] password_file: {error}"]) from None


async def _run(args: argparse.Namespace, config: Config, path: Path | None, password: str, chosen: list[Space]) -> int:
    options = replace(
        config.store,
        timeout=max(config.store.timeout, PATIENCE),
        connect_timeout=max(config.store.connect_timeout, PATIENCE),
    )
    store = open_store(options, path, password=password)
    try:
        if isinstance(store, Front):
            store.silence()  # what fails is said once, by us
            await store.open()
        if args.deed == "list":
            return await _list(args, store, chosen, config)
        if args.deed == "export":
            return await _export(store, chosen)
        if args.deed == "release":
            return await _release(args, store, chosen, config)
        if args.subject is None:
            return await _forget(store, chosen[0], args.keys)
        return await _forget_subject(store, chosen, Subject(args.subject), config)
    finally:
        await store.close()


async def _entries(store: ManagedStore, chosen: Iterable[Space], prefix: str, limit: int) -> AsyncIterator[Kept]:
    for space in chosen:
        async for key, entry in store.scan(space, prefix, limit):
            yield Kept(space, key, entry)


class _Search:
    """Finds what names somebody.  Keys that are hashes are found as far as they can be made again."""

    def __init__(self, store: ManagedStore, config: Config) -> None:
        self._store = store
        self._hashed = config.store.hash_addresses
        self._values: dict[str, list[Any]] = {"period": _periods(config), "domain": _domains(config)}
        self._closed: dict[str, Space] = {}  # spaces that hold hashes, by name

    async def named(self, subject: Subject, chosen: Iterable[Space], prefix: str = "") -> AsyncIterator[Kept]:
        """Entries that name it.  Raises StoreError."""
        for space in chosen:
            hashed = self._hashed and space.personal
            if hashed:
                keys = [key for key in subject.keys(space.keys, self._values) if key.startswith(prefix)]
                entries = await self._store.get_many([(space, key) for key in keys])
                for key, entry in zip(keys, entries, strict=True):
                    if entry is not None:
                        yield Kept(space, key, entry)
            async for key, entry in self._store.scan(space, prefix, ALL):
                if subject.is_named_by(key):
                    yield Kept(space, key, entry)
                elif hashed and key.startswith("#"):
                    self._closed[space.name] = space

    def tell(self) -> None:
        """Say on standard error what may have been missed."""
        if not self._closed:
            return
        print(
            "authmilter state: keys are kept as hashes ([store] hash_addresses): found was what can be made of these very "
            "words and the configuration, not each mailbox of a domain or address of a network",
            file=sys.stderr,
        )
        for name, space in self._closed.items():
            unknown = [
                form for form in space.keys if not all(self._values.get(f, f == "subject") for f in fields_of(form))
            ]
            if unknown:
                forms = " or ".join(_FIELD.sub(lambda field: field[1].upper(), form) for form in unknown)
                print(f"authmilter state: {name} was not searched for {forms}: name the whole key", file=sys.stderr)


def _periods(config: Config) -> list[float]:
    """Of every limit, in seconds."""
    sections = [*config.checks.values(), *config.login_limits.values()]
    values = [getattr(options, field.name) for options in sections for field in fields(options)]
    limits = [one for value in values if isinstance(value, tuple) for one in value if isinstance(one, Limit)]
    return sorted({limit.period for limit in limits})


def _domains(config: Config) -> list[str]:
    """Those of ours that have a name in the configuration."""
    return sorted({name for name in (*config.identity.local_domains, *config.sign) if name[:1].isalnum()})


# -- list and export --------------------------------------------------------------------------------------------------


async def _list(args: argparse.Namespace, store: ManagedStore, chosen: list[Space], config: Config) -> int:
    search, prefix = _Search(store, config), unescaped(args.prefix)
    # One more than is shown, to know whether there are more.
    if args.subject is None:
        found = _entries(store, chosen, prefix, args.limit + 1)
    else:
        found = search.named(Subject(args.subject), chosen, prefix)
    page: list[Kept] = []
    number = 0
    titled: Space | None = None
    async for kept in found:
        number += 1
        if number > args.limit:
            break
        if args.json:
            print(_json(kept))
            continue
        if page and (len(page) == PAGE or kept.space is not page[0].space):
            _show(page, titled)
            titled, page = page[0].space, []
        page.append(kept)
    if page:
        _show(page, titled)
    if number > args.limit:
        print(f"authmilter state: there are more than these {args.limit:,}: see --limit", file=sys.stderr)
    if not number:
        print("nothing kept" if args.subject is None else f"nothing names {escaped(args.subject)}", file=sys.stderr)
    search.tell()
    return 0


def _show(page: Sequence[Kept], titled: Space | None) -> None:
    """Print rows of one space, with titles unless it is `titled`, the one that the rows before them are of."""
    space = page[0].space
    first = space is not titled
    rows = [("count", "value", "age", "left", "key")] if first else []
    for _, key, entry in page:
        rows.append((_count(entry.total), _value(entry.value), duration(entry.age), duration(entry.ttl), escaped(key)))
    lines = table(rows)
    if first:
        title = f"{space.name}: {space.help}" if space.help else space.name
        lines[:1] = [*([""] if titled else []), paint(title, "title"), paint(lines[0], "dim")]
    print("\n".join(lines))


def _count(total: float) -> str:
    return f"{total:.2f}".rstrip("0").rstrip(".") if total else "-"


def _value(value: bytes) -> str:
    if not value:
        return "-"
    shown = escaped(value.decode("utf-8", "backslashreplace"))
    return shown if len(shown) <= _LONGEST_VALUE else shown[: _LONGEST_VALUE - 3] + "..."


async def _export(store: ManagedStore, chosen: list[Space]) -> int:
    async for kept in _entries(store, chosen, "", ALL):
        print(_json(kept))
    return 0


def _json(kept: Kept) -> str:
    space, key, entry = kept
    try:
        value = {"value": entry.value.decode()}
    except UnicodeDecodeError:
        value = {"value_base64": base64.b64encode(entry.value).decode()}
    numbers = {"total": entry.total, "age": round(entry.age, 3), "ttl": round(entry.ttl, 3)}
    return json.dumps({"space": space.name, "key": key, **value, **numbers})


# -- forget -----------------------------------------------------------------------------------------------------------


async def _forget(store: ManagedStore, space: Space, keys: list[str]) -> int:
    number = 0
    for key in keys:
        # As `list` shows it, or as it is.
        gone = [await store.delete(space, one) for one in dict.fromkeys((unescaped(key), key))]
        number += _tell(space, escaped(unescaped(key)), gone=any(gone))
    return 0 if number else EX_NOTHING


def _tell(space: Space, key: str, *, gone: bool) -> int:
    print(f"{'forgot' if gone else 'not there'}: {space.name} {key}")
    return gone


async def _forget_subject(store: ManagedStore, chosen: list[Space], subject: Subject, config: Config) -> int:
    search = _Search(store, config)
    number = 0
    async for space, key, _ in search.named(subject, chosen):
        if await store.delete(space, key):
            number += _tell(space, escaped(key), gone=True)
    print(f"{plural(number, 'entry') if number == 1 else f'{number:,} entries'} forgotten", file=sys.stderr)
    search.tell()
    return 0 if number else EX_NOTHING


# -- release ----------------------------------------------------------------------------------------------------------


async def _release(args: argparse.Namespace, store: ManagedStore, chosen: list[Space], config: Config) -> int:
    search = _Search(store, config)
    rows = [("subject", "space", "done", "entries")]
    for subject in map(Subject, args.subjects):
        released: Counter[Space] = Counter()
        async for space, key, entry in search.named(subject, (one for one in chosen if one.release is not None)):
            if space.release and entry.value != space.release:
                released[space] += await store.replace(space, key, space.release)
            elif not space.release:
                released[space] += await store.delete(space, key)
        done = [(space, "forgotten" if not space.release else "may pass", n) for space, n in released.items() if n]
        if not done:
            print(_nothing(subject), file=sys.stderr)
        for space, deed, number in done:
            if args.json:
                print(json.dumps({"subject": subject.text, "space": space.name, "done": deed, "entries": number}))
            rows.append((escaped(subject.text), space.name, deed, f"{number:,}"))
    if len(rows) > 1 and not args.json:
        title, *lines = table(rows, right=1)
        print("\n".join([paint(title, "dim"), *lines]))
    search.tell()
    return 0 if len(rows) > 1 else EX_NOTHING


def _nothing(subject: Subject) -> str:
    return (
        f"nothing that is kept holds up {escaped(subject.text)}; its network may, if it sent much that was new: release "
        "the address of its server.  If it has not written yet, [greylist] except_networks, except_domains or "
        "except_recipients can let it pass"
    )
